"""The bench's own little network: real sshds, and cheap programs at the two ends of a stream.

Everything runs on loopback as the present user, from one temporary directory:
own host keys, own user key, own ssh_config, so that nothing of ~/.ssh is read.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from getpass import getuser
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
BENCH = os.path.dirname(os.path.abspath(__file__))
ENDS = os.path.join(BENCH, "ends.py")
SCRIPT = "#!{python}\nimport sys\nsys.path.insert(0, {root!r})\nfrom relay.cli import main\nsys.exit(main())\n"

# Which ciphers a hop's ssh_config block asks for: "" is what each program does by itself.
CIPHERS = {"default": "", "gcm": "aes128-gcm@openssh.com"}


class Lab:
    """A directory, an ssh_config, and the processes that run for it; ends them all when left.

    config: the ssh_config with one block for each hop that `hop` started.
    program: pyrelay, as installed beside this interpreter, else from the source.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="pyrelay-bench-")
        self.config = self._file("ssh_config")
        self.program = shutil.which("pyrelay", path=os.path.dirname(sys.executable)) or self._script()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._key("id_ed25519")
        self._key("host_ed25519")
        shutil.copyfile(self._file("id_ed25519.pub"), self._file("authorized_keys"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.path)

    def hop(self, name: str, *options: str) -> int:
        """Start an sshd; ssh_config calls it name, and name-CHOICE with each of CIPHERS. Return its port.

        options: further lines of its sshd_config.
        """
        port = free_port()
        config = self._file(f"sshd_{name}")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f"ListenAddress {HOST}:{port}\nHostKey {self._file('host_ed25519')}\nPidFile none\n"
                f"AuthorizedKeysFile {self._file('authorized_keys')}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
                "MaxStartups 1000\nLogLevel QUIET\n"
            )
            file.writelines(f"{option}\n" for option in options)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"  # sbin is not on every user's path; sshd wants its full name
        self.start([sshd, "-D", "-e", "-f", config])
        await_port(port)
        with open(self._file("host_ed25519.pub"), encoding="utf-8") as file:
            key = " ".join(file.read().split()[:2])
        with open(self._file("known_hosts"), "a", encoding="utf-8") as file:
            file.write(f"[{HOST}]:{port} {key}\n")
        with open(self.config, "a", encoding="utf-8") as file:
            for choice, value in CIPHERS.items():
                file.write(
                    f"Host {name if choice == 'default' else f'{name}-{choice}'}\n"
                    f" HostName {HOST}\n Port {port}\n User {getuser()}\n IdentityFile {self._file('id_ed25519')}\n"
                    f" IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {self._file('known_hosts')}\n"
                    " GlobalKnownHostsFile /dev/null\n BatchMode yes\n"
                )
                if value:
                    file.write(f" Ciphers {value}\n")
        return port

    def end(self, kind: str, *arguments: str | int) -> int:
        """Start a program at the far end of the stream (a function of ends.py); return the port it serves."""
        port = free_port()
        self.start([sys.executable, "-S", ENDS, kind, str(port), *map(str, arguments)])
        await_port(port)
        return port

    def shown(self, command: list[str]) -> str:
        """A command for a person: without the lab's directory."""
        return shlex.join(command).replace(f"{self.path}/", "").replace(self.program, "pyrelay")

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Run a command until the lab is left."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _script(self) -> str:
        path = self._file("pyrelay")
        with open(path, "w", encoding="utf-8") as file:
            file.write(SCRIPT.format(python=sys.executable, root=os.path.dirname(BENCH)))
        os.chmod(path, 0o755)
        return path

    def _key(self, name: str) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._file(name)], check=True)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def await_port(port: int, seconds: float = 10.0) -> None:
    """Return as soon as someone listens; raises TimeoutError."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), timeout=seconds).close()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(0.005)  # there is no event to wait for: another process binds it
        else:
            return
