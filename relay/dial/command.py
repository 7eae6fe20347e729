"""A hop's own ProxyCommand: a program whose stdin and stdout reach it (ProxyCommand, ssh_config(5))."""

from __future__ import annotations

import socket
from time import monotonic, sleep
from typing import TYPE_CHECKING

from relay.dial.stream import SocketStream
from relay.errors import RelayError, words
from relay.run import unix
from relay.run.children import LOOK_AGAIN
from relay.run.ended import Ended

if TYPE_CHECKING:
    from subprocess import Popen

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.run.progress import Progress

# The hops whose ProxyCommand the pyrelays above this one are running. It stops a
# ProxyCommand that leads back to its own hop, which would never end.
VIA = "PYRELAY_VIA"
LAST_WORDS = 2.0  # seconds to wait for a program's exit status once its stream has ended


def run(command: str, hop: HopSettings, progress: Progress, children: Children) -> SocketStream:
    """Run the hop's ProxyCommand by the user's shell, as ssh does (sshconnect.c, ssh_proxy_connect).

    With ProxyUseFdpass, it waits for the command to end and returns the socket
    that the command has handed over. Raises RelayError.
    """
    via = children.environ.get(VIA, "").split()
    if hop.name in via:
        raise RelayError(f"ssh_config: the ProxyCommand of {hop.name} leads back to {hop.name}")
    progress.stage(f"running {command}")
    ours, theirs = socket.socketpair()
    more = {VIA: " ".join([*via, hop.name]), **children.secret}
    shell = children.environ.get("SHELL") or "/bin/sh"
    try:
        with theirs:
            child = children.connect([shell, "-c", f"exec {command}"], theirs, more)
    except OSError as error:
        ours.close()
        raise RelayError(f"its ProxyCommand cannot be run by {shell} ($SHELL): {words(error)}") from error
    if not hop.yes("proxyusefdpass"):
        return CommandStream(ours, child)
    with ours:
        _, fds = unix.receive(ours, 1, 1)
    child.wait()
    if not fds:
        raise RelayError("the ProxyCommand ended without handing over a connection (ProxyUseFdpass)")
    return SocketStream(socket.socket(fileno=fds[0]))


class ChildStream(SocketStream):
    """The stdin and stdout of a program."""

    def __init__(self, ours: socket.socket, child: Popen[bytes]) -> None:
        super().__init__(ours)
        self._child = child

    def status(self) -> int | None:
        """Return the program's exit status; None while it still runs. What it printed has been shown by then."""
        from subprocess import TimeoutExpired  # starting the program has imported it already

        until = monotonic() + LAST_WORDS
        try:
            status = self._child.wait(LAST_WORDS)
        except TimeoutExpired:
            return None
        while self._child.stderr is not None and not self._child.stderr.closed and monotonic() < until:
            sleep(LOOK_AGAIN)
        return status


class CommandStream(ChildStream):
    """The stdin and stdout of a ProxyCommand."""

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the program has failed, or has ended before a byte came from it.

        It raises Ended for a status that may only say that the server has closed: ssh heeds no status.
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
        raise Ended(f"its ProxyCommand ended with status {status}")
