"""The relay of a channel: stdin and stdout against a Flow of relay/ssh, in one thread.

The same rules as in the pump for what ends it; but the network is read
whatever stdout does, since keys and windows need it: the channel's window is
what holds a sender up.
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from time import monotonic, sleep
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.pump.bridge import LAST_WORDS
from relay.pump.pump import Relay
from relay.pump.way import End, ReadError, Stdio, Way, WriteError

if TYPE_CHECKING:
    from relay.contract import Flow, Stream

WRITE_SIZE = 256 * 1024  # bytes written at once to what is no terminal
FAST = 100e6  # bytes a second, from which on it pays to let them gather
ENOUGH = 128 * 1024  # bytes at one look, of which more would not be worth the wait
GATHER = 0.0005  # seconds that they are let
GLANCE = 0.02  # seconds from one look at the speed to the next


class ChannelRelay(Relay):
    """A channel against stdin and stdout, and everything that ends it."""

    out: _Out
    back: _Back

    def __init__(self, stream: Stream, flow: Flow, stdin: Stdio, stdout: Stdio, parent: int) -> None:
        net = _Net(flow)
        super().__init__(_Out(stdin, net, flow), _Back(net, stdout, flow), parent, self.check_end)
        self.channel = stream
        self.flow = flow
        self.connection = flow.connection
        self.wake_fd = self.connection.wake_fd
        self._pace = Pace()
        for end in (stdin, stdout):
            end.do_not_wait()

    def run(self, alarm: int = -1) -> int:
        """Relay until it is over; return the exit status."""
        try:
            status = super().run(alarm)
        except RelayError:
            self.gone = True  # or will be: stdout is of no use any more
            raise
        finally:
            self.finish()
        if not self.gone:
            self.check_end()
        return status

    def finish(self) -> None:
        """Close the channel, and wait for the server to do so, too: it has then passed on what it had for the target.

        (It would forget that when the connection is closed before.) For who is still there as long as that takes the
        target, as `ssh -W` does; an ssh that leaves ends us by a signal.
        """
        self.flow.close()
        while not self.await_close(LAST_WORDS) and not self.gone:
            pass
        self.connection.close()

    def await_close(self, seconds: float) -> bool:
        """Whether the server closes the channel within so long; nothing but the network is seen to meanwhile."""
        deadline = monotonic() + seconds
        while not self.flow.closed and (left := deadline - monotonic()) > 0:
            network = poll()
            for fd, events in self.network().items():
                network.register(fd, events)
            self.drive(dict(network.poll(left * 1000)))
        return self.flow.closed

    def check_end(self) -> None:
        """Raise RelayError when the end of the channel was no orderly one."""
        self.await_close(self.flow.status_due)
        if loss := self.channel.loss(self.flow):
            raise loss

    def network(self) -> dict[int, int]:
        """What to poll the connection for, whatever the two ways wait for."""
        table = {self.wake_fd: POLLIN} if self.wake_fd >= 0 else {}
        if self.connection.fd >= 0:  # it may have been lost after an orderly end of the channel
            reading = POLLIN if self.connection.reading else 0
            table[self.net.fd] = reading | (POLLOUT if self.connection.sending else 0)
        return table

    def drive(self, ready: dict[int, int]) -> None:
        """Read and write the connection."""
        if self.wake_fd in ready:
            self.connection.look_round()
        events = ready.get(self.net.fd, 0)
        if events & POLLOUT:
            self.connection.flush()
        if events & ~POLLOUT:
            self.connection.receive()

    def wait(self) -> dict[int, int]:
        """Wait until something can be done, or in a fast transfer until enough of it is likely to have come."""
        if self._pace.gathers(self.back.moved, monotonic()) and not len(self.flow.received):
            sleep(GATHER)
        return super().wait()

    def interests(self) -> dict[int, int]:
        """What to poll for, by file descriptor."""
        self.out.look()
        self.back.look()
        return super().interests() | self.network()

    def move(self, ready: dict[int, int]) -> None:
        """Do what can be done. Raises RelayError and SshGone."""
        self.drive(ready)
        super().move(ready)
        if self.flow.closed:
            self.out.open = False
        if self.flow.over and self.back.open and not len(self.flow.received):
            self.receive()

    def is_over(self, ready: dict[int, int]) -> bool:
        """Whether the target takes nothing more. Raises SshGone when ssh does not."""
        return super().is_over(ready) or (not self.back.open and self.flow.closed)


class Pace:
    """Whether the far side's bytes come so fast that they are worth being gathered.

    sshd hands on what it has, 32 KB and less, and each time wakes the relay, which wakes ssh: at hundreds of megabytes
    a second that costs as much as all else. Who looks a little later finds more, and what it delays is a fraction
    of what is under way; the window and the kernel's buffers hold many times as much, so that nobody waits for it.
    (Linux could be asked to wake us for so many bytes, SO_RCVLOWAT; but ssh's own small packets wake us, too.)
    """

    def __init__(self) -> None:
        self._fast = False
        self._looked = 0.0  # when, and at how many bytes
        self._seen = 0
        self._last = 0

    def gathers(self, moved: int, now: float) -> bool:
        """Whether to let bytes gather before the next look. moved: so far. now: seconds, of any clock that goes on."""
        if now - self._looked >= GLANCE:
            self._fast = moved - self._seen >= FAST * (now - self._looked)
            self._looked, self._seen = now, moved
        step, self._last = moved - self._last, moved
        return self._fast and step < ENOUGH


class _Net(End):
    """The network's end."""

    def __init__(self, flow: Flow) -> None:
        self.fd = flow.connection.fd
        self.flow = flow

    def end(self) -> None:
        """Tell the target that nothing follows."""
        self.flow.end()


class _Out(Way):
    """From stdin to the channel, as far as windows allow. moved: bytes so far."""

    source: Stdio

    def __init__(self, source: Stdio, sink: _Net, flow: Flow) -> None:
        super().__init__(source, sink)
        self.flow = flow
        self.moved = 0

    def look(self) -> None:
        """Wait for stdin when there is room for what it says, else only for the network."""
        self.waits_for, self.event = (self.source.fd, POLLIN) if self.flow.room() else (self.sink.fd, 0)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at stdin's end, None when there is no room. Raises ReadError."""
        if self.waits_for != self.source.fd:
            return None
        try:
            size = self.flow.read_from(self.source.read_into)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ReadError(error) from error
        self.moved += max(size, 0)
        return None if size < 0 else size


class _Back(Way):
    """From the channel to stdout. moved: bytes so far."""

    def __init__(self, source: _Net, sink: Stdio, flow: Flow) -> None:
        super().__init__(source, sink)
        self.flow = flow
        self.moved = 0
        self.chunk = sink.chunk if sink.is_device else WRITE_SIZE

    def look(self) -> None:
        """Wait for stdout when there is something for it, else only for the network."""
        self.waits_for, self.event = (self.sink.fd, POLLOUT) if len(self.flow.received) else (self.source.fd, POLLIN)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at the channel's end, None when there are none. Raises WriteError."""
        received = self.flow.received
        if not len(received):
            return 0 if self.flow.over else None
        try:
            size = self.sink.write(received.waiting()[: self.chunk])
        except BlockingIOError:
            return None
        except OSError as error:
            raise WriteError(error) from error
        received.drop(size)
        self.moved += size
        self.flow.delivered(size)
        return size
