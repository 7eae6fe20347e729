"""The rows for other servers and ciphers than the usual ones, and for small messages."""

from __future__ import annotations

import os
import time
from statistics import median, quantiles
from typing import TYPE_CHECKING

from bench import measure
from bench.compare import Goal
from bench.measure import THROUGHPUT, await_greeting
from bench.paths import lesson
from bench.row import Row
from bench.shared import kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Run
    from bench.row import Scale

MEDIAN, SLOWEST = "median, us", "99 %, us"
MESSAGE = bytes(64)
WARM = 50  # messages that are not counted
TO, FROM, BOTH = "to the network", "from the network", "both ways at once"
WAYS = {
    TO: ("sink", measure.transfer_to),
    FROM: ("source", measure.transfer_from),
    BOTH: ("both", measure.transfer_both),
}
SERVER = "the hop's server takes more CPU for each byte than the relay: it is busy, and the relay waits"
WINDOW = "dropbear's window is one packet: each waits for the answer to the one before"
INTERPRETER = (
    "for a message there and back the relay makes four system calls, six where it encrypts, nc eight, and each ssh on "
    "the way nine; what is left is the interpreter between them"
)

# The pattern of a row's hops, whose number is \1: the row's name, and its goals for each direction.
HOPS = {
    r"hop\1-ctr": ("sshd with aes128-ctr only", {TO: Goal(1.0, 1.3, SERVER), FROM: Goal(1.1, 1.6, SERVER)}),
    r"hop\1-etm": (
        "sshd with aes128-ctr and hmac-sha2-256-etm only",
        {TO: Goal(1.1, 1.4, SERVER), FROM: Goal(1.4, 2.0, SERVER)},
    ),
    r"hop\1-chacha": (
        "sshd with chacha20-poly1305 only",
        {TO: Goal(1.05, 1.4, SERVER), FROM: Goal(1.4, 2.0, SERVER)},
    ),
}
DROPBEAR = {
    "1 hop": {TO: Goal(0.85, 1.05, WINDOW), FROM: Goal(1.3, 1.8, SERVER)},
    "3 hops": {TO: Goal(1.2, 1.6, WINDOW), FROM: Goal(1.7, 2.2, SERVER)},
}
MESSAGE_GOALS = {
    "1 hop": ("ssh -W", Goal(1.2, 1.0, INTERPRETER)),
    "2 hops": ("ssh -J", Goal(0.9, 0.75, INTERPRETER)),
}
CHAINS = {
    "1 hop": ("pyrelay -F ssh_config {1}/127.0.0.1 {port}", "ssh -F ssh_config -W 127.0.0.1:{port} {1}"),
    "2 hops": ("pyrelay -F ssh_config {1}/{2}/127.0.0.1 {port}", "ssh -F ssh_config -J {1} -W 127.0.0.1:{port} {2}"),
    "3 hops": (
        "pyrelay -F ssh_config {1}/{2}/{3}/127.0.0.1 {port}",
        "ssh -F ssh_config -J {1},{2} -W 127.0.0.1:{port} {3}",
    ),
}


def rows(scale: Scale, *, is_root: bool) -> Iterator[Row]:
    """Yield these rows. is_root: only root can give dropbear a home of its own."""
    if is_root:
        for path, goals in DROPBEAR.items():
            yield from _throughput("dropbear", r"dropbear\1", path, goals, scale.size // 3)
    for name, (title, goals) in HOPS.items():
        yield from _throughput(title, name, "1 hop", goals, scale.size)
    yield from _messages(scale)


def _throughput(title: str, name: str, path: str, goals: dict[str, Goal], size: int) -> Iterator[Row]:
    for way, (far_end, run) in WAYS.items():
        ours, theirs = (_named(line, name) for line in CHAINS[path])
        goal = {THROUGHPUT: goals[way]} if way in goals else {}
        row = Row(f"throughput, {title}", f"{path}, {way}", ours, theirs, run, goal, far_end, max(size, 1))
        yield row._replace(before=(lesson(ours),))


def _messages(scale: Scale) -> Iterator[Row]:
    group = "a message of 64 bytes there and back"
    count = 2000 if scale.size > 1 << 20 else 20
    ours, theirs = "pyrelay 127.0.0.1 {port}", "nc -N 127.0.0.1 {port}"
    goals = {MEDIAN: Goal(1.1, 1.0, INTERPRETER)}
    yield Row(group, "plain TCP, against nc", ours, theirs, messages, goals, "echo", count)
    for path, (against, goal) in MESSAGE_GOALS.items():
        ours, theirs = (_named(line, r"hop\1") for line in CHAINS[path])
        row = Row(group, f"{path}, against {against}", ours, theirs, messages, {MEDIAN: goal}, "echo", count)
        yield row._replace(before=(lesson(ours),))
    title = "1 shared hop, against ssh -W over a live ControlMaster"
    goals = {MEDIAN: Goal(1.2, 1.0, INTERPRETER)}
    shared = kept(title, "hop1", messages, goals, port="{port}", far_end="echo", size=count)
    yield shared._replace(group=group)


def _named(line: str, name: str) -> str:
    """Return a command with the names of its hops filled in."""
    for number in "123":
        line = line.replace(f"{{{number}}}", name.replace(r"\1", number))
    return line


def messages(run: Run) -> dict[str, float]:
    """Measure how long a message takes there and back, one after the other, after WARM of them. size: how many."""
    with run.family() as family:
        process = family.start(run.command)
        assert process.stdin is not None
        assert process.stdout is not None
        await_greeting(process)
        there, back = process.stdin.fileno(), process.stdout.fileno()
        taken = []
        for _ in range(WARM + run.size):
            began = time.perf_counter()
            os.write(there, MESSAGE)
            left = len(MESSAGE)
            while left:
                if not (data := os.read(back, left)):
                    raise RuntimeError("it ended")
                left -= len(data)
            taken.append((time.perf_counter() - began) * 1e6)
    counted = taken[WARM:]
    return {MEDIAN: median(counted), SLOWEST: quantiles(counted, n=100)[-1]}
