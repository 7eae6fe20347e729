"""Every row of the table: both commands, and the goals.

In a command, {port} is the port of the stream's far end. An @ follows the name
that a delay line may stand before: the first thing that a route connects to. So
the first is far away, and the rest is near the first. ssh_config (lab.py) defines
hop1, hop2, hop3 and target; names with a slash in them have pyrelay as their
ProxyCommand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from bench import measure, peers, shared
from bench.compare import Goal
from bench.measure import CPU, MEMORY, OVER, THROUGHPUT, TIME
from bench.row import Row, Scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Path(NamedTuple):
    """A way to a target: our command, the command that it replaces, and the name of the latter."""

    name: str
    against: str
    ours: str
    theirs: str


STREAMS = (
    Path("plain TCP", "nc", "pyrelay 127.0.0.1 {port@}", "nc -N 127.0.0.1 {port@}"),
    Path(
        "SOCKS5",
        "nc -X 5",
        "pyrelay -X 5 -x 127.0.0.1:{socks@} 127.0.0.1 {port}",
        "nc -N -X 5 -x 127.0.0.1:{socks@} 127.0.0.1 {port}",
    ),
    Path(
        "1 hop",
        "ssh -W",
        "pyrelay -F ssh_config hop1@/127.0.0.1 {port}",
        "ssh -F ssh_config -W 127.0.0.1:{port} hop1@",
    ),
    Path(
        "2 hops",
        "ssh -J",
        "pyrelay -F ssh_config hop1@/hop2/127.0.0.1 {port}",
        "ssh -F ssh_config -J hop1@ -W 127.0.0.1:{port} hop2",
    ),
    Path(
        "3 hops",
        "ssh -J",
        "pyrelay -F ssh_config hop1@/hop2/hop3/127.0.0.1 {port}",
        "ssh -F ssh_config -J hop1@,hop2 -W 127.0.0.1:{port} hop3",
    ),
)
SESSIONS = (
    Path(
        "plain TCP",
        "nc",
        "ssh -F ssh_config -o 'ProxyCommand pyrelay %h %p' target@",
        "ssh -F ssh_config -o 'ProxyCommand nc %h %p' target@",
    ),
    Path(
        "SOCKS5",
        "nc -X 5",
        "ssh -F ssh_config -o 'ProxyCommand pyrelay -X 5 -x 127.0.0.1:{socks@} %h %p' target",
        "ssh -F ssh_config -o 'ProxyCommand nc -X 5 -x 127.0.0.1:{socks@} %h %p' target",
    ),
    Path("1 hop", "ssh -J", "ssh -F ssh_config hop1@/target", "ssh -F ssh_config -J hop1@ target"),
    Path("2 hops", "ssh -J", "ssh -F ssh_config hop1@/hop2/target", "ssh -F ssh_config -J hop1@,hop2 target"),
    Path("3 hops", "ssh -J", "ssh -F ssh_config hop1@/hop2/hop3/target", "ssh -F ssh_config -J hop1@,hop2,hop3 target"),
)
# Only this command tells ssh the target's key.
KNOWN_HOSTS = "-o UserKnownHostsFile=none -o 'KnownHostsCommand {lab}/pyrelay -F ssh_config --known-hosts %H' "
# Root may have pipes of any size. Commands that users run without root are therefore run without root's powers.
NO_POWERS = "setpriv --bounding-set=-all --inh-caps=-all "

# Why aims are not reached.
START = "two thirds are the interpreter's start and the import of paramiko and cryptography (python3 -X importtime)"
TRIPS = "round trips: four for one hop (TCP, ident, keys, login and channel), three for each more; and what 0 ms take"
PEER = "the kernel copies between socket and pipe at this rate; what is left is the far end's share of the two cores"
SSHD = "the hop's sshd takes more CPU for each byte than the relay, and is one thread: it is busy, and the relay waits"
CORES = "sshd, far end and both ssh share the cores with the relay: its own CPU is the smaller part of each byte"
LIBRARIES = "interpreter, paramiko and cryptography hold 37 MB before a byte is moved; windows and buffers are the rest"

FIRST_BYTE_GOALS = {
    ("1 hop", 0): Goal(0.75, 0.5, START),
    ("1 hop", 100): Goal(0.75, 0.5, TRIPS),
    ("2 hops", 0): Goal(0.6, 0.4, START),
    ("2 hops", 100): Goal(0.7, 0.5, TRIPS),
}
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
SESSION_GOALS = {"1 hop": Goal(1.15, 1.4, CORES), "2 hops": Goal(1.15, 1.4, CORES)}
COST_GOALS = {
    "plain TCP": {CPU: Goal(0.5, 0.3, PEER)},
    "2 hops": {MEMORY: Goal(60, 40, LIBRARIES, ours_alone=True)},
}


def rows(scale: Scale, *, is_root: bool) -> Iterator[Row]:
    """Yield every row, in the order of the table."""
    yield _start()
    for trip in scale.trips:
        yield from _first_byte(trip)
    for trip in scale.trips:
        yield from _ssh_true(trip)
    yield from _throughput("default ciphers", "", 0, THROUGHPUT_GOALS, scale.size)
    yield from _throughput("AES-128-GCM for every hop", "-gcm", 2, SAME_CIPHER_GOALS, scale.size)
    yield from peers.rows(scale, is_root=is_root)
    yield from _sessions(2 * scale.size)
    yield from _crowd(scale, NO_POWERS if is_root else "")
    yield from shared.rows(scale)


def _start() -> Row:
    """Return the row for the cost of our own start, without the interpreter's."""
    tcp = _behind(0, STREAMS[0])
    title = "plain TCP, over the start of nc and of the interpreter"
    group = "time to the first byte of the target's banner"
    goals = {OVER: Goal(8, 4, "our own modules (tests/test_imports.py has their list)")}
    return Row(group, title, tcp.ours, tcp.theirs, measure.first_byte, goals, bare="{python} -c pass", rounds=8)


