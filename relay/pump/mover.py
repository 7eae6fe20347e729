"""Moves the bytes of a relay both ways, and does what the rules decide (rules.py).

A Mover does not wait: a driver says which descriptors are ready. The driver for descriptors is here, too: one table of
them and one poll, after the model of OpenBSD nc's readwrite.
"""

from __future__ import annotations

import os
from errno import EPIPE
from select import POLLERR, POLLHUP, POLLIN, poll

from relay.errors import RelayError, words
from relay.pump import rules
from relay.pump.rules import Rules
from relay.pump.way import EndError, ReadError, WriteError
from relay.run.guard import leave_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.pump.way import Way

SIGNALS_MOST = 64  # bytes, one for each signal, read at once


class Mover:
    """One stream against stdin and stdout.

    out: from stdin to the stream. back: from the stream to stdout. check: raises RelayError when the stream has ended
    in no good order. up: called when the first byte of the target is delivered; unless given, it leaves the terminal.
    """

    def __init__(self, out: Way, back: Way, check: Callable[[], None], up: Callable[[], None] | None = None) -> None:
        self.rules = Rules()
        self.out = out
        self.back = back
        self.stdin = out.source
        self.stdout = back.sink
        self.net = out.sink
        self._check = check
        self._up = up or self._leave_terminal
        self._lost: OSError | None = None  # why nothing more could be sent

    def interests(self) -> dict[int, int]:
        """What to wait for: the events of poll, by descriptor."""
        # POLLERR and POLLHUP come unasked: of stdout, whose reader has gone, and of the target once it has said its
        # last. (While it can be read from, it says so with data unread.)
        table = {self.stdout.fd if self.rules.back else self.net.fd: 0}
        if self.rules.out:
            table[self.out.waits_for] = table.get(self.out.waits_for, 0) | self.out.event
        if self.rules.back:
            table[self.back.waits_for] = table.get(self.back.waits_for, 0) | self.back.event
        return table

    def patience(self) -> float | None:
        """Seconds to wait for that; None is for ever."""
        if self.rules.state == rules.LINGERING and self.out.waits_for != self.stdin.fd:
            return None
        return rules.PATIENCE.get(self.rules.state)

    def notice(self, ready: dict[int, int], parent: int) -> None:
        """Heed what descriptors say beside that bytes can be moved. ready: what has happened, nothing if time is up.

        parent: the process that started this one, 0 where that means nothing.
        """
        if not ready:
            self.heed(rules.SILENCE)
            if parent and os.getppid() != parent:
                self.heed(rules.PARENT_CHANGED)
        elif self.rules.back:
            # The hang-up of a pipe or socket at stdin is the end of its data, and read as such: whoever made
            # them may still read stdout. That of a terminal is the user's.
            left = self.stdin.is_device and ready.get(self.stdin.fd, 0) & POLLHUP
            if left or ready.get(self.stdout.fd, 0) & (POLLERR | POLLHUP):
                self.heed(rules.SSH_LEFT)
        elif ready.get(self.net.fd, 0) & (POLLERR | POLLHUP):
            self.heed(rules.TARGET_HUNG_UP)

    def move(self, ready: dict[int, int]) -> None:
        """Move what can be moved. Raises RelayError."""
        if self.rules.back and self.back.is_ready(ready):
            self.receive()
        if self.rules.out and self.out.is_ready(ready):
            self.send()

    def receive(self) -> None:
        """From the target to stdout. Raises RelayError."""
        try:
            moved = self.back.move()
        except ReadError as failure:
            self._check()  # a program that carries the stream, and has ended, may know better
            raise _link_lost(failure.error) from failure.error
        except WriteError as failure:
            if not isinstance(failure.error, ConnectionError):
                raise RelayError(f"cannot write to stdout: {words(failure.error)}") from failure.error
            self.heed(rules.SSH_LEFT)
            return
        if moved == 0:
            self.heed(rules.TARGET_ENDED)
        elif moved:
            self.heed(rules.DELIVERED)

    def send(self) -> None:
        """From stdin to the target."""
        try:
            moved = self.out.move()
        except ReadError:
            moved = 0
        except WriteError as failure:
            # What has arrived is still to be delivered, so reading goes on and finds out what this was:
            # EPIPE is how the kernel says that the target had closed before.
            if failure.error.errno != EPIPE:
                self._lost = failure.error
            self.heed(rules.TARGET_DEAF)
            return
        if moved == 0:
            self.heed(rules.STDIN_ENDED)

    def heed(self, event: str) -> None:
        """Something has happened: do what the rules decide. Raises RelayError."""
        decision = self.rules.heed(event)
        if decision == rules.TELL_TARGET:
            self.net.end()
        elif decision == rules.END_STDOUT:
            self._check()  # before stdout ends: ssh then ends this program, whatever it still has to say
            self.stdout.end()
        elif decision == rules.LEAVE_TERMINAL:
            self._up()
        elif decision == rules.LAST_WORDS and not self.stdin.is_device:
            self._send_last_words()

    def close(self) -> None:
        """Give back what the moving needed, and leave stdin and stdout as they were."""
        for way in (self.out, self.back):
            way.close()
        self.stdin.restore()
        self.stdout.restore()

    def loss(self) -> RelayError | None:
        """Why not all that stdin said could be sent, when nothing else says so."""
        return _link_lost(self._lost) if self._lost and self.rules.state != rules.GONE else None

    def _send_last_words(self) -> None:
        try:
            for _ in range(rules.GOODBYE):
                if not self.out.move():
                    break
        except EndError:
            pass

    def _leave_terminal(self) -> None:
        """No prompt comes after this. A relay that a person runs by hand stays with the terminal."""
        if not (self.stdin.is_device or self.stdout.is_device):
            leave_terminal()


class Watch:
    """Waits for descriptors. alarm: one that says that a signal has come (guard.alarm), or -1."""

    def __init__(self, alarm: int) -> None:
        self._alarm = alarm
        self._table: dict[int, int] = {}
        self._poll = poll()

    def wait(self, table: dict[int, int], seconds: float | None) -> dict[int, int]:
        """Wait until something has happened; what, by descriptor; nothing when time is up."""
        if table != self._table:
            self._table = table
            self._poll = poll()
            for fd, events in table.items():
                self._poll.register(fd, events)
            if self._alarm >= 0:
                self._poll.register(self._alarm, POLLIN)
        while True:
            ready = dict(self._poll.poll(seconds if seconds is None else seconds * 1000))
            if ready.pop(self._alarm, None) is None:
                return ready
            os.read(self._alarm, SIGNALS_MOST)  # its handler has run by now


def drive(mover: Mover, *, parent: int, alarm: int = -1) -> None:
    """Move bytes between descriptors until the relay is over. Raises RelayError when the link is lost.

    parent: the process that started this one, 0 where that means nothing.
    """
    watch = Watch(alarm)
    try:
        while not mover.rules.over:
            ready = watch.wait(mover.interests(), mover.patience())
            mover.notice(ready, parent)
            mover.move(ready)
    finally:
        mover.close()
    if loss := mover.loss():
        raise loss


def _link_lost(error: OSError) -> RelayError:
    return RelayError(f"the link was lost: {words(error)}")
