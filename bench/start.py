"""The rows for what a start takes: time to the first byte, a whole `ssh TARGET true`, and instructions.

A hop is at first contact when nothing is remembered of it; all other rows are of remembered hops. A count of
instructions does not depend on what else the machine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import measure
from bench.compare import Goal
from bench.measure import INSTRUCTIONS, OVER, TIME
from bench.paths import SESSIONS, STREAMS, Path, behind, lesson
from bench.row import Row
from bench.shared import kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.openssh import OpenSSH
    from bench.row import Scale

FIRST_BYTE = "time to the first byte of the target's banner"
FIRST_CONTACT = "time to the first byte at first contact"
INSTRUCTION_COUNT = "instructions from the start to the end of the process itself (cachegrind)"
# Only this command tells ssh the target's key.
KNOWN_HOSTS = "-o UserKnownHostsFile=none -o 'KnownHostsCommand {lab}/pyrelay -F ssh_config --known-hosts %H' "
HOPS = STREAMS[2:]
# Other ways to log in to one hop: what they are called, the end of its name in ssh_config (lab.py), our options.
OTHERS = (
    ("1 hop, by an RSA key", "-rsa", ""),
    ("1 hop, behind a ProxyCommand", "-nc", ""),
    ("1 hop, left to ssh", "", "--engine ssh "),
)

# Why aims are not reached.
IMPORTS = "two thirds are the interpreter's start and the import of paramiko and cryptography (python3 -X importtime)"
OWN_MODULES = "our own modules (tests/test_imports.py has their list)"
CAREFUL = "at first contact pyrelay waits wherever ssh waits, save twice; what is left is round trips and the imports"
TRIPS = "TCP, keys, login with channel: each waits for the one before; and what 0 ms take"
UNGUESSED = "the hop's first key exchange is not one of ours, so it cannot be guessed: one round trip more"
LIBRARY = "cryptography's binding alone is 14 M over the interpreter's 28 M; most of the rest is paramiko's transport"

# By hops and by milliseconds of round trip.
NEAR = {"1 hop": Goal(0.44, 0.36, IMPORTS), "2 hops": Goal(0.31, 0.26, IMPORTS)}
NEAR_NEW = {"1 hop": Goal(0.62, 0.5, IMPORTS), "2 hops": Goal(0.6, 0.48, IMPORTS)}  # OpenSSH 10 starts faster
FAR = {"1 hop": Goal(0.46, 0.4, TRIPS), "2 hops": Goal(0.42, 0.34, TRIPS), "3 hops": Goal(0.4, 0.32, TRIPS)}
FAR_UNGUESSED = {
    "1 hop": Goal(0.57, 0.4, UNGUESSED),
    "2 hops": Goal(0.48, 0.34, UNGUESSED),
    "3 hops": Goal(0.48, 0.32, UNGUESSED),
}
SESSION = {"2 hops": Goal(0.64, 0.6, TRIPS)}
NOT_SLOWER = Goal(1.0, 0.8, CAREFUL)
FAR_FIRST_CONTACT = {"1 hop": Goal(0.8, 0.72, CAREFUL), "2 hops": NOT_SLOWER, "3 hops": NOT_SLOWER}
NEAR_FIRST_CONTACT = dict.fromkeys(("1 hop", "2 hops", "3 hops"), NOT_SLOWER)
NO_GOALS: dict[str, Goal] = {}
FAR_AWAY = 100  # milliseconds, for which goals are set


def rows(scale: Scale, openssh: OpenSSH) -> Iterator[Row]:
    """Yield these rows."""
    ends = dict.fromkeys((scale.trips[0], scale.trips[-1]))
    for trip in ends:
        goals = {0: NEAR_FIRST_CONTACT, FAR_AWAY: FAR_FIRST_CONTACT}.get(trip, NO_GOALS)
        for path in HOPS:
            yield _first_byte(FIRST_CONTACT, behind(trip, path), trip, goals)._replace(before=(), forget=True)
    yield from _own_start()
    for trip in scale.trips:
        for path in STREAMS:
            yield _first_byte(FIRST_BYTE, behind(trip, path), trip, _goals(trip, openssh))
        if trip == scale.trips[0]:
            yield from _other_logins(trip)
    if trip := scale.trips[-1]:
        for path in HOPS[1:]:
            row = _first_byte(FIRST_BYTE, behind(trip, path, every_hop=True), trip, _goals(trip, openssh))
            yield row._replace(group=f"{row.group} before every hop")
    for trip in scale.trips:
        yield from _ssh_true(trip)
    yield from _instructions()


def _goals(trip: int, openssh: OpenSSH) -> dict[str, Goal]:
    near = NEAR if openssh.major < 10 else NEAR_NEW
    return {0: near, FAR_AWAY: FAR if openssh.knows_kex else FAR_UNGUESSED}.get(trip, NO_GOALS)


def _own_start() -> Iterator[Row]:
    """Yield the row for the cost of our own start, without the interpreter's."""
    tcp = behind(0, STREAMS[0])
    title = "plain TCP, over the start of nc and of the interpreter"
    goals = {OVER: Goal(8, 4, OWN_MODULES)}
    yield Row(FIRST_BYTE, title, tcp.ours, tcp.theirs, measure.first_byte, goals, bare="{python} -c pass", rounds=6)


