"""The documents' tables and picture, from the figures that the bench has kept (--json FILE).

python -m bench.readme FILE [NEWER] writes the table of docs/speed.md, the rows of it that the README has, and the
picture. NEWER: the figures beside a newer OpenSSH, for the table of those rows in which ssh itself starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import picture
from bench.measure import CPU, MEMORY, THROUGHPUT, TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = "time to the first byte of the target's banner"
TRUE = "whole ssh TARGET true"
DEFAULT, SAME = "throughput, default ciphers", "throughput, AES-128-GCM for every hop"
SESSION = "600 MB under a real ssh, start included"
UNITS = {TIME: "ms", THROUGHPUT: "MB/s", CPU: "s", MEMORY: "MB"}

# The rows that docs/speed.md shows: a label, the group and the beginning of the title, and the figure.
SHOWN = (
    ("first byte, plain TCP: `nc`", f"{FIRST}, 0 ms of round trip", "plain TCP", TIME),
    ("first byte, SOCKS5: `nc -X 5`", f"{FIRST}, 0 ms of round trip", "SOCKS5", TIME),
    ("first byte, 1 hop: `ssh -W`", f"{FIRST}, 0 ms of round trip", "1 hop", TIME),
    ("first byte, 2 hops: `ssh -J`", f"{FIRST}, 0 ms of round trip", "2 hops", TIME),
    ("first byte, 3 hops: `ssh -J`", f"{FIRST}, 0 ms of round trip", "3 hops", TIME),
    ("the same 100 ms away, 1 hop: `ssh -W`", f"{FIRST}, 100 ms of round trip", "1 hop", TIME),
    ("the same 100 ms away, 2 hops: `ssh -J`", f"{FIRST}, 100 ms of round trip", "2 hops", TIME),
    ("the same 100 ms away, 3 hops: `ssh -J`", f"{FIRST}, 100 ms of round trip", "3 hops", TIME),
    ("`ssh h1/h2/h3 true` 100 ms away: `ssh -J`", f"{TRUE}, 100 ms of round trip", "2 hops, against ssh -J", TIME),
    ("plain TCP, to the network: `nc`", DEFAULT, "plain TCP, to", THROUGHPUT),
    ("plain TCP, from the network: `nc`", DEFAULT, "plain TCP, from", THROUGHPUT),
    ("SOCKS5 by microsocks, from the network: `nc -X 5`", DEFAULT, "SOCKS5, from", THROUGHPUT),
    ("1 hop, to the network: `ssh -W`", DEFAULT, "1 hop, to", THROUGHPUT),
    ("1 hop, from the network: `ssh -W`", DEFAULT, "1 hop, from", THROUGHPUT),
    ("1 hop, both ways at once: `ssh -W`", DEFAULT, "1 hop, both", THROUGHPUT),
    ("2 hops, to the network: `ssh -J`", DEFAULT, "2 hops, to", THROUGHPUT),
    ("2 hops, from the network: `ssh -J`", DEFAULT, "2 hops, from", THROUGHPUT),
    ("1 hop, to the network, both by AES-128-GCM: `ssh -W`", SAME, "1 hop, to", THROUGHPUT),
    ("1 hop, from the network, both by AES-128-GCM: `ssh -W`", SAME, "1 hop, from", THROUGHPUT),
    ("2 hops, to the network, both by AES-128-GCM: `ssh -J`", SAME, "2 hops, to", THROUGHPUT),
    ("2 hops, from the network, both by AES-128-GCM: `ssh -J`", SAME, "2 hops, from", THROUGHPUT),
    ("600 MB from the target by `ssh`, 1 hop: `ssh -J`", SESSION, "1 hop, from", THROUGHPUT),
    ("600 MB from the target by `ssh`, 2 hops: `ssh -J`", SESSION, "2 hops, from", THROUGHPUT),
    ("CPU for each GB, plain TCP, from the network: `nc`", DEFAULT, "plain TCP, from", CPU),
    ("CPU for each GB, 2 hops, from the network: `ssh -J`", DEFAULT, "2 hops, from", CPU),
    ("peak memory, plain TCP: `nc`", DEFAULT, "plain TCP, from", MEMORY),
    ("peak memory, 2 hops: `ssh -J`", DEFAULT, "2 hops, from", MEMORY),
)

# The rows of these that the README shows.
FEW = (
    "first byte, plain TCP: `nc`",
    "first byte, 1 hop: `ssh -W`",
    "first byte, 2 hops: `ssh -J`",
    "the same 100 ms away, 2 hops: `ssh -J`",
    "1 hop, from the network: `ssh -W`",
    "600 MB from the target by `ssh`, 2 hops: `ssh -J`",
)
# The rows of these in which ssh itself starts, which a newer OpenSSH does faster.
STARTS = tuple(row for row in SHOWN if row[1].startswith((FIRST, TRUE)) and row[0].endswith(("`ssh -W`", "`ssh -J`")))
ROOT = Path(__file__).resolve().parent.parent
README, SPEED, PICTURE = ROOT / "README.md", ROOT / "docs/speed.md", ROOT / "docs/speed.svg"
NEWER = "## Beside the newest OpenSSH"  # what that table of docs/speed.md stands below
HEADING = ["| what: beside what | pyrelay | the other | ratio (range) |", "|---|---|---|---|"]


def table(rows: list[dict[str, Any]], wanted: Sequence[tuple[str, str, str, str]] = SHOWN) -> str:
    """Return the table in Markdown. Raises LookupError if a row is missing."""
    lines = [*HEADING]
    for label, group, title, name in wanted:
        found = [row for row in rows if row["group"] == group and row["title"].startswith(title)]
        if not found:
            raise LookupError(f"{group}: {title}")
        figure = found[0]["figures"][name]
        ours, theirs = (f"{figure[side]:.{0 if figure[side] > 9.5 else 1}f}" for side in ("ours", "theirs"))
        spread = f"{figure['ratio']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
        lines.append(f"| {label} | {ours} {UNITS[name]} | {theirs} {UNITS[name]} | {spread} |")
    return "\n".join(lines)


def few(lines: list[str]) -> list[str]:
    """Return the lines of the table that the README shows."""
    return [*HEADING, *(next(line for line in lines if line.startswith(f"| {label} |")) for label in FEW)]


def shown(text: str, below: str = "") -> list[str]:
    """Return the lines of a document's first table below a line. Raises ValueError if there is none."""
    text = text[text.index(below) :]
    return text[text.index(HEADING[0]) :].partition("\n\n")[0].splitlines()


def write(lines: list[str]) -> None:
    """Put the table into the documents, and draw the picture."""
    _put(SPEED, lines)
    _put(README, few(lines))
    PICTURE.write_text(picture.draw(lines), encoding="utf-8")


def write_newer(lines: list[str]) -> None:
    """Put the table of a newer OpenSSH into docs/speed.md."""
    _put(SPEED, lines, NEWER)


def _put(path: Path, lines: list[str], below: str = "") -> None:
    text = path.read_text(encoding="utf-8")
    at = text.index(below)
    old, new = ("\n".join(table) for table in (shown(text, below), lines))
    path.write_text(text[:at] + text[at:].replace(old, new, 1), encoding="utf-8")


if __name__ == "__main__":
    for argument, wanted, into in zip(sys.argv[1:], (SHOWN, STARTS), (write, write_newer), strict=False):
        with open(argument, encoding="utf-8") as file:
            into(table(json.load(file)["rows"], wanted).splitlines())
