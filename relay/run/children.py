"""The programs that pyrelay starts: none of them outlives it.

`ssh -G`, a hop's own ProxyCommand and the like are started here, in pyrelay's
own process group: a child that asks on the terminal must stay in the terminal's
foreground group. None of them gets ssh's stdin.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which takes time
import os
from _thread import RLock, allocate_lock, start_new_thread
from time import monotonic, sleep

from relay.errors import RelayError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from _thread import LockType
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Protocol, TypeVar

    from relay.run.asked import Asked
    from relay.run.program import Program

    class Child(Protocol):
        """A program as `Children.end` sees it. poll returns its exit status, None while it runs."""

        @property
        def pid(self) -> int:
            """The process id."""

        def poll(self) -> int | None:
            """The exit status; None while the program runs."""

    Added = TypeVar("Added", bound=Child)

STDERR = 2
CHUNK = 64 * 1024  # bytes read at once
PATIENCE = 3.0  # seconds for a program to end when it is told to: ssh may have to restore the terminal's modes
TELL_AGAIN = 0.25  # seconds
ENDING = (_signal.SIGHUP, _signal.SIGTERM, _signal.SIGCONT)  # the last one, lest a stopped program never heeds them


class Children:
    """Every child that was started and may still run.

    environ, directory: the children's environment and working directory; by default
    this process's own. tell: gets the stderr lines of a program that carries a stream;
    by default such a program gets our stderr. secret: variables that only a hop's
    ProxyCommand may have, since that may be pyrelay itself (secret.py).

    One thread starts the children; another, or a signal's handler, ends them. A lock
    is held from the start of a child until it is in the list, so that `end` misses none.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        directory: str | None = None,
        tell: Callable[[str], None] | None = None,
        secret: Mapping[str, str] | None = None,
    ) -> None:
        self.environ = environ
        self.secret = secret or {}
        self.directory = directory
        self._tell = tell
        self._running: list[Child] = []
        self._hushed: list[Child] = []
        self._unread: list[LockType] = []  # one for each program with a `tell`, held until all it said is passed on
        self._lock = RLock()
        self._ended = False

    def ask(self, argv: Sequence[str | bytes]) -> Asked:
        """Start a program, to read its stdout and stderr; its stdin is empty. Raises OSError when it cannot be run."""
        from relay.run.asked import Asked

        return self.add(lambda: Asked(self._in_directory(argv), self.environ))

    def _in_directory(self, argv: Sequence[str | bytes]) -> Sequence[str | bytes]:
        """Return what runs the arguments in the children's directory."""
        if self.directory is None:
            return argv
        return ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.directory, *argv]

    def connect(
        self,
        argv: Sequence[str],
        stdio: socket,
        more: Mapping[str, str] | None = None,
        tell: Callable[[str], None] | None = None,
        stderr: int | None = None,
    ) -> Program:
        """Start a program whose stdin and stdout are one end of a socket pair.

        more: variables for its environment. tell: gets the lines of its stderr, instead of the `tell` of all. stderr:
        without a tell, the descriptor that is its stderr in place of our own. Raises OSError when it cannot be run.
        """
        from relay.run.program import Program

        environ, ours = {**self.environ, **(more or {})}, stdio.fileno()

        def start(theirs: int) -> Program:
            return self.add(lambda: Program(self._in_directory(argv), environ, {0: ours, 1: ours, 2: theirs}))

        if (tell := tell or self._tell) is None:
            return start(STDERR if stderr is None else stderr)
        said, theirs = os.pipe()
        heard = os.fdopen(said, "rb")
        try:
            child = start(theirs)
        except BaseException:
            heard.close()
            raise
        finally:
            os.close(theirs)
        child.stderr = heard
        unread = allocate_lock()
        unread.acquire()
        self._unread.append(unread)
        start_new_thread(_pass_on, (heard, tell, unread.release))
        return child

    def hear_out(self, seconds: float) -> None:
        """Wait until `tell` has all that the programs said, at most so many seconds for each; they have ended."""
        for unread in self._unread:
            if unread.acquire(timeout=seconds):
                unread.release()

    def add(self, start: Callable[[], Added]) -> Added:
        """Call start, which starts a program or takes one over, and return it; `end` ends it. Raises RelayError."""
        with self._lock:
            if self._ended:
                raise RelayError("the program is about to end")
            child = start()
            self._running.append(child)
        return child

    def leave(self, child: Child) -> None:
        """Leave a program to another process: `end` does not end it."""
        with self._lock:
            self._running.remove(child)

    def pass_on(self, stderr: IO[bytes]) -> None:
        """Pass each line of a program's stderr on to `tell`, in a thread, until it ends; then close it."""
        start_new_thread(_pass_on, (stderr, self._tell or (lambda _: None)))

    def forget(self) -> None:
        """Forget the secret: the programs that need it have been started."""
        self.secret = {}

    def hush(self, child: Program) -> None:
        """Mark a child that has no terminal to restore: `end` kills it at once, so that it prints nothing."""
        self._hushed.append(child)

    def end(self) -> None:
        """End all children that still run: by SIGHUP, as ssh ends its ProxyCommand, then SIGTERM if they ignore that.

        The last one is ended first, since its stream may go through the others. A child that goes on running gets
        SIGTERM again, and is killed after PATIENCE. ssh at a question may have missed the first signal: readpass.c only
        marks one that comes just before it waits for input. The next signal wakes it.
        """
        with self._lock:
            self._ended = True
            left = [child for child in self._running if child.poll() is None]
            if not left:
                return
            from relay.run.family import signal_family
            from relay.run.program import LOOK_AGAIN

            for child in reversed(left):
                signal_family(child.pid, ENDING, hushed=child in self._hushed)
            until = monotonic() + PATIENCE
            again = monotonic() + TELL_AGAIN
            while (left := [child for child in left if child.poll() is None]) and (now := monotonic()) < until:
                sleep(LOOK_AGAIN)
                if now > again:
                    for child in reversed(left):
                        signal_family(child.pid, (_signal.SIGTERM,), hushed=False)
                    again = now + TELL_AGAIN
            for child in reversed(left):
                signal_family(child.pid, (), hushed=True)


def _pass_on(stderr: IO[bytes], tell: Callable[[str], None], done: Callable[[], None] = lambda: None) -> None:
    """Pass each line of a program's stderr on to tell, until it ends; then close it, and call done."""
    with stderr:
        while line := stderr.readline(CHUNK):
            if text := printable(line.decode(errors="replace")).strip():
                tell(text)
    done()
