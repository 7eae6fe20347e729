"""A program that is started. It works like subprocess.Popen, whose import takes longer than most programs that run."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which takes time
import os
from _thread import allocate_lock
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Any

LOOK_AGAIN = 0.005  # seconds


class Program:
    """A program that has been started.

    pid: its process id. returncode: its exit status, -N if signal N has ended it; None until it has ended and this
    process has waited for it. stderr: what reads its stderr, if that comes to us.
    """

    stderr: IO[bytes] | None = None

    def __init__(self, argv: Sequence[str | bytes], environ: Mapping[str, str], descriptors: Mapping[int, int]) -> None:
        """Start it. descriptors: as for spawn. Raises OSError when it cannot be run."""
        self.returncode: int | None = None
        self._waiting = allocate_lock()
        self.pid = spawn(argv, environ, descriptors)

    def poll(self) -> int | None:
        """The exit status; None while the program runs."""
        if not self._waiting.acquire(blocking=False):
            return None  # another thread waits for the program: so it runs
        try:
            return self._wait(os.WNOHANG)
        finally:
            self._waiting.release()

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit status, once the program has ended; None if it still runs after so many seconds."""
        if seconds is None:
            with self._waiting:
                return self._wait(0)
        until = monotonic() + seconds
        while (status := self.poll()) is None and monotonic() < until:
            sleep(LOOK_AGAIN)
        return status

    def terminate(self) -> None:
        """Send the program SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, _signal.SIGTERM)

    def _wait(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def spawn(argv: Sequence[str | bytes], environ: Mapping[str, str], descriptors: Mapping[int, int], **more: Any) -> int:
    """Start a program, and return its process id. Raises OSError when it cannot be run.

    descriptors: ours by the numbers that the program gets them under; its stdin is empty if 0 is not among them. It
    inherits no other. more: as for os.posix_spawnp.

    A bash that no other shell has started, and whose stdin is a socket, takes itself for one that rshd has started: it
    reads ~/.bashrc, which may print something (bash(1), INVOCATION). ssh's ProxyCommands have pipes.
    """
    if environ.get("SHLVL", "0") in {"", "0"}:
        environ = {**environ, "SHLVL": "1"}
    _bequeath_nothing()
    null = [] if 0 in descriptors else [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    return os.posix_spawnp(
        argv[0],
        list(argv),
        environ,
        file_actions=[*null, *((os.POSIX_SPAWN_DUP2, ours, number) for number, ours in descriptors.items())],
        setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ],  # Python ignores these, and a child would inherit that
        **more,
    )


def _bequeath_nothing() -> None:
    """Let programs inherit no descriptor that we have from whoever started us, as ssh does (its main closes them)."""
    try:
        inherited = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        return  # no /proc
    for fd in inherited:
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # that of the list itself