def _other_logins(trip: int) -> Iterator[Row]:
    """Yield the rows for the other ways to log in to one hop."""
    one = HOPS[0]
    for name, suffix, options in OTHERS:
        ours, theirs = (command.replace("hop1@", f"hop1@{suffix}") for command in (one.ours, one.theirs))
        path = Path(name, one.against, ours.replace("pyrelay ", f"pyrelay {options}"), theirs)
        yield _first_byte(FIRST_BYTE, behind(trip, path), trip, NO_GOALS)


def _first_byte(group: str, path: Path, trip: int, goals: dict[str, Goal]) -> Row:
    return Row(
        f"{group}, {trip} ms of round trip",
        f"{path.name}, against {path.against}",
        path.ours,
        path.theirs,
        measure.first_byte,
        {TIME: goals[path.name]} if path.name in goals else {},
        rounds=1 if trip else 2,
        before=(lesson(path.ours),),
    )


def _ssh_true(trip: int) -> Iterator[Row]:
    group = f"whole ssh TARGET true, {trip} ms of round trip"
    for path in SESSIONS:
        ours, theirs = (f"{command} true" for command in behind(trip, path)[2:])
        title = f"{path.name}, against {path.against}"
        goals = {TIME: SESSION[path.name]} if trip == FAR_AWAY and path.name in SESSION else {}
        yield Row(group, title, ours, theirs, measure.whole, goals, before=(ours,))
        if "hop" in path.name:
            named = ours.replace("ssh_config ", f"ssh_config {KNOWN_HOSTS}", 1)
            yield Row(group, f"{title}, with --known-hosts", named, theirs, measure.whole, before=(ours,))


def _instructions() -> Iterator[Row]:
    """Yield the rows for instructions. Children, as ssh -J and `ssh -G` are, do not count."""
    client = '{python} -ISc "import sys; sys.path += {path}; import relay.ssh.session"'
    goals = {INSTRUCTIONS: Goal(260, 220, LIBRARY, ours_alone=True)}
    title = "import of our ssh client, against the interpreter alone"
    row = Row(INSTRUCTION_COUNT, title, client, "{python} -ISc pass", measure.instructions, goals, rounds=0.4)
    yield row
    plain = {INSTRUCTIONS: Goal(46, 40, OWN_MODULES, ours_alone=True)}
    for path in STREAMS[:4]:
        goals = plain if path.name == "plain TCP" else {}
        ours, theirs = behind(0, path)[2:]
        title = f"{path.name}, against {path.against}"
        yield row._replace(title=title, ours=ours, theirs=theirs, goals=goals, before=(lesson(ours),))
    title = "1 shared hop, against ssh -W over a live ControlMaster"
    yield kept(title, "hop1", measure.instructions, {}, rounds=0.4)._replace(group=INSTRUCTION_COUNT)
