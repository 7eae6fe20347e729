"""Moves the bytes of a relay both ways, and does what the rules decide (rules.py).

A Mover does not wait: a driver tells it which descriptors are ready. The driver for plain descriptors is `drive`. It
has one table of descriptors and one poll, like readwrite in OpenBSD's nc.
"""

from __future__ import annotations

import os
from errno import EPIPE
from select import POLLERR, POLLHUP, POLLIN, poll

from relay.errors import RelayError, words
from relay.pump import rules
from relay.pump.rules import Rules
from relay.pump.way import EndError, ReadError, WriteError
from relay.run.guard import leave_terminal, read_alarm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.pump.way import Way


class Mover:
    """Moves bytes between one stream and stdin and stdout.

    out: the way from stdin to the stream. back: the way from the stream to stdout. check: raises RelayError when the
    stream did not end in good order. up: called when the target's first byte is delivered; by default, this process
    then leaves the terminal.
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
        # What poll reports most often: one end has bytes, and nothing else has happened.
        self.stdin_alone = [(self.stdin.fd, POLLIN)]
        self.net_alone = [(self.net.fd, POLLIN)]
        self._looked: tuple[str, int, int] | None = None  # what _awaited follows from
        self._awaited: tuple[dict[int, int], float | None] = {}, None

    def awaited(self) -> tuple[dict[int, int], float | None]:
        """What to wait for, and for how long (`interests`, `patience`): the same objects while nothing has changed."""
        looked = (self.rules.state, self.out.waits_for, self.back.waits_for)
        if looked != self._looked:
            self._looked = looked
            self._awaited = self.interests(), self.patience()
        return self._awaited

    def interests(self) -> dict[int, int]:
        """What to wait for: the events of poll, by descriptor."""
        # poll reports POLLERR and POLLHUP unasked: for stdout when its reader has gone, for the target's socket when
        # the target has gone. (The socket would report that with data still unread: it is added when all is read.)
        table = {self.stdout.fd if self.rules.back else self.net.fd: 0}
        if self.rules.out:
            table[self.out.waits_for] = table.get(self.out.waits_for, 0) | self.out.event
        if self.rules.back:
            table[self.back.waits_for] = table.get(self.back.waits_for, 0) | self.back.event
        return table

    def patience(self) -> float | None:
        """Seconds to wait for these events; None: without a limit."""
        if self.rules.state == rules.LINGERING and self.out.waits_for != self.stdin.fd:
            return None
        return rules.PATIENCE.get(self.rules.state)

    def step(self, events: list[tuple[int, int]], parent: int) -> None:
        """Do what poll's events ask for. parent: as for `notice`. Raises RelayError."""
        if events == self.stdin_alone:
            self.send()
        elif events == self.net_alone:
            self.receive()
        else:
            ready = dict(events)
            self.notice(ready, parent)
            self.move(ready)

    def notice(self, ready: dict[int, int], parent: int) -> None:
        """Heed hang-ups, silence and a change of parent. ready: the events that poll returned; empty when time is up.

        parent: the process that started this one.
        """
        if not ready:
            self.heed(rules.SILENCE)
            if os.getppid() != parent:
                self.heed(rules.PARENT_CHANGED)
        elif self.rules.back:
            # If stdin is a pipe or a socket, its hang-up is only the end of its data: the program at its other end
            # may still read stdout. If stdin is a terminal, its hang-up means that the user has left.
            left = self.stdin.is_device and ready.get(self.stdin.fd, 0) & POLLHUP
            if left or ready.get(self.stdout.fd, 0) & (POLLERR | POLLHUP):
                self.heed(rules.SSH_LEFT)
        elif ready.get(self.net.fd, 0) & (POLLERR | POLLHUP):
            self.heed(rules.TARGET_HUNG_UP)

    def move(self, ready: dict[int, int]) -> None:
        """Move bytes both ways, as far as the ways are ready. Raises RelayError."""
        if self.rules.back and self.back.is_ready(ready):
            self.receive()
        if self.rules.out and self.out.is_ready(ready):
            self.send()

    def receive(self) -> None:
        """Move bytes from the target to stdout. Raises RelayError."""
        try:
            moved = self.back.move()
        except ReadError as failure:
            self._check()  # raises a better reason, if a program carries the stream and has ended
            raise _link_lost(failure.error) from failure.error
        except WriteError as failure:
            if not isinstance(failure.error, ConnectionError):
                raise RelayError(f"cannot write to stdout: {words(failure.error)}") from failure.error
            self.heed(rules.SSH_LEFT)
            return
        if moved == 0:
            self.heed(rules.TARGET_ENDED)
        elif moved and rules.DELIVERED in self.rules.row:
            self.heed(rules.DELIVERED)

    def send(self) -> None:
        """Move bytes from stdin to the target."""
        try:
            moved = self.out.move()
        except ReadError:
            moved = 0
        except WriteError as failure:
            # Bytes that have arrived must still be delivered, so reading goes on; it finds out what has happened.
            # EPIPE: the target had closed before.
            if failure.error.errno != EPIPE:
                self._lost = failure.error
            self.heed(rules.TARGET_DEAF)
            return
        if moved == 0:
            self.heed(rules.STDIN_ENDED)

    def heed(self, event: str) -> None:
        """An event has happened (rules.py): do what the rules decide. Raises RelayError."""
        decision = self.rules.heed(event)
        if decision == rules.NOTHING:
            return
        if decision == rules.TELL_TARGET:
            self.net.end()
        elif decision == rules.END_STDOUT:
            self._check()  # before stdout ends: ssh ends this program then, and an error could not be printed
            self.stdout.end()
        elif decision == rules.LEAVE_TERMINAL:
            self._up()
        elif decision == rules.LAST_WORDS and not self.stdin.is_device:
            self._send_last_words()

    def close(self) -> None:
        """Free the pipes of both ways, and leave stdin and stdout as they were."""
        for way in (self.out, self.back):
            way.close()
        self.stdin.restore()
        self.stdout.restore()

    def loss(self) -> RelayError | None:
        """The error, if not all of stdin's bytes could be sent and nothing else has reported it."""
        return _link_lost(self._lost) if self._lost and self.rules.state != rules.GONE else None

    def _send_last_words(self) -> None:
        try:
            for _ in range(rules.GOODBYE):
                if not self.out.move():
                    break
        except EndError:
            pass

    def _leave_terminal(self) -> None:
        """Leave the terminal: no prompt comes after this. A relay that a person runs by hand keeps its terminal."""
        if not (self.stdin.is_device or self.stdout.is_device):
            leave_terminal()


