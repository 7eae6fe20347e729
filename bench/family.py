"""The processes of one measurement: commands, the processes that these start, and the cost of all. Linux only."""

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
LIMIT = 100.0  # seconds; a measurement that takes longer is ended


def adopt_orphans() -> None:
    """Become the parent of processes that a command leaves behind (ssh -J's own ssh), so that their CPU counts."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Family:
    """Starts commands in the lab. On exit it kills them and all processes that they started.

    path, environment: the commands' directory and environment. began: when the first one was started.
    cpu: seconds of all processes, user and system; known after the exit.
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
        # The children of a process that dies become ours.
        while children := _children() - self._before:
            for child in children:
                os.kill(child, signal.SIGKILL)
                _, _, used = os.wait4(child, 0)
                self.cpu += used.ru_utime + used.ru_stime
        for process in self._started:
            process.returncode = 0  # else Popen would wait for it once more
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
        """The sum of the peak memory of each process that runs now, in bytes."""
        groups = {process.pid for process in self._started}
        return sum(peak(int(name)) for name in os.listdir("/proc") if name.isdigit() and _group(name) in groups)

    def _kill(self) -> None:
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _children() -> set[int]:
    """Return our children, running or ended."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(name, 1) == os.getpid()}


def _group(pid: str) -> int:
    return _stat(pid, 2)


def _stat(pid: str, field: int) -> int:
    """Return a field of /proc/PID/stat (proc(5)), counted from the state; 0 if the process has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[field])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def peak(pid: int) -> int:
    """Return VmHWM, the peak memory. (getrusage's figure does not do: a process inherits it from its parent.)"""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            sizes = [int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(sizes)
