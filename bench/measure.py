"""Measures one run of one command: its time, CPU and memory.

The near ends are as cheap as possible: splice moves zeros from a file in memory
to the command's stdin, and its stdout to /dev/null. Linux only.

Each of MEASURES takes a Run and returns figures by name. It raises RuntimeError
if bytes are missing or a command fails.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import subprocess
import tempfile
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from bench.ends import CHUNK, READY

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.family import Family

MB = 1e6
GB = 1e9
CPU_LEAST = 1e-3  # seconds; less may be counted as nothing
STANDSTILL = 0.2  # seconds without a byte; then all buffers are full
# The names of the figures.
THROUGHPUT = "MB/s"
CPU = "CPU s/GB"
MEMORY = "memory, MB"
TIME = "ms"
OVER = f"A - B - C, {TIME}"
INSTRUCTIONS = "million instr."
VALGRIND = "valgrind --tool=cachegrind --cachegrind-out-file=/dev/null --trace-children=no"


class Run(NamedTuple):
    """What to measure: a command, how many bytes it moves in each direction, and how many of it run at once."""

    family: Callable[[], Family]
    command: list[str]
    size: int = 0
    crowd: int = 1


def transfer_to(run: Run) -> dict[str, float]:
    """Through a relay to the network."""
    return _transfer(run, send=True, receive=False)


def transfer_from(run: Run) -> dict[str, float]:
    """Through a relay from the network."""
    return _transfer(run, send=False, receive=True)


def transfer_both(run: Run) -> dict[str, float]:
    """Through a relay, as many bytes in both directions at once. The slower direction counts."""
    return _transfer(run, send=True, receive=True)


def _transfer(run: Run, *, send: bool, receive: bool) -> dict[str, float]:
    """From the far end's greeting to the last byte."""
    with run.family() as family:
        process = family.start(run.command)
        await_greeting(process)
        first = family.elapsed()
        if send:
            _feed(process, run.size)
        if receive:
            _drain(process, run.size)
        if send:
            _await_answer(process, run.size)
        seconds = family.elapsed() - first
        memory = family.memory()
    return _figures(run.size, seconds, family.cpu, memory)


def first_byte(run: Run) -> dict[str, float]:
    """From the start of a relay to the first byte of the far end's greeting."""
    with run.family() as family:
        process = family.start(run.command)
        _read(process, 1)
        seconds = family.elapsed()
    return {TIME: seconds * 1000}


def whole(run: Run) -> dict[str, float]:
    """From the start of a command to its end."""
    with run.family() as family:
        _succeed(family.start(run.command, subprocess.DEVNULL))
        seconds = family.elapsed()
    return {TIME: seconds * 1000}


def instructions(run: Run) -> dict[str, float]:
    """Count the instructions of a command from its start to its end, without those of its children."""
    with run.family() as family, tempfile.TemporaryDirectory() as logs:
        process = family.start([*VALGRIND.split(), f"--log-file={logs}/%p", *run.command], subprocess.DEVNULL)
        _succeed(process)
        with open(f"{logs}/{process.pid}", encoding="utf-8", errors="replace") as file:
            count = counted(file.read())
    return {INSTRUCTIONS: count / MB}


def counted(log: str) -> int:
    """Return the number of instructions in cachegrind's log. Raises RuntimeError if there is none."""
    if found := re.search(r"I\s+refs:\s+([\d,]+)", log):
        return int(found[1].replace(",", ""))
    raise RuntimeError("cachegrind has counted nothing")


