"""What a row of the table is, and how much is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.compare import Goal
    from bench.measure import Run


class Row(NamedTuple):
    """One comparison.

    measure_theirs: where theirs is measured in another way than ours. size: bytes that are moved, each way.
    far_end: which function of ends.py {port} is. bare: a third command, whose time is taken off ours, with theirs.
    crowd: how many run at once. rounds: how many times as often as usual, for what is short or noisy.
    before, after: commands that are run before the first round and after the last one.
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
    measure_theirs: Callable[[Run], dict[str, float]] | None = None


class Scale(NamedTuple):
    """How much is measured. size: bytes of a transfer. trips: round trips, milliseconds. crowd: relays at once."""

    size: int = 300_000_000
    trips: Sequence[int] = (0, 20, 100)
    crowd: int = 50
