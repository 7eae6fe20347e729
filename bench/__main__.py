"""The bench: `make bench` or `python -m bench` measures this program beside ssh and nc, and prints the table."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from bench import measure, openssh, table
from bench.compare import compare
from bench.family import Family, adopt_orphans
from bench.lab import Lab
from bench.measure import OVER, TIME, Run
from bench.row import Scale
from bench.rows import rows

if TYPE_CHECKING:
    from bench.compare import Compared
    from bench.row import Row

SMOKE = Scale(size=1_000_000, trips=(2,), crowd=3)
FOREWORD = """\
A is pyrelay, B what it is compared with. Both run in turns, A B A B: the medians of each, the median of the ratios
pair by pair, and their range. Of MB/s more is better, of everything else less. A round trip, where there is one, is
that of a delay line (bench/delay.py) before what is connected to first; else everything is on loopback. Hops are
remembered, where a row does not say "first contact"."""


def main() -> int:
    """Run the rows that are asked for, print the table. Return 1 if a row failed."""
    chosen = _options()
    scale = SMOKE if chosen.smoke else Scale(size=chosen.size * 1_000_000)
    wanted = [
        row for row in rows(scale, chosen.peer, is_root=os.geteuid() == 0) if chosen.only in f"{row.group}: {row.title}"
    ]
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the lab stops its processes
    machine = table.machine(chosen.peer.version)
    print(f"{machine}\n\n{FOREWORD}", flush=True)
    results: list[dict[str, object]] = []
    judged: list[tuple[str, Compared]] = []
    group = ""
    if chosen.smoke:
        wanted = [row._replace(goals={}) for row in wanted]
    with Lab(chosen.peer, [trip for trip in scale.trips if trip]) as lab:
        for row in wanted:
            if row.group != group:
                group = row.group
                print(table.heading(group))
            names = _names(row, lab)
            commands = [command.format_map(names) for command in (row.ours, row.theirs, row.bare) if command]
            shown = [lab.shown(command) for command in commands]
            result: dict[str, object] = {"group": group, "title": row.title, "commands": shown}
            results.append(result)
            rounds = 1 if chosen.smoke else max(1, round(chosen.rounds * row.rounds))
            try:
                lab.run([command.format_map(names) for command in row.before])
                samples = _run(row, lab, [shlex.split(command) for command in commands], rounds)
            except (OSError, RuntimeError, subprocess.CalledProcessError) as failure:
                result["failed"] = str(failure)
                print(f"  {row.title}\n    FAILED: {failure}", flush=True)
                continue
            finally:
                lab.run(row.after, check=False)
            figures = _figures(row, samples)
            judged += [(f"{group}: {row.title}: {name}", figure) for name, figure in figures.items()]
            result["figures"] = {name: {**f._asdict(), "reached": f.reached} for name, f in figures.items()}
            result["samples"] = samples
            print(table.row(row.title, shown, figures), flush=True)
    if not chosen.smoke:
        print(table.summary(judged))
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": results}, file, indent=1)
    return int(any("failed" in result for result in results))


def _options() -> argparse.Namespace:
    """Return the options; `peer` is the OpenSSH that they name."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with TEXT in their group or title")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each side, more where it is short (%(default)s)")
    parser.add_argument("--size", type=int, default=300, metavar="MB", help="of a transfer (%(default)s)")
    parser.add_argument("--openssh", default="", metavar="DIR", help="take ssh and sshd from there, not the system's")
    parser.add_argument("--json", metavar="FILE", help="keep the figures in FILE")
    parser.add_argument("--smoke", action="store_true", help="every row once with next to nothing: does it work?")
    chosen = parser.parse_args()
    try:
        chosen.peer = openssh.find(chosen.openssh)
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"--openssh: {error}")
    return chosen


def _names(row: Row, lab: Lab) -> dict[str, object]:
    """Return the values of the placeholders in a row's commands."""
    names: dict[str, object] = {**lab.ports, "lab": lab.path, "size": row.size}
    names |= {"python": sys.executable, "path": lab.module_path}
    if row.far_end:
        names["port"] = lab.end(row.far_end, row.size)
    return names


def _run(row: Row, lab: Lab, commands: list[list[str]], rounds: int) -> list[list[dict[str, float]]]:
    """Run the commands in turns. Return the figures of each command, round by round."""
    runs = [Run(lambda: Family(lab.path, lab.environment), command, row.size, row.crowd) for command in commands]
    measures = [row.measure, row.measure_theirs or row.measure, measure.whole]
    turns = []
    for _ in range(rounds):
        if row.forget:
            lab.forget()
        turns.append([take(run) for take, run in zip(measures, runs, strict=False)])
    return [list(samples) for samples in zip(*turns, strict=True)]


def _figures(row: Row, samples: list[list[dict[str, float]]]) -> dict[str, Compared]:
    """Compare every figure that was measured."""
    by_name = [{name: [sample[name] for sample in side] for name in side[0]} for side in samples]
    ours, theirs, *bare = by_name
    figures = {name: compare(ours[name], theirs[name], row.goals.get(name)) for name in ours}
    for alone in bare:
        over = [a - b - c for a, b, c in zip(ours[TIME], theirs[TIME], alone[TIME], strict=True)]
        figures |= {f"C, {TIME}": compare(alone[TIME]), OVER: compare(over, None, row.goals.get(OVER))}
    return figures


if __name__ == "__main__":
    sys.exit(main())