class Watch:
    """Waits for descriptors. alarm: a descriptor that can be read from once a signal has come (guard.alarm), or -1.

    heed: reads it; by default, that is all: the signal's handler has run by then.
    """

    def __init__(self, alarm: int, heed: Callable[[], None] | None = None) -> None:
        self._alarm = alarm
        self._alarmed = (alarm, POLLIN)
        self._heed = heed
        self._table: dict[int, int] | None = None
        self._poll = poll()

    def wait(self, table: dict[int, int], seconds: float | None) -> list[tuple[int, int]]:
        """Wait until a descriptor is ready; return what poll does, nothing when time is up.

        table: the events to wait for, by descriptor; the caller does not change it, but gives another.
        """
        if table is not self._table:
            self._table = table
            self._poll = poll()
            for fd, events in table.items():
                self._poll.register(fd, events)
            if self._alarm >= 0:
                self._poll.register(self._alarm, POLLIN)
        while True:
            ready = self._poll.poll(seconds if seconds is None else seconds * 1000)
            if self._alarmed not in ready:
                return ready
            if self._heed is not None:
                self._heed()
            else:
                read_alarm(self._alarm)


def drive(mover: Mover, *, parent: int, alarm: int = -1) -> None:
    """Move bytes between descriptors until the relay is over. Raises RelayError when the link is lost.

    parent: the process that started this one.
    """
    watch = Watch(alarm)
    try:
        while not mover.rules.over:
            mover.step(watch.wait(*mover.awaited()), parent)
    finally:
        mover.close()
    if loss := mover.loss():
        raise loss


def _link_lost(error: OSError) -> RelayError:
    return RelayError(f"the link was lost: {words(error)}")
