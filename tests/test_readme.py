"""What the README says is run: its block of ssh_config, its commands, each client's spellings, each recipe.

The lines are read from the README itself. h1, h2, h3 are servers of the lab, and
ssh, scp, sftp and pyrelay are told to use the lab's ssh_config; two kinds of
words are replaced, since a test neither chooses its ports nor makes accounts:
port 2022 of a host by its real one, and the users u1 and u3 by real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from lab import CHAINS, ROOT, Lab
from peers import need

README = (ROOT / "README.md").read_text()


def blocks(heading: str) -> list[str]:
    """The indented blocks of a section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return ["\n".join(line[4:] for line in text.strip("\n").splitlines()) for text in found]


def table(first: str) -> list[list[str]]:
    """The rows of the table whose heading begins with this cell, its heading first; cells are split at bare bars."""
    lines = README[README.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
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


@pytest.fixture
def desk(lab: Lab) -> Desk:
    return Desk(lab)


def reaches(desk: Desk, command: str) -> None:
    """Run a command of the README and see that it talks to h3."""
    before = len(desk.lab["h3"].connections)
    if command.startswith("ssh "):
        ran = desk.run(f"{command} 'echo $SERVER'")
        assert ran.stdout == "h3\n", ran.stderr
    elif command.startswith("sftp "):
        ran = desk.run(command, stdin="pwd\n")
        assert "Remote working directory" in ran.stdout, ran.stderr
    else:
        assert command.startswith("pyrelay ")
        ran = desk.run(command)
        assert ran.stdout.startswith("SSH-2.0-"), ran.stderr
    assert len(desk.lab["h3"].connections) == before + 1


def test_the_block_and_the_commands(desk: Desk) -> None:
    block, *commands = [text for text in blocks("Use") if text.startswith(("Host", "ssh"))]
    assert block.splitlines()[0] == f"Host {CHAINS}"
    desk.configure(block.splitlines())
    first, second = commands[0].splitlines()
    reaches(desk, first)
    assert desk.logins() == {"h1": [desk.other], "h2": [desk.lab.user], "h3": [desk.lab.user]}
    reaches(desk, second)
    assert desk.logins() == {"h1": [desk.other], "h2": [desk.lab.user], "h3": [desk.lab.user]}


def test_the_error_in_the_readme_is_the_one_that_is_printed(desk: Desk) -> None:
    shown = next(text for text in blocks("Use") if text.startswith("pyrelay: "))
    port = desk.lab.closed("h2")
    assert shown.replace("2022", str(port)) in desk.run(f"ssh u1%h1+h2:{port}+h3 true").stderr
    assert desk.logins() == {"h1": [desk.other]}


RECIPES = table("recipe")[1:]


def parts(cell: str) -> tuple[list[str], list[str]]:
    """Lines of ssh_config, and commands."""
    lines = code(cell)
    config = [line for line in lines if line[0].isupper()]
    return config, [line for line in lines if line not in config]


@pytest.mark.parametrize(("recipe", "now", "then"), RECIPES, ids=[row[0] for row in RECIPES])
def test_each_recipe_has_its_pyrelay_line(desk: Desk, recipe: str, now: str, then: str) -> None:
    config, commands = parts(then)
    assert commands
    for netcat in re.findall(r"\b(nc|ncat|socat)\b", then):
        need(netcat)
    if "--netcat" in then:
        desk.deny_forwarding("h1")
    if config:
        desk.configure(config)
    if "HostKeyAlias h3" in config:  # then the target's key need be known by that name only
        known = desk.lab.known_hosts.read_text().replace(",*/h3,*+h3 ", ",h3 ")
        desk.lab.known_hosts.write_text(known)
    for command in commands:
        reaches(desk, command)
    assert set(desk.logins()) >= set(re.findall(r"\bh[12]\b", then))


# Recipes of which the old side can be run here: the others need names that a hop itself resolves.
STILL = [
    row
    for row in RECIPES
    if row[0]
    in {"jump hosts", "with users and ports", "jump hosts in the config", "`ssh -W`", "a chain of `ssh -W`", "netcat"}
]


@pytest.mark.parametrize(("recipe", "now", "then"), STILL, ids=[row[0] for row in STILL])
def test_the_old_recipe_takes_the_same_way(desk: Desk, recipe: str, now: str, then: str) -> None:
    ways = []
    for cell in (now, then):
        config, commands = parts(cell)
        if config:
            desk.configure(config)
        for command in commands or parts(then)[1]:
            reaches(desk, command)
        ways.append(desk.logins())
    assert ways[0] == ways[1]


def test_the_line_for_batch_mode(desk: Desk) -> None:
    lines = [span for span in re.findall(r"`([^`\n]*)`", README) if span.startswith("ProxyCommand") and "-o" in span]
    assert len(lines) == 1
    desk.configure(lines)
    reaches(desk, "ssh h1/h3")


CLIENTS = table("client")
SPELLINGS = [code(cell)[0] for cell in CLIENTS[0][1:]]
ENDINGS = {"git": "copy", "rsync": "copy", "scp": "copy", "sftp": "", "ssh": "'echo $SERVER'"}


@pytest.mark.parametrize("row", CLIENTS[1:], ids=[code(row[0])[0] for row in CLIENTS[1:]])
def test_each_client_takes_the_spellings_that_the_table_says(desk: Desk, row: list[str]) -> None:
    (form,) = code(row[0])
    client = form.split()[0]
    need(client)
    path = str(desk.lab["h3"].home / ("repo" if client == "git" else "file"))
    taken = []
    for spelling in SPELLINGS:
        line = re.sub(r"\bn\b", spelling, re.sub("/?path", path, form)) + (" h2" if "-J" in form else "")
        before = len(desk.lab["h3"].connections)
        ran = desk.run(f"rm -rf copy; {line} {ENDINGS[client]}")
        taken.append(ran.returncode == 0 and len(desk.lab["h3"].connections) == before + 1)
    assert taken == [cell == "yes" for cell in row[1:]]
    assert {"yes", "no"} >= set(row[1:])


@pytest.mark.parametrize("line", [line for text in blocks("Working on it") for line in text.splitlines()])
def test_the_makefile_has_the_targets(line: str) -> None:
    command, _, _ = line.partition("#")
    done = subprocess.run(
        [need("make"), "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_ways_to_install_are_there() -> None:
    ways = [text for text in blocks("Use") if "install" in text]
    assert ways == ["pipx install .", "sudo make install"]
    done = subprocess.run([need("make"), "-n", "install"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert (ROOT / "pyproject.toml").is_file()
