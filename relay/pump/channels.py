"""The relay of a stream whose bytes pass through this process: stdin and stdout against a Flow, in one thread.

Any Flow of the contract (relay/contract.py) is moved by it. What ends the relay is in rules.py. Here the network is
read whatever stdout does, since keys and windows need it: the stream's window is what holds a sender up.
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from time import monotonic, sleep
from typing import TYPE_CHECKING

from relay.pump import rules
from relay.pump.mover import Mover, Watch
from relay.pump.way import End, ReadError, Stdio, Way, WriteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.contract import Flow, Stream

WRITE_SIZE = 256 * 1024  # bytes written at once to what is not a terminal
FAST = 100e6  # bytes a second, from which on it pays to let them gather
ENOUGH = 128 * 1024  # bytes at one look, of which more would not be worth the wait
GATHER = 0.0005  # seconds that they are let
GLANCE = 0.02  # seconds from one look at the speed to the next


class FlowMover(Mover):
    """A flow against stdin and stdout. check, up: as for Mover."""

    out: Out
    back: Back

    def __init__(
        self, flow: Flow, stdin: Stdio, stdout: Stdio, check: Callable[[], None], up: Callable[[], None] | None = None
    ) -> None:
        net = Net(flow)
        super().__init__(Out(stdin, net, flow), Back(net, stdout, flow), check, up)
        self.flow = flow
        for end in (stdin, stdout):
            end.do_not_wait()

    @property
    def moved(self) -> int:
        """Bytes so far, both ways together."""
        return self.out.moved + self.back.moved

    def interests(self) -> dict[int, int]:
        """What to wait for, as any Mover has it."""
        self.out.look()
        self.back.look()
        return super().interests()

    def send_at_once(self) -> None:
        """Read stdin without a poll before it, where the window has just opened.

        A server whose window is one packet (dropbear's) is waited for at each of them.
        """
        if self.rules.out and self.out.waits_for != self.stdin.fd and not self.stdin.is_device and self.flow.room():
            self.out.look()
            self.send()

    def move(self, ready: dict[int, int]) -> None:
        """Move what can be moved, and see how the flow is. Raises RelayError."""
        super().move(ready)
        if self.flow.closed:
            self.heed(rules.TARGET_DEAF)
        if self.flow.over and self.rules.back and not len(self.flow.received):
            self.receive()


class ChannelRelay:
    """A flow that this thread drives, against stdin and stdout. parent: as for pump.relay."""

    def __init__(self, stream: Stream, flow: Flow, stdin: Stdio, stdout: Stdio, parent: int) -> None:
        self._stream = stream
        self._parent = parent
        self._flow = flow
        self._connection = flow.connection
        self._fd = flow.connection.fd  # as it was: the connection may be lost
        self.wake_fd = flow.connection.wake_fd
        self._mover = FlowMover(flow, stdin, stdout, self._check_end)
        self._pace = Pace()

    def run(self, alarm: int = -1) -> None:
        """Relay until it is over. Raises RelayError when the link is lost. alarm: as for pump.relay."""
        mover, flow = self._mover, self._flow
        watch = Watch(alarm)
        listens = False  # whether ssh is still there when all is moved
        try:
            while not mover.rules.over:
                table = mover.interests() | self.network()
                # In a fast transfer, wait until enough is likely to have come.
                if self._pace.gathers(mover.back.moved, monotonic()) and not len(flow.received):
                    sleep(GATHER)
                ready = watch.wait(table, mover.patience())
                mover.notice(ready, self._parent)
                self._drive(ready)
                mover.move(ready)
                mover.send_at_once()
            listens = mover.rules.state != rules.GONE
            if loss := mover.loss():
                listens = False  # stdout is of no use any more
                raise loss
        finally:
            mover.close()
            self._finish(listens)
        if listens:
            self._check_end()

    def _finish(self, listens: bool) -> None:
        """Close the channel, and wait for the server to do so, too: it has then passed on what it had for the target.

        (It would forget that when the connection is closed before.) An ssh that listens waits for as long as that takes
        the target, as with `ssh -W`; one that leaves ends us by a signal.
        """
        self._flow.close()
        while not self._await_close(rules.CLOSING) and listens:
            pass
        self._connection.close()

    def _await_close(self, seconds: float) -> bool:
        """Whether the server closes the channel within so long; nothing but the network is seen to meanwhile."""
        deadline = monotonic() + seconds
        while not self._flow.closed and (left := deadline - monotonic()) > 0:
            network = poll()
            for fd, events in self.network().items():
                network.register(fd, events)
            self._drive(dict(network.poll(left * 1000)))
        return self._flow.closed

    def _check_end(self) -> None:
        """Raise RelayError when the channel has ended in no good order."""
        self._await_close(self._flow.status_due)
        if loss := self._stream.loss(self._flow):
            raise loss

    def network(self) -> dict[int, int]:
        """What to poll the connection for, whatever the two ways wait for."""
        table = {self.wake_fd: POLLIN} if self.wake_fd >= 0 else {}
        if self._connection.fd >= 0:  # it may have been lost after an orderly end of the channel
            reading = POLLIN if self._connection.reading else 0
            table[self._fd] = reading | (POLLOUT if self._connection.sending else 0)
        return table

    def _drive(self, ready: dict[int, int]) -> None:
        """Read and write the connection."""
        if self.wake_fd in ready:
            self._connection.look_round()
        events = ready.get(self._fd, 0)
        if events & POLLOUT:
            self._connection.flush()
        if events & ~POLLOUT:
            self._connection.receive()


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


class Net(End):
    """The network's end."""

    def __init__(self, flow: Flow) -> None:
        self.fd = flow.connection.fd
        self.flow = flow

    def end(self) -> None:
        """Tell the target that nothing follows."""
        self.flow.end()


class Out(Way):
    """From stdin to the channel, as far as windows allow. moved: bytes so far."""

    source: Stdio

    def __init__(self, source: Stdio, sink: Net, flow: Flow) -> None:
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


class Back(Way):
    """From the channel to stdout. moved: bytes so far."""

    def __init__(self, source: Net, sink: Stdio, flow: Flow) -> None:
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
