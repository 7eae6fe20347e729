"""A hop's own ProxyCommand: a program whose stdin and stdout reach it (ProxyCommand, ssh_config(5))."""

from __future__ import annotations

from _socket import socket, socketpair
from time import monotonic, sleep

from relay.dial.stream import SocketStream
from relay.errors import CommandFailed, RelayError, words
from relay.run import unix
from relay.run.program import LOOK_AGAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Protocol

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.run.progress import Progress

    class Carrying(Protocol):
        """The program that carries a stream: one of ours, or of another process (share/carried.py)."""

        stderr: IO[bytes] | None

        def wait(self, seconds: float | None = None) -> int | None:
            """The exit status, once the program has ended; None if it still runs after so many seconds."""


# The hops whose ProxyCommand the pyrelays above this one are running. It stops a
# ProxyCommand that leads back to its own hop, which would never end.
VIA = "PYRELAY_VIA"
LAST_WORDS = 2.0  # seconds to wait for a program's exit status once its stream has ended


def run(command: str, hop: HopSettings, progress: Progress, children: Children) -> SocketStream:
    """Run the hop's ProxyCommand by the user's shell, as ssh does (sshconnect.c, ssh_proxy_connect).

    With ProxyUseFdpass, it waits for the command to end and returns the socket
    that the command has handed over. Raises RelayError.
    """
    argv, more = by_shell(command, hop, children)
    progress.stage(f"running {command}")
    ours, theirs = socketpair()
    try:
        child = children.connect(argv, theirs, more)
    except OSError as error:
        ours.close()
        raise cannot_run(argv, error) from error
    finally:
        theirs.close()
    if not hop.yes("proxyusefdpass"):
        return CommandStream(ours, child)
    connection = handed_over(ours)
    child.wait()
    return SocketStream(connection)


def by_shell(command: str, hop: HopSettings, children: Children) -> tuple[list[str], dict[str, str]]:
    """The arguments that run a hop's ProxyCommand, and the variables that it gets. Raises RelayError for a circle."""
    via = children.environ.get(VIA, "").split()
    if hop.name in via:
        raise RelayError(f"ssh_config: the ProxyCommand of {hop.name} leads back to {hop.name}")
    shell = children.environ.get("SHELL") or "/bin/sh"
    return [shell, "-c", f"exec {command}"], {VIA: " ".join([*via, hop.name]), **children.secret}


def cannot_run(argv: Sequence[str], error: OSError) -> RelayError:
    """The error for a shell that cannot be run."""
    return RelayError(f"its ProxyCommand cannot be run by {argv[0]} ($SHELL): {words(error)}")


def handed_over(ours: socket) -> socket:
    """Wait for the connection that a ProxyCommand hands over (ProxyUseFdpass), and return it. Raises RelayError."""
    try:
        _, fds = unix.receive(ours, 1, 1)
    finally:
        ours.close()
    if not fds:
        raise RelayError("the ProxyCommand ended without handing over a connection (ProxyUseFdpass)")
    return socket(fileno=fds[0])


class ChildStream(SocketStream):
    """The stdin and stdout of a program."""

    def __init__(self, ours: socket, child: Carrying) -> None:
        super().__init__(ours)
        self._child = child

    def status(self) -> int | None:
        """Return the program's exit status; None while it still runs. What it printed has been shown by then."""
        until = monotonic() + LAST_WORDS
        if (status := self._child.wait(LAST_WORDS)) is None:
            return None
        while self._child.stderr is not None and not self._child.stderr.closed and monotonic() < until:
            sleep(LOOK_AGAIN)
        return status


class CommandStream(ChildStream):
    """The stdin and stdout of a ProxyCommand."""

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the program has failed, or has ended before a byte came from it.

        It raises CommandFailed for a status that may only say that the server has closed: ssh heeds no status.
        """
        status = self.status()
        if status is None or (status == 0 and heard):
            return
        if status == 0:
            raise RelayError(
                "its ProxyCommand ended with status 0 and said nothing",
                hint="run it by hand: what it connected to has closed, or it connects to nothing",
            )
        if status < 0:
            raise RelayError(f"its ProxyCommand ended by signal {-status}")
        raise CommandFailed(f"its ProxyCommand ended with status {status}")
