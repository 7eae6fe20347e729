"""What is compared with what: every row of the table, and the commands of both sides.

A row's `goal` is what issue 5 asks of its ratio. Ratios are of speed (ours by
theirs, more is better) for a throughput, and of cost (less is better) for
times, CPU and memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.lab import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.lab import Lab

    Command = Callable[[Lab, int], list[str]]  # the command that relays to the port where the far end listens

TO, FROM, BOTH = "to", "from", "both"
FAR_ENDS = {TO: "sink", FROM: "source", BOTH: "both"}


class Goal(NamedTuple):
    """Two limits of a ratio."""

    must: float
    aim: float


class Row(NamedTuple):
    """One comparison.

    way: which way bytes go, seen from the relay: to the network, from it, or both at once.
    goal: of the throughput. cpu: of the CPU time for as many bytes. times: how
    much more than usual is moved, so that the start does not count.
    """

    title: str
    ours: Command
    theirs: Command
    way: str
    goal: Goal | None = None
    cpu: Goal | None = None
    times: int = 1


def rows() -> Iterator[Row]:
    """Every row, in the order of the table."""
    for way in (TO, FROM, BOTH):
        goal = None if way == BOTH else Goal(2.0, 3.0)
        yield Row(f"raw, {way}, against nc", pyrelay(), nc("-N"), way, goal, cpu=Goal(0.5, 0.3), times=4)
    yield from _hops(1, "default", {TO: Goal(1.1, 2.0), FROM: Goal(1.6, 2.5), BOTH: Goal(1.0, 1.3)})
    yield from _hops(1, "gcm", {TO: Goal(0.75, 1.3), FROM: Goal(1.1, 1.5)})
    yield from _hops(2, "default", {TO: Goal(1.4, 2.5), FROM: Goal(1.6, 2.5)})
    yield from _hops(2, "gcm", {TO: Goal(0.95, 1.8), FROM: Goal(1.1, 1.8)})


def _hops(count: int, ciphers: str, goals: dict[str, Goal]) -> Iterator[Row]:
    """Throughput through so many hops, against ssh with such ciphers (ours are always our own)."""
    names = ["hop1", "hop2", "hop3"][:count]
    plural = "" if count == 1 else "s"
    against = "ssh -W" if count == 1 else "ssh -J"
    for way, goal in goals.items():
        title = f"{count} hop{plural}, {way}, against {against}, {ciphers} ciphers"
        yield Row(title, pyrelay(*names), ssh(*(_named(name, ciphers) for name in names)), way, goal)


def _named(hop: str, ciphers: str) -> str:
    """What ssh_config calls a hop with such ciphers."""
    return hop if ciphers == "default" else f"{hop}-{ciphers}"


def pyrelay(*hops: str, options: tuple[str, ...] = ()) -> Command:
    """Our own program, through hops."""
    return lambda lab, port: [lab.program, "-F", lab.config, *options, "/".join((*hops, HOST)), str(port)]


def ssh(*hops: str) -> Command:
    """OpenSSH's own way: -W through the last hop, -J for those before it."""
    jump = ["-J", ",".join(hops[:-1])] if hops[1:] else []
    return lambda lab, port: ["ssh", "-F", lab.config, *jump, "-W", f"{HOST}:{port}", hops[-1]]


def nc(*options: str) -> Command:
    """OpenBSD's nc."""
    return lambda _lab, port: ["nc", *options, HOST, str(port)]
