"""A lab of real OpenSSH servers, with a private ssh_config and the real clients.

    lab.server("h1"); lab.server("h2"); lab.server("h3")
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\\n"
    assert lab["h2"].logins() == [lab.user]

Everything is on loopback and in one temporary directory; no account, no
agent and no file of the user who runs the tests is touched. Clients run
pyrelay as it is installed, by the line that the README gives.
"""

from __future__ import annotations

import os
import pwd
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

from peers import SYSTEM_PATH, Scripted, closed_port, missing, need
from sshd import Server, with_password

ROOT = Path(__file__).resolve().parents[2]
LACKS = "Ciphers aes128-ctr\nMACs umac-64-etm@openssh.com"  # our client lacks the MAC; AES-CTR needs one
ELSEWHERE = ROOT / "tests" / "beds" / "elsewhere"
CHAINS = "*/* *+*"  # the `Host` patterns of a chain
# Accounts of every Linux system whose shell runs nothing: sshd lets them log in, and forward. No test makes an account.
NO_SHELL = ("daemon", "bin", "nobody")

# Where pyrelay is not installed beside this interpreter, it runs from the source.
SCRIPT = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
from relay.cli import main
sys.exit(main())
"""


EXTRA = ROOT / "build" / "pq" / "pqcrypto"


def hop_users() -> tuple[str, ...]:
    """Three accounts besides our own that can log in to a hop, though not run a command there; root only."""
    if os.geteuid() != 0:
        missing("only root's sshd can log in several users")
    return NO_SHELL


class Lab:
    """Servers by name, the ssh_config that knows them, and what runs the clients.

    top: an empty directory of its own, with a path short enough for unix sockets.
    options: pyrelay's options in the ProxyCommand line, set before a client is run.
    elsewhere: whether Python programs find a system without what only Linux has (beds/elsewhere says what).
    head: lines of ssh_config that come before all others.
    config, known_hosts, identity: the files that the clients use; `known_hosts` may be edited.
    program: pyrelay, as the clients find it.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.home = top / "home"
        self.config = top / "ssh_config"
        self.known_hosts = top / "known_hosts"
        self.options: list[str] = []
        self.elsewhere = "PYRELAY_ELSEWHERE" in os.environ
        self.head = ""
        self._servers: dict[str, Server] = {}
        self._blocks: dict[str, dict[str, object]] = {}
        self._ends = ExitStack()
        self._rsa_keys = 0  # how many it has had made
        self.home.mkdir()
        self.known_hosts.touch()
        self.identity = self.keygen("id")
        self.program = top / "bin" / "pyrelay"
        self.program.parent.mkdir()
        self._install()

    def _install(self) -> None:
        """Put `pyrelay` where the clients' PATH finds it."""
        installed = shutil.which("pyrelay", path=os.path.dirname(sys.executable))
        if installed:
            self.program.symlink_to(installed)
        else:
            self.program.write_text(SCRIPT.format(python=sys.executable, root=str(ROOT)))
            self.program.chmod(0o755)

    # What there is

    def server(
        self,
        name: str,
        *,
        host_key_types: Sequence[str] = ("ed25519",),
        authorized_keys: str | None = None,
        extra: str = "",
        within: Sequence[str] = (),
        **settings: object,
    ) -> Server:
        """Start a server, known to the clients by its name and its host keys.

        authorized_keys: the lab's identity when not given. extra: lines of
        sshd_config that come first. within: a command to start sshd by. settings: as for `host`.
        """
        top = self.top / name
        top.mkdir()
        keys = [self.keygen(f"{name}/{kind}", kind) for kind in host_key_types]
        if authorized_keys is None:
            authorized_keys = Path(f"{self.identity}.pub").read_text()
        server = Server(name, top, host_keys=keys, authorized_keys=authorized_keys, extra=extra, within=within)
        self._ends.callback(server.stop)
        self._servers[name] = server
        self.host(name, Port=server.port, **settings)
        self.know(name, server.port, server.host_keys)
        return server

    def password_server(self, name: str, methods: str = "password", extra: str = "", **settings: object) -> Server:
        """Start a server to which the user has `sshd.PASSWORD`, and which wants these AuthenticationMethods."""
        within = with_password(self.top / f"{name}-shadow", self.user)
        extra = f"AuthenticationMethods {methods}\nPermitRootLogin yes\n{extra}"
        self.host(name, BatchMode="no", **settings)
        return self.server(name, extra=extra, within=within)

    def servers(self, *names: str) -> list[Server]:
        """Start a server for each name."""
        return [self.server(name) for name in names]

    def silent(self, name: str, greeting: bytes = b"") -> Scripted:
        """A host that accepts, says `greeting`, and nothing more for ever."""
        return self._scripted(name, Scripted(greeting, hang_up=False))

    def dying(self, name: str, greeting: bytes = b"") -> Scripted:
        """A host that accepts, says `greeting`, and hangs up."""
        return self._scripted(name, Scripted(greeting, hang_up=True))

    def _scripted(self, name: str, server: Scripted) -> Scripted:
        self._ends.callback(server.stop)
        self.host(name, Port=server.port)
        return server

    def at_end(self, stop: Callable[[], object]) -> None:
        """Call this when the lab stops: for a test's own servers."""
        self._ends.callback(stop)

    def closed(self, name: str) -> int:
        """A host that refuses connections; return its port."""
        port = self._ends.enter_context(closed_port())
        self.host(name, Port=port)
        return port

    def host(self, name: str, **settings: object) -> None:
        """Add settings to a name's block in ssh_config: `lab.host("h2", User="nobody", Port=2022)`."""
        self._blocks.setdefault(name, {"HostName": "127.0.0.1"}).update(settings)

    def know(self, name: str, port: int, host_keys: Sequence[str]) -> None:
        """Add host keys to known_hosts, for a hop at this port and for the target of a chain with this name."""
        with self.known_hosts.open("a") as file:
            file.writelines(f"[127.0.0.1]:{port},*/{name},*+{name} {key}\n" for key in host_keys)

    def keygen(self, name: str, kind: str = "ed25519", *options: str) -> Path:
        """Make a key without a passphrase (unless options give one) in a file of that name; return the private one."""
        path = self.top / name
        if kind == "rsa" and not options:
            self._rsa_keys += 1
            private, public = _rsa_key(self._rsa_keys)
            path.touch(0o600)
            path.write_text(private)
            Path(f"{path}.pub").write_text(f"{public} {name}\n")
        else:
            _ssh_keygen("-t", kind, "-N", "", "-C", name, "-f", path, *options)
        return path

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    # Clients

    def write_config(self) -> Path:
        """Write the ssh_config and return its path; `run` and `start` do it by themselves."""
        program = shlex.join(["pyrelay", "-F", str(self.config), *self.options])
        blocks: dict[str, dict[str, object]] = {
            CHAINS: {"ProxyCommand": f"{program} %h %p"},
            **self._blocks,
            "*": {
                "BatchMode": "yes",
                "GlobalKnownHostsFile": "/dev/null",
                "IdentitiesOnly": "yes",
                "IdentityAgent": "none",
                "IdentityFile": self.identity,
                "IgnoreUnknown": "WarnWeakCrypto",  # OpenSSH before 10.1
                "StrictHostKeyChecking": "yes",
                "User": self.user,
                "UserKnownHostsFile": self.known_hosts,
                "WarnWeakCrypto": "no",
            },
        }
        lines = [self.head]
        for patterns, settings in blocks.items():
            lines += [f"Host {patterns}", *(f"    {key} {value}" for key, value in settings.items())]
        fresh = self.config.with_suffix(".new")
        fresh.write_bytes(os.fsencode("\n".join(lines) + "\n"))
        fresh.replace(self.config)  # at once: clients that already run may be reading it
        return self.config

    def environment(self, **more: str) -> dict[str, str]:
        """The clients' environment: a home of their own, no agent, no terminal's askpass, and a mark."""
        return {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join([str(self.program.parent), SYSTEM_PATH]),
            "RES_OPTIONS": "timeout:1 attempts:1",
            "PYRELAY_LAB": str(self.top),
            **({"PYTHONPATH": str(ELSEWHERE)} if self.elsewhere else {}),
            **more,
        }

    def post_quantum(self) -> dict[str, str]:
        """What the environment has besides, so that pyrelay finds the extra pq."""
        if not EXTRA.exists():
            missing("the package pqcrypto is not in build/pq; `make test` puts it there, or says why not")
        return {"PYTHONPATH": str(EXTRA.parent)}

    @property
    def ssh_command(self) -> str:
        """What git, rsync and others are told to run as ssh."""
        return shlex.join([need("ssh"), "-F", str(self.config)])

    def start(self, *argv: str | Path, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program in the lab, in a session of its own (no terminal); the lab ends it if need be."""
        self.write_config()
        options = {
            "cwd": self.home,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        process = subprocess.Popen(argv, env=self.environment(**(env or {})), start_new_session=True, **options)
        self._ends.callback(end, process)
        return process

    def run(
        self, *argv: str | Path, stdin: str = "", timeout: float = 60, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the lab to its end."""
        process = self.start(*argv, env=env, stdin=subprocess.PIPE)
        out, err = process.communicate(stdin.encode(), timeout)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())

    def ssh(self, *arguments: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the real ssh with the lab's config."""
        return self.run("ssh", "-F", self.config, *arguments, stdin=stdin, timeout=timeout)

    def pyrelay(self, *arguments: str, stdin: str | None = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run pyrelay itself with the lab's config; with a stdin of None it stays open and silent, as ssh's can."""
        argv: list[str | Path] = [self.program, "-F", self.config, *self.options, *arguments]
        if stdin is not None:
            return self.run(*argv, stdin=stdin, timeout=timeout)
        ours, theirs = os.pipe()
        with open(ours), open(theirs, "w"):
            process = self.start(*argv, stdin=ours)
            out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())

    def pyrelay_in(self, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pyrelay itself with the lab's config and more environment."""
        return self.run(self.program, "-F", self.config, *arguments, env=env)

    def processes(self) -> dict[int, str]:
        """Every process that a client of this lab is or has started: its id and its command line (Linux only).

        Sessions on the servers are not among them: their environment is sshd's.
        """
        mark = f"PYRELAY_LAB={self.top}".encode()
        found = {}
        for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
            try:
                if entry.isdigit() and mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    found[int(entry)] = command
            except OSError:  # gone, or another user's
                continue
        return found

    def remaining(self, seconds: float) -> dict[int, str]:
        """Wait until no process of the lab is left, at most so many seconds; return those that are left."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and (left := deadline - time.monotonic()) > 0:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(min(found))
                select.select([handle], [], [], left)
                os.close(handle)
        return found

    def stop(self) -> None:
        """End the clients that still run, and the servers: the last one started first."""
        self._ends.close()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@cache
def _rsa_key(_number: int) -> tuple[str, str]:
    """The n-th RSA key of every lab: its private file, and its public half. Each takes half a second to make."""
    with tempfile.TemporaryDirectory() as top:
        path = Path(top, "key")
        _ssh_keygen("-t", "rsa", "-N", "", "-f", path)
        kind, base64 = Path(f"{path}.pub").read_text().split()[:2]
        return path.read_text(), f"{kind} {base64}"


def _ssh_keygen(*arguments: str | Path) -> None:
    subprocess.run([need("ssh-keygen"), "-q", *arguments], check=True)


def chain_with(lab: Lab, *names: str) -> Lab:
    """h1, h2 and h3, of which those named offer only a cipher that paramiko lacks."""
    for name in ("h1", "h2", "h3"):
        lab.server(name, extra=LACKS if name in names else "")
    return lab


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and close its pipes; again is no harm."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
