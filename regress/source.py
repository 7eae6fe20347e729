"""OpenSSH as Debian's source package has it, fetched and built below build/; nothing of it is ever committed.

Lists of packages, sources and programs all stay in that directory: the system's own apt
settings are neither read for this nor changed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "regress"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
PREPARED = "built"  # a file that is made last


@dataclass(frozen=True)
class Source:
    """One version of OpenSSH, built. version: as Debian writes it. top: where it was built."""

    suite: str
    version: str
    top: Path

    @property
    def regress(self) -> Path:
        """The directory of the suite's scripts."""
        return self.top / "regress"

    def tests(self) -> list[str]:
        """The names of the tests that the suite runs, in its order."""
        lines = (self.regress / "Makefile").read_text().replace("\\\n", " ")
        names: str = re.findall(r"^LTESTS=(.*)$", lines, re.MULTILINE)[0]
        return names.split()


def prepared(suite: str) -> Source:
    """Fetch and build the suite's OpenSSH, unless that has been done; raises CalledProcessError."""
    top = BUILD / suite
    if not (top / PREPARED).exists():
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir(parents=True)
        _fetch(suite, top)
        (source,) = top.glob("openssh-*/")
        for command in (
            ["autoreconf"],  # Debian changes configure.ac, and ships no configure that follows
            ["./configure", "--with-privsep-path=/run/sshd", "--with-privsep-user=sshd", "CFLAGS=-O1"],
            ["make", f"-j{os.cpu_count()}"],
            ["make", "regress-binaries"],
        ):
            _run(command, source, top / "build.log")
        (top / PREPARED).touch()
    (source,) = top.glob("openssh-*/")
    (description,) = top.glob("*.dsc")
    (version,) = re.findall(r"^Version: (.*)$", description.read_text(), re.MULTILINE)
    return Source(suite, version, source)


def _fetch(suite: str, top: Path) -> None:
    """Have apt fetch and unpack the source package, by lists of its own."""
    (top / "lists" / "partial").mkdir(parents=True)
    (top / "cache").mkdir()
    sources = top / "sources.list"
    sources.write_text(f"deb-src [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    apt = [
        "apt-get",
        "-qq",
        *("-o", f"Dir::Etc::sourcelist={sources}"),
        *("-o", "Dir::Etc::sourceparts=/nonexistent"),
        *("-o", f"Dir::State::lists={top}/lists"),
        *("-o", f"Dir::Cache={top}/cache"),
    ]
    _run([*apt, "update"], top, top / "build.log")
    _run([*apt, "source", "openssh"], top, top / "build.log")


def _run(command: list[str], directory: Path, log: Path) -> None:
    with log.open("a") as file:
        file.write(f"$ {shlex.join(command)}\n")
        file.flush()
        subprocess.run(
            ["nice", *command], cwd=directory, stdout=file, stderr=file, stdin=subprocess.DEVNULL, check=True
        )
