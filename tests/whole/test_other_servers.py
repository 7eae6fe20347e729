"""Servers of other makes as hops, alone and between two of OpenSSH's, and sshd behind a multiplexer.

What each must do: 50 MB both ways at once, the end of one direction before the other's, a port that
refuses, one that hangs up, a name that no one knows, the status of a command, and nothing left. What
a server cannot stands below SERVERS, and `ssh -W` is seen to be no better off.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from lab import ROOT, Lab
from peers import Listener, need
from strangers import Asyncssh, Dropbear, Front, Program

SIZE = 50_000_000
BLOCK = 1 << 18
SILENCE = 1.0  # seconds
HOPS = ROOT / "tests" / "beds" / "hops"
NOISE = random.Random(20).randbytes(SIZE)
DIGEST = hashlib.sha256(NOISE).digest()
HAPROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen ssh
    bind 127.0.0.1:"$PORT"
    server behind 127.0.0.1:{port}
"""


class Mirror:
    """A target that says NOISE while it listens, and at the end of what it hears that one's digest."""

    def __init__(self) -> None:
        self._listener = Listener(lambda connection: _begin(self._serve, connection))
        self.port = self._listener.port
        self.stop = self._listener.stop

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            speaker = _begin(_say, connection)
            heard = hashlib.sha256()
            while data := connection.recv(BLOCK):
                heard.update(data)
            speaker.join()
            connection.sendall(heard.digest())


def _begin(run: Callable[[socket.socket], None], connection: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=run, args=(connection,), daemon=True)
    thread.start()
    return thread


def _say(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.sendall(NOISE)


# The servers: each starts one whose host key this is, and returns its port.

Start = Callable[[Lab, Path, Path], int]


def dropbear(lab: Lab, top: Path, key: Path) -> int:
    server = Dropbear(top, key, authorized(lab).read_text())
    lab.at_end(server.stop)
    return server.port


def asyncssh(lab: Lab, top: Path, key: Path) -> int:
    server = Asyncssh(key, authorized(lab))
    lab.at_end(server.stop)
    return server.port


def program(lab: Lab, *argv: str | Path, key: Path, **environment: str) -> int:
    server = Program(argv, key, authorized(lab), **environment)
    lab.at_end(server.stop)
    return server.port


def paramiko(lab: Lab, top: Path, key: Path) -> int:
    return program(lab, sys.executable, HOPS / "paramiko_hop.py", key=key)


def conch(lab: Lab, top: Path, key: Path) -> int:
    return program(lab, sys.executable, HOPS / "conch.py", key=key, USERS=lab.user)


def ssh2(lab: Lab, top: Path, key: Path) -> int:
    """Of npm's package, which is put below build/."""
    modules = ROOT / "build" / "npm" / "node_modules"
    if shutil.which("node") is None or not (modules / "ssh2").is_dir():
        # A package of another language's index: not every machine that runs the tests reaches it.
        pytest.skip("npm's ssh2 is not below build/; `make strangers` puts it there")
    return program(lab, "node", HOPS / "ssh2.js", key=key, NODE_PATH=str(modules))


def crypto_ssh(lab: Lab, top: Path, key: Path) -> int:
    """golang.org/x/crypto/ssh, of Debian's package; built once, below build/."""
    source, built = HOPS / "crypto_ssh.go", ROOT / "build" / "crypto_ssh"
    if shutil.which("go") is None or not Path("/usr/share/gocode/src/golang.org/x/crypto/ssh").is_dir():
        # A compiler of some 250 MB is a lot to install for two tests; the nightly run has it.
        pytest.skip("golang-go and golang-golang-x-crypto-dev are not installed; `make strangers` installs them")
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        built.parent.mkdir(exist_ok=True)
        go = {
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": str(built.parent / "go"),
            "HOME": str(top),
        }
        subprocess.run(["go", "build", "-o", built, source], env={**os.environ, **go}, check=True)
    return program(lab, built, key=key)


def behind(lab: Lab, key: Path) -> int:
    """An sshd with this host key, to stand behind a multiplexer."""
    server = lab.server("behind")
    server.configure(f"HostKey {key}\n")
    return server.port


def haproxy(lab: Lab, top: Path, key: Path) -> int:
    config = top / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=behind(lab, key)))
    front = Front(need("haproxy"), "-db", "-q", "-f", str(config))
    lab.at_end(front.stop)
    return front.port


