"""Compares two commands that ran in turns, and says whether a goal is reached. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Goal(NamedTuple):
    """What a figure must reach, and what it should reach (the aim): as a ratio, or as our figure alone.

    hurdle: why the aim is not reached, as measured.
    """

    must: float
    aim: float
    hurdle: str
    ours_alone: bool = False

    def reached(self, value: float) -> str:
        """Return which of the two a value reaches: "aim", "must" or ""."""
        sign = 1 if self.aim > self.must else -1
        return next((name for name in ("aim", "must") if sign * value >= sign * getattr(self, name)), "")


class Compared(NamedTuple):
    """One figure: the medians of both sides, and the ratios of the pairs.

    ratio: the median of ours divided by theirs. low, high: the range of the
    ratios. If there is nothing to compare with, theirs and ratio are None, and
    the range is that of ours. reached: which part of the goal is reached.
    """

    ours: float
    theirs: float | None
    ratio: float | None
    low: float
    high: float
    goal: Goal | None = None

    @property
    def reached(self) -> str:
        """Which part of the goal is reached; "" also if there is no goal."""
        if self.goal is None:
            return ""
        return self.goal.reached(self.ours if self.ratio is None or self.goal.ours_alone else self.ratio)


def compare(ours: Sequence[float], theirs: Sequence[float] | None = None, goal: Goal | None = None) -> Compared:
    """Compare figures that were measured in turns. A pair is two runs, one after the other."""
    if theirs is None:
        return Compared(median(ours), None, None, min(ours), max(ours), goal)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Compared(median(ours), median(theirs), median(ratios), min(ratios), max(ratios), goal)
