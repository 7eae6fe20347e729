"""How far the set-up has come: the place, the stage, the clock.

One Progress goes from the entry point down through the dialer into every leg.
Legs say what they are doing (`stage`) and ask how long they may take (`left`);
the entry point reads the same object to say what it was waiting for when the
deadline passed. It prints, but decides nothing and knows no leg.
"""

from __future__ import annotations

import sys
from time import monotonic

from relay.errors import TimedOut
from relay.run.status import StatusLine


class Progress:
    """The set-up of one route, as far as it has come.

    seconds: how long the whole set-up may take, time that a person is waited
    for not counted.
    verbosity: -1 with -q, 0, or the number of -v.
    """

    def __init__(self, seconds: float = 120.0, verbosity: int = 0) -> None:
        self.seconds = seconds
        self.verbosity = verbosity
        self.place = ""
        self.doing = ""
        self.hint = ""
        self.status = StatusLine(quiet=verbosity < 0)
        self._start = monotonic()
        self._began = self._start
        self._hushed = False  # whether the place says no more than errors
        self._waited = 0.0  # seconds that a person has been waited for
        self._asked = 0.0  # when the present question was put, 0 when none is

    def at(self, place: str) -> None:
        """The stages that follow belong to this place, such as "hop 1 of 2 (h1)"."""
        self.stage("")
        self.place = place
        self._hushed = False

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins ("connecting to 10.0.0.1 port 22"); -v tells how long the one before took.

        hint: what to try when the time runs out in it.
        """
        now = monotonic()
        if self.doing and self.verbosity >= 1:
            self.tell(f"{self.doing}: {(now - self._began) * 1000:.0f} ms")
        self.doing = doing
        self.hint = hint
        self._began = now

    def done(self) -> None:
        """The last stage has ended; -v tells how long the whole set-up took."""
        self.at("")
        self.note(1, f"connected in {(monotonic() - self._start) * 1000:.0f} ms")

    def left(self, most: float | None = None) -> float:
        """Seconds left until the deadline, at most `most` when given.

        Raises TimedOut, which names the stage, when there are none left.
        """
        left = self.remaining()
        if left <= 0:
            raise self.timed_out()
        return left if most is None else min(left, most)

    def remaining(self) -> float:
        """Seconds left until the deadline; 0 or less when it has passed."""
        now = monotonic()
        asked = self._asked
        return self.seconds - (now - self._start) + self._waited + (now - asked if asked else 0.0)

    def timed_out(self) -> TimedOut:
        """The error to raise or print when the deadline has passed."""
        doing = f" ({self.doing})" if self.doing else ""
        return TimedOut(f"no answer within {self.seconds:g} seconds{doing}", hint=self.hint, place=self.place)

    def pause(self) -> None:
        """A person is asked something: the clock stands still until `resume`."""
        self._asked = monotonic()

    def resume(self) -> None:
        """The person has answered."""
        # In this order: the guard, another thread, must never see the time as spent by us.
        self._waited += monotonic() - self._asked
        self._asked = 0.0

    def hush(self) -> None:
        """The present place's LogLevel is below INFO: it has no warnings, unless -v was given."""
        self._hushed = True

    def note(self, level: int, text: str, *, place: str = "") -> None:
        """Say text on stderr when -v was given `level` times or more; level 0 is a warning that -q silences."""
        if self.verbosity >= level and not (level == 0 == self.verbosity and self._hushed):
            self.tell(text, place=place)

    def tell(self, text: str, *, place: str = "") -> None:
        """One line on stderr, with the place, the present one unless given; a closed stderr is no reason to fail."""
        self.status.erase()
        place = place or self.place
        where = f"{place}: " if place else ""
        try:
            sys.stderr.write(f"pyrelay: {where}{text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass
