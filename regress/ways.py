"""The ways in which a test's connections are made: as the suite makes them, through a hop, and by pyrelay's own login.

Through a hop, ssh logs in to the suite's server as ever, and each byte goes through pyrelay and a real
sshd. In ssh's place, the suite's server is itself the hop: a program that is called as ssh reaches a target behind it.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import Lab

ROOT = Path(__file__).resolve().parent.parent
HOPS = ("h1", "h2", "h3")
DENIED = "denied"
TARGET = "target"


@dataclass(frozen=True)
class Way:
    """name: as in the table. carrier: of bytes to a host and port. login: what the program called as ssh logs in by."""

    name: str
    carrier: str = ""
    login: str = ""

    @property
    def directory(self) -> str:
        """Its name, for a directory."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")


PLAIN = Way("plain")
# The first of each is what the others are compared with.
THROUGH = (
    Way("ssh -W", "ssh -F {config} -W [%h]:%p h1"),
    Way("pyrelay", "{program} -F {config} -J h1 %h %p"),
    Way("--share", "{program} -F {config} --share 1m -J h1 %h %p"),
    Way("--netcat", "{program} -F {config} --netcat -J denied %h %p"),
    Way("three hops", "{program} -F {config} -J h1,h2,h3 %h %p"),
)
IN_PLACE = (Way("login: ssh -W", login="ssh"), Way("login: pyrelay", login="pyrelay"))
WAYS = {way.name: way for way in (PLAIN, *THROUGH, *IN_PLACE)}


class Hops:
    """The servers that the ways lead through, in a lab, and the programs that lead there."""

    def __init__(self, lab: Lab, ssh: Path) -> None:
        """ssh: OpenSSH's client of the version under test."""
        self.lab = lab
        self.ssh = ssh
        for name in (*HOPS, TARGET):
            lab.server(name)
        lab.server(DENIED, extra="AllowTcpForwarding no")
        lab.write_config()

    def carrier(self, way: Way, directory: Path) -> Path:
        """Make the program that a test's ProxyCommand is, in the test's directory; its arguments are host and port."""
        line = way.carrier.format(config=self.lab.config, program=self.lab.program)
        line = line.replace("%h", "$1").replace("%p", "$2")
        return _program(directory / "carrier", f'echo "$*" >> {directory}/carried\nexec {line}\n')

    def login(self, way: Way, directory: Path) -> Path:
        """Make the program that a test calls as ssh."""
        by = {"ssh": str(self.ssh), "pyrelay": str(self.lab.program)}[way.login]
        words = [sys.executable, "-m", "regress.in_place", way.login, by, str(self.ssh), str(self.lab.config)]
        words += [str(self.lab["target"].port), str(directory)]
        return _program(directory / "ssh", f'PYTHONPATH={ROOT} exec {shlex.join(words)} "$@"\n')


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path
