"""The relay of a stream whose bytes pass through this process: stdin and stdout against a Flow, in one thread.

It moves any Flow of the contract (relay/contract.py); rules.py decides what ends the relay. It goes on reading the
network even when stdout takes nothing, because key exchanges and window messages must be read. The stream's window
limits how much the far side may send meanwhile.
"""

from __future__ import annotations

from select import POLLIN, POLLOUT, poll
from time import monotonic, sleep

from relay.errors import RelayError
from relay.pump import rules
from relay.pump.goodbye import Goodbye
from relay.pump.mover import Mover, Watch
from relay.pump.way import LITTLE, End, ReadError, Stdio, Way, WriteError
from relay.run.guard import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.contract import Flow, Stream

WRITE_SIZE = 256 * 1024  # bytes written at once, unless stdout is a device, such as a terminal
FAST = 100e6  # bytes a second; from this speed on it pays to let bytes gather
ENOUGH = 128 * 1024  # bytes; if so many came since the last look, to wait for more is not worth it
GATHER = 0.0005  # seconds that bytes are left to gather
GLANCE = 0.02  # seconds between two measurements of the speed


class FlowMover(Mover):
    """Moves bytes between a flow and stdin and stdout. check, up: as for Mover."""

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
        """Bytes moved so far, both ways together."""
        return self.out.moved + self.back.moved

    def look(self) -> tuple[dict[int, int], float | None]:
        """See what each way waits for now; return what to wait for, and for how long, as `awaited`."""
        out, back = self.out, self.back
        if out.waits_for != self.stdin.fd:
            out.look()
        if back.event != POLLIN or len(self.flow.received):
            back.look()
        return self.awaited()

    def send_at_once(self) -> None:
        """When the network has said something while the window was closed: read stdin without polling it first.

        dropbear's window is one packet: its peer waits for the window after each packet. (Whether there is room now,
        `send` finds out.)
        """
        out = self.out
        if out.waits_for != self.stdin.fd and self.rules.out and not self.stdin.is_device:
            out.wait_for(self.stdin)
            self.send()

    def move(self, ready: dict[int, int]) -> None:
        """Move what can be moved, then heed whether the flow has ended. Raises RelayError."""
        super().move(ready)
        self.heed_flow()

    def heed_flow(self) -> None:
        """Heed whether the flow has ended. Raises RelayError."""
        flow = self.flow
        if flow.closed:
            self.heed(rules.TARGET_DEAF)
        if flow.over and self.rules.back and not len(flow.received):
            self.receive()


class ChannelRelay:
    """Relays between a flow and stdin and stdout, and drives the flow's connection, in one thread.

    parent: as for pump.relay.
    """

    def __init__(self, stream: Stream, flow: Flow, stdin: Stdio, stdout: Stdio, parent: int) -> None:
        self._stream = stream
        self._parent = parent
        self._flow = flow
        self._connection = flow.connection
        self._fd = flow.connection.fd  # kept, because connection.fd is -1 once the connection is lost
        self.wake_fd = flow.connection.wake_fd
        self._mover = FlowMover(flow, stdin, stdout, self._check_end)
        self._pace = Pace()
        self._awaited: tuple[object, object] | None = None  # what _table and _patience follow from,
        self._link: tuple[int, bool, bool] | None = None  # with this
        self._table: dict[int, int] = {}
        self._patience: float | None = None

    def run(self, alarm: int = -1) -> None:
        """Relay until neither way is open. Raises RelayError when the link is lost. alarm: as for pump.relay."""
        mover, flow, connection, pace = self._mover, self._flow, self._connection, self._pace
        self._goodbye = Goodbye(alarm, self._leave)
        self._alarm = alarm
        watch = Watch(alarm, self._goodbye.heed)
        delivered = 0
        listens = False  # whether ssh is still there when all bytes are moved
        try:
            while not mover.rules.over:
                self._look()
                # In a fast transfer, wait until enough bytes are likely to have come; little is not fast.
                before, delivered = delivered, mover.back.moved
                gathers = (pace.fast or delivered - before > LITTLE) and pace.gathers(delivered, monotonic())
                if gathers and not len(flow.received):
                    sleep(GATHER)
                events = watch.wait(self._table, rules.GRACE) if connection.patient else []
                if not events:
                    connection.rest()
                    events = watch.wait(self._table, self._patience)
                self._step(events)
            listens = mover.rules.state != rules.GONE
            if loss := mover.loss():
                listens = False  # the link is lost: do not wait for the server
                raise loss
        finally:
            mover.close()
            self._finish(listens)
            self._goodbye.over()
        if listens:
            self._check_end()

    def _finish(self, listens: bool) -> None:
        """Close the channel, and wait until the server closes it, too: it has then passed all bytes to the target.

        (If the connection were closed earlier, the server would drop those bytes.) While ssh listens, this waits as
        long as the target takes, as `ssh -W` does. When ssh leaves, it ends this process by a signal; when it is
        killed, it cannot, and this looks for that itself.
        """
        self._flow.close()
        waiting = Waiting(self._mover.stdin.fd, self._parent)
        while not self._await_close(rules.CLOSING) and listens:
            listens = not waiting.over
        self._connection.close()

    def _leave(self) -> None:
        """A signal ends the process, since ssh has gone: send its last words, and a goodbye to the hops.

        Not both at once: sshd would drop the words that wait for the target.
        """
        sent = self._mover.out.moved
        try:
            self._mover.heed(rules.SSH_LEFT)
        except RelayError:
            return  # the link is lost
        self._flow.close()
        self._alarm = -1  # what ends the process is under way
        if self._mover.out.moved != sent:
            self._await_close(rules.LAST_WORDS_PASS)
        self._connection.close()

    def _await_close(self, seconds: float) -> bool:
        """Whether the server closes the channel within so many seconds; only the network is polled meanwhile."""
        deadline = monotonic() + seconds
        while not self._flow.closed and (left := deadline - monotonic()) > 0:
            network = poll()
            for fd, events in self.network().items():
                network.register(fd, events)
            if self._alarm >= 0:
                network.register(self._alarm, POLLIN)
            self._connection.rest()
            ready = dict(network.poll(left * 1000))
            if self._alarm in ready:
                self._goodbye.heed()
            self._drive(ready)
        return self._flow.closed

    def _check_end(self) -> None:
        """Raise RelayError when the channel did not end in good order."""
        self._await_close(self._flow.status_due)
        if loss := self._stream.loss(self._flow):
            raise loss

    def _look(self) -> None:
        """See what to wait for, and for how long; most often, that is what it was before."""
        connection = self._connection
        # Before the look at the room: when another thread sends in between, poll reports that the socket has room.
        link = (connection.fd, connection.sending, connection.reading)
        awaited = self._mover.look()
        if awaited is not self._awaited or link != self._link:
            self._awaited, self._link = awaited, link
            interests, self._patience = awaited
            self._table = interests | self.network()

    def _step(self, events: list[tuple[int, int]]) -> None:
        """Move what can be moved. events: those that poll has returned. Raises RelayError."""
        mover = self._mover
        if events == mover.stdin_alone:
            mover.send()
            return
        if events == mover.net_alone and mover.rules.back and mover.back.waits_for == self._fd:
            self._connection.receive()
            mover.receive()
            mover.heed_flow()
        else:
            ready = dict(events)
            mover.notice(ready, self._parent)
            self._drive(ready)
            mover.move(ready)
        mover.send_at_once()

    def network(self) -> dict[int, int]:
        """What to poll the connection for; it does not depend on what the two ways wait for."""
        table = {self.wake_fd: POLLIN} if self.wake_fd >= 0 else {}
        if self._connection.fd >= 0:  # the connection may be lost after an orderly end of the channel
            reading = POLLIN if self._connection.reading else 0
            table[self._fd] = reading | (POLLOUT if self._connection.sending else 0)
        return table

    def _drive(self, ready: dict[int, int]) -> None:
        """Read and write the connection, as far as it is ready."""
        if self.wake_fd in ready:
            self._connection.look_round()
        events = ready.get(self._fd, 0)
        if events & POLLOUT:
            self._connection.flush()
        if events & ~POLLOUT:
            self._connection.receive()


