"""The processes of one measurement: commands, what these start, and what all of them cost. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LIMIT = 100.0  # seconds, after which a measurement that does not end is ended


def adopt_orphans() -> None:
    """Let what a command leaves behind (ssh -J's own ssh) be ours to wait for, so that its CPU is counted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Family:
    """Starts commands in the lab, and kills them and all that they started when left.

    path, environment: where they run, and with what.
    began: when the first was started. cpu: seconds, user and system, of all of them; known once left.
    """

    def __init__(self, path: str, environment: dict[str, str]) -> None:
        self.began = 0.0
        self.cpu = 0.0
        self.path = path
        self.environment = environment
        self._before = _children()
        self._started: list[subprocess.Popen[bytes]] = []
        self._watchdog = threading.Timer(LIMIT, self._kill)

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self._kill()
        # Whoever dies leaves us its children.
        while children := _children() - self._before:
            for child in children:
                os.kill(child, signal.SIGKILL)
                _, _, used = os.wait4(child, 0)
                self.cpu += used.ru_utime + used.ru_stime
        for process in self._started:
            process.returncode = 0  # or Popen would wait for it once more
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def start(
        self, command: list[str], stdin: int | IO[bytes] = subprocess.PIPE, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command, with pipes to it."""
        self.began = self.began or time.perf_counter()
        options: dict[str, Any] = {"cwd": self.path, "env": self.environment, "process_group": 0, "bufsize": 0}
        process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, **options)
        self._started.append(process)
        return process

    def elapsed(self) -> float:
        """Seconds since the first command was started."""
        return time.perf_counter() - self.began

    def memory(self) -> int:
        """The most that each process that runs now has had in memory, together, in bytes."""
        groups = {process.pid for process in self._started}
        return sum(peak(int(name)) for name in os.listdir("/proc") if name.isdigit() and _group(name) in groups)

    def _kill(self) -> None:
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _children() -> set[int]:
    """Our children, whether they run or have ended."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(name, 1) == os.getpid()}


def _group(pid: str) -> int:
    return _stat(pid, 2)


def _stat(pid: str, field: int) -> int:
    """A field of /proc/PID/stat (proc(5)), counted from the process's state; 0 when it has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[field])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def peak(pid: int) -> int:
    """VmHWM. (What getrusage has instead, a process inherits from the one that started it.)"""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            sizes = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(sizes)
