"""The tables of `make matrix`: what a row says of the tests that have run, and of those that have not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab import ROOT

PAGE = """\
## With each Python

<!-- pythons -->
| system | Python | ssh | demo | tests |
|---|---|---|---|---|
| of the last run | | | | |

<!-- debian -->
| system | Python | ssh | demo | tests |
|---|---|---|---|---|
| stays | | | | |
"""
FIRST = "=== 1 failed, 4000 passed, 30 skipped, 90 deselected in 536.12s (0:08:56) ==="
SECOND = "=== 101 passed, 4 skipped, 3900 deselected, 1 error in 200.01s (0:03:20) ==="
WHOLE = "=== 4101 passed, 3 skipped in 7.00s ==="


def rows(top: Path, *said: str, arguments: str = "") -> tuple[int, list[str]]:
    """The exit status, and the page's rows, where `make test` says this in a copy of the source."""
    source = top / "build" / "source"
    source.mkdir(parents=True)
    (source / "Makefile").write_text("demo:\n\t@:\ntest:\n\t@cat said\n")
    (source / "said").write_text("FAILED tests/test_one.py - assert 3 passed\n" + "\n".join(said) + "\n")
    (top / "docs").mkdir()
    (top / "docs" / "matrix.md").write_text(PAGE)
    # One Python, by the name that a system has it under.
    version = f"python3.{sys.version_info.minor}"
    found = top / ".pyenv" / "versions" / "this" / "bin"
    found.mkdir(parents=True)
    (found / version).symlink_to(Path(sys.executable).resolve())
    command: list[str | Path] = [
        ROOT / "packaging" / "matrix",
        top / "build",
        top / "work",
        "pythons",
        *arguments.split(),
    ]
    environment = {**os.environ, "HOME": str(top)}
    done = subprocess.run(command, cwd=top, env=environment, capture_output=True, text=True, check=False)
    page = (top / "docs" / "matrix.md").read_text()
    assert "of the last run" not in page, done.stderr
    assert page.count("| stays |") == 1
    return done.returncode, [line for line in page.splitlines() if line.startswith("| ") and " passed |" in line]


@pytest.mark.parametrize(
    ("said", "arguments", "status", "cell"),
    [
        ((FIRST, SECOND), "", 1, "1 error, 1 failed, 4101 passed, 34 skipped"),
        ((FIRST.replace("1 failed, ", ""),), "", 1, "4000 passed, 30 skipped; not all of them came to an end"),
        ((WHOLE,), "-k chain", 0, "4101 passed, 3 skipped (`-k chain`)"),
    ],
)
def test_a_row_counts_both_halves(
    tmp_path: Path, said: tuple[str, ...], arguments: str, status: int, cell: str
) -> None:
    found, lines = rows(tmp_path, *said, arguments=arguments)
    assert lines
    assert {line.rpartition(" passed | ")[2] for line in lines} == {f"{cell} |"}
    assert found == status