def to_the_end(run: Run) -> dict[str, float]:
    """From the start of a command to its end, which is a failure."""
    with run.family() as family:
        process = family.start(run.command, subprocess.DEVNULL, subprocess.DEVNULL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = family.elapsed()
    return {TIME: seconds * 1000}


def session_to(run: Run) -> dict[str, float]:
    """From the start to the end of an ssh session whose command reads all bytes."""
    with run.family() as family:
        process = family.start(run.command)
        _feed(process, run.size, close=True)
        _succeed(process)
        seconds = family.elapsed()
    return {THROUGHPUT: run.size / MB / seconds}


def session_from(run: Run) -> dict[str, float]:
    """From the start to the end of an ssh session whose command writes so many bytes."""
    with run.family() as family:
        process = family.start(run.command, subprocess.DEVNULL)
        _drain(process, run.size)
        _succeed(process)
        seconds = family.elapsed()
    return {THROUGHPUT: run.size / MB / seconds}


def crowd(run: Run) -> dict[str, float]:
    """Many relays at once, each from the network, from the start of the first to the last byte of the last."""

    def take(process: subprocess.Popen[bytes]) -> None:
        await_greeting(process)
        _drain(process, run.size)

    with run.family() as family:
        processes = [family.start(run.command) for _ in range(run.crowd)]
        with ThreadPoolExecutor(run.crowd) as pool:
            list(pool.map(take, processes))
        seconds = family.elapsed()
        memory = family.memory()
    return _figures(run.size * run.crowd, seconds, family.cpu, memory)


def let_fill(process: subprocess.Popen[bytes]) -> None:
    """Read nothing from a command but its greeting, and wait until all buffers on the way are full."""
    assert process.stdout is not None
    await_greeting(process)
    waiting = array.array("i", [0])
    since, before = time.monotonic(), -1
    while time.monotonic() - since < STANDSTILL:
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)
        if waiting[0] != before:
            since, before = time.monotonic(), waiting[0]
        time.sleep(STANDSTILL / 10)  # a standstill is not an event that one can wait for


def _figures(size: int, seconds: float, cpu: float, memory: int) -> dict[str, float]:
    return {THROUGHPUT: size / MB / seconds, CPU: max(cpu, CPU_LEAST) / size * GB, MEMORY: memory / MB}


def _read(process: subprocess.Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    if data := os.read(process.stdout.fileno(), size):
        return data
    raise RuntimeError("it ended and said nothing")


def await_greeting(process: subprocess.Popen[bytes]) -> None:
    """Read the far end's greeting, and not a byte more."""
    ready = _read(process, len(READY))
    if ready != READY:
        raise RuntimeError(f"no greeting, but {ready!r}")


def _await_answer(process: subprocess.Popen[bytes], size: int) -> None:
    """Wait for the far end's answer: how many bytes have come there."""
    line = b""
    while not line.endswith(b"\n"):
        line += _read(process, 64)
    if line != b"%d\n" % size:
        raise RuntimeError(f"of {size} bytes there came {line.decode().strip()}")


def _drain(process: subprocess.Popen[bytes], size: int) -> None:
    """Read size bytes from a command."""
    assert process.stdout is not None
    count = 0
    with open(os.devnull, "wb", buffering=0) as null:
        while count < size and (got := os.splice(process.stdout.fileno(), null.fileno(), min(size - count, CHUNK))):
            count += got
    if count != size:
        raise RuntimeError(f"of {size} bytes there came {count}")


def _feed(process: subprocess.Popen[bytes], size: int, *, close: bool = False) -> None:
    """Begin to write size zeros to a command. With close, close its stdin after them."""
    # Use a copy of the descriptor: the command's pipes are closed when it has failed.
    assert process.stdin is not None
    pipe = os.dup(process.stdin.fileno())
    if close:
        process.stdin.close()
    threading.Thread(target=_write_zeros, args=(pipe, size)).start()


def _write_zeros(pipe: int, size: int) -> None:
    file = os.memfd_create("zeros")
    os.ftruncate(file, CHUNK)
    left = size
    try:
        while left:
            left -= os.splice(file, pipe, min(left, CHUNK), 0)
    except BrokenPipeError:
        pass  # other code notices missing bytes
    os.close(pipe)
    os.close(file)


def _succeed(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command's end, but do not reap it, so that its CPU can be counted."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if ended is None or ended.si_code != os.CLD_EXITED or ended.si_status != 0:
        raise RuntimeError("the command failed")
