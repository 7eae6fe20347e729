"""The rows of shared hops: `pyrelay --share` beside a live ControlMaster, and beside relays that log in themselves.

The process that keeps a hop (holder or master) is started before a row and ended
after it. In the rows where a crowd arrives, every run begins without a login.
"""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bench import measure
from bench.compare import Goal
from bench.family import peak
from bench.measure import MEMORY, THROUGHPUT, TIME
from bench.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Run
    from bench.row import Scale

ARRIVED, LOGINS = "arrived", "logins"
SHARE = "pyrelay -F ssh_config --share 10m {hop}/127.0.0.1 {port}"
BY_MASTER = "ssh -F ssh_config -W 127.0.0.1:{port} {hop}-kept"
SSH_BY_SHARE = "ssh -F ssh_config -o 'ProxyCommand pyrelay -F ssh_config --share 10m %h %p' -p {port} {hop}/127.0.0.1"
SSH_BY_MASTER = "ssh -F ssh_config -J {hop}-kept -p {port} 127.0.0.1"
KEEP = (
    "ssh -F ssh_config -o 'ProxyCommand pyrelay -F ssh_config --share 10m %h %p' {hop}/target true",
    "ssh -F ssh_config -o ControlMaster=yes -fN {hop}-kept",
)
LEAVE = ("pyrelay -O exit", "ssh -F ssh_config -O exit {hop}-kept")
CROWD = 100
GROUP = "shared hops"
START = "the interpreter's start, beside one round trip"
FEW = 3
LOOP = "holder, sshd and far end share the cores"


