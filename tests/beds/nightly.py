"""`make nightly`: everything that takes too long for CI, one after the other, and a page with its figures.

    python tests/beds/nightly.py [--only NAME]... [--soak SECONDS] [--fuzz MINUTES] [--rounds N] [--regress=ARGS]
                                 [--read]

The parts are those of the Makefile: matrix, elsewhere, regress, bench, soak, fuzz. docs/nightly.md has
each figure beside the one that stood there before; a part that is left out keeps its own.
What a part says goes to build/nightly/NAME.log. --read runs nothing, and writes the page from these
files. The status is 1 when a part has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "build" / "nightly"
PAGE = ROOT / "docs" / "nightly.md"
HEAD = """\
# The last night

`make nightly` runs what takes too long for CI, one part after the other, and writes this page:
each figure, and the one that stood here before. A part that was left out (`ARGS="--only soak"`
runs only one) has kept its figures: each part says by which command it was run, and when.

| part | figure | now | before |
|---|---|---|---|
"""
END = "nightly: "  # the last line of a log begins so

Figures = dict[str, str]  # what is measured -> the figure
Rows = dict[tuple[str, str], tuple[str, str]]  # the part and what is measured -> the figure, and the one before
MAKES = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # what a make hands on to another one
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# What pytest sums up: with -q, and without.
SUMS = re.compile(r"^(?:=+ )?(\d+ \w+(?:, \d+ \w+)*) in [\d.]+s", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """One part. arguments: of make. read: its figures, from what it has said, or from the file that it writes."""

    name: str
    arguments: tuple[str, ...]
    read: Callable[[str], Figures]
    writes: Path | None = None


def parts(soak: int = 0, fuzz: int = 0, rounds: int = 0, regress: str = "") -> list[Part]:
    """All parts, in their order. soak: seconds. fuzz: minutes for each target. rounds: of the bench.

    regress: the arguments of OpenSSH's suite; it takes the longest of all, and a night may be short.
    """
    bench = LOGS / "bench.json"
    chosen = os.environ.get("PARTS")
    return [
        Part("matrix", ("matrix", *([f"PARTS={chosen}"] if chosen else [])), systems),
        Part("elsewhere", ("elsewhere", "ARGS=-q"), counts),
        Part("regress", ("regress", *([f"ARGS={regress}"] if regress else [])), outcomes, ROOT / "docs" / "regress.md"),
        Part("bench", ("bench", f"ARGS=--rounds {rounds} --json {bench.relative_to(ROOT)}"), ratios, bench),
        Part("soak", ("soak", f"ARGS=--seconds {soak}"), sentences),
        Part("fuzz", ("fuzz", f"MINUTES={fuzz}"), runs),
    ]


# What each part says


def systems(said: str) -> Figures:
    """Of the matrix: the rows of its tables, of which the tests' have five cells, and the first hour's have more."""
    found = {}
    for row in _rows(said):
        if len(row) == 5 and row[0] != "system":
            system, python, ssh, demo, tests = row
            found[f"{system}, Python {python}, {ssh}"] = f"demo {demo}; tests: {tests}"
        elif len(row) > 5 and row[0] != "system":
            right = sum(cell == "yes" for cell in row[2:])
            found[f"{row[0]}, first hour by {row[1]}"] = f"{right} of {len(row) - 2} right"
    return found


def _rows(text: str) -> list[list[str]]:
    """The cells of each line of a table; not of the line below its heading."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def counts(said: str) -> Figures:
    """Of pytest: how many tests have passed, failed and so on, in all of its runs together."""
    found: Counter[str] = Counter()
    for line in SUMS.findall(said):
        for number, what in re.findall(r"(\d+) (\w+)", line):
            found[what.replace("errors", "error")] += int(number)
    return {f"tests {what}": f"{found[what]:,}" for what in ("passed", "failed", "skipped", "error") if found[what]}


def outcomes(page: str) -> Figures:
    """Of the suite: what its page sums up, once for each version."""
    found = {}
    for version, text in re.findall(r"^## (OpenSSH .*)\n((?:.*\n)*?)(?=^## |\Z)", page, re.MULTILINE):
        for what in ("Tests that went well", "Connections carried", "Logins"):
            for line in re.findall(rf"^{what}: (.*)\.$", text, re.MULTILINE):
                found[f"{version}: {what.lower()}"] = line
    return found


def ratios(kept: str) -> Figures:
    """Of the bench: each row's figures, ratios where there is something beside it, and what of the goal is reached."""
    found = {}
    for row in json.loads(kept)["rows"] if kept else ():
        figures = []
        for name, figure in row.get("figures", {}).items():
            number = figure["ours"] if figure["ratio"] is None else figure["ratio"]
            goal = f" ({figure['reached'] or 'not reached'})" if figure["goal"] else ""
            figures.append(f"{name} {number:,.2f}{goal}")
        found[f"{row['group']}: {row['title']}"] = "; ".join(figures) or f"failed: {row['failed']}"
    return found


