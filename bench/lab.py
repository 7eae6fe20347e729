"""The bench's own little network: real sshds, a SOCKS proxy, delay lines, and cheap programs at the ends of a stream.

Everything runs on loopback as the present user, from one temporary directory. It
has its own host keys, user key and ssh_config, so nothing of ~/.ssh is read. The
commands run in that directory, exactly as the table shows them.
"""

from __future__ import annotations

import compileall
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from getpass import getuser
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bench.openssh import OpenSSH

HOST = "127.0.0.1"
BENCH = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(BENCH)
SERVERS = ("hop1", "hop2", "hop3", "target")
NARROW = "narrow"  # a server with sshd's default limits for logins, and a log
SUFFIXES = (
    "-gcm",
    "-ctr",
    "-etm",
    "-chacha",
    "-kept",
    "-rsa",
    "-nc",
)  # the same servers under names with other settings
DROPBEARS = ("dropbear1", "dropbear2", "dropbear3")
FAR = ("hop1", "hop2", "hop3", "target", "socks", "banner")  # a delay line may stand before these

SSH_CONFIG = """\
Host */*
    ProxyCommand pyrelay -F ssh_config %h %p
Host *-gcm
    Ciphers aes128-gcm@openssh.com
Host *-ctr *-etm
    Ciphers aes128-ctr
Host *-etm
    MACs hmac-sha2-256-etm@openssh.com
Host *-chacha
    Ciphers chacha20-poly1305@openssh.com
Host *-rsa
    IdentityFile {path}/id_rsa
Host *-nc
    ProxyCommand nc %h %p
Host *-kept
    ControlPath {path}/master-%C
Host *
    User {user}
    IdentityFile {path}/id_ed25519
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {path}/known_hosts
    GlobalKnownHostsFile /dev/null
    BatchMode yes
"""
SSHD_CONFIG = """\
ListenAddress {host}:{port}
HostKey {path}/host_ed25519
AuthorizedKeysFile {path}/authorized_keys
PidFile none
StrictModes no
PermitRootLogin yes
{settings}{more}
"""