def rows(scale: Scale) -> Iterator[Row]:
    """Yield these rows."""
    crowd = min(CROWD, 2 * scale.crowd)
    for trip in dict.fromkeys((scale.trips[0], scale.trips[-1])):
        hop = f"hop1-{trip}ms" if trip else "hop1"
        title = f"first byte to ssh, {trip} ms of round trip, against ssh -J over a live ControlMaster"
        goals = {TIME: Goal(1.08, 1.0, START)} if trip else {}
        ways = {"ours": SSH_BY_SHARE, "theirs": SSH_BY_MASTER}
        yield kept(title, hop, measure.to_the_end, goals, port="{refusal}", rounds=3, **ways)
        title = f"first byte, {trip} ms of round trip, against ssh -W over a live ControlMaster"
        yield kept(title, hop, measure.first_byte, {}, rounds=3)
    unshared = SHARE.replace("--share 10m ", "")
    more: dict[str, Any]
    for way, far_end, run in (("from", "source", rate), ("to", "sink", rate_to)):
        title = f"throughput {way} the network, 1 at once, against relays of their own hops"
        goals = {THROUGHPUT: Goal(1.0, 1.3, LOOP)}
        more = {"far_end": far_end, "size": scale.size}
        yield kept(title, "hop1", run, goals, theirs=unshared, port="{port}", **more)
    title = "throughput from the network, 10 at once, against relays of their own hops"
    more = {"far_end": "source", "size": max(scale.size // 10, 1), "crowd": 10}
    yield kept(title, "hop1", rate, {}, theirs=unshared, port="{port}", **more)
    title = f"throughput from the network, {FEW} at once beside one whose reader has stopped, against {FEW} alone"
    goals = {THROUGHPUT: Goal(0.95, 1.0, LOOP)}
    ways = {"ours": SHARE, "theirs": SHARE, "port": "{port}"}
    more = {"far_end": "source", "measure_theirs": rate, "size": max(scale.size // FEW, 1), "crowd": FEW, "rounds": 4}
    yield kept(title, "hop1", rate_beside_stopped, goals, **ways, **more)
    title = f"memory of who keeps the hop, with {crowd} relays, against a ControlMaster"
    goals = {MEMORY: Goal(150, 60, "interpreter, paramiko, uvloop and a thread for each login", ours_alone=True)}
    yield kept(title, "hop1", keeper, goals, crowd=crowd, rounds=0.4)
    arriving = {
        "ssh -W": "ssh -F ssh_config -W 127.0.0.1:{port} {hop}",
        "ssh -W with ControlMaster auto": "ssh -F ssh_config -o ControlMaster=auto -o ControlPersist=10m "
        "-W 127.0.0.1:{port} {hop}-kept",
    }
    for name, arrival in arriving.items():
        goals = {ARRIVED: Goal(crowd - 0.5, crowd, "", ours_alone=True), LOGINS: Goal(1, 1, "", ours_alone=True)}
        title = f"{crowd} at once, through a bastion with sshd's own MaxStartups, against {name}"
        ours, theirs = (line.format(hop="narrow", port="{banner}") for line in (SHARE, arrival))
        yield Row(GROUP, title, ours, theirs, arrivals, goals, crowd=crowd, rounds=0.4)


def kept(
    title: str,
    hop: str,
    run: Callable[[Run], dict[str, float]],
    goals: dict[str, Goal],
    *,
    ours: str = SHARE,
    theirs: str = BY_MASTER,
    port: str = "{banner}",
    **more: Any,
) -> Row:
    """Return a row during which the hop stays logged in to."""
    ours, theirs = (line.format(hop=hop, port=port) for line in (ours, theirs))
    before, after = (tuple(line.format(hop=hop) for line in lines) for lines in (KEEP, LEAVE))
    return Row(GROUP, title, ours, theirs, run, goals, before=before, after=after, **more)


def rate(run: Run) -> dict[str, float]:
    """Throughput without CPU: the process that keeps the hop uses most of the CPU."""
    return {THROUGHPUT: measure.crowd(run)[THROUGHPUT]}


def rate_to(run: Run) -> dict[str, float]:
    """Throughput to the network, without CPU."""
    return {THROUGHPUT: measure.transfer_to(run)[THROUGHPUT]}


def rate_beside_stopped(run: Run) -> dict[str, float]:
    """Throughput without CPU, beside one more relay of that kind whose output nobody reads."""
    with run.family() as family:
        measure.let_fill(family.start(run.command))
        return rate(run)


def arrivals(run: Run) -> dict[str, float]:
    """Count the relays of a crowd that get the far end's first byte, and the logins, until all have it or ended."""
    with run.family() as family:
        log = f"{family.path}/narrow.log"
        before = _logins(log)
        processes = [family.start(run.command, stderr=subprocess.DEVNULL) for _ in range(run.crowd)]
        with ThreadPoolExecutor(run.crowd) as pool:
            arrived = sum(pool.map(_has_arrived, processes))
        seconds = family.elapsed()
        logins = _logins(log) - before
    return {ARRIVED: arrived, LOGINS: max(logins, 1), TIME: seconds * 1000}


def keeper(run: Run) -> dict[str, float]:
    """The peak memory of the holder or master while a crowd goes through it."""
    check = (
        ["pyrelay", "-O", "check"]
        if run.command[0] == "pyrelay"
        else ["ssh", "-F", "ssh_config", "-O", "check", "hop1-kept"]
    )
    with run.family() as family:
        processes = [family.start(run.command) for _ in range(run.crowd)]
        with ThreadPoolExecutor(run.crowd) as pool:
            if sum(pool.map(_has_arrived, processes)) != run.crowd:
                raise RuntimeError("not all arrive")
        said = subprocess.run(
            check, cwd=family.path, env=family.environment, capture_output=True, text=True, check=True
        )
        found = re.search(r"pid=(\d+)", said.stdout + said.stderr)
        if found is None:
            raise RuntimeError("nobody keeps the hop")
        memory = peak(int(found[1]))
    return {MEMORY: memory / measure.MB}


def _has_arrived(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    return bool(os.read(process.stdout.fileno(), 1))


def _logins(log: str) -> int:
    with open(log, encoding="utf-8", errors="replace") as file:
        return file.read().count("Accepted publickey")
