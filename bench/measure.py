"""One run of one relay command: how long, how much CPU, how much memory.

The near ends are as cheap as they can be made: splice moves zeros from a file
in memory to the command's stdin, and its stdout to /dev/null. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from _thread import LockType, allocate_lock, start_new_thread
from typing import IO, NamedTuple

from bench.ends import CHUNK, READY

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Run(NamedTuple):
    """What one run took.

    first: seconds from the start of the command to the far end's first byte.
    seconds: from there to the last byte.
    cpu: seconds that the command and everything it started spent, set-up included.
    memory: the most that the largest of these processes held, bytes.
    """

    first: float
    seconds: float
    cpu: float
    memory: int


def adopt_orphans() -> None:
    """Let what a command leaves behind (ssh -J's own ssh) be ours to wait for, so that its CPU is counted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def transfer(command: list[str], send: int, receive: int | None) -> Run:
    """Run a relay command, send zeros through it, and take its output.

    receive: how many bytes come back, None when the far end answers with the
    number of bytes that it got. Raises RuntimeError when bytes are missing.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, process_group=0)
    assert process.stdin is not None and process.stdout is not None
    sink = process.stdout.fileno()
    ready = os.read(sink, len(READY))
    first = time.perf_counter() - began
    if ready != READY:
        raise RuntimeError(f"no greeting through {command}")
    fed = allocate_lock()
    if send:
        fed.acquire()
        start_new_thread(_feed, (process.stdin, send, fed))
    if receive is None:
        answer = _read_line(sink)
        complete = answer == b"%d\n" % send
    else:
        complete = _drain(sink, receive) == receive
    fed.acquire()  # both ways at once: the slower one counts
    seconds = time.perf_counter() - began - first
    if not complete:
        raise RuntimeError(f"bytes are missing after {command}")
    cpu, memory = _end(process)
    return Run(first, seconds, cpu, memory)


def first_byte(command: list[str]) -> float:
    """Seconds from the start of a relay command to the far end's greeting."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        ready = os.read(process.stdout.fileno(), len(READY))
        seconds = time.perf_counter() - began
        process.kill()
    if ready != READY:
        raise RuntimeError(f"no greeting through {command}")
    return seconds


def whole(command: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def _end(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """End the command's whole group; return its CPU seconds and the memory of its largest process."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    try:
        os.killpg(process.pid, signal.SIGHUP)
    except ProcessLookupError:
        pass
    cpu, memory = 0.0, 0
    while True:
        try:
            pid, _, used = os.wait4(-process.pid, 0)
        except ChildProcessError:
            return cpu, memory
        if pid == process.pid:
            process.returncode = 0  # or Popen would wait for it once more
        cpu += used.ru_utime + used.ru_stime
        memory = max(memory, used.ru_maxrss * 1024)


def _feed(pipe: IO[bytes], size: int, fed: LockType) -> None:
    """Write size zeros to a pipe, close it, and release fed."""
    file = os.memfd_create("zeros")
    os.ftruncate(file, CHUNK)
    left = size
    try:
        while left:
            left -= os.splice(file, pipe.fileno(), min(left, CHUNK), 0)
    except BrokenPipeError:
        pass  # the other end sees what is missing
    os.close(file)
    pipe.close()
    fed.release()


def _drain(fd: int, size: int) -> int:
    """Take size bytes from a pipe, or up to its end; return how many there were."""
    null = os.open(os.devnull, os.O_WRONLY)
    count = 0
    while count < size and (got := os.splice(fd, null, CHUNK)):
        count += got
    os.close(null)
    return count


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (got := os.read(fd, 64)):
        line += got
    return line
