"""A program that has the terminal while it starts, and may outlive this process: a job, as a shell would call it.

The program has a process group of its own, so that what is typed later (Ctrl-C) and the end of the terminal do not
reach it. While it starts it may ask a person: until then its group is the terminal's foreground (tcsetpgrp(3)), and
what the terminal's keys do to it is done to our own group, too. A program that is started in the background of a
terminal is stopped when it asks, and we with it, as if it were in our group.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in relay/run/children.py
import os
import sys
from _thread import RLock, start_new_thread
from fcntl import F_DUPFD_CLOEXEC, fcntl
from time import sleep

from relay.run.program import spawn
from relay.run.terminal import open_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GATE = 3  # the descriptor that keeps the program back until it has the terminal
LOOK_AGAIN = 0.25  # seconds until a program that asks in the background of the terminal is let go on


class Foreground:
    """The program. pid: its process id, and its group's. returncode: its exit status; None while it runs."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], stdio: int, stderr: int) -> None:
        """Start the program with stdio as its stdin and stdout. Raises OSError when it cannot be run."""
        self.returncode: int | None = None
        self._turn = RLock()
        self._tty = open_own()
        self._told, self._tell = os.pipe()
        gate, opener = os.pipe()
        high = fcntl(gate, F_DUPFD_CLOEXEC, GATE + 1)  # or to duplicate it might leave it as it is: close-on-exec
        try:
            self.pid = spawn(
                ["sh", "-c", f'read -r _ <&{GATE} && exec {GATE}<&- && exec "$@"', "sh", *argv],
                environ,
                {0: stdio, 1: stdio, 2: stderr, GATE: high},
                setpgroup=0,
            )
        except BaseException:
            for fd in (self._told, self._tell, opener, *([] if self._tty is None else [self._tty])):
                os.close(fd)
            raise
        finally:
            os.close(gate)
            os.close(high)
        # A process id names another process once this one has been waited for; a pidfd (pidfd_open(2)) never does.
        self._pidfd = os.pidfd_open(self.pid) if sys.platform == "linux" else None
        self._lend()
        os.write(opener, b"\n")  # it has the terminal now, if we had it
        os.close(opener)
        start_new_thread(self._watch, ())

    def reports(self) -> list[int]:
        """Descriptors for another process, which the caller closes.

        The first can be read from when the program has ended: its exit status in decimal digits, or only the end of
        file if this process ends first. The second is a pidfd, on Linux.
        """
        return [self._told, *([] if self._pidfd is None else [self._pidfd])]

    def poll(self) -> int | None:
        """The exit status, once the program has ended and the terminal is ours again; None before."""
        return self.returncode

    def take_back(self) -> None:
        """Make our own group the terminal's foreground again, if the program has it: it asks nothing any more."""
        with self._turn:
            if self._tty is not None:
                self._regain()
                os.close(self._tty)
                self._tty = None

    def _lend(self) -> None:
        """Give the program the terminal, if we have it, and let it go on if it is stopped."""
        with self._turn:
            if self._tty is not None:
                try:
                    if os.tcgetpgrp(self._tty) == os.getpgrp():
                        os.tcsetpgrp(self._tty, self.pid)
                except OSError:
                    pass  # the terminal has gone, or the program has
            _kill(self.pid, _signal.SIGCONT)

    def _has_terminal(self) -> bool:
        try:
            return self._tty is not None and os.tcgetpgrp(self._tty) == self.pid
        except OSError:
            return False  # the terminal has gone

    def _regain(self) -> None:
        blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTTOU])  # else this call would stop us
        try:
            if self._tty is not None and self._has_terminal():
                os.tcsetpgrp(self._tty, os.getpgrp())
        except OSError:
            pass  # the terminal has gone
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)

    def _watch(self) -> None:
        """Wait for the program's end. When it is stopped, so are we; what kills it from the keyboard kills us, too."""
        while True:
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            self._stop(os.WSTOPSIG(status))
        lent = self._tty is not None
        self.take_back()
        self.returncode = os.waitstatus_to_exitcode(status)
        try:
            os.write(self._tell, b"%d" % self.returncode)
        except OSError:
            pass  # nobody wants to know
        os.close(self._tell)
        if lent and -self.returncode in {_signal.SIGINT, _signal.SIGQUIT}:
            _kill(os.getpgrp(), -self.returncode)

    def _stop(self, number: int) -> None:
        with self._turn:
            if self._tty is None:
                return  # the program asks when its time to do so is over: it waits
            if number in {_signal.SIGTTIN, _signal.SIGTTOU} and self._has_terminal():
                _kill(self.pid, _signal.SIGCONT)  # it asked before it was given the terminal
                return
            self._regain()
        _kill(os.getpgrp(), number)  # this stops us; when it returns, the shell has let us go on
        sleep(LOOK_AGAIN)  # or there is no shell that could, and the program must wait
        self._lend()


def _kill(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except OSError:
        pass  # it has ended
