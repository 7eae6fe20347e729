"""How far the set-up has come: the place, the stage, the clock.

The entry point hands one Progress through the dialer to every leg. A leg reports
what it is doing (`stage`), and asks how long it may take (`left`). When the
deadline passes, the entry point reads from the same object which stage it was
waiting for. Progress prints, but it decides nothing, and knows nothing of legs.
"""

from __future__ import annotations

import sys
from time import monotonic

from relay.errors import TimedOut
from relay.run.status import StatusLine


class Progress:
    """How far the set-up of one route has come.

    seconds: how long the whole set-up may take, without the time that a person takes to answer.
    verbosity: -1 with -q; otherwise the number of -v.
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
        self._hushed = False  # whether only errors of this place are printed
        self._waited = 0.0  # seconds that persons have taken to answer so far
        self._asked = 0.0  # when the present question was asked, 0 without one

    def at(self, place: str) -> None:
        """The next stages belong to this place, such as "hop 1 of 2 (h1)"."""
        self.stage("")
        self.place = place
        self._hushed = False

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins ("connecting to 10.0.0.1 port 22"); with -v, print how long the stage before took.

        hint: what to try when the deadline passes in this stage.
        """
        now = monotonic()
        if self.doing and self.verbosity >= 1:
            self.tell(f"{self.doing}: {(now - self._began) * 1000:.0f} ms")
        self.doing = doing
        self.hint = hint
        self._began = now

    def done(self) -> None:
        """The last stage has ended; with -v, print how long the whole set-up took."""
        self.at("")
        self.note(1, f"connected in {(monotonic() - self._start) * 1000:.0f} ms")

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
        # In this order: the guard, in another thread, must never count the person's time as ours.
        self._waited += monotonic() - self._asked
        self._asked = 0.0

    def hush(self) -> None:
        """The present place's LogLevel is below INFO: print no warnings of it, unless -v was given."""
        self._hushed = True

    def note(self, level: int, text: str, *, place: str = "") -> None:
        """Print text on stderr if -v was given `level` times or more; level 0 is a warning, which -q silences."""
        if self.verbosity >= level and not (level == 0 == self.verbosity and self._hushed):
            self.tell(text, place=place)

    def tell(self, text: str, *, place: str = "") -> None:
        """Print one line on stderr, after the place (by default the present one). A closed stderr is not an error."""
        self.status.erase()
        place = place or self.place
        where = f"{place}: " if place else ""
        try:
            sys.stderr.write(f"pyrelay: {where}{text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass
