"""How far the set-up has come: the place, the stage, the clock.

The entry point hands one Progress through the dialer to every leg. A leg reports
what it is doing (`stage`) and what it has found out (`learn`), and asks how long it may take (`left`). When the
deadline passes, the entry point reads from the same object which stage it was
waiting for. Progress prints, but it decides nothing, and knows nothing of legs.
"""

from __future__ import annotations

import sys
from time import monotonic

from relay.errors import TimedOut, in_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.contract import Hop
    from relay.run.status import StatusLine
    from relay.run.waits import Waits
    from relay.value import Value

PATIENCE = 1.0  # seconds without a word on the terminal, after which the status line says what is waited for


class Progress:
    """How far the set-up of one route has come.

    seconds: how long the whole set-up may take, without the time that a person takes to answer.
    verbosity: -1 with -q; otherwise the number of -v.
    strict: whether the user has named the deadline (-w). It then counts while a person may be busy elsewhere, too.
    """

    def __init__(self, seconds: float = 120.0, verbosity: int = 0, *, strict: bool = False) -> None:
        self.seconds = seconds
        self.verbosity = verbosity
        self.strict = strict
        self.place = ""
        self.doing = ""
        self.hint = ""
        self.hushed = False  # the present place's LogLevel is below INFO: no warnings of it, unless -v was given
        self._start = self._began = self._spoke = monotonic()  # of the set-up and the stage; of the last word
        self._waits: Waits | None = None  # once a person was waited for
        self._persons_before = 0.0  # seconds that persons took before the present stage
        self._lent = False  # whether a program may write on the terminal, see `by_program`
        self._line: StatusLine | None = None

    def at(self, place: str, *, hushed: bool = False) -> None:
        """The next stages belong to this place, such as "hop 1 of 2 (h1)"."""
        self.stage("")
        self.place = place
        self.hushed = hushed

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins ("connecting to 10.0.0.1 port 22"). -v names it, and says how long the one before took.

        hint: what to try when the deadline passes in this stage.
        """
        if self.verbosity >= 1:
            if self.doing:
                self.tell(f"{self.doing}: {self.taken() * 1000:.0f} ms")
            if doing:
                self.tell(doing)
        self.doing = doing
        self.hint = hint
        self._began, self._persons_before = monotonic(), self._persons()

    def failed(self) -> None:
        """The present stage has failed, and another way will be tried; --check says so."""

    def taken(self) -> float:
        """Seconds that the present stage has taken, without those that a person has."""
        return monotonic() - self._began - (self._persons() - self._persons_before)

    def done(self) -> None:
        """The last stage has ended; with -v, print how long the whole set-up took."""
        self.at("")
        if self.verbosity >= 1:
            self.tell(f"connected in {(monotonic() - self._start - self._persons()) * 1000:.0f} ms")

    def planned(self, legs: Value) -> None:
        """The plan of the route (relay/dial/plan.py) is known; --check keeps it."""

    def learn(self, what: str, value: str) -> None:
        """The present stage has found out a fact, such as the server's ident; --check prints it."""

    def hear(self, line: str) -> None:
        """A line of what ssh prints under -v (relay/dial/openssh.py); --check learns from it."""

    def entered(self, hop: Hop) -> None:
        """A hop is logged in to; --check measures the round trip to it."""

    def left(self, most: float | None = None) -> float:
        """Seconds left until the deadline, at most `most` when given.

        Raises TimedOut, which names the stage, when no time is left.
        """
        left = self.remaining()
        if left <= 0:
            raise self.timed_out()
        return left if most is None else min(left, most)

    def remaining(self) -> float:
        """Seconds left until the deadline; 0 or less when it has passed."""
        return self.seconds - (monotonic() - self._start) + (self._waits.stopped.seconds() if self._waits else 0.0)

    def timed_out(self) -> TimedOut:
        """The error to raise or print when the deadline has passed."""
        doing = f" ({self.doing})" if self.doing else ""
        return TimedOut(f"no answer within {in_seconds(self.seconds)}{doing}", hint=self.hint, place=self.place)

    # A person

    def _persons(self) -> float:
        """Seconds that persons have taken so far."""
        return self._waits.persons.seconds() if self._waits else 0.0

    def _waiting(self) -> Waits:
        if self._waits is None:
            from relay.run.waits import Waits  # most runs ask nobody

            self._waits = Waits()
        return self._waits

    def pause(self) -> None:
        """A person is asked something: the clock stands still until `resume`."""
        self._waiting().ask()

    def resume(self) -> None:
        """The person has answered."""
        self._spoke = monotonic()
        self._waiting().answer()

    def be_patient(self) -> bool:
        """A person may be busy elsewhere: the default deadline stands still until `end_patience`. False with -w.

        What that takes counts as the stage's own time: it may as well be a server's.
        """
        if not self.strict:
            self._waiting().stopped.begin()
        return not self.strict

    def end_patience(self) -> None:
        """Nobody needs to do anything elsewhere any more."""
        self._waiting().stopped.end()

    def by_program(self, *, seen: bool) -> None:
        """A program that may write on the terminal, and wait for a person, carries what follows, until `heard`.

        seen: whether somebody is there.
        """
        self._lent = True
        self.speak()
        waits = self._waiting()
        if seen and not waits.patient:
            waits.patient = self.be_patient()

    def heard(self) -> None:
        """The server has spoken: the program that carries the stream to it waits for nobody."""
        self._lent = False
        if self._waits and self._waits.patient:
            self._waits.patient = False
            self.end_patience()

    # Words

    def note(self, level: int, text: str, *, place: str = "") -> bool:
        """Print text on stderr if -v was given `level` times or more; level 0 is a warning, which -q silences.

        It returns whether the text was printed.
        """
        shown = self.verbosity >= level and not (level == 0 == self.verbosity and self.hushed)
        if shown:
            self.tell(text, place=place)
        return shown

    def tell(self, text: str, *, place: str = "") -> None:
        """Print one line on stderr, after the place (by default the present one). A closed stderr is not an error."""
        self.speak()
        place = place or self.place
        where = f"{place}: " if place else ""
        try:
            sys.stderr.write(f"pyrelay: {where}{text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass

    def speak(self) -> None:
        """Something is about to be written on the terminal: the status line goes."""
        self._spoke = monotonic()
        if self._line is not None:
            self._line.erase()

    def show_wait(self) -> None:
        """Say on the terminal what is waited for, once that has taken PATIENCE seconds. The guard calls it in turns."""
        if not self._may_show():
            if self._line is not None:
                self._line.erase()
            return
        if self._line is None:
            from relay.run.status import StatusLine  # most runs are over sooner

            self._line = StatusLine()
        where = f"{self.place}: " if self.place else ""
        self._line.show(f"pyrelay: {where}{self.doing or 'connecting'}", self._may_show)

    def _may_show(self) -> bool:
        silent = self.verbosity or self.hushed or self._lent or (self._waits and self._waits.asked)
        return not silent and monotonic() - self._spoke >= PATIENCE

    def close(self) -> None:
        """Erase the status line for good: an error message, or the session itself, comes next."""
        if self._line is not None:
            self._line.close()
