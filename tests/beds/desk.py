"""What the README and docs/ say, taken from their text, and a lab on which it is run.

h1, h2, h3 are servers of the lab, and ssh, scp, sftp and pyrelay are told to
use the lab's ssh_config; two kinds of words are replaced, since a test
neither chooses its ports nor makes accounts: port 2022 of a host by its real
one, and the users u1 and u3 by real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from lab import CHAINS, ROOT, Lab
from peers import need

README, RECIPES, ONION, SPEED = "README.md", "docs/recipes.md", "docs/onion.md", "docs/speed.md"
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / README, *(ROOT / "docs").glob("*.md"))}


def blocks(heading: str, document: str = README) -> list[str]:
    """The indented blocks of a section, or of a whole document when the heading is its title."""
    section = f"\n{DOCUMENTS[document]}".split(f"# {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return ["\n".join(line[4:] for line in text.strip("\n").splitlines()) for text in found]


def table(first: str, document: str = RECIPES) -> list[list[str]]:
    """The rows of the table whose heading begins with this cell, its heading first; cells are split at bare bars."""
    text = DOCUMENTS[document]
    lines = text[text.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert set("".join(rows[1])) == {"-"}
    return [rows[0], *rows[2:]]


def code(cell: str) -> list[str]:
    """The code spans of a cell."""
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`]*)`", cell)]


class Desk:
    """The lab as the person sees it who types what the README says."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._seen: dict[str, int] = {}
        # Somebody else than the user at the far end, who needs no shell: root's sshd alone can log them in.
        self.other = "nobody" if os.geteuid() == 0 else lab.user
        for server in lab.servers("h1", "h2", "h3"):
            (server.home / "file").write_text(f"from {server.name}")
            subprocess.run([need("git"), "init", "-q", "--bare", server.home / "repo"], check=True)
        lab.host("h1", User=self.other)
        tools = lab.top / "tools"
        tools.mkdir()
        for name in ("ssh", "scp", "sftp", "pyrelay"):
            path = shutil.which(name, path=lab.environment()["PATH"])
            (tools / name).write_text(f'#!/bin/sh\nexec {path} -F {lab.config} "$@"\n')
            (tools / name).chmod(0o755)
        self.path = os.pathsep.join([str(tools), lab.environment()["PATH"]])

    def deny_forwarding(self, name: str) -> None:
        """From now on a hop forwards nothing, and is logged in to by one who may run commands."""
        self.lab[name].configure("AllowTcpForwarding no\n")
        self.lab.host(name, User=self.lab.user)

    def real(self, text: str) -> str:
        """Text with this lab's ports and users."""
        text = re.sub(r"\b(h\d)([]:~_]+)2022\b", lambda m: f"{m[1]}{m[2]}{self.lab[m[1]].port}", text)
        return re.sub(r"\bu3\b", self.lab.user, re.sub(r"\bu1\b", self.other, text))

    def configure(self, lines: list[str]) -> None:
        """Put lines of ssh_config before the lab's own; those without a `Host` are for chains."""
        start = [] if lines[:1] and lines[0].startswith("Host ") else [f"Host {CHAINS}"]
        self.lab.head = self.real("\n".join([*start, *lines]))

    def run(self, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line in a shell."""
        return self.lab.run("/bin/sh", "-c", self.real(line), stdin=stdin, env={"PATH": self.path})

    def logins(self) -> dict[str, list[str]]:
        """Who has logged in where since this was last asked."""
        found = {}
        for name in ("h1", "h2", "h3"):
            users = self.lab[name].logins()
            found[name] = users[self._seen.get(name, 0) :]
            self._seen[name] = len(users)
        return {name: users for name, users in found.items() if users}


def reaches(desk: Desk, command: str) -> None:
    """Run a command of the documents and see that it talks to h3."""
    before = len(desk.lab["h3"].connections)
    if command.startswith("ssh "):
        ran = desk.run(f"{command} 'echo $SERVER'")
        assert ran.stdout == "h3\n", ran.stderr
    elif command.startswith("scp "):
        (desk.lab.home / "file").write_text("from here")
        ran = desk.run(command)
        assert ran.returncode == 0, ran.stderr
    elif command.startswith("sftp "):
        ran = desk.run(command, stdin="pwd\n")
        assert "Remote working directory" in ran.stdout, ran.stderr
    else:
        assert command.startswith("pyrelay ")
        ran = desk.run(command)
        assert ran.stdout.startswith("SSH-2.0-"), ran.stderr
    assert len(desk.lab["h3"].connections) == before + 1


def parts(cell: str) -> tuple[list[str], list[str]]:
    """Lines of ssh_config, and commands."""
    lines = code(cell)
    config = [line for line in lines if line[0].isupper()]
    return config, [line for line in lines if line not in config]
