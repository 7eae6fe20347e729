"""The watch over a set-up: ssh may leave, the deadline may pass, a library may never return.

Plain blocking code does the work, in its own thread. The main thread watches, and
stops waiting when ssh leaves or time is up, even if the work is stuck. The caller
then ends the process (os._exit), and does not wait for the thread.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which delays a raw relay
import os
import select
import stat
from _thread import start_new_thread  # the threading module would delay the start of a raw relay by 2 ms
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from relay.run.progress import Progress

    T = TypeVar("T")

ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)  # the signals that end a run
EXIT_SIGNALLED = 128  # plus the signal's number, as in a shell
LOOK_ROUND = 0.25  # seconds between two looks at the parent and the clock
ORPHANED = 30.0  # seconds that a process whose parent has left gives a hop to close a channel


class Gone(Exception):
    """ssh has gone: there is nothing left to relay, and nobody to print an error for."""


def watch(work: Callable[[], T], progress: Progress, stdin: int, stdout: int, parent: int) -> T:
    """Call `work` in a thread; return what it returns, or raise what it raises.

    stdin, stdout: the descriptors whose other ends ssh has. parent: the process
    that started us (os.getppid at the start). Raises Gone when ssh has gone, and
    TimedOut, which names the stage, at the deadline.
    """
    done, at_end = os.pipe()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # (raised again below, in the main thread)
            failure.append(error)
        os.close(at_end)  # the main thread sees this as the hang-up of `done`

    start_new_thread(run, ())
    poll = select.poll()
    poll.register(done, 0)
    poll.register(stdout, 0)  # poll reports POLLERR and POLLHUP unasked: the reader has gone
    # The hang-up of a pipe or a socket is only its end of file, and the far side must still be told of it.
    # The hang-up of a terminal means that the user has left.
    if stat.S_ISCHR(os.fstat(stdin).st_mode):
        poll.register(stdin, 0)
    try:
        while True:
            left = progress.remaining()
            if left <= 0:
                raise progress.timed_out()
            ready = [fd for fd, _ in poll.poll(min(left, LOOK_ROUND) * 1000)]
            if done in ready:
                break
            if ready or os.getppid() != parent:
                raise Gone
            progress.show_wait()
    finally:
        progress.close()  # next, an error message or the session is shown on the terminal
        os.close(done)
    if failure:
        raise failure[0]
    return outcome[0]


def leave_terminal() -> None:
    """Leave the terminal for a session of our own (setsid), so that closing the terminal does not end us.

    Call it when the link is up: the link may carry a persisted ControlMaster, which outlives the terminal and keeps
    its ProxyCommand.
    """
    try:
        os.setsid()
    except PermissionError:
        pass  # this process leads a process group: a shell has started it, and manages its jobs


def has_left(stdout: int, parent: int) -> bool:
    """Whether ssh has gone: nobody reads stdout, or our parent has changed. For code that runs before `watch`."""
    reader = select.poll()
    reader.register(stdout, 0)
    return bool(reader.poll(0)) or os.getppid() != parent


class Waiting:
    """Whether anybody still waits for this process when all bytes are moved, and the hop has not closed the channel.

    A hop may never do that; and ssh, which would end this process, may have been killed. parent: the process that
    started this one. Make it when all bytes are moved.
    """

    def __init__(self, stdin: int, parent: int) -> None:
        self._parent = os.getppid()
        # With ssh -f and ControlPersist, or from a shell that has ended, the parent has changed before.
        self._until = None if self._parent == parent else monotonic() + ORPHANED
        self._ssh = select.poll()
        if stat.S_ISSOCK(os.fstat(stdin).st_mode):  # the hang-up of a pipe would only be the end of stdin
            self._ssh.register(stdin, 0)

    @property
    def over(self) -> bool:
        """Whether nobody waits: the parent has changed, ssh has closed its socket, or an orphan's time is up."""
        gone = os.getppid() != self._parent or any(events & select.POLLHUP for _, events in self._ssh.poll(0))
        return gone or (self._until is not None and monotonic() > self._until)


def alarm() -> int:
    """A descriptor that can be read from once a signal has come: for code that polls without a time limit.

    Python runs a signal's handler between two steps of the interpreter. If a signal comes
    just before the call of poll(), its handler would run only when poll() returns.
    """
    near, far = os.pipe()
    for fd in (near, far):
        os.set_blocking(fd, False)
    _signal.set_wakeup_fd(far, warn_on_full_buffer=False)
    return near


def read_alarm(near: int) -> bytes:
    """The numbers of the signals that have come, a byte each: their handlers have run by now. near: as from `alarm`."""
    return os.read(near, 64)


def clean_up_on_signals(clean_up: Callable[[], None]) -> Callable[[], None]:
    """From now on, SIGHUP, SIGINT, SIGQUIT and SIGTERM call clean_up and end the process.

    clean_up runs in the main thread, even if the thread that dials is stuck.

    It returns a function that ends the work without a signal: that calls clean_up, too.
    A signal that comes meanwhile (most likely ssh's) does not call clean_up again. The
    handlers are never removed: if a signal came just then, Python would complain on stderr.
    """
    ends = False

    def end() -> None:
        nonlocal ends
        ends = True
        clean_up()

    def leave(number: int, _frame: object) -> None:
        if not ends:
            end()
            os._exit(EXIT_SIGNALLED + number)

    for number in ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:  # ignored by nohup, or in a shell's background: keep that
            _signal.signal(number, leave)
    return end
