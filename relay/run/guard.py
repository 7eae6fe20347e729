"""The watch over a set-up: ssh may leave, the deadline may pass, a library may never return.

The work is done in a thread of its own, by plain blocking code; the main
thread stands guard and leaves when it is time, whatever the work is stuck in.
The caller then ends the process (os._exit): nothing waits for the thread.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal makes enums of it, which a raw relay has no time for
import os
import select
import stat
from _thread import start_new_thread  # threading costs a raw relay 2 ms of start-up, and it needs no more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from relay.run.progress import Progress

    T = TypeVar("T")

EXIT_SIGNALLED = 128  # and the signal's number, as a shell has it
LOOK_ROUND = 0.25  # seconds between two looks at the parent and the clock


class Gone(Exception):
    """ssh has gone: nobody is left to relay for, and nobody to tell."""


def watch(work: Callable[[], T], progress: Progress, stdin: int, stdout: int, parent: int) -> T:
    """Do work in a thread and return what it returns, or raise what it raises.

    stdin, stdout: the descriptors by which ssh holds on to us. parent: the
    process that started us (os.getppid at the start). Raises Gone when ssh
    has gone, and TimedOut, which names the stage, at the deadline.
    """
    done, at_end = os.pipe()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # (raised again below, in the main thread)
            failure.append(error)
        os.close(at_end)  # which the guard sees as the hang-up of `done`

    start_new_thread(run, ())
    poll = select.poll()
    poll.register(done, 0)
    poll.register(stdout, 0)  # POLLERR and POLLHUP come unasked: the reader has gone
    # The hang-up of a pipe or a socket is only its end of file, which the far side is still to be told;
    # that of a terminal is the end.
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
    finally:
        progress.status.close()  # what comes next on the terminal is an error message, or the session
        os.close(done)
    if failure:
        raise failure[0]
    return outcome[0]


def leave_terminal() -> None:
    """Leave the terminal for a session of our own, as ssh keeps its ProxyCommand: closing it must not end us.

    For when the link is up: it may carry a persisted ControlMaster, which outlives the terminal.
    """
    try:
        os.setsid()
    except PermissionError:
        pass  # leader of a process group: started by a shell, which has its own ways


def has_left(stdout: int, parent: int) -> bool:
    """Whether ssh has gone, for who is not watched yet: nobody reads stdout, or our parent is another."""
    reader = select.poll()
    reader.register(stdout, 0)
    return bool(reader.poll(0)) or os.getppid() != parent


def alarm() -> int:
    """A descriptor that can be read from once a signal has come: for who polls without an end.

    A handler runs between two steps of the interpreter, so a signal that comes
    just before the call of poll() would wait until that returns.
    """
    near, far = os.pipe()
    for fd in (near, far):
        os.set_blocking(fd, False)
    _signal.set_wakeup_fd(far, warn_on_full_buffer=False)
    return near


def clean_up_on_signals(clean_up: Callable[[], None]) -> Callable[[], None]:
    """From now on SIGHUP, SIGINT, SIGQUIT and SIGTERM end the process after clean_up.

    It runs in the main thread, whatever the thread that dials is stuck in.
    Returns what ends the process's work without a signal: it cleans up, too, and
    a signal that comes meanwhile (ssh's, most likely) does not do so within that.
    The handlers stay even then: Python complains on stderr of a signal that comes
    just as its handler is taken away.
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

    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        if _signal.getsignal(number) != _signal.SIG_IGN:  # nohup, or a shell's background: whoever said so meant us
            _signal.signal(number, leave)
    return end
