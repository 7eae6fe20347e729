"""One relay's bytes, moved by the holder's loop; and the connections that carry them.

The rules of what ends a relay are those of relay/pump/channels.py. Its process sees
to ssh's leaving; what the loop sees is that the process has gone.
"""

from __future__ import annotations

import os
from select import POLLHUP, POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.pump.bridge import LAST_WORDS, Bridge
from relay.pump.channels import ChannelRelay
from relay.pump.pump import LINGER, Relay, SshGone
from relay.pump.way import CarriedWay, Stdio, Stream
from relay.share.wire import Ended, has_come

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

    from relay.contract import Flow
    from relay.share.wire import Wire
    from relay.ssh.wire.channel import ChannelStream
    from relay.ssh.wire.connection import Connection


LOOK = 1.0  # seconds between two looks at whether ssh is there


class Carrier:
    """A connection, driven by the loop, and the relays whose bytes it carries.

    held_up: the relays whose stdin waits for the network to take more; who has waited longest comes first.
    """

    def __init__(self, connection: Connection, loop: AbstractEventLoop) -> None:
        self.connection = connection
        self.relays: dict[Flow, Served] = {}
        self.held_up: dict[Served, None] = {}
        self.loop = loop
        self._fd, self._wake_fd = connection.fd, connection.wake_fd
        self._writing = False
        self._changed = connection.changed = set()
        loop.add_reader(self._fd, self._drive, connection.receive)
        loop.add_reader(self._wake_fd, self._drive, connection.look_round)
        self.settle()

    @property
    def closed(self) -> bool:
        """The connection is no more."""
        return self.connection.fd < 0

    def step(self, relay: Served, ready: dict[int, int]) -> None:
        """Something has happened to a relay's stdin or stdout."""
        relay.step(ready)
        self.settle()

    def settle(self) -> None:
        """Something has happened to the connection: let the relays that it concerns get on."""
        everybody = self.closed and self._fd >= 0
        if everybody:
            self._leave_loop()
        changed = self._changed
        while changed or self.held_up or everybody:
            concerned = (
                [*self.relays.values()] if everybody else [self.relays[flow] for flow in changed if flow in self.relays]
            )
            waiting = [relay for relay in self.held_up if relay not in concerned]
            changed.clear()
            everybody = False
            for relay in concerned:
                relay.step({relay.net.fd: POLLIN})
            for relay in waiting:
                relay.send_next()
            if not changed:
                break
        if not self.closed and self.connection.sending != self._writing:
            self._writing = self.connection.sending
            if self._writing:
                self.loop.add_writer(self._fd, self._drive, self.connection.flush)
            else:
                self.loop.remove_writer(self._fd)

    def _drive(self, work: Callable[[], None]) -> None:
        work()
        self.settle()

    def _leave_loop(self) -> None:
        self.loop.remove_writer(self._fd)
        self.loop.remove_reader(self._fd)
        self.loop.remove_reader(self._wake_fd)
        self._fd = -1


