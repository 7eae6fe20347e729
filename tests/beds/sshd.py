"""A real OpenSSH server on loopback: one `sshd -i` for each connection, each with a log of its own.

Nothing listens but a socket of this process, so a server starts in no time. It
runs as root, and as an ordinary user (every login is then that user's).
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from peers import LOOPBACK, Listener, missing, need

# A session's HOME is the server's own (its working directory is the account's all the same),
# $SERVER says where a command runs, and sftp needs no shell, so that accounts without one can be used.
CONFIG = """\
AuthorizedKeysFile {top}/authorized_keys
LogLevel DEBUG1
PermitUserRC no
PidFile none
PrintLastLog no
PrintMotd no
SetEnv HOME={home} SERVER={name}
StrictModes no
Subsystem sftp internal-sftp
UseDNS no
UsePAM no
"""
PRIVILEGE_SEPARATION = "/run/sshd"  # compiled into sshd, which does not start as root without it
MARK = "made-by-pyrelay-tests"

PASSWORD = "secret"
PATIENCE = 30.0  # seconds that clients may take to leave
# What `openssl passwd -6 -salt pyrelay secret` says.
CRYPTED = "$6$pyrelay$MpNooP73wA/XnDhJC01dT42cI6tQhepY05kQwF89G3UhXZ43zWVGOFtS05tQvC3RoUGDEE2Bp3GSs3PjCNDGP/"


class Connection:
    """One connection to a server: its sshd and the log that this sshd writes."""

    def __init__(self, log: Path, process: subprocess.Popen[bytes]) -> None:
        self._log = log
        self.process = process

    def log(self) -> str:
        """What this connection's sshd has logged so far."""
        try:
            return self._log.read_text(errors="replace")
        except FileNotFoundError:  # it has not begun yet
            return ""

    def logins(self) -> list[str]:
        """Who has logged in: one name, or none."""
        return re.findall(r"^Accepted \S+ for (\S+) from ", self.log(), re.MULTILINE)

    def forwards(self) -> list[tuple[str, int]]:
        """The host and port that each direct-tcpip channel was asked for."""
        found = re.findall(r"server_request_direct_tcpip: .* target (\S+) port (\d+)", self.log())
        return [(host, int(port)) for host, port in found]