class Lab:
    """A directory, an ssh_config, and the processes that belong to it. They end when the lab is left.

    openssh: the ssh that every command finds, and the sshd of each server.
    trips: round trips, in milliseconds, that have delay lines; each name in FAR is NAME-TRIPms behind its line.
    ports: the ports of the servers, by name. environment: that of every command; its PATH finds pyrelay.
    module_path: the directories of pyrelay's modules, as it sets them itself.
    """

    def __init__(self, openssh: OpenSSH, trips: Sequence[int] = ()) -> None:
        self.module_path = [ROOT, sysconfig.get_path("purelib")]
        self._openssh = openssh
        self.path = tempfile.mkdtemp(prefix="pyrelay-bench-")
        path = f"{self.path}:{os.environ['PATH']}"
        self._state = f"{self.path}/state"
        private = {"XDG_RUNTIME_DIR": f"{self.path}/run", "XDG_STATE_HOME": self._state}
        self.environment = {**os.environ, "PATH": path, **private}
        os.mkdir(f"{self.path}/run", 0o700)
        self.ports: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._install()
            for key in ("id_ed25519", "id_rsa", "host_ed25519"):
                kind = key.partition("_")[2]
                subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", f"{self.path}/{key}"], check=True)
            with open(f"{self.path}/authorized_keys", "wb") as file:
                for key in ("id_ed25519", "id_rsa"):
                    with open(f"{self.path}/{key}.pub", "rb") as public:
                        file.write(public.read())
            self._start_all(trips)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, and leave nothing behind."""
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.path)

    def end(self, kind: str, size: int) -> int:
        """Return the port of a far end of the stream. kind: a function of ends.py. size: its bytes."""
        name = f"{kind} {size}"
        if name not in self.ports:
            self._listen(name, [sys.executable, "-S", f"{BENCH}/ends.py", kind, "{port}", str(size)])
        return self.ports[name]

    def run(self, commands: Sequence[str], *, check: bool = True) -> None:
        """Run commands to their end, without output. With check, raises CalledProcessError if one fails."""
        for command in commands:
            with open(os.devnull, "r+b") as null:
                options: dict[str, Any] = {"stdin": null, "stdout": null, "stderr": null}
                subprocess.run(shlex.split(command), cwd=self.path, env=self.environment, check=check, **options)

    def forget(self) -> None:
        """Forget what has been learned of hops."""
        shutil.rmtree(self._state, ignore_errors=True)

    def shown(self, text: str) -> str:
        """Return a command as a person would type it: without the directories of lab, modules and interpreter."""
        text = text.replace(self.path, "/lab").replace(sys.executable, "python3")
        return text.replace(repr(self.module_path), "['/pyrelay']")

    def _install(self) -> None:
        """Put ssh and pyrelay where PATH finds them; pyrelay as `make install` does, but from the source, compiled."""
        os.symlink(self._openssh.ssh, f"{self.path}/ssh")
        with open(f"{ROOT}/pyrelay.in", encoding="utf-8") as file:
            script = file.read()
        program = f"{self.path}/pyrelay"
        with open(program, "w", encoding="utf-8") as file:
            file.write(script.replace("@python@", sys.executable).replace("@path@", repr(self.module_path)))
        os.chmod(program, 0o755)
        compileall.compile_dir(f"{ROOT}/relay", quiet=1)

    def _start_all(self, trips: Sequence[int]) -> None:
        for server in SERVERS:
            self._sshd(server, "MaxStartups 1000\nLogLevel QUIET")
        self._sshd(NARROW, "LogLevel INFO", "-E", f"{self.path}/narrow.log")
        if os.geteuid() == 0:
            self._dropbears()
        self._listen("socks", ["microsocks", "-i", HOST, "-p", "{port}"])
        self.ports["banner"] = self.end("banner", 0)
        self.ports["refusal"] = self.end("refusal", 0)
        for trip in trips:
            self._delay(trip)
        with open(f"{self.path}/host_ed25519.pub", encoding="utf-8") as file:
            key = " ".join(file.read().split()[:2])
        servers = {name: port for name, port in self.ports.items() if name.startswith((*SERVERS, *DROPBEARS, NARROW))}
        with open(f"{self.path}/known_hosts", "w", encoding="utf-8") as file:
            file.writelines(f"[{HOST}]:{port},*/{name} {key}\n" for name, port in servers.items())
        with open(f"{self.path}/ssh_config", "w", encoding="utf-8") as file:
            file.writelines(
                f"Host {name} {' '.join(name + suffix for suffix in SUFFIXES)}\n    HostName {HOST}\n    Port {port}\n"
                for name, port in servers.items()
            )
            file.write(SSH_CONFIG.format(user=getuser(), path=self.path))

    def _sshd(self, name: str, more: str, *options: str) -> None:
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd needs it; elsewhere its service makes it
        config = f"{self.path}/sshd_{name}"
        port = free_port()
        with open(config, "w", encoding="utf-8") as file:
            settings = self._openssh.settings
            file.write(SSHD_CONFIG.format(host=HOST, port=port, path=self.path, settings=settings, more=more))
        self._listen(name, [self._openssh.sshd, "-D", *(options or ("-e",)), "-f", config], port)

    def _dropbears(self) -> None:
        """Start the dropbears. They look for authorized_keys in root's home, so each sees another directory there."""
        home = f"{self.path}/home"
        os.makedirs(f"{home}/.ssh", 0o700)
        shutil.copyfile(f"{self.path}/authorized_keys", f"{home}/.ssh/authorized_keys")
        os.chmod(f"{home}/.ssh/authorized_keys", 0o600)
        key = f"{self.path}/dropbear_host_key"
        convert = ["dropbearconvert", "openssh", "dropbear", f"{self.path}/host_ed25519", key]
        subprocess.run(convert, check=True, capture_output=True)
        for name in DROPBEARS:
            server = f"dropbear -F -s -m -r {key} -P {key}.{name} -p {HOST}:{{port}}"
            script = f"mount --bind {home} ~ && exec {server}"
            self._listen(name, ["unshare", "--mount", "sh", "-c", script])

    def _delay(self, trip: int) -> None:
        """Start the delay lines of a round trip."""
        ports = {f"{name}-{trip}ms": free_port() for name in FAR}
        lines = [f"{port}:{self.ports[name]}" for name, port in zip(FAR, ports.values(), strict=True)]
        name, port = ports.popitem()  # the last one listens last
        self._listen(name, [sys.executable, f"{BENCH}/delay.py", str(trip), *lines], port)
        self.ports |= ports

    def _listen(self, name: str, command: list[str], port: int = 0) -> None:
        """Start a command that runs until the lab is left, and wait until it listens. "{port}": a port we choose."""
        port = port or free_port()
        process = subprocess.Popen(
            [argument.replace("{port}", str(port)) for argument in command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if name == "socks" else None,  # microsocks prints every connection
            cwd=self.path,
        )
        self._processes.append(process)
        _await_port(port, process)
        self.ports[name] = port


def free_port() -> int:
    """Return a port that is free now, and below the range from which the kernel takes ports for connections."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port


def _await_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    """Wait until the process listens. Raises RuntimeError if it does not."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), timeout=seconds).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args!r} does not listen") from None
            time.sleep(0.005)  # there is no event to wait for: another process binds it
        else:
            return