class Served(ChannelRelay):
    """A channel against the stdin and stdout of a relay's process.

    over: called with this once all is done, and the server has closed the channel, too: it has then passed on what it
    had for the target. Until then the relay's process waits, as it would if it had a hop of its own.
    moved: bytes, both ways together.
    """

    def __init__(
        self,
        stream: ChannelStream,
        flow: Flow,
        stdio: tuple[int, int],
        wire: Wire,
        *,
        carrier: Carrier,
        over: Callable[[Served], None],
    ) -> None:
        self._wire = wire
        self._carrier = carrier
        self._loop = carrier.loop
        self._over = over
        self._done = False
        self._ended = False
        self._error: RelayError | None = None
        self._sent = 0  # bytes, when it was last registered
        self._detached = False
        self._fds = stdio
        self._registered: dict[int, int] = {}
        self._files: set[int] = set()  # descriptors that are always ready
        self._due: set[int] = set()  # those of them whose turn has been asked for
        self._lingering: TimerHandle | None = None
        self._target_has_gone = False
        stdin, stdout = stdio
        super().__init__(stream, flow, Stdio(stdin), _Stdout(stdout, wire, self._leave), os.getppid())

    @property
    def moved(self) -> int:
        """Bytes, both ways together."""
        return self.out.moved + self.back.moved

    def begin(self, *, detached: bool) -> None:
        """Move what can be moved from now on. detached: there is no process of the relay's any more."""
        self._detached = detached
        self._wire.socket.setblocking(False)  # a relay that is stopped must not stop the loop
        if detached:
            self._wire.close()
            self._look_for_ssh()
        else:
            self._loop.add_reader(self._wire.socket.fileno(), self._relay_has_gone)
        self._carrier.relays[self.flow] = self
        self._carrier.step(self, {self.net.fd: POLLIN})

    def step(self, ready: dict[int, int]) -> None:
        """Something has happened: do what can be done, and wait for the next thing."""
        if self._done:
            if self.flow.closed:
                self._end()
            return
        try:
            if self._is_over():
                self.finish_with(self.channel.loss(self.flow) if self.flow.error is not None else None)
                return
            self.move(ready)
            if self._detached and not self.out.open and self.back.open and has_hung_up(self.stdin.fd):
                raise SshGone
            if not (self.out.open or self.back.open):
                self.finish_with(self.channel.loss(self.flow))
                return
            self._register()
        except SshGone:
            self._leave_without_ssh()
            return
        except RelayError as error:
            self.finish_with(error)
            return
        except Exception as error:  # a fault of our own ends this relay; the others go on
            self.finish_with(RelayError(f"internal error: {type(error).__name__}: {error}"))
            return
        if not self.back.open and self._lingering is None:
            self._linger()

    def send_next(self) -> None:
        """It was held up: let it send before those who have just sent, if it may."""
        if self.flow.room():
            self.out.look()
            self.step({self.net.fd: POLLIN, self.stdin.fd: POLLIN})

    def network(self) -> dict[int, int]:
        """The Carrier sees to the network."""
        return {}

    def drive(self, ready: dict[int, int]) -> None:
        """As above."""

    def await_close(self, seconds: float) -> bool:  # noqa: ARG002
        """It is not waited for: others are served meanwhile."""
        return self.flow.closed

    def leave_terminal(self) -> None:
        """The relay's own business, which it is told of."""
        _tell(self._wire, "up")

    def finish_with(self, error: RelayError | None) -> None:
        """It is over: close the channel, and give everything back but what the server's answer decides."""
        if self._done:
            if error is not None:
                self._error = error
                self._end()
            return
        self._done = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._carrier.held_up.pop(self, None)
        for fd in list(self._registered):
            self._leave(fd)
        self.flow.close()
        if error is None and self.lost is not None:
            error = RelayError(f"the link was lost: {self.lost.strerror}")
        self._error = error
        for way in (self.out, self.back):
            way.close()
        self.stdin.restore()
        self.stdout.restore()
        for fd in set(self._fds):
            os.close(fd)
        if self.flow.closed or error is not None:
            self._end()
        elif self.gone or self._detached:
            self._loop.call_later(LAST_WORDS, self._end)

    def _end(self) -> None:
        """The server has closed the channel, too, or is not waited for any more: tell the relay how it was."""
        if self._ended:
            return
        self._ended = True
        if self.flow.closed and self._error is None and not self.gone:
            self._error = self.channel.loss(self.flow)
        self._carrier.relays.pop(self.flow, None)
        self._leave_wire()
        tell_end(self._wire, self._error)
        self._wire.close()
        self._over(self)

    def _leave_wire(self) -> None:
        if self._wire.socket.fileno() >= 0:
            self._loop.remove_reader(self._wire.socket.fileno())

    def _is_over(self) -> bool:
        """Whether the target takes nothing more."""
        return not self.back.open and (self._target_has_gone or self.flow.closed)

    def _linger(self) -> None:
        """The target has said its last: it is taken to have gone once stdin has been silent for LINGER seconds."""
        before = self.out.moved

        def look() -> None:
            waits = self.out.open and self.out.waits_for == self.stdin.fd and self.out.moved == before
            if waits and not has_come(self.stdin.fd, 0):  # it may have been held up until just now
                self._target_has_gone = True
            else:
                self._lingering = None
            self._carrier.step(self, {})

        self._lingering = self._loop.call_later(LINGER, look)

    def _register(self) -> None:
        """Have the loop wait for what the two ways wait for."""
        table = self.interests()
        held_up = self.out.open and self.out.waits_for != self.stdin.fd
        if not held_up or self.out.moved != self._sent:
            self._carrier.held_up.pop(self, None)  # who has sent something is the last to be next
        if held_up:
            self._carrier.held_up[self] = None
        self._sent = self.out.moved
        for fd in set(self._fds):
            events = table.get(fd, 0) & (POLLIN | POLLOUT)
            if fd not in self._files:
                self._watch(fd, events)
            if fd in self._files and events and fd not in self._due:
                self._due.add(fd)
                self._loop.call_soon(self._take_turn, fd, events)

    def _watch(self, fd: int, events: int) -> None:
        """Have the loop wait for events of a descriptor; one that it refuses is put among the files."""
        changed = events ^ self._registered.get(fd, 0)
        try:
            if changed & POLLIN:
                if events & POLLIN:
                    self._loop.add_reader(fd, self._carrier.step, self, {fd: POLLIN})
                else:
                    self._loop.remove_reader(fd)
            if changed & POLLOUT:
                if events & POLLOUT:
                    self._loop.add_writer(fd, self._carrier.step, self, {fd: POLLOUT})
                else:
                    self._loop.remove_writer(fd)
        except PermissionError:  # epoll has no use for files, nor for /dev/null
            self._files.add(fd)
            return
        self._registered[fd] = events

    def _take_turn(self, fd: int, events: int) -> None:
        """What is always ready has waited until the others had theirs."""
        self._due.discard(fd)
        self._carrier.step(self, {fd: events})

    def _leave(self, fd: int) -> None:
        """A descriptor is about to become another file; epoll would go on with the one that it was."""
        if self._registered.pop(fd, 0):
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def _relay_has_gone(self) -> None:
        """Its end of the socket is closed: it was ended, or its ssh has gone."""
        self._leave_wire()
        if self._done:
            self._loop.call_later(LAST_WORDS, self._end)
        else:
            self._leave_without_ssh()

    def _leave_without_ssh(self) -> None:
        self.gone = True
        self.send_last_words()
        self.finish_with(None)

    def _look_for_ssh(self) -> None:
        """Without a process of the relay's, nothing but this tells that ssh has gone while its bytes are held up."""
        if self._done:
            return
        if self in self._carrier.held_up and has_hung_up(self.stdin.fd):
            self._leave_without_ssh()
        else:
            self._loop.call_later(LOOK, self._look_for_ssh)


