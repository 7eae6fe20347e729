"""A program that is run for its output."""

from __future__ import annotations

import os
from select import POLLIN, poll

from relay.run.program import LOOK_AGAIN, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHUNK = 64 * 1024  # bytes read at once


class Asked(Program):
    """A program that is run for its output."""

    def __init__(self, argv: Sequence[str | bytes], environ: Mapping[str, str]) -> None:
        """Start the program; its stdin is empty. Raises OSError when it cannot be run."""
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        try:
            super().__init__(argv, environ, {1: out, 2: err})
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
        self.wait()
        out, err = said.values()
        return b"".join(out), b"".join(err)