class Pace:
    """Decides whether the far side's bytes come so fast that it pays to let them gather.

    sshd sends what it has, 32 KB or less. Each time that wakes the relay, and the relay wakes ssh; at hundreds of
    megabytes a second, the waking costs as much as all other work. A read a little later finds more bytes. It delays
    only a fraction of the bytes under way: the window and the kernel's buffers hold many times as many, so no sender
    waits. (With SO_RCVLOWAT, Linux would wake us only for so many bytes; but ssh's own small packets wake us, too.)

    fast: whether they came so fast when the speed was last measured.
    """

    def __init__(self) -> None:
        self.fast = False
        self._looked = 0.0  # when the speed was last measured, and how many bytes had been moved by then
        self._seen = 0
        self._last = 0

    def gathers(self, moved: int, now: float) -> bool:
        """Whether to let bytes gather before the next look. moved: bytes so far. now: seconds of a monotonic clock."""
        if now - self._looked >= GLANCE:
            self.fast = moved - self._seen >= FAST * (now - self._looked)
            self._looked, self._seen = now, moved
        step, self._last = moved - self._last, moved
        return self.fast and step < ENOUGH


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
        """`move` has found no room: wait for stdin again, if the window has some now."""
        if self.flow.room():
            self.wait_for(self.source)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at stdin's end, None when stdin or the window is not ready.

        When the window has no more room, wait only for the network. Raises ReadError.
        """
        if self.waits_for != self.source.fd:
            return None
        flow = self.flow
        try:
            size = flow.read_from(self.source.read_into)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ReadError(error) from error
        if size > 0:
            self.moved += size
        if (size < 0 or size > LITTLE) and not flow.room():  # (after little, the next move finds it out)
            self.waits_for, self.event = self.sink.fd, 0
        return None if size < 0 else size


class Back(Way):
    """From the channel to stdout. moved: bytes so far."""

    def __init__(self, source: Net, sink: Stdio, flow: Flow) -> None:
        super().__init__(source, sink)
        self.flow = flow
        self.moved = 0
        self.chunk = sink.chunk if sink.is_device else WRITE_SIZE

    def look(self) -> None:
        """Wait for stdout when bytes wait for it, else only for the network."""
        held_up = len(self.flow.received) > 0
        if held_up != (self.event == POLLOUT):
            self.wait_for(self.sink if held_up else self.source)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at the channel's end, None when there are none or stdout is not ready.

        Raises WriteError.
        """
        received = self.flow.received
        data = received.waiting()
        left = len(data)
        if not left:
            return 0 if self.flow.over else None
        try:
            size = self.sink.write(data[: self.chunk] if left > self.chunk else data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise WriteError(error) from error
        received.drop(size)
        self.moved += size
        self.flow.delivered(size)
        return size