class Server:
    """An SSH server; `Lab.server` makes one.

    top: a directory of its own, readable by every account that logs in.
    host_keys: private key files. extra: lines of sshd_config that come before ours (sshd takes the first).
    within: a command that sshd is started by, such as one that enters a namespace.
    connections: one for each TCP connection there has been, in their order.
    """

    def __init__(
        self,
        name: str,
        top: Path,
        *,
        host_keys: Sequence[Path],
        authorized_keys: str,
        extra: str,
        within: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.host = LOOPBACK
        self.home = top / "home"
        self.home.mkdir(parents=True)
        self.host_keys = [Path(f"{key}.pub").read_text().strip() for key in host_keys]
        self._connections: list[Connection] = []
        self._starting = threading.Lock()  # held from a connection until it is among them
        self._top = top
        self._command = [*within, need("sshd")]
        self._config = top / "sshd_config"
        ours = CONFIG.format(name=name, top=top, home=self.home)
        self._config.write_text(f"{extra}\n{ours}" + "".join(f"HostKey {key}\n" for key in host_keys))
        self.authorize(authorized_keys)
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    @property
    def connections(self) -> list[Connection]:
        """Those so far. One whose sshd has spoken is among them."""
        with self._starting:
            return self._connections

    @contextmanager
    def silenced(self, number: int = signal.SIGSTOP) -> Iterator[None]:
        """Within it, the only connection that there has been does nothing any more, and does not say so."""
        (connection,) = self.connections
        group = connection.process.pid
        os.killpg(group, number)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGCONT)

    def authorize(self, authorized_keys: str) -> None:
        """Replace the authorized_keys file; it serves every account."""
        (self._top / "authorized_keys").write_text(authorized_keys)

    def configure(self, lines: str) -> None:
        """Put lines of sshd_config before all others, for the connections that follow."""
        self._config.write_text(lines + self._config.read_text())

    @property
    def first_exchange(self) -> str:
        """The first key exchange of its list, as sshd is built and configured."""
        told = subprocess.run(
            [*self._command, "-T", "-f", str(self._config)], capture_output=True, text=True, check=True
        )
        said = dict(line.lower().split(" ", 1) for line in told.stdout.splitlines() if " " in line)
        return said["kexalgorithms"].partition(",")[0]

    def replace_host_key(self, key: Path) -> None:
        """Show another host key, for the connections that follow; the clients are not told."""
        lines = [line for line in self._config.read_text().splitlines() if not line.startswith("HostKey ")]
        self._config.write_text("\n".join([f"HostKey {key}", *lines, ""]))

    def _serve(self, connection: socket.socket) -> None:
        log = self._top / f"log.{len(self._connections) + 1}"
        with self._starting, connection:
            process = subprocess.Popen(
                [*self._command, "-i", "-f", str(self._config), "-E", str(log)],
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                # A name that a forward asks for and no one knows is to fail at once.
                env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"},
            )
            self._connections.append(Connection(log, process))

    def log(self) -> str:
        """The logs of all connections so far, one after the other."""
        return "".join(connection.log() for connection in list(self.connections))

    def whole_log(self) -> str:
        """`log`, once all clients have left."""
        for connection in self.connections:
            connection.process.wait(PATIENCE)
        return self.log()

    def logins(self) -> list[str]:
        """Who has logged in, one name for each login, in the order of their connections."""
        return [user for connection in list(self.connections) for user in connection.logins()]

    def forwards(self) -> list[tuple[str, int]]:
        """Where this server was asked to forward to, in the order of the connections that asked."""
        return [place for connection in list(self.connections) for place in connection.forwards()]

    def stop(self) -> None:
        """Accept no more and end every session."""
        self._listener.stop()
        for connection in self.connections:
            connection.process.terminate()  # sshd then ends its children itself
        for connection in self.connections:
            try:
                connection.process.wait(5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(connection.process.pid, signal.SIGKILL)
                connection.process.wait()


def with_password(shadow: Path, user: str) -> list[str]:
    """The command within which an sshd finds PASSWORD to be the user's, in a shadow file that is made for it."""
    shadow.write_text(f"{user}:{CRYPTED}:19000:0:99999:7:::\n")
    shadow.chmod(0o600)
    return laid_over(shadow, "/etc/shadow")


def laid_over(file: Path, path: str) -> list[str]:
    """The command within which a program finds a file in the place of one of the system's.

    That is in a mount namespace of its own. Who is not root makes a user namespace
    first, to be root in, and then another one, to be oneself in again.
    """
    unshare, uid = need("unshare"), os.geteuid()
    root = [unshare, "--mount"] if uid == 0 else [unshare, "--map-root-user", "--mount"]
    again = [] if uid == 0 else [unshare, "--user", f"--map-user={uid}", f"--map-group={os.getegid()}"]
    within = [*root, "sh", "-c", f'mount --bind "$0" {path} && exec "$@"', str(file), *again]
    tried = subprocess.run([*within, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        missing(f"no program can be given {path} of its own: {tried.stderr.strip()}")
    return within


@contextmanager
def privilege_separation() -> Iterator[None]:
    """Make /run/sshd while it is needed, where nothing else has made it.

    Several test runs may share it: each holds a shared lock on the directory,
    and the last one to leave, the only one to get it alone, takes it away.
    """
    if os.geteuid() != 0:
        yield
        return
    mark = os.path.join(PRIVILEGE_SEPARATION, MARK)
    directory = _hold(PRIVILEGE_SEPARATION, mark)
    try:
        yield
        with suppress(BlockingIOError, FileNotFoundError):  # another run needs it still, or it is not ours
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(mark)
            os.rmdir(PRIVILEGE_SEPARATION)
    finally:
        os.close(directory)


def _hold(path: str, mark: str) -> int:
    """Open the directory with a shared lock on it, having made and marked it if need be."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)
            os.close(os.open(mark, os.O_CREAT, 0o600))
        with suppress(FileNotFoundError):
            directory = os.open(path, os.O_RDONLY)
            fcntl.flock(directory, fcntl.LOCK_SH)
            if os.path.exists(path):  # else the last one to leave was faster
                return directory
            os.close(directory)
