"""A first hop's ProxyCommand under --share: the relay that needs the hop runs it, and the holder has its stream.

It may ask a person, for a password or a code, on the terminal or by askpass; the holder has neither. So the holder
says "carry". The relay starts the program in a process group of its own (run/foreground.py) and answers "carried",
with the program's process id and these descriptors: its stream, its stderr, where its exit status will be told, and on
Linux a pidfd. The program ends with the hop, and may outlive the relay.
"""

from __future__ import annotations

import os
import socket
import threading
from io import FileIO
from typing import TYPE_CHECKING

from relay.dial.command import CommandStream
from relay.dial.stream import SocketStream
from relay.share.wire import has_come

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from relay.contract import Stream
    from relay.run.children import Children


class Program:
    """The holder's side: a program that a relay has started. pid: its process id. stderr: closed when it has ended.

    told: where the exit status comes from. pidfd: None if the system has none; the program then counts as running for
    as long as somebody has its stderr, so that its process id is not another's when it is signalled.
    """

    def __init__(self, pid: int, stderr: IO[bytes], told: FileIO, pidfd: FileIO | None) -> None:
        self.pid = pid
        self.stderr: IO[bytes] | None = stderr
        self._said = stderr
        self._told = told
        self._pidfd = pidfd
        self._status: int | None = None
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        """The exit status; None while the program runs, 0 when only its end is known."""
        self._hear(0)
        if self._status is not None:
            return self._status
        if self._pidfd is None:
            return 0 if self._said.closed else None
        if not self._pidfd.closed and has_come(self._pidfd.fileno(), 0):
            self._pidfd.close()
        return 0 if self._pidfd.closed else None

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit status, waited for; None when it is not told in so many seconds, or never."""
        self._hear(seconds)
        return self._status

    def _hear(self, seconds: float | None) -> None:
        with self._turn:
            if not self._told.closed and has_come(self._told.fileno(), seconds):
                said = self._told.read()
                self._told.close()
                self._status = int(said) if said else None


def take(pid: int, fds: Sequence[int], children: Children) -> Stream:
    """The stream of a program that a relay has started; children: they end with the hop. Raises RelayError."""
    stream = socket.socket(fileno=fds[0])
    if len(fds) == 1:
        return SocketStream(stream)
    stderr, told = os.fdopen(fds[1], "rb"), FileIO(fds[2])
    pidfd = FileIO(fds[3]) if len(fds) > 3 else None
    program = children.add(lambda: Program(pid, stderr, told, pidfd))
    children.pass_on(stderr)
    return CommandStream(stream, program)
