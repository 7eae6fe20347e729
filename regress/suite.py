"""One test of the suite, run in one of the ways, in a directory of its own."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from peers import SYSTEM_PATH, Listener

from regress.source import Source
from regress.ways import Hops, Way

HERE = Path(__file__).resolve().parent
LONGEST = 3600.0  # seconds for one test: rekey takes ten minutes where nothing else runs
PROGRAMS = {
    "SSH": "ssh",
    "SSHD": "sshd",
    "SSHD_SESSION": "sshd-session",
    "SSHD_AUTH": "sshd-auth",
    "SSHAGENT": "ssh-agent",
    "SSHADD": "ssh-add",
    "SSHKEYGEN": "ssh-keygen",
    "SSHKEYSCAN": "ssh-keyscan",
    "SFTP": "sftp",
    "SFTPSERVER": "sftp-server",
    "SCP": "scp",
    "PKCS11_HELPER": "ssh-pkcs11-helper",
    "SK_HELPER": "ssh-sk-helper",
}
BLOCKS = itertools.cycle(range(10000, 32000, 100))
HELPERS = ("modpipe", "setuid-allowed", "netcat", "check-perm", "mkdtemp", "misc", "timestamp")


@dataclass
class Outcome:
    """How a test ended.

    verdict: ok, failed, skipped, or slow (it did not end). seconds: it took. said: what it complained of.
    carried: the connections that went through a hop. logins: those made in ssh's place, in their order.
    """

    verdict: str
    seconds: float
    said: list[str] = field(default_factory=list)
    carried: int = 0
    logins: list[str] = field(default_factory=list)


def run(source: Source, test: str, way: Way, hops: Hops, directory: Path) -> Outcome:
    """Run a test to its end; the directory is made anew, and keeps the logs of a test that failed."""
    rmtree(directory, ignore_errors=True)
    objects, scripts = directory / "obj", directory / "src"
    for made in (objects, scripts):
        made.mkdir(parents=True)
    _lay_out(source, test, objects, scripts)
    listener = Listener(lambda connection: _serve(connection, objects, environment))
    environment = _environment(source, test, directory)
    environment["PYRELAY_PORT"] = str(listener.port)
    environment["PYRELAY_CARRIER"] = str(hops.carrier(way, directory)) if way.carrier else ""
    if way.login:
        environment["TEST_SSH_SSH"] = str(hops.login(way, directory))
    began = time.monotonic()
    try:
        command = ["nice", "sh", str(source.regress / "test-exec.sh"), str(objects), str(scripts / f"{test}.sh")]
        verdict = _to_its_end(command, scripts, environment, directory / "output")
    finally:
        listener.stop()
    output = (directory / "output").read_text(errors="replace")
    outcome = Outcome(verdict, round(time.monotonic() - began, 1))
    outcome.carried = len(_lines(directory / "carried"))
    outcome.logins = [line.replace(str(directory), "") for line in _lines(directory / "logins")]
    if verdict == "skipped":
        outcome.said = re.findall(r"^(?:SKIPPED: |skipped )(.*)$", output, re.MULTILINE)[:1]
    elif verdict != "ok":
        # What it says of each step that went well is not wanted; those lines begin with its name.
        title = re.search(r"^failed (.*)$", output, re.MULTILINE)
        steps = (f"{title[1]}: " if title else "\0", "failed ", "test ", "cmp: ")
        lines = output.replace(str(directory), "").splitlines()
        outcome.said = [line for line in lines if line.strip() and "UsePAM" not in line and not line.startswith(steps)][
            :20
        ]
    if verdict == "ok":
        rmtree(objects)
        rmtree(scripts)
    return outcome


def _lay_out(source: Source, test: str, objects: Path, scripts: Path) -> None:
    """Lay links to the suite's files where a test may write; the script of this test is ours, and sources its own."""
    for helper in HELPERS:
        if (source.regress / helper).exists():
            (objects / helper).symlink_to(source.regress / helper)
    for file in source.regress.iterdir():
        if file.suffix != ".o" and file.name != f"{test}.sh":
            (scripts / file.name).symlink_to(file)
    (scripts / f"{test}.sh").write_text((HERE / "hook.sh").read_text())


def _environment(source: Source, test: str, directory: Path) -> dict[str, str]:
    """What the Makefile of OpenSSH gives its tests, and what our hook reads."""
    paths = {f"TEST_SSH_{name}": str(source.top / program) for name, program in PROGRAMS.items()}
    return {
        **{name: path for name, path in paths.items() if Path(path).exists()},
        "BUILDDIR": str(source.top),
        "EGREP": "/bin/grep -E",
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "LOGNAME": os.environ.get("LOGNAME", "root"),
        "OPENSSL_BIN": "/usr/bin/openssl",
        "PATH": os.pathsep.join([str(source.top), SYSTEM_PATH]),
        "PYRELAY_SCRIPT": str(source.regress / f"{test}.sh"),
        "TEST_SHELL": "sh",
        "TEST_SSH_IPV6": "yes",
        "TEST_SSH_MODULI_FILE": str(source.top / "moduli"),
        "TEST_SSH_PORT": str(_ports()),
        "TEST_SSH_UNSAFE_PERMISSIONS": "1",
        "TEST_SSH_UTF8": "yes",
    }


def _ports() -> int:
    """The first of a hundred ports that no other test was given: a test takes those after it, too."""
    for first in BLOCKS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", first))
            except OSError:
                continue
            return first
    raise AssertionError("there is always another one")


def _serve(connection: socket.socket, objects: Path, environment: dict[str, str]) -> None:
    """Run what the suite's ProxyCommand would have run, for whoever has come through the hop."""
    with connection:
        subprocess.Popen(
            ["sh", "-c", f"exec {(objects / 'served').read_text().strip()}"],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            env=environment,
            stderr=subprocess.DEVNULL,
        )


def _to_its_end(command: list[str], directory: Path, environment: dict[str, str], output: Path) -> str:
    """Run a test, and end what it leaves; return the verdict."""
    # Not a pipe: what a test leaves in the background would keep that open.
    with (
        output.open("w") as file,
        subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            status = None
        _end(process.pid)
    if daemon := _lines(directory.parent / "obj" / "pidfile"):  # an sshd that a test which failed has left
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(daemon[0]), signal.SIGTERM)
    if status is None:
        return "slow"
    if status != 0:
        return "failed"
    return "skipped" if re.search("^SKIPPED|^skipped", output.read_text(errors="replace"), re.MULTILINE) else "ok"


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
