"""The programs that pyrelay starts: none of them outlives it.

`ssh -G`, a hop's own ProxyCommand and the like are started here, in the
process group of the program (a child that asks on the terminal must stay in
its foreground group), with a stdin that is never ssh's.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal makes enums of it, which few have time for
import os
from _thread import RLock, allocate_lock, start_new_thread
from select import POLLIN, poll
from time import monotonic, sleep

from relay.errors import RelayError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from socket import socket
    from subprocess import Popen
    from typing import IO

CHUNK = 64 * 1024  # bytes read at once
PATIENCE = 3.0  # seconds that a program may take to end when it is told to: ssh may have a terminal to put right
LOOK_AGAIN = 0.005  # seconds
TELL_AGAIN = 0.25  # seconds


class Children:
    """Every child that was started and may still run.

    environ, directory: the environment that they get, and where they run; this
    process's own unless given. tell: gets the lines that a program which
    carries a stream says on stderr, where it is not to have ours. secret: variables that are nobody's business but a
    hop's ProxyCommand's, which may be pyrelay (secret.py). They are started in one thread and ended in
    another, by a signal's handler too: no child may slip through between its
    start and its being known.
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
        self._running: list[Popen[bytes] | Asked] = []
        self._hushed: list[Popen[bytes]] = []
        self._lock = RLock()
        self._ended = False

    def ask(self, argv: Sequence[str | bytes]) -> Asked:
        """Start a program whose stdout and stderr will be read; it has no stdin. Raises OSError when there is none."""
        if self.directory is not None:
            argv = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.directory, *argv]
        with self._lock:
            if self._ended:
                raise RelayError("the program is about to end")
            child = Asked(argv, self.environ)
            self._running.append(child)
        return child

    def connect(self, argv: Sequence[str], stdio: socket, more: Mapping[str, str] | None = None) -> Popen[bytes]:
        """Start a program that serves one end of a socket pair as its stdin and stdout. more: for its environment."""
        from subprocess import PIPE, Popen  # its import takes longer than most of what is started here

        with self._lock:
            if self._ended:
                raise RelayError("the program is about to end")
            environ = {**self.environ, **(more or {})}
            child: Popen[bytes] = Popen(
                argv,
                stdin=stdio.fileno(),
                stdout=stdio.fileno(),
                stderr=PIPE if self._tell is not None else None,
                env=environ,
                cwd=self.directory,
            )
            self._running.append(child)
        if self._tell is not None and child.stderr is not None:
            start_new_thread(_pass_on, (child.stderr, self._tell))
        return child

    def forget(self) -> None:
        """Forget the secret: what needed it has been started."""
        self.secret = {}

    def hush(self, child: Popen[bytes]) -> None:
        """From now on a child is to be ended without a word of its own: it has nothing of a terminal to put right."""
        self._hushed.append(child)

    def end(self) -> None:
        """End all that still run: SIGHUP as ssh sends its ProxyCommand, then SIGTERM for what ignores that.

        The last one first, since its stream may go through the others. What
        then has not ended is told again, and killed after PATIENCE: ssh at a
        question may not have noticed (readpass.c marks a signal that comes just
        before it waits for what is typed), and the next one wakes it.
        """
        with self._lock:
            self._ended = True
            for child in reversed(self._running):
                if child.poll() is None:
                    _signal_family(child.pid, (_signal.SIGHUP, _signal.SIGTERM), hushed=child in self._hushed)
            until = monotonic() + PATIENCE
            again = monotonic() + TELL_AGAIN
            while (left := [child for child in self._running if child.poll() is None]) and (now := monotonic()) < until:
                sleep(LOOK_AGAIN)
                if now > again:
                    for child in reversed(left):
                        _signal_family(child.pid, (_signal.SIGTERM,), hushed=False)
                    again = now + TELL_AGAIN
            for child in reversed(left):
                _signal_family(child.pid, (), hushed=True)


class Asked:
    """A program that is run for what it says, as subprocess.Popen would have it, whose import takes too long.

    pid: its process. returncode: None until it has ended, and that has been seen.
    """

    def __init__(self, argv: Sequence[str | bytes], environ: Mapping[str, str]) -> None:
        """Start it. Raises OSError when it cannot be run."""
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
                setsigdef=[_signal.SIGPIPE],  # which Python ignores
            )
        except BaseException:
            os.close(self._out)
            os.close(self._err)
            raise
        finally:
            os.close(out)
            os.close(err)

    def communicate(self) -> tuple[bytes, bytes]:
        """What it says on stdout and on stderr, until its end; `returncode` is known then.

        What it has left in the background (a `Match exec` may) can have its stderr still: that is not waited for.
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
        """Its exit status, None while it runs."""
        if not self._waiting.acquire(blocking=False):
            return None  # somebody waits for it: so it runs
        try:
            return self._wait(os.WNOHANG)
        finally:
            self._waiting.release()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, _signal.SIGTERM)

    def _wait(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _pass_on(stderr: IO[bytes], tell: Callable[[str], None]) -> None:
    """Tell each line that a program says, to its end; stderr is closed then."""
    with stderr:
        while line := stderr.readline(CHUNK):
            if text := printable(line.decode(errors="replace")).strip():
                tell(text)


def _signal_family(pid: int, signals: Sequence[int], *, hushed: bool) -> None:
    """Send signals to a process and to all that it has started; hushed: SIGKILL instead."""
    for each in _family(pid):
        for signal in (_signal.SIGKILL,) if hushed else signals:
            try:
                os.kill(each, signal)
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
