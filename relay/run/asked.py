"""A program that is run for its output."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which takes time
import os
from _thread import allocate_lock
from select import POLLIN, poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHUNK = 64 * 1024  # bytes read at once
LOOK_AGAIN = 0.005  # seconds


class Asked:
    """A program that is run for its output. It works like subprocess.Popen, whose import takes too long.

    pid: its process id. returncode: its exit status; None until it has ended and this process has waited for it.
    """

    def __init__(self, argv: Sequence[str | bytes], environ: Mapping[str, str]) -> None:
        """Start the program. Raises OSError when it cannot be run."""
        self.returncode: int | None = None
        self._waiting = allocate_lock()
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                list(argv),
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ],
                setsigdef=[_signal.SIGPIPE],  # Python ignores this signal, and a child would inherit that
            )
        except BaseException:
            os.close(self._out)
            os.close(self._err)
            raise
        finally:
            os.close(out)
            os.close(err)

    def communicate(self) -> tuple[bytes, bytes]:
        """Return the program's stdout and stderr, when it has ended; `returncode` is set then.

        A process that it left in the background (a `Match exec` may) can still hold its stderr: do not wait for that.
        """
        said: dict[int, list[bytes]] = {self._out: [], self._err: []}
        ready = poll()
        for fd in said:
            ready.register(fd, POLLIN)
        left = set(said)
        while left:
            told = ready.poll(None if self._out in left else LOOK_AGAIN * 1000)
            ended = [fd for fd in left if not told and self.poll() is not None]
            for fd, _ in told:
                data = os.read(fd, CHUNK)
                said[fd].append(data)
                if not data:
                    ended.append(fd)
            for fd in ended:
                ready.unregister(fd)
                os.close(fd)
                left.remove(fd)
        with self._waiting:
            self._wait(0)
        out, err = said.values()
        return b"".join(out), b"".join(err)

    def poll(self) -> int | None:
        """The program's exit status; None while it runs."""
        if not self._waiting.acquire(blocking=False):
            return None  # another thread waits for the program: so it runs
        try:
            return self._wait(os.WNOHANG)
        finally:
            self._waiting.release()

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