def sentences(said: str) -> Figures:
    """Of the soak: its sentences, a figure each; what is measured is what stands around the numbers."""
    lines = [line for line in said.splitlines() if ": " in line and re.match(r"\d", line)]
    return {NUMBER.sub("n", line.split(":")[0]): line for line in lines}


def runs(said: str) -> Figures:
    """Of the fuzzer: how often each target was run, and what was found."""
    found, target = {}, ""
    names = re.compile(r"(fuzz/seeds/\S+|messages|clear|aes\S+|chacha\S+)$")  # `make fuzz` says each before it runs
    for line in said.splitlines():
        if names.match(line):
            target = line
        if done := re.match(r"Done (\d+) runs in (\d+) second", line):
            found[target] = f"{int(done[1]):,} runs in {done[2]} s"
        if "SUMMARY: " in line:
            found[f"{target}: found"] = line.split("SUMMARY: ")[1]
    return found


# Running


def run(part: Part, log: Path) -> int:
    """Run a part; its log ends with how it went, and what it has written is beside it. Return make's status."""
    # Whatever this make was called with is not for the part: it has arguments of its own.
    environment = {name: value for name, value in os.environ.items() if name not in MAKES}
    before = _stamp(part.writes)
    began = time.monotonic()
    with log.open("w") as file:
        command = ["make", *part.arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False)
        well = "well" if done.returncode == 0 else f"failed (status {done.returncode})"
        words = " ".join(re.sub("=(.* .*)", r'="\1"', word) for word in part.arguments)
        ended = f"{well} in {time.monotonic() - began:,.0f} s, {time.strftime('%Y-%m-%d')}: `make {words}`"
        file.write(f"\n{END}{ended}\n")
    # What stood there before says nothing about a run that did not come to its end.
    is_new = part.writes is not None and _stamp(part.writes) not in (before, 0)
    log.with_suffix(".written").write_text(part.writes.read_text() if part.writes and is_new else "")
    print(f"{part.name}: {ended}", flush=True)
    return done.returncode


def _stamp(path: Path | None) -> int:
    """When a file was written; 0 where there is none."""
    return path.stat().st_mtime_ns if path and path.exists() else 0


def figures(part: Part, log: Path) -> Figures:
    """How a part that has been run ended, and its figures."""
    said = log.read_text(errors="replace")
    ended = said.rstrip().rpartition("\n")[2].removeprefix(END)
    return {"outcome": ended, **part.read(log.with_suffix(".written").read_text() if part.writes else said)}


# The page


def read_page() -> Rows:
    """The figures that stand on the page."""
    text = PAGE.read_text() if PAGE.exists() else ""
    return {(row[0], row[1]): (row[2], row[3]) for row in _rows(text) if len(row) == 4 and row[1] != "figure"}


def write_page(now: dict[str, Figures], before: Rows) -> None:
    """Write the page. now: the figures of each part that has run; the others keep theirs."""
    rows = {key: row for key, row in before.items() if key[0] not in now}
    for part, measured in now.items():
        for what, figure in measured.items():
            key = (part, what.replace("|", "/"))
            rows[key] = (figure.replace("|", "/"), before.get(key, ("", ""))[0])
    order = [part.name for part in parts()]
    lines = [f"| {' | '.join((*key, *rows[key]))} |" for key in sorted(rows, key=lambda key: order.index(key[0]))]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def main() -> int:
    """Run the parts; return 1 when one has failed."""
    parser = argparse.ArgumentParser(prog="make nightly ARGS=...")
    names = [part.name for part in parts()]
    parser.add_argument("--only", action="append", choices=names, help="all when not given")
    parser.add_argument("--soak", type=int, default=7200, metavar="SECONDS")
    parser.add_argument("--fuzz", type=int, default=10, metavar="MINUTES", help="for each target")
    parser.add_argument("--rounds", type=int, default=5, help="of the bench")
    parser.add_argument("--regress", default="", metavar="ARGS", help='of make regress: --regress="--suite trixie"')
    parser.add_argument("--read", action="store_true", help="run nothing, read what the last run has said")
    asked = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    before, now, status = read_page(), dict[str, Figures](), 0
    for part in parts(asked.soak, asked.fuzz, asked.rounds, asked.regress):
        if asked.only and part.name not in asked.only:
            continue
        log = LOGS / f"{part.name}.log"
        if not asked.read:
            status |= run(part, log) != 0
        if log.exists():
            now[part.name] = figures(part, log)
        write_page(now, before)  # after each part: the night may end before the last one
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
