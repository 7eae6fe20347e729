"""The programs that pyrelay starts: none of them outlives it.

`ssh -G`, a hop's own ProxyCommand and the like are started here, in the
process group of the program (a child that asks on the terminal must stay in
its foreground group), with a stdin that is never ssh's.
"""

from __future__ import annotations

import os
from _thread import RLock

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from socket import socket
    from subprocess import Popen
    from typing import Any


class Children:
    """Every child that was started and may still run.

    environ, directory: the environment that they get, and where they run; this
    process's own unless given. They are started in one thread and ended in another, by a signal's handler
    too: no child may slip through between its start and its being known.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, directory: str | None = None) -> None:
        self.environ = environ
        self.directory = directory
        self._running: list[Popen[bytes]] = []
        self._hushed: list[Popen[bytes]] = []
        self._lock = RLock()
        self._ended = False

    def ask(self, argv: Sequence[str]) -> Popen[bytes]:
        """Start a program whose stdout and stderr will be read; it has no stdin."""
        from subprocess import DEVNULL, PIPE  # noqa: PLC0415  (a raw relay starts nothing)

        return self._start(argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)

    def connect(self, argv: Sequence[str], stdio: socket, more: Mapping[str, str] | None = None) -> Popen[bytes]:
        """Start a program that serves one end of a socket pair as its stdin and stdout. more: for its environment."""
        return self._start(argv, stdin=stdio.fileno(), stdout=stdio.fileno(), env={**self.environ, **(more or {})})

    def hush(self, child: Popen[bytes]) -> None:
        """From now on a child is to be ended without a word of its own: it has nothing of a terminal to put right."""
        self._hushed.append(child)

    def _start(self, argv: Sequence[str], **how: Any) -> Popen[bytes]:
        from subprocess import Popen  # noqa: PLC0415

        with self._lock:
            if self._ended:
                raise RelayError("the program is about to end")
            child: Popen[bytes] = Popen(argv, **{"env": dict(self.environ), "cwd": self.directory, **how})
            self._running.append(child)
        return child

    def end(self) -> None:
        """End all that still run: SIGHUP as ssh sends its ProxyCommand, then SIGTERM for what ignores that.

        The last one first, since its stream may go through the others.
        """
        with self._lock:
            self._ended = True
            for child in reversed(self._running):
                if child.poll() is None:
                    from signal import SIGHUP, SIGKILL, SIGTERM  # noqa: PLC0415

                    signals = (SIGKILL,) if child in self._hushed else (SIGHUP, SIGTERM)
                    for pid in _family(child.pid):
                        for signal in signals:
                            try:
                                os.kill(pid, signal)
                            except OSError:  # it has gone already, or it belongs to another user
                                pass


def _family(pid: int) -> list[int]:
    """A process and all that it has started, such as the shell of a `Match exec`, which the signal would not reach.

    Only Linux says what a process has started; elsewhere it is the process alone.
    """
    family = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    family += _family(int(child))
    except OSError:  # it has ended meanwhile, or there is no such file here
        pass
    return family