def _first_byte(trip: int) -> Iterator[Row]:
    group = f"time to the first byte of the target's banner, {trip} ms of round trip"
    for path in STREAMS:
        goal = FIRST_BYTE_GOALS.get((path.name, trip))
        title = f"{path.name}, against {path.against}"
        ours, theirs = _behind(trip, path)[2:]
        goals = {TIME: goal} if goal else {}
        yield Row(group, title, ours, theirs, measure.first_byte, goals, rounds=1 if trip else 3)


def _ssh_true(trip: int) -> Iterator[Row]:
    group = f"whole ssh TARGET true, {trip} ms of round trip"
    rounds = 0.6 if trip else 2
    for path in SESSIONS:
        ours, theirs = (f"{command} true" for command in _behind(trip, path)[2:])
        title = f"{path.name}, against {path.against}"
        yield Row(group, title, ours, theirs, measure.whole, rounds=rounds)
        if "hop" in path.name:
            ours = ours.replace("ssh_config ", f"ssh_config {KNOWN_HOSTS}", 1)
            yield Row(group, f"{title}, with --known-hosts", ours, theirs, measure.whole, rounds=rounds)


def _behind(trip: int, path: Path) -> Path:
    """Return the path with a round trip before its first connection, to a target that sends only a banner."""
    delay = f"-{trip}ms" if trip else ""
    ours, theirs = (command.replace("{port", "{banner").replace("@", delay) for command in path[2:])
    return path._replace(ours=ours, theirs=theirs)


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
            yield Row(f"throughput, {ciphers}", title, ours, theirs, run, all_goals, far_end, times * size)


def _sessions(size: int) -> Iterator[Row]:
    """Yield the rows for the throughput under a real ssh. Its start and its own ciphers count, too."""
    commands = {
        FROM: ("'head -c {size} /dev/zero'", measure.session_from),
        TO: ("'cat >/dev/null'", measure.session_to),
    }
    for path in SESSIONS:
        if path.name not in SESSION_GOALS:
            continue
        for way, (command, run) in commands.items():
            ours, theirs = (f"{line} {command}".replace("@", "") for line in path[2:])
            title = f"{path.name}, {way}, against {path.against}"
            goals = {THROUGHPUT: SESSION_GOALS[path.name]}
            yield Row(
                f"{size / 1e6:.0f} MB under a real ssh, start included", title, ours, theirs, run, goals, size=size
            )


def _crowd(scale: Scale, before: str) -> Iterator[Row]:
    group = f"{scale.crowd} relays at once, as an ordinary user, start included"
    size = max(scale.size // 30, 1)
    for path in STREAMS[0], STREAMS[2]:
        ours, theirs = (before + line.replace("@", "") for line in path[2:])
        title = f"{path.name}, from the network, against {path.against}"
        yield Row(group, title, ours, theirs, measure.crowd, far_end="source", size=size, crowd=scale.crowd, rounds=0.6)
