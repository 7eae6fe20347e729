"""The ways to a target: our command beside the one that it replaces.

In a command, {port} is the port of the stream's far end. An @ follows the name
that a delay line may stand before: the first thing that a route connects to. So
the first is far away, and the rest is near the first. ssh_config (lab.py) defines
hop1, hop2, hop3 and target; names with a slash in them have pyrelay as their
ProxyCommand.
"""

from __future__ import annotations

import re
from typing import NamedTuple


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


def near(path: Path) -> Path:
    """Return the path without a delay line, to the far end that a row names."""
    return path._replace(ours=path.ours.replace("@", ""), theirs=path.theirs.replace("@", ""))


def behind(trip: int, path: Path, *, every_hop: bool = False) -> Path:
    """Return the path to a target that sends only a banner, with a round trip before its first connection.

    trip: milliseconds. every_hop: with a round trip before each hop.
    """
    delay = f"-{trip}ms" if trip else ""
    marked = (re.sub(r"(hop\d)(?!@)", r"\1@", line) if every_hop else line for line in path[2:])
    ours, theirs = (line.replace("{port", "{banner").replace("@", delay) for line in marked)
    return path._replace(ours=ours, theirs=theirs)


def lesson(ours: str) -> str:
    """Return a command that logs in by the same way and then ends, so that its hops are remembered."""
    return ours.replace("{port}", "{banner}")
