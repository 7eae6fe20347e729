"""The relay's side of a first hop's ProxyCommand under --share: it runs the program (carried.py)."""

from __future__ import annotations

import os
import socket

from relay.dial import command
from relay.run.foreground import Foreground

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.run import Run

STDERR = 2


class Carrying:
    """The relay's side: the programs that it has started for the holder, and not yet left to it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._started: list[Foreground] = []

    def start(self, hop: HopSettings) -> tuple[int, list[int]]:
        """Start the hop's ProxyCommand; return its process id, and the descriptors for the holder.

        The caller closes them. With ProxyUseFdpass the program has ended: then its id is 0, and the connection is the
        only descriptor. Raises RelayError.
        """
        children = self._run.children
        argv, more = command.by_shell(hop.proxy_command(), hop, children)
        environ = {**children.environ, **more}
        ends = hop.yes("proxyusefdpass")
        ours, theirs = socket.socketpair()
        stderr, said = (-1, STDERR) if ends else os.pipe()
        try:
            with theirs:
                if "/" in argv[0]:
                    os.stat(argv[0])  # the shell: Foreground runs it by another one, which would only report a status
                program = children.add(lambda: Foreground(argv, environ, theirs.fileno(), said))
        except OSError as error:
            raise command.cannot_run(argv, error) from error
        finally:
            if not ends:
                os.close(said)
        self._started.append(program)
        if ends:
            return 0, [command.handed_over(ours).detach()]
        return program.pid, [ours.detach(), stderr, *program.reports()]

    def take_back(self) -> None:
        """The terminal is ours again: the programs have asked what they had to ask."""
        for program in self._started:
            program.take_back()

    def leave(self) -> None:
        """The hop is logged in: the programs are the holder's from now on."""
        self.take_back()
        for program in self._started:
            self._run.children.leave(program)
        self._started = []
