"""What two commands' runs, in turns, say of each other; and whether a goal is reached. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Goal(NamedTuple):
    """What a figure must reach, and what it should: as a ratio, or as ours alone. The aim is the better of both.

    hurdle: what stands in the way of the aim where that is not reached, as measured.
    """

    must: float
    aim: float
    hurdle: str
    ours_alone: bool = False

    def reached(self, value: float) -> str:
        """Which of both a value reaches: "aim", "must" or ""."""
        sign = 1 if self.aim > self.must else -1
        return next((name for name in ("aim", "must") if sign * value >= sign * getattr(self, name)), "")


class Compared(NamedTuple):
    """One figure: the medians of both sides, and their ratio pair by pair.

    ratio: ours by theirs, the median; low, high: its range. Where there is
    nothing to compare with, theirs and ratio are None, and the range is ours.
    reached: which part of the goal, if there is one.
    """

    ours: float
    theirs: float | None
    ratio: float | None
    low: float
    high: float
    goal: Goal | None = None

    @property
    def reached(self) -> str:
        """Which part of the goal is reached; "" also when there is none."""
        if self.goal is None:
            return ""
        return self.goal.reached(self.ours if self.ratio is None or self.goal.ours_alone else self.ratio)


def compare(ours: Sequence[float], theirs: Sequence[float] | None = None, goal: Goal | None = None) -> Compared:
    """Compare what was measured in turns: a pair is two runs one after the other."""
    if theirs is None:
        return Compared(median(ours), None, None, min(ours), max(ours), goal)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Compared(median(ours), median(theirs), median(ratios), min(ratios), max(ratios), goal)
