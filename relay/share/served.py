"""One relay's bytes, moved by the holder's loop.

relay/pump/rules.py decides what ends a relay. The relay's own process watches whether ssh leaves, and then ends; the
loop sees that the process has gone.
"""

from __future__ import annotations

import os
from select import POLLHUP, POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.pump import rules
from relay.pump.channels import FlowMover
from relay.pump.way import Stdio
from relay.share.wire import has_come

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from relay.contract import Flow, Stream
    from relay.share.carrier import Carrier
    from relay.share.holder_wire import HolderWire

LOOK = 1.0  # seconds between two looks at whether ssh is still there


class Served:
    """A flow against the stdin and stdout of a relay's process.

    over: called with this object when all is done, and the relay knows: the server, too, has closed the channel, so it
    has passed on all its bytes to the target. Until then the relay's process waits, as with a hop of its own.
    """

    def __init__(
        self,
        stream: Stream,
        flow: Flow,
        stdio: tuple[int, int],
        wire: HolderWire,
        *,
        carrier: Carrier,
        over: Callable[[Served], None],
    ) -> None:
        self._stream = stream
        self._flow = flow
        self._wire = wire
        self._carrier = carrier
        self._loop = carrier.loop
        self._over = over
        self._done = False
        self._ended = False
        self._error: RelayError | None = None
        self._sent = 0  # bytes that stdin had sent at the last `_register`
        self._detached = False
        self._fds = stdio
        self._awaited: tuple[object, object] | None = None  # what `_register` has looked at last
        self._registered: dict[int, int] = {}
        self._files: set[int] = set()  # descriptors that are always ready
        self._due: set[int] = set()  # those of them that wait for their turn in the loop
        self._lingering: TimerHandle | None = None
        stdin, stdout = stdio
        self._mover = FlowMover(
            flow, Stdio(stdin), Stdout(stdout, wire, self._leave), self._check, lambda: wire.tell("up")
        )
        self._rules = self._mover.rules

    @property
    def moved(self) -> int:
        """Bytes so far, both ways together."""
        return self._mover.moved

    def begin(self, *, detached: bool) -> None:
        """Start to move bytes. detached: the relay's process has ended; ssh itself has the other ends of stdio."""
        self._detached = detached
        if detached:
            self._wire.close()
            self._look_for_ssh()
        else:
            self._loop.add_reader(self._wire.socket.fileno(), self._relay_has_gone)
        self._carrier.relays[self._flow] = self
        self._carrier.step(self, {self._mover.net.fd: POLLIN})

    def heard(self) -> None:
        """The flow has news: move what can be moved."""
        self.step({self._mover.net.fd: POLLIN})

    def step(self, ready: dict[int, int]) -> None:
        """Move what can be moved, then wait for what comes next. ready: the events of poll, by descriptor."""
        if self._done:
            if self._flow.closed:
                self._end()
            return
        try:
            self._mover.move(ready)
            # When stdin has ended, its hang-up says that ssh is not there to listen, either.
            if self._detached and self._rules.back and not self._rules.out and has_hung_up(self._mover.stdin.fd):
                self._mover.heed(rules.SSH_LEFT)
            if self._rules.over:
                self.finish_with(self._stream.loss(self._flow) if self._flow.error is not None else None)
                return
            self._register()
        except RelayError as error:
            self.finish_with(error)
            return
        except Exception as error:  # a fault of our own ends this relay; the others go on
            self.finish_with(RelayError(f"internal error: {type(error).__name__}: {error}"))
            return
        if not self._rules.back and self._lingering is None:
            self._linger()

    def send_next(self) -> None:
        """A relay that was held up sends now, if its window has room, before relays that have just sent."""
        if self._flow.room():
            self._mover.out.look()
            self.step({self._mover.net.fd: POLLIN, self._mover.stdin.fd: POLLIN})

    def _check(self) -> None:
        """Raise RelayError when the stream did not end in good order. It does not wait: the loop serves others, too."""
        if loss := self._stream.loss(self._flow):
            raise loss

    def finish_with(self, error: RelayError | None) -> None:
        """Close the channel, and give stdin and stdout back. The rest follows when the server has answered (`_end`)."""
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
        if error is None and self._flow.status_due and not (self._flow.closed or self._has_gone):
            self._loop.call_later(self._flow.status_due, self._flow.close)  # a command's status comes before our CLOSE
        else:
            self._flow.close()
        self._error = error or self._mover.loss()
        self._mover.close()
        for fd in set(self._fds):
            os.close(fd)
        if self._flow.closed or self._error is not None:
            self._end()
        elif self._has_gone or self._detached:
            self._loop.call_later(rules.CLOSING, self._end)
        else:
            self._wire.tell("closing")

    @property
    def _has_gone(self) -> bool:
        return self._rules.state == rules.GONE

    def _end(self) -> None:
        """The server, too, has closed the channel, or has had time enough to: tell the relay how the stream ended."""
        if self._ended:
            return
        self._ended = True
        if self._flow.closed and self._error is None and not self._has_gone:
            self._error = self._stream.loss(self._flow)
        self._carrier.relays.pop(self._flow, None)
        self._leave_wire()
        tell_end(self._wire, self._error)
        self._wire.finish(lambda: self._over(self))

    def _leave_wire(self) -> None:
        if self._wire.socket.fileno() >= 0:
            self._loop.remove_reader(self._wire.socket.fileno())

    def _linger(self) -> None:
        """The target sends nothing more: see whether stdin is silent for as long as the rules say."""
        mover = self._mover
        before = mover.out.moved

        def look() -> None:
            waits = self._rules.out and mover.out.waits_for == mover.stdin.fd and mover.out.moved == before
            if waits and not has_come(mover.stdin.fd, 0):  # stdin may have been held up until just now
                mover.heed(rules.SILENCE)
            else:
                self._lingering = None
            self._carrier.step(self, {})

        self._lingering = self._loop.call_later(rules.PATIENCE[rules.LINGERING], look)

    def _register(self) -> None:
        """Have the loop wait for what the two ways wait for."""
        out = self._mover.out
        awaited = self._mover.look()
        held_up = self._rules.out and out.waits_for != self._mover.stdin.fd
        if awaited is self._awaited and not (held_up or self._files):
            return
        self._awaited = awaited
        table, _ = awaited
        if not held_up or out.moved != self._sent:
            self._carrier.held_up.pop(self, None)  # a relay that has just sent goes to the end of the queue
        if held_up:
            self._carrier.held_up[self] = None
        self._sent = out.moved
        for fd in set(self._fds):
            events = table.get(fd, 0) & (POLLIN | POLLOUT)
            if fd not in self._files:
                self._watch(fd, events)
            if fd in self._files and events and fd not in self._due:
                self._due.add(fd)
                self._loop.call_soon(self._take_turn, fd, events)

    def _watch(self, fd: int, events: int) -> None:
        """Have the loop wait for events of a descriptor; if the loop refuses it, put it among the files."""
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
        """Step for a descriptor that is always ready; the other relays have had their turn before it."""
        self._due.discard(fd)
        self._carrier.step(self, {fd: events})

    def _leave(self, fd: int) -> None:
        """Take a descriptor out of the loop. It will become another file; epoll would go on watching the old one."""
        if self._registered.pop(fd, 0):
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def _relay_has_gone(self) -> None:
        """The relay has closed its end of the wire: it was ended, or its ssh has gone."""
        self._leave_wire()
        if self._done:
            self._loop.call_later(rules.CLOSING, self._end)
        else:
            self._leave_without_ssh()

    def _leave_without_ssh(self) -> None:
        self._mover.heed(rules.SSH_LEFT)
        self.finish_with(None)

    def _look_for_ssh(self) -> None:
        """Look whether ssh has gone. A detached relay has no process that would notice while stdin is not read."""
        if self._done:
            return
        unread = not self._rules.out or self in self._carrier.held_up
        if unread and has_hung_up(self._mover.stdin.fd):
            self._leave_without_ssh()
        else:
            self._loop.call_later(LOOK, self._look_for_ssh)


class Stdout(Stdio):
    """stdout, which the relay's process has open, too: `end` tells that process to close it.

    leave: called with the descriptor before it becomes another file.
    """

    def __init__(self, fd: int, wire: HolderWire, leave: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(fd)
        self._wire = wire
        self._leave = leave

    def end(self) -> None:
        """Show the end of file to the reader of stdout."""
        self._leave(self.fd)
        super().end()
        self._wire.tell("eof")


def has_hung_up(fd: int) -> bool:
    """Whether the other end of a socket is closed altogether; false if fd is negative: our own end is closed."""
    look = poll()
    if fd >= 0:
        look.register(fd, 0)
    return any(events & POLLHUP for _, events in look.poll(0))


def tell_end(wire: HolderWire, error: RelayError | None) -> None:
    """Tell the relay how its stream has ended."""
    if error is None:
        wire.tell("ended")
    else:
        wire.tell("failed", "", error.cause, error.hint, error.place)
