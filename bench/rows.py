"""Every row of the table: both commands, and the goals. More rows stand in start.py, peers.py and shared.py."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench import measure, peers, shared, start
from bench.compare import Goal
from bench.measure import CPU, MEMORY, THROUGHPUT
from bench.paths import SESSIONS, STREAMS, lesson, near
from bench.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.openssh import OpenSSH
    from bench.row import Scale

# Root may have pipes of any size. Commands that users run without root are therefore run without root's powers.
NO_POWERS = "setpriv --bounding-set=-all --inh-caps=-all "

# Why aims are not reached.
PEER = "the kernel copies between socket and pipe at this rate; what is left is the far end's share of the two cores"
SSHD = "the hop's sshd takes more CPU for each byte than the relay, and is one thread: it is busy, and the relay waits"
CORES = "sshd, far end and both ssh share the cores with the relay: its own CPU is the smaller part of each byte"
LIBRARIES = "interpreter, paramiko and cryptography hold 37 MB before a byte is moved; windows and buffers are the rest"

TO, FROM, BOTH = "to the network", "from the network", "both ways at once"
WAYS = {
    TO: ("sink", measure.transfer_to),
    FROM: ("source", measure.transfer_from),
    BOTH: ("both", measure.transfer_both),
}
THROUGHPUT_GOALS = {
    ("plain TCP", TO): Goal(2.0, 3.0, PEER),
    ("plain TCP", FROM): Goal(2.0, 3.0, PEER),
    ("1 hop", TO): Goal(1.1, 2.0, SSHD),
    ("1 hop", FROM): Goal(1.6, 2.5, SSHD),
    ("1 hop", BOTH): Goal(1.0, 1.3, SSHD),
    ("2 hops", TO): Goal(1.4, 2.5, SSHD),
    ("2 hops", FROM): Goal(1.6, 2.5, SSHD),
}
SAME_CIPHER_GOALS = {
    ("1 hop", TO): Goal(0.75, 1.3, SSHD),
    ("1 hop", FROM): Goal(1.1, 1.5, SSHD),
    ("2 hops", TO): Goal(0.95, 1.8, SSHD),
    ("2 hops", FROM): Goal(1.1, 1.8, SSHD),
}
SESSION_GOALS = {
    ("1 hop", FROM): Goal(1.2, 1.4, CORES),
    ("1 hop", TO): Goal(1.15, 1.4, CORES),
    ("2 hops", FROM): Goal(1.15, 1.4, CORES),
    ("2 hops", TO): Goal(1.15, 1.4, CORES),
}
COST_GOALS = {
    "plain TCP": {CPU: Goal(0.5, 0.3, PEER)},
    "2 hops": {MEMORY: Goal(40, 32, LIBRARIES, ours_alone=True)},
}


def rows(scale: Scale, openssh: OpenSSH, *, is_root: bool) -> Iterator[Row]:
    """Yield every row, in the order of the table."""
    yield from start.rows(scale, openssh)
    yield from _throughput("default ciphers", "", 0, THROUGHPUT_GOALS, scale.size)
    yield from _throughput("AES-128-GCM for every hop", "-gcm", 2, SAME_CIPHER_GOALS, scale.size)
    yield from peers.rows(scale, is_root=is_root)
    yield from _sessions(2 * scale.size)
    yield from _crowd(scale, NO_POWERS if is_root else "")
    yield from shared.rows(scale)


def _throughput(
    ciphers: str, suffix: str, first: int, goals: Mapping[tuple[str, str], Goal], size: int
) -> Iterator[Row]:
    """Yield the rows for the throughput of the paths from the first one on, by hops with that suffix."""
    for path in STREAMS[first:]:
        for way, (far_end, run) in WAYS.items():
            ours, theirs = (re.sub(r"hop\d", rf"\g<0>{suffix}", line).replace("@", "") for line in path[2:])
            goal = goals.get((path.name, way))
            all_goals = ({THROUGHPUT: goal} if goal else {}) | COST_GOALS.get(path.name, {})
            # A fast path moves more bytes, so that the time of its start does not matter.
            times = 5 if path.name == "plain TCP" else 1
            title = f"{path.name}, {way}, against {path.against}"
            row = Row(f"throughput, {ciphers}", title, ours, theirs, run, all_goals, far_end, times * size)
            yield row._replace(before=(lesson(ours),))


def _sessions(size: int) -> Iterator[Row]:
    """Yield the rows for the throughput under a real ssh. Its start and its own ciphers count, too."""
    commands = {
        FROM: ("'head -c {size} /dev/zero'", measure.session_from),
        TO: ("'cat >/dev/null'", measure.session_to),
    }
    group = f"{size / 1e6:.0f} MB under a real ssh, start included"
    for path in map(near, SESSIONS):
        for way, (command, run) in commands.items():
            if (path.name, way) in SESSION_GOALS:
                title = f"{path.name}, {way}, against {path.against}"
                goals = {THROUGHPUT: SESSION_GOALS[path.name, way]}
                ours, theirs = f"{path.ours} {command}", f"{path.theirs} {command}"
                yield Row(group, title, ours, theirs, run, goals, size=size, before=(f"{path.ours} true",))


def _crowd(scale: Scale, before: str) -> Iterator[Row]:
    group = f"{scale.crowd} relays at once, as an ordinary user, start included"
    size = max(scale.size // 30, 1)
    for path in near(STREAMS[0]), near(STREAMS[2]):
        title = f"{path.name}, from the network, against {path.against}"
        row = Row(group, title, before + path.ours, before + path.theirs, measure.crowd, far_end="source", size=size)
        yield row._replace(crowd=scale.crowd, rounds=0.4, before=(before + lesson(path.ours),))
