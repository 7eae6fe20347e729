"""A terminal with a program on it, and a person who types.

with ssh(lab, "h1/h2", "echo $SERVER") as terminal:
    terminal.answer("u1@h1's password: ", "secret")
    terminal.ends_well("h2\\n")
"""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from lab import Lab

# As a shell would, a process that no signal of the terminal's ends leads the session: the terminal then
# outlives the program. (pty.fork is not for a process with threads.)
_LEADER = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
pid = os.fork()
if not pid:
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.execvp(sys.argv[1], sys.argv[1:])
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP):
    signal.signal(number, signal.SIG_IGN)
print(pid, flush=True)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
signal.pause()
"""
PATIENCE = 30.0  # seconds until a test fails


class Terminal:
    """A program on a terminal of its own: all three of its descriptors are the terminal.

    shown: all that has been shown so far. pid: the program's. columns: how wide it says that it is; 0 says nothing.
    """

    def __init__(self, lab: Lab, *argv: str | Path, env: dict[str, str] | None = None, columns: int = 0) -> None:
        self.shown = ""
        self._lab = lab
        self._status: int | None = None  # the program's, once it has ended
        self._seen = 0  # how much of it has been waited for
        # The far side is held open, too: its modes can then be looked at after the program has ended.
        self._near, self._far = pty.openpty()
        termios.tcsetwinsize(self._far, (0, columns))
        self._leader = lab.start(sys.executable, "-c", _LEADER, *argv, env=env, stdin=self._far, stderr=self._far)
        assert self._leader.stdout is not None
        self._reports = self._leader.stdout
        self.pid = int(self._reports.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leader.kill()
        self._leader.wait()
        self.hang_up()
        os.close(self._far)

    def expect(self, text: str) -> str:
        """Wait until the text is shown, after what was waited for before; return what was shown until then."""
        until = time.monotonic() + PATIENCE
        while text not in self.shown[self._seen :]:
            if not self._read(0.1) and (self._ended or time.monotonic() > until):
                raise AssertionError(f"{text!r} is not shown, but {self.shown!r}")
        before, _, _ = self.shown[self._seen :].partition(text)
        self._seen += len(before) + len(text)
        return before

    def type(self, keys: str) -> None:
        """Type; a line ends with "\\n", Ctrl-C is "\\x03"."""
        os.write(self._near, keys.encode())

    def answer(self, question: str, answer: str) -> None:
        """Wait for a question with echo off, and answer it."""
        self.expect(question)
        assert not self.echo, f"what is typed at {question!r} would be seen"
        self.type(f"{answer}\n")

    def wait(self) -> int:
        """Wait until the program has ended; its status."""
        until = time.monotonic() + PATIENCE
        while not self._ended:
            assert time.monotonic() < until, f"it does not end; it showed {self.shown!r}"
            self._read(0.05)  # else it might wait until it can show more
        while self._read(0):
            pass
        assert self._status is not None
        return self._status

    def stays_as_it_is(self, seconds: float) -> None:
        """Let time pass, and see that nothing is shown meanwhile."""
        before, until = self.shown, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._read(left)
            assert self.shown == before

    def ends_well(self, text: str) -> None:
        """Wait until the text is shown and the program has ended, with status 0."""
        self.expect(text)
        assert self.wait() == 0, self.shown

    def wait_for_all(self) -> None:
        """Wait until nothing is left of the program, nor of what it started."""
        until = time.monotonic() + PATIENCE
        while self._started() or not self._ended:
            assert time.monotonic() < until, self._lab.processes()
            self._read(0.02)

    def wait_for_stop(self) -> None:
        """Wait until every thread of what the program, a shell, has started is stopped (Linux only)."""
        until = time.monotonic() + PATIENCE
        while not all(state == "T" for pid in self._started() for state in _states(pid)):
            assert time.monotonic() < until, self.shown
            self._read(0.02)

    def _started(self) -> set[int]:
        return set(self._lab.processes()) - {self._leader.pid, self.pid}

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the program and to what it started, as the terminal's driver would."""
        os.killpg(os.tcgetpgrp(self._near), number)

    @property
    def _ended(self) -> bool:
        """Whether the leader has reported the program's status."""
        if self._status is None and select.select([self._reports], [], [], 0)[0]:
            self._status = int(self._reports.readline())
        return self._status is not None

    @property
    def echo(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._far)[3] & termios.ECHO)

    def hang_up(self) -> None:
        """Close the terminal, as the window's close button does."""
        if self._near >= 0:
            os.close(self._near)
            self._near = -1

    def _read(self, seconds: float) -> bool:
        """Take in what is shown; false when there is nothing in that time."""
        if self._near < 0 or not select.select([self._near], [], [], max(seconds, 0))[0]:
            return False
        self.shown += os.read(self._near, 65536).decode(errors="replace").replace("\r\n", "\n")
        return True


NO_STATUS = {"TERM": "dumb"}  # for a test that reads all that is shown: after a second, a line says what is waited for


def ssh(lab: Lab, *arguments: str, env: dict[str, str] | None = None, columns: int = 0) -> Terminal:
    """The real ssh on a terminal, with the lab's config."""
    return Terminal(lab, "ssh", "-F", lab.config, *arguments, env=env, columns=columns)


def _states(pid: int) -> list[str]:
    """The state of each thread of a process, as /proc/PID/stat has it; none when it is gone."""
    try:
        return [
            Path(task, "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except FileNotFoundError:
        return []


def askpass(lab: Lab, body: str) -> dict[str, str]:
    """An askpass program that notes its question; the environment that names it."""
    program = lab.top / "askpass"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >>{lab.top}/asked\n{body}\n')
    program.chmod(0o755)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
