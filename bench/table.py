"""The printed table: rows under the heading of their group, each figure with its goal."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.compare import Compared

COLUMNS = "    {:14} {:>9} {:>9} {:>7}  {:18} {:>5} {:>5}  {}"


def machine(openssh: str) -> str:
    """Return the machine on which the figures were measured, and the OpenSSH that they were measured against."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return (
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}, {openssh}"
    )


def heading(group: str) -> str:
    """Return the heading of a group of rows."""
    columns = COLUMNS.format("", "A", "B", "A / B", "(range)", "must", "aim", "reached")
    return f"\n{group}\n{'=' * len(group)}\n{columns}"


def row(title: str, commands: Sequence[str], figures: Mapping[str, Compared]) -> str:
    """Return a row: its commands, and a line for each figure."""
    lines = [f"  {title}", *(f"    {letter} {command}" for letter, command in zip("ABC", commands, strict=False))]
    for name, figure in figures.items():
        goal = ["", "", ""]
        if figure.goal is not None:
            goal = [f"{figure.goal.must:g}", f"{figure.goal.aim:g}", figure.reached or "NOT REACHED"]
        numbers = ["" if number is None else f"{number:.2f}" for number in (figure.ours, figure.theirs, figure.ratio)]
        spread = f"({figure.low:.2f} to {figure.high:.2f})"
        lines.append(COLUMNS.format(name, *numbers, spread, *goal).rstrip())
    return "\n".join(lines)


def summary(figures: Sequence[tuple[str, Compared]]) -> str:
    """Return how many goals are reached, which are not, and why. figures: each with its row's title."""
    judged = [(title, figure, figure.goal) for title, figure in figures if figure.goal is not None]
    lines = [""]
    for name, enough in (("must", ("must", "aim")), ("aim", ("aim",))):
        missed = [(title, goal) for title, figure, goal in judged if figure.reached not in enough]
        lines.append(f'"{name}" reached: {len(judged) - len(missed)} of {len(judged)}')
        lines += [f"  not: {title}\n       {goal.hurdle}" for title, goal in missed]
    return "\n".join(lines)