def sslh(lab: Lab, top: Path, key: Path) -> int:
    front = Front(need("sslh-select"), "-f", "-p", "127.0.0.1:{port}", "--ssh", f"127.0.0.1:{behind(lab, key)}")
    lab.at_end(front.stop)
    return front.port


SERVERS: list[Start] = [dropbear, asyncssh, paramiko, conch, ssh2, crypto_ssh, haproxy, sslh]
ROUTES = {"one-hop": "hop", "three-hops": "h1+hop+h2"}
# Conch takes the end of a channel and does not pass it on. In the chain it only carries the end that h2 passes on.
NO_HALF_CLOSE = {("conch", "hop")}
OPENS_FIRST = {"conch"}  # opens a channel before it connects, and closes it without a word where it cannot


def authorized(lab: Lab) -> Path:
    return Path(f"{lab.identity}.pub")


@pytest.fixture(params=SERVERS, ids=lambda start: start.__name__)
def kind(request: pytest.FixtureRequest, lab: Lab) -> str:
    """A lab whose hop is such a server; its name."""
    start: Start = request.param
    top = lab.top / "hop"
    top.mkdir()
    key = lab.keygen("hop/key")
    known = Path(f"{key}.pub").read_text().strip()
    port = start(lab, top, key)
    lab.host("hop", Port=port)
    lab.know("hop", port, [known])
    lab.servers("h1", "h2", "target")
    return start.__name__


@pytest.fixture(params=list(ROUTES.values()), ids=list(ROUTES))
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mirror(lab: Lab) -> Mirror:
    made = Mirror()
    lab.at_end(made.stop)
    lab.host("mirror", Port=made.port)
    return made


def both_ways(lab: Lab, *argv: str | Path, half_close: bool = True) -> tuple[bytes, bytes]:
    """Say NOISE and end, while listening; return the digest of the noise that came back, and what followed it.

    Without a half-close nothing more can come, nor an end: it is then seen that nothing does, and hung up.
    """
    with lab.start(*argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, noise = process.stdin, hashlib.sha256()

        def speak() -> None:
            with suppress(BrokenPipeError), stdin:
                stdin.write(NOISE)

        speaker = threading.Thread(target=speak)
        speaker.start()
        left = SIZE
        while left and (data := process.stdout.read(min(BLOCK, left))):
            noise.update(data)
            left -= len(data)
        speaker.join()
        if not half_close:
            assert select.select([process.stdout], [], [], SILENCE)[0] == []
            process.send_signal(signal.SIGHUP)
            process.wait(30)
            return noise.digest(), b""
        rest = process.stdout.read()
        assert process.wait(30) == 0
        return noise.digest(), rest


def test_bytes_both_ways_and_a_half_close(lab: Lab, kind: str, route: str, mirror: Mirror) -> None:
    lab.write_config()
    argv: list[str | Path] = [lab.program, "-F", lab.config, f"{route}+mirror"]
    if (kind, route) in NO_HALF_CLOSE:
        for one in (argv, ["ssh", "-F", lab.config, "-W", f"127.0.0.1:{mirror.port}", "hop"]):
            assert both_ways(lab, *one, half_close=False) == (DIGEST, b"")
    else:
        assert both_ways(lab, *argv) == (DIGEST, DIGEST)
    assert lab.remaining(10) == {}


def test_the_status_of_a_command(lab: Lab, kind: str, route: str) -> None:
    done = lab.ssh(f"{route}+target", "cat; exit 7", stdin="there and back")
    assert (done.returncode, done.stdout, done.stderr) == (7, "there and back", "")
    assert lab.remaining(10) == {}


def test_what_is_not_there(lab: Lab, kind: str) -> None:
    """The hop is said to be the one who says so; in which words is its own affair."""
    port = lab.closed("closed")
    lab.dying("dying")
    lab.host("unknown", HostName="unknown.invalid")
    for name, place in (("closed", f"127.0.0.1 port {port}"), ("unknown", "unknown.invalid port 22")):
        failed = lab.pyrelay(f"hop+{name}")
        if kind in OPENS_FIRST:
            by_ssh = lab.ssh("-W", place.replace(" port ", ":"), "hop")
            assert (failed.returncode, failed.stdout, failed.stderr) == (by_ssh.returncode, "", by_ssh.stderr)
            continue
        assert failed.returncode == 1
        first, *more = failed.stderr.splitlines()
        assert first.startswith(f"pyrelay: target ({name}): hop cannot connect to {place}: ")
        assert not any("Traceback" in line for line in more)
    ended = lab.pyrelay("hop+dying")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert lab.remaining(10) == {}
