"""The picture of docs/speed.md: its table as bars.

In every row the longer bar has the same length: the picture shows ratios.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

WIDTH, LABEL, BAR = 860, 330, 380  # widths of the picture, the labels and the longest bar, in pixels
ROW, GAP, THICK = 40, 34, 13  # the height of a row, of a heading, of a bar
OURS, THEIRS, TEXT, SOFT = "#1f6feb", "#a3acb8", "#24292f", "#57606a"
GROUPS = {"ms": "Time: shorter is better", "MB/s": "MB a second: longer is better"}
LEFT_OUT = ("both by AES-128-GCM", "SOCKS5 by microsocks")  # a few rows say enough


class Row(NamedTuple):
    """A row of the table: label, peer, and both figures as the table shows them."""

    label: str
    peer: str
    ours: str
    theirs: str

    @property
    def unit(self) -> str:
        """The unit of both figures."""
        return self.ours.partition(" ")[2]

    @property
    def lengths(self) -> tuple[float, float]:
        """The lengths of the two bars, as fractions of the longest bar."""
        ours, theirs = float(self.ours.split()[0]), float(self.theirs.split()[0])
        most = max(ours, theirs)
        return ours / most, theirs / most


def read(lines: list[str]) -> list[Row]:
    """The rows of a table in Markdown, without its two lines of heading."""
    rows = []
    for line in lines[2:]:
        what, ours, theirs, _ = (cell.strip().replace("`", "") for cell in line.strip("|").split("|"))
        label, _, peer = what.rpartition(": ")
        rows.append(Row(label, peer, ours, theirs))
    return rows


def draw(lines: list[str]) -> str:
    """The table as a picture, an SVG on a white ground."""
    rows = [row for row in read(lines) if not any(words in row.label for words in LEFT_OUT)]
    parts: list[str] = []
    y = 12
    for unit, heading in GROUPS.items():
        y += GAP
        parts.append(_text(16, y - 10, heading, TEXT, "bold 15px"))
        for row in (row for row in rows if row.unit == unit):
            label = re.sub("^the same 100 ms away", "first byte, 100 ms away", row.label)
            parts.append(_text(LABEL - 12, y + 19, label, TEXT, "13px", anchor="end"))
            for place, (length, name, figure, colour) in enumerate(
                zip(row.lengths, ("pyrelay", row.peer), (row.ours, row.theirs), (OURS, THEIRS), strict=True)
            ):
                top = y + place * (THICK + 2)
                wide = max(round(length * BAR), 2)
                parts.append(f'<rect x="{LABEL}" y="{top}" width="{wide}" height="{THICK}" rx="2" fill="{colour}"/>')
                parts.append(_text(LABEL + wide + 6, top + 11, f"{name} {figure}", SOFT, "11px"))
            y += ROW
    y += 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img" '
        'aria-label="pyrelay beside ssh and nc">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _text(x: int, y: int, text: str, colour: str, font: str, *, anchor: str = "start") -> str:
    face = f"font:{font} system-ui,sans-serif"
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" style="{face}">{escape(text)}</text>'
