"""The bench: `python -m bench` runs every row and prints the table. `make bench` is the same."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from bench.lab import HOST, Lab
from bench.measure import Run, adopt_orphans, first_byte, transfer, whole
from bench.rows import BOTH, FAR_ENDS, FROM, TO, Goal, Row, rows

if TYPE_CHECKING:
    from collections.abc import Callable

GB = 1e9
MB = 1e6
FIRST_BYTE = "raw, first byte, against nc and a bare interpreter"


class Compared(NamedTuple):
    """Both sides of a row, and pair by pair (each of two runs one after the other) the ratio of ours to theirs."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float


def main() -> None:
    """Read the options, run the rows, print the table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with TEXT in their title")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side, in turns (default %(default)s)")
    parser.add_argument("--size", type=int, default=500, metavar="MB", help="of a transfer (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="keep the figures in FILE")
    chosen = parser.parse_args()
    size = chosen.size * 1_000_000
    adopt_orphans()
    results = []
    print(f"{machine()}\nmedians of {chosen.rounds} runs of each side in turns; ratio: ours by theirs, and its range\n")
    with Lab() as lab:
        for name in ("hop1", "hop2", "hop3"):
            lab.hop(name)
        chosen_rows = [row for row in rows() if chosen.only in row.title]
        ends = {
            (way, times): lab.end(FAR_ENDS[way], size * times)
            for way, times in sorted({(row.way, row.times) for row in chosen_rows})
        }
        for row in chosen_rows:
            results.append(_run(row, lab, ends[row.way, row.times], size * row.times, chosen.rounds))
        if chosen.only in FIRST_BYTE:
            results.append(_first_byte(lab, chosen.rounds))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "rounds": chosen.rounds, "size": size, "rows": results}, file, indent=1)


def _run(row: Row, lab: Lab, port: int, size: int, rounds: int) -> dict[str, object]:
    """Run one row and print its part of the table; return its figures."""
    ours, theirs = row.ours(lab, port), row.theirs(lab, port)
    send = size if row.way in (TO, BOTH) else 0
    receive = size if row.way in (FROM, BOTH) else None
    pairs = [(transfer(ours, send, receive), transfer(theirs, send, receive)) for _ in range(rounds)]
    figures = {
        "throughput, MB/s": _compare(pairs, lambda run: size / MB / run.seconds),
        "CPU, s/GB": _compare(pairs, lambda run: run.cpu / size * GB),
        "memory, MB": _compare(pairs, lambda run: run.memory / MB),
    }
    goals = {}
    if row.goal:
        goals["throughput, MB/s"] = _judge(figures["throughput, MB/s"].ratio, row.goal)
    if row.cpu:
        goals["CPU, s/GB"] = _judge_cost(figures["CPU, s/GB"].ratio, row.cpu)
    print(f"{row.title}\n  A {lab.shown(ours)}\n  B {lab.shown(theirs)}")
    for name, figure in figures.items():
        goal = goals.get(name, "")
        print(
            f"  {name:17} {figure.ours:8.2f} {figure.theirs:8.2f}   "
            f"x {figure.ratio:.2f} ({figure.low:.2f} to {figure.high:.2f})  {goal}",
            flush=True,
        )
    return {
        "title": row.title,
        "commands": [shlex.join(ours), shlex.join(theirs)],
        "goal": row.goal._asdict() if row.goal else None,
        "figures": {name: figure._asdict() for name, figure in figures.items()},
    }


def _first_byte(lab: Lab, rounds: int) -> dict[str, object]:
    """Time to the first byte of a plain TCP target, against nc's and the start of an interpreter that does nothing."""
    port = lab.end("banner")
    target = [HOST, str(port)]
    ours, nc, bare = [lab.program, *target], ["nc", *target], [sys.executable, "-c", "pass"]
    # These are short, and the machine has other things to do now and then: more rounds than for a transfer.
    runs = [(first_byte(ours), first_byte(nc), whole(bare)) for _ in range(8 * rounds)]
    medians = [statistics.median(times) * 1000 for times in zip(*runs, strict=True)]
    over = medians[0] - medians[1] - medians[2]
    print(f"{FIRST_BYTE}\n  A {lab.shown(ours)}\n  B {shlex.join(nc)}\n  C {shlex.join(bare)}")
    print("  milliseconds      {:8.2f} {:8.2f} {:8.2f}   ".format(*medians) + f"A - B - C = {over:.2f}  ", end="")
    print(_judge_cost(over, Goal(8.0, 4.0)), flush=True)
    return {"title": FIRST_BYTE, "commands": [shlex.join(line) for line in (ours, nc, bare)], "ms": medians}


def _compare(pairs: list[tuple[Run, Run]], of: Callable[[Run], float]) -> Compared:
    ratios = [of(ours) / of(theirs) for ours, theirs in pairs]
    return Compared(
        statistics.median(of(ours) for ours, _ in pairs),
        statistics.median(of(theirs) for _, theirs in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def _judge(ratio: float, goal: Goal) -> str:
    if ratio < goal.must:
        return f"BELOW the must of {goal.must}"
    return f"must {goal.must} reached" if ratio < goal.aim else f"aim {goal.aim} reached"


def _judge_cost(ratio: float, goal: Goal) -> str:
    """As _judge, where less is better."""
    if ratio > goal.must:
        return f"ABOVE the must of {goal.must}"
    return f"must {goal.must} reached" if ratio > goal.aim else f"aim {goal.aim} reached"


def machine() -> str:
    """What the figures were measured on."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()
    return f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}, {ssh}"


if __name__ == "__main__":
    main()
