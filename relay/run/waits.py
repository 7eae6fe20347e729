"""How long a person was waited for. Most runs ask nobody, and do not import this."""

from __future__ import annotations

from time import monotonic


class Span:
    """Waits, one within another. seconds: how long they took together, the present one included."""

    def __init__(self) -> None:
        self._over = 0.0  # seconds of those that are over
        self._since = 0.0  # when the present one began, 0 if there is none
        self._depth = 0

    def begin(self) -> None:
        """A wait begins."""
        self._depth += 1
        if self._depth == 1:
            self._since = monotonic()

    def end(self) -> None:
        """The wait that began last has ended."""
        self._depth -= 1
        if not self._depth:
            # In this order: the guard, in another thread, must never count the person's time as ours.
            self._over += monotonic() - self._since
            self._since = 0.0

    def seconds(self) -> float:
        """How long all of them took."""
        since = self._since  # once: another thread may end the wait
        return self._over + (monotonic() - since if since else 0.0)


class Waits:
    """The waits of one set-up.

    asked: how many questions are on the terminal now. stopped: what does not count towards the deadline. persons: the
    part of it that a person took for sure. patient: whether a program is waited for, see Progress.by_program.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.stopped = Span()
        self.persons = Span()
        self.patient = False

    def ask(self) -> None:
        """A question is on the terminal."""
        self.asked += 1
        self.stopped.begin()
        self.persons.begin()

    def answer(self) -> None:
        """The question is answered."""
        self.persons.end()
        self.stopped.end()
        self.asked -= 1
