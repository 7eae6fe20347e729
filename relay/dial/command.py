"""A hop's own ProxyCommand: a program whose stdin and stdout reach it (ProxyCommand, ssh_config(5))."""

from __future__ import annotations

import socket
from time import monotonic, sleep
from typing import TYPE_CHECKING

from relay.dial.stream import SocketStream
from relay.errors import RelayError, words
from relay.run import unix
from relay.run.children import LOOK_AGAIN

if TYPE_CHECKING:
    from subprocess import Popen

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.run.progress import Progress

# Hops whose ProxyCommand is being run by the pyrelays above this one: a
# ProxyCommand that leads to its own hop again would never end.
VIA = "PYRELAY_VIA"
LAST_WORDS = 2.0  # seconds that the status of a program is waited for whose stream has ended


def run(command: str, hop: HopSettings, progress: Progress, children: Children) -> SocketStream:
    """The hop's ProxyCommand as ssh runs it (sshconnect.c, ssh_proxy_connect): by the user's shell.

    With ProxyUseFdpass the socket that the command hands over is used, and
    the command is waited for. Raises RelayError.
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
        """The program's exit status, once what it has said is told; None while it still runs."""
        from subprocess import TimeoutExpired  # it has been started: this costs nothing more

        until = monotonic() + LAST_WORDS
        try:
            status = self._child.wait(LAST_WORDS)
        except TimeoutExpired:
            return None
        while self._child.stderr is not None and not self._child.stderr.closed and monotonic() < until:
            sleep(LOOK_AGAIN)
        return status


class CommandStream(ChildStream):
    """Those of a ProxyCommand."""

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the program has failed, or has ended before anything was heard of it."""
        status = self.status()
        if status is None or (status == 0 and heard):
            return
        if status == 0:
            raise RelayError(
                "its ProxyCommand ended with status 0 and said nothing",
                hint="run it by hand: what it connected to has closed, or it connects to nothing",
            )
        raise RelayError(f"its ProxyCommand ended {f'with status {status}' if status > 0 else f'by signal {-status}'}")