def serve_by_threads(stream: ChannelStream, stdio: tuple[int, int], wire: Wire, *, detached: bool) -> None:
    """The same for a stream that the loop cannot move (Packetizer.can_park): the relay of pump.py, in this thread."""
    stdin, stdout = stdio
    error: RelayError | None = None
    try:
        with Bridge(stream) as bridge:
            net = Stream(bridge.socket)
            near, far = Stdio(stdin), _Stdout(stdout, wire)
            whole = _Threaded(CarriedWay(near, net), CarriedWay(net, far), os.getppid(), bridge.check)
            whole.wire, whole.detached = wire, detached
            whole.run()
            bridge.check()
            bridge.send_the_rest(lambda: whole.gone or detached or has_hung_up(wire.socket.fileno()))
    except RelayError as failure:
        error = failure
    except Exception as failure:  # such as one too many descriptors
        error = RelayError(f"internal error: {type(failure).__name__}: {failure}")
    finally:
        for fd in stdio:
            os.close(fd)
    tell_end(wire, error)


class _Threaded(Relay):
    wire: Wire
    detached: bool

    def interests(self) -> dict[int, int]:
        table = super().interests()
        if not self.detached:
            table[self.wire.socket.fileno()] = 0  # that the relay's process has gone is said unasked
        return table

    def is_over(self, ready: dict[int, int]) -> bool:
        if not self.detached and self.wire.socket.fileno() in ready:
            raise SshGone
        self.parent = os.getppid()  # the holder's, which says nothing of the relay's
        return super().is_over(ready)

    def leave_terminal(self) -> None:
        _tell(self.wire, "up")


class _Stdout(Stdio):
    """stdout, which the relay's process has open, too: it is told to close it.

    leave: called with the descriptor before it becomes another file.
    """

    def __init__(self, fd: int, wire: Wire, leave: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(fd)
        self._wire = wire
        self._leave = leave

    def end(self) -> None:
        """Show the end of file to whoever reads this."""
        self._leave(self.fd)
        super().end()
        _tell(self._wire, "eof")


def has_hung_up(fd: int) -> bool:
    """Whether the other end of a socket is closed altogether. fd: negative when it is this end that is closed."""
    look = poll()
    if fd >= 0:
        look.register(fd, 0)
    return any(events & POLLHUP for _, events in look.poll(0))


def tell_end(wire: Wire, error: RelayError | None) -> None:
    """Tell the relay how it has ended; one that does not listen is not waited for."""
    if error is None:
        _tell(wire, "ended")
    else:
        _tell(wire, "failed", "", error.cause, error.hint, error.place)


def _tell(wire: Wire, *message: str) -> None:
    """Tell the relay; one that has gone, or does not listen, is no reason to wait."""
    try:
        wire.send(*message)
    except Ended:
        pass
