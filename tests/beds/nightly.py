"""`make nightly`: everything that takes too long for CI, one after the other, and a page with its figures.

    python tests/beds/nightly.py [--only NAME]... [--soak SECONDS] [--fuzz MINUTES] [--rounds N]

The parts are those of the Makefile: matrix, elsewhere, regress, bench, soak, fuzz. docs/nightly.md has
each figure beside the one that stood there before; a part that is left out keeps its own.
What a part says goes to build/nightly/NAME.log. The status is 1 when a part has failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "build" / "nightly"
PAGE = ROOT / "docs" / "nightly.md"
HEAD = """\
# The last night

`make nightly` runs what takes too long for CI, one part after the other, and writes this page:
each figure, and the one that stood here before.

| part | figure | now | before |
|---|---|---|---|
"""

Figures = dict[tuple[str, str], str]  # the part and what is measured -> the figure
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Part:
    """One part. arguments: of make. read: its figures, from what it has said."""

    name: str
    arguments: tuple[str, ...]
    read: Callable[[str], dict[str, str]]


def parts(soak: int, fuzz: int, rounds: int) -> list[Part]:
    """All parts, in their order."""
    bench = LOGS / "bench.json"
    return [
        Part("matrix", ("matrix",), counts),
        Part("elsewhere", ("elsewhere", "ARGS=-q"), counts),
        Part("regress", ("regress",), outcomes),
        Part("bench", ("bench", f"ARGS=--rounds {rounds} --json {bench}"), ratios),
        Part("soak", ("soak", f"ARGS=--seconds {soak}"), sentences),
        Part("fuzz", ("fuzz", f"MINUTES={fuzz}"), runs),
    ]


# What each part says


def counts(said: str) -> dict[str, str]:
    """Of pytest: how many tests have passed and failed."""
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", said.rstrip().splitlines()[-1] if said.strip() else "")
    return {f"tests {what}": number for number, what in found}


def outcomes(said: str) -> dict[str, str]:
    """Of the suite: what its page sums up, once for each version."""
    page = (ROOT / "docs" / "regress.md").read_text()
    found = {}
    for version, text in re.findall(r"^## (OpenSSH .*)\n((?:.*\n)*?)(?=^## |\Z)", page, re.MULTILINE):
        for what in ("Tests that went well", "Connections carried", "Logins"):
            for line in re.findall(rf"^{what}: (.*)\.$", text, re.MULTILINE):
                found[f"{version}: {what.lower()}"] = line
    return found


def ratios(said: str) -> dict[str, str]:
    """Of the bench: the rows of its tables, as they are printed."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    return {row[0]: "; ".join(row[1:]) for row in rows if len(row) > 1 and NUMBER.search("".join(row[1:]))}


def sentences(said: str) -> dict[str, str]:
    """Of the soak: its sentences, a figure each; what is measured is what stands around the numbers."""
    lines = [line for line in said.splitlines() if ":" in line and not line.startswith("soak:")]
    return {NUMBER.sub("n", line.split(":")[0]): line for line in lines}


def runs(said: str) -> dict[str, str]:
    """Of the fuzzer: how often each target was run, and what was found."""
    found, target = {}, ""
    for line in said.splitlines():
        if line.startswith("fuzz/"):
            target = line
        if done := re.match(r"Done (\d+) runs in (\d+) second", line):
            found[target] = f"{int(done[1]):,} runs in {done[2]} s"
        if "SUMMARY: " in line:
            found[f"{target}: found"] = line.split("SUMMARY: ")[1]
    return found


# The page


def read_page() -> Figures:
    """The figures that stand on the page."""
    text = PAGE.read_text() if PAGE.exists() else ""
    cells = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    return {(row[0].removeprefix("| "), row[1]): row[2] for row in cells if len(row) == 4 and row[1] != "figure"}


def write_page(now: Figures, before: Figures) -> None:
    """Write the page: what was measured now, and what stood there before; parts that were left out stay."""
    kept = {key: figure for key, figure in before.items() if key[0] not in {part for part, _ in now}}
    lines = [f"| {part} | {what} | {figure} | {before.get((part, what), '')} |" for (part, what), figure in now.items()]
    lines += [f"| {part} | {what} | {figure} | |" for (part, what), figure in kept.items()]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n")


def main() -> int:
    """Run the parts; return 1 when one has failed."""
    parser = argparse.ArgumentParser(prog="make nightly ARGS=...")
    names = [part.name for part in parts(0, 0, 0)]
    parser.add_argument("--only", action="append", choices=names, help="all when not given")
    parser.add_argument("--soak", type=int, default=7200, metavar="SECONDS")
    parser.add_argument("--fuzz", type=int, default=10, metavar="MINUTES", help="for each target")
    parser.add_argument("--rounds", type=int, default=5, help="of the bench")
    asked = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    before, now, status = read_page(), Figures(), 0
    for part in parts(asked.soak, asked.fuzz, asked.rounds):
        if asked.only and part.name not in asked.only:
            continue
        began = time.monotonic()
        log = LOGS / f"{part.name}.log"
        with log.open("w") as file:
            done = subprocess.run(["make", "-C", ROOT, *part.arguments], stdout=file, stderr=file, check=False)
        outcome = "well" if done.returncode == 0 else f"failed, status {done.returncode}"
        print(f"{part.name}: {outcome}, {time.monotonic() - began:.0f} s", flush=True)
        status |= done.returncode != 0
        now[part.name, "outcome"] = outcome
        for what, figure in part.read(log.read_text(errors="replace")).items():
            now[part.name, what.replace("|", "/")] = figure.replace("|", "/")
        write_page(now, before)  # after each part: the night may end before the last one
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
