"""A row of the table, and the amounts to measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.compare import Goal
    from bench.measure import Run


class Row(NamedTuple):
    """One comparison.

    measure_theirs: how to measure theirs, if not like ours. size: bytes to move in each direction.
    far_end: the function of ends.py at {port}. bare: a third command; its time is subtracted from ours and theirs.
    crowd: how many run at once. rounds: how many times the usual number, for short or noisy rows.
    before, after: commands to run before the first round and after the last one.
    forget: nothing is remembered of any hop when ours starts.
    """

    group: str
    title: str
    ours: str
    theirs: str
    measure: Callable[[Run], dict[str, float]]
    goals: Mapping[str, Goal] = {}
    far_end: str = ""
    size: int = 0
    bare: str = ""
    crowd: int = 1
    rounds: float = 1
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    forget: bool = False
    measure_theirs: Callable[[Run], dict[str, float]] | None = None


class Scale(NamedTuple):
    """How much is measured. size: bytes of a transfer. trips: round trips, milliseconds. crowd: relays at once."""

    size: int = 300_000_000
    trips: Sequence[int] = (0, 20, 100)
    crowd: int = 50
