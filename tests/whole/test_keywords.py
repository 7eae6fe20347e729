"""The table of docs/ssh_config.md, held to the keywords of the installed ssh and to the code that reads them."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

from peers import need

from relay.config.version import number

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "ssh_config.md"
# What a keyword can do for a hop.
OBEYED, ENGINE, NOTHING = "obeyed", "by ssh's engine only", "without effect"
MANUALS = [Path("/usr/share/man/man5"), Path("/usr/local/share/man/man5")]
BY_SSH = "by `ssh -G`"  # whose work the keyword is


def rows() -> list[tuple[str, str, str]]:
    """Keyword, what it does, and the words beside it."""
    lines = TABLE.read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [(cell[0], cell[1], cell[2]) for cell in cells[2:]]


def of_manual() -> list[str]:
    """The keywords of ssh_config(5), where the manual is installed: the items of its outermost list."""
    files = [file for folder in MANUALS for file in folder.glob("ssh_config.5*")]
    if not files:
        return []
    data = files[0].read_bytes()
    text = (gzip.decompress(data) if files[0].suffix == ".gz" else data).decode()
    found, depth = [], 0
    for line in text.partition(".Sh PATTERNS")[0].splitlines():
        depth += line.startswith(".Bl") - line.startswith(".El")
        if depth == 1 and line.startswith(".It Cm "):
            found.append(line.split()[2])
    return found


def of_ssh() -> list[str]:
    """The keywords that the installed ssh prints, in lower case; not all have a value."""
    printed = subprocess.run([need("ssh"), "-G", "-F", "none", "h"], capture_output=True, text=True, check=True).stdout
    return sorted({line.partition(" ")[0].lower() for line in printed.splitlines()})


def test_every_keyword_stands_in_the_table_once() -> None:
    names = [name for name, _, _ in rows()]
    assert names == sorted(set(names), key=str.lower)
    assert {does for _, does, _ in rows()} == {OBEYED, ENGINE, NOTHING}
    missing = {name.lower() for name in of_manual()} | set(of_ssh())
    assert missing - {name.lower() for name in names} == set()


def test_the_installed_ssh_knows_what_the_table_says_it_knows() -> None:
    """A row without a version is older than any ssh that is supported; Debian's are in Debian's only."""
    said = subprocess.run([need("ssh"), "-V"], capture_output=True, text=True, check=True).stderr
    for name, _, words in rows():
        if name in {"Host", "Match", "Include", "IgnoreUnknown"} or "Debian's" in words:
            continue
        version = re.match(r"OpenSSH (\d+)\.(\d+)", words)
        argv = [need("ssh"), "-G", "-F", "none", "-o", f"{name}=1", "h"]
        known = (
            "Bad configuration option" not in subprocess.run(argv, capture_output=True, text=True, check=False).stderr
        )
        if version is not None:
            assert known == (number(said) >= (int(version[1]), int(version[2]))), name
        else:
            assert known, name


def test_what_is_obeyed_is_read_and_nothing_else_is() -> None:
    code = "".join(path.read_text() for path in (ROOT / "relay").rglob("*.py"))
    for keyword, does, words in rows():
        name = keyword.lower()
        if BY_SSH in words:
            assert does == OBEYED, keyword
        elif does == OBEYED:
            assert f'"{name}"' in code, keyword
        elif does == NOTHING and keyword != "ControlMaster":  # whose question is waited for
            assert not re.search(rf"\.(get|yes|all|paths|seconds|number|algorithms)\(\"{name}\"", code), keyword
