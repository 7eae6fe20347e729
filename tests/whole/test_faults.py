"""Links that fail: one table of stages and faults, each cell a peer that has the fault, with what comes of it.

What comes of it: the exit status, words that name the place and the cause,
before the deadline or at it; nothing on stdout but what the target had said
before; nothing left running. A cell that cannot be says why instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import faulty_hop
import pytest
from faults import BANNER, FAULTS, Peer, Wire, full_port, http, socks4, socks5, target
from faulty_resolver import Resolver
from lab import Lab
from namespaces import in_namespace
from peers import LOOPBACK, closed_port, need, until

pytestmark = pytest.mark.alone

DEADLINE = 8  # seconds; many times what the way to any fault takes
CIPHER = "aes128-ctr"
SLACK = 30.0  # seconds after the deadline in which a process must have ended, on any machine


class Ends(NamedTuple):
    """What comes of a fault.

    status: None when the end may be known before the fault. words: a pattern,
    what stderr says after the place. out: what the target had said. blames:
    the place, "" for the peer that has the fault.
    """

    status: int | None
    words: str
    out: bytes = b""
    blames: str = ""

    @property
    def waits(self) -> bool:
        """Whether it takes until a deadline."""
        return self.words.startswith(("no answer", "the connection was lost: no answer"))


Row: TypeAlias = dict[str, "Ends | str"]  # a str says why there is no such cell


def fails(words: str, *, blames: str = "") -> Ends:
    return Ends(1, words, blames=blames)


def lives(out: bytes = BANNER) -> Ends:
    """It does no harm."""
    return Ends(0, "$", out)


def breaks(row: Row) -> Row:
    """The same after the target has said its banner."""
    return {fault: cell._replace(out=BANNER) if isinstance(cell, Ends) else cell for fault, cell in row.items()}


LATE = fails(f"no answer within {DEADLINE} seconds")
GOES_AWAY = fails("the server disconnected: come back tomorrow$")
GONE = fails(
    "the connection was lost(: connection reset by peer)?$|the server closed the connection( \\(key exchange\\))?$"
)
HUNG_UP = fails("the connection was closed before the server's SSH ident$")
DEAD = fails("the connection was lost: no answer to 2 keepalives in 2 seconds$")
LATE_DATA = Ends(1, "the connection was lost: 4 bytes of data where the window has room for 0$", BANNER)
TOO_LONG = fails(r"the connection was lost: a packet of \d+ bytes$")
NO_PACKET = TOO_LONG  # its first bytes are read as a length

HANDSHAKE = "nobody sends anything before the kernel's handshake is done, nor takes part in it but the kernel"
FIXED = "a message of two bytes, which says no length"
THE_TARGETS = "what follows the reply is the target's: nobody can tell"
THE_END = "such an end is TCP's: nothing can follow it"
MORE_DATA = "the same bytes twice are what the target says: nobody can tell"

PROXY: Row = {
    "reset": fails(".* broke off: connection reset by peer$"),
    "silence": LATE,
    "drip": LATE,
    "early end": fails(".* closed the connection$"),
    "duplicate": THE_TARGETS,
}
FIRST_PACKETS: Row = {
    "refused": GOES_AWAY,
    "reset": GONE,
    "silence": LATE,
    "drip": LATE,
    "garbage": NO_PACKET,
    "oversize": TOO_LONG,
    "early end": GONE,
    "late data": GOES_AWAY,
}
SEALED: Row = {
    **FIRST_PACKETS,
    "garbage": fails("the connection was lost: a packet of 951379538 bytes"),
    "oversize": fails("the connection was lost: a packet of 4294967292 bytes"),
}
LOGIN: Row = {
    **SEALED,
    "refused": fails("login as .* refused: Permission denied; the server takes hostbased; offered: "),
    "reset": fails("the connection was lost: connection reset by peer; |the server closed the connection; "),
    "early end": fails("the server closed the connection; "),
    "late data": fails("the server ended the login as .*: come back tomorrow; "),
    "duplicate": fails("the connection was lost: the server answers what it was not asked"),
}
RELAY: Row = {**breaks(SEALED), "silence": DEAD._replace(out=BANNER), "drip": DEAD._replace(out=BANNER)}

TABLE: dict[str, Row] = {
    "name look-up": {
        "refused": fails("no such host: target.example$"),
        "reset": fails("target.example: temporary failure in name resolution$"),  # nobody listens, says ICMP
        "silence": LATE,
        "drip": LATE,  # by TCP, since a datagram comes whole
        "garbage": LATE,  # what is no answer to the query is not heeded (RFC 5452)
        "oversize": fails(r"cannot connect to 127\.0\.0\.1 port \d+: connection refused; .*; and 3996 more$"),
        "early end": LATE,
        "late data": fails("no such host: target.example$"),
        "duplicate": lives(),
    },
    "TCP": {
        "refused": fails(r"cannot connect to 127\.0\.0\.1 port \d+: connection refused$"),
        "reset": "before there is a connection a reset is the refusal",
        "silence": LATE,
        **dict.fromkeys(("drip", "garbage", "oversize", "early end", "late data", "duplicate"), HANDSHAKE),
    },
    "SOCKS4a request": {
        **PROXY,
        "refused": fails("refused or failed, says"),
        "garbage": fails(".* does not speak SOCKS4: its answer begins with 38 b4 e6 52 e4 4d a7 f2$"),
        "oversize": fails(".* does not speak SOCKS4: its answer begins with ff ff ff fc"),
        "late data": fails("refused or failed, says"),
    },
    "SOCKS5 greeting": {
        **PROXY,
        "refused": fails(".* wants an authentication that pyrelay does not have$"),
        "garbage": fails(".* does not speak SOCKS5: its answer begins with 38 b4 e6 52 e4 4d a7 f2$"),
        "oversize": FIXED,
        "late data": fails(".* wants an authentication that pyrelay does not have$"),
        "duplicate": fails(".* sends what is not SOCKS5: 00$"),
    },
    "SOCKS5 login": {
        **PROXY,
        "refused": fails(".* does not accept the password of alice$"),
        "garbage": fails(".* does not accept the password of alice$"),  # its second byte is not 0
        "oversize": FIXED,
        "late data": fails(".* does not accept the password of alice$"),
        "duplicate": fails(".* sends what is not SOCKS5: 01 00 05$"),
    },
    "SOCKS5 request": {
        **PROXY,
        "refused": fails("connection refused, says"),
        "garbage": fails(".* sends what is not SOCKS5: 38 b4 e6$"),
        "oversize": fails(".* sends what is not SOCKS5: ff ff ff$"),
        "late data": fails("connection refused, says"),
    },
    "HTTP request": {
        **PROXY,
        "refused": fails(".* refuses: 403 Forbidden$"),
        "garbage": fails(".* does not speak HTTP: it answers 8"),
        "oversize": fails(".* sends a line without an end$"),
        "late data": fails(".* refuses: 403 Forbidden$"),
    },
    "ident": {
        "refused": fails("the connection was closed before the server's SSH ident; it said: Exceeded MaxStartups$"),
        # So TCP has it when it comes at once, here or on the hop before.
        "reset": fails(f"{HUNG_UP.words}|(.*cannot connect to .* port \\d+: )?connection reset by peer$"),
        "silence": LATE,
        "drip": LATE,
        "garbage": fails("not an SSH server: it sent binary data$"),
        "oversize": fails("not an SSH server: a line of more than 8192 bytes$"),
        "early end": HUNG_UP,
        "late data": THE_END,
        "duplicate": NO_PACKET,
    },
    "key exchange": {
        **FIRST_PACKETS,
        "reset": fails(f"{GONE.words}|{HUNG_UP.words}"),  # which may take back the ident, if that has not been read
        "duplicate": fails("the connection was lost: the server sent message 20 where 31 was due$"),
    },
    "host key": {
        **FIRST_PACKETS,
        "duplicate": fails("the connection was lost: the server sent message 31 where 21 was due$"),
    },
    "group": {
        **FIRST_PACKETS,
        "duplicate": fails("the connection was lost: the server sent message 31 where 33 was due$"),
    },
    "host key with a group": {
        **FIRST_PACKETS,
        "duplicate": fails("the connection was lost: the server sent message 33 where 21 was due$"),
    },
    "new keys": {
        **FIRST_PACKETS,
        "duplicate": fails("the connection was lost: a packet of 12 bytes"),  # it comes in the clear
    },
    "login service": {
        **LOGIN,
        "refused": fails("the server ended the login as .*: come back tomorrow; offered: "),
        "duplicate": lives(),  # it says nothing new
    },
    "login by none": LOGIN,
    "login by publickey": LOGIN,
    "login by keyboard-interactive": LOGIN,
    "login by password": LOGIN,
    "channel open": {
        **SEALED,
        "refused": fails(".* cannot connect to .*: connection refused", blames="target (target)"),
        "silence": LATE._replace(blames="target (target)"),
        "drip": LATE._replace(blames="target (target)"),
        "late data": fails(".* cannot connect to .*: connection refused", blames="target (target)"),
        "duplicate": lives(),  # of a channel that is open
    },
    "relay to the target": {
        **RELAY,
        "duplicate": lives(),  # the window is larger than was meant
    },
    "relay from the target": {
        **RELAY,
        "late data": LATE_DATA,
        "duplicate": MORE_DATA,
    },
    "close": {
        **RELAY,
        "late data": lives(),
        "duplicate": lives(),
    },
}
# With a cipher that is not AES-GCM packets are paramiko's. (Nobody waits for a channel's close then.)
BY_PARAMIKO: Row = {**RELAY, "garbage": TOO_LONG._replace(out=BANNER), "oversize": TOO_LONG._replace(out=BANNER)}
OTHER_CIPHER: dict[str, Row] = {
    "relay to the target": {**BY_PARAMIKO, "duplicate": lives()},
    "relay from the target": {**BY_PARAMIKO, "late data": LATE_DATA._replace(status=None), "duplicate": MORE_DATA},
}
PROXIES: dict[str, tuple[str, Callable[[Wire], None]]] = {
    "SOCKS4a request": ("4a", socks4),
    "SOCKS5 greeting": ("5", socks5),
    "SOCKS5 login": ("5", socks5),
    "SOCKS5 request": ("5", socks5),
    "HTTP request": ("connect", http),
}
HOPS = ("ident", *faulty_hop.STAGES)
# Where the hop is makes a difference to how its bytes come, not to the methods of its login.
LATER = [
    stage
    for stage in HOPS
    if stage == "login by publickey" or not (stage.startswith("login by") or stage in faulty_hop.GROUPS)
]


def cells(stages: Iterable[str], *, waits: bool, table: dict[str, Row] = TABLE) -> list[tuple[str, str]]:
    """The cells of these stages that there are."""
    found = []
    for stage in stages:
        for fault, cell in table[stage].items():
            if isinstance(cell, Ends) and cell.waits == waits:
                found.append((stage, fault))
    return found


class Run:
    """pyrelay on its way to a fault.

    argv, env: what it is started with. reached: whether it has come so far.
    """

    def __init__(
        self,
        lab: Lab,
        cell: tuple[str, str],
        argv: list[str | Path],
        env: dict[str, str] | None = None,
        *,
        place: str,
        reached: Callable[[], bool],
        table: dict[str, Row] = TABLE,
    ) -> None:
        self.cell = cell
        self.stage, self.fault = cell
        expected = table[self.stage][self.fault]
        assert isinstance(expected, Ends)
        self.expected = expected
        self.place = expected.blames or place
        self.reached = reached
        theirs, self._stdin = os.pipe()
        self.process = lab.start(*argv, stdin=theirs, env=env)
        os.close(theirs)
        lab.at_end(self._end_stdin)
        self.out = b""
        if self.stage.startswith(("relay", "close")):
            self._take_up()

    def _take_up(self) -> None:
        """Have what the target says first, and let it hear something: as much as it has a window for, at least."""
        assert self.process.stdout is not None
        self.out = self.process.stdout.read(len(BANNER))
        os.write(self._stdin, bytes(faulty_hop.SMALL))

    def _end_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def until_reached(self) -> None:
        """Wait until the fault begins, or all is over."""
        until(lambda: self.reached() or self.process.poll() is not None, "fault")

    def finish(self) -> None:
        """Wait until it ends, and look at what has come of it."""
        self.until_reached()
        if not self.expected.status:
            self._end_stdin()
        out, err = self.process.communicate(timeout=DEADLINE + SLACK)
        said = err.decode()
        assert self.reached(), (self.cell, said)
        status = self.process.returncode
        assert self.out + out == self.expected.out, (self.cell, said)
        assert status in ({0, 1} if self.expected.status is None else {self.expected.status}), (self.cell, said)
        if status:
            first, *rest = said.splitlines()
            pattern = f"pyrelay: {re.escape(self.place)}: (?:{self.expected.words})"
            assert re.match(pattern, first), (self.cell, said)
            assert len(rest) <= 1, (self.cell, said)  # a hint
        else:
            assert said == "", self.cell


def at_proxy(lab: Lab, cell: tuple[str, str]) -> Run:
    kind, script = PROXIES[cell[0]]
    peer = Peer(script, *cell)
    lab.at_end(peer.stop)
    argv: list[str | Path] = [lab.program, "-w", str(DEADLINE), "-X", kind, "-x", f"{LOOPBACK}:{peer.port}"]
    env = {}
    if cell[0] == "SOCKS5 login":
        argv += ["-P", "alice"]
        env = {"PYRELAY_PROXY_PASSWORD": "secret"}
    return Run(lab, cell, [*argv, "target.example"], env, place="target.example", reached=peer.reached.is_set)


def at_name(lab: Lab, cell: tuple[str, str]) -> Run:
    """In a network namespace, with a resolv.conf of its own."""
    resolv = lab.top / "resolv.conf"
    resolv.write_text(f"nameserver {LOOPBACK}\n")
    switch = lab.top / "nsswitch.conf"
    switch.write_text("hosts: dns\n")
    mounts = f"mount --bind {resolv} /etc/resolv.conf && mount --bind {switch} /etc/nsswitch.conf && "
    within = [need("unshare"), "--mount", "sh", "-c", mounts + 'exec "$@"', "sh"]
    argv: list[str | Path] = [*within, lab.program, "-w", str(DEADLINE), "target.example"]

    def start() -> Run:
        reached = lambda: True  # noqa: E731
        if cell[1] != "reset":
            resolver = Resolver(cell[1])
            lab.at_end(resolver.stop)
            reached = resolver.reached.is_set
        if cell[1] == "duplicate":
            lab.at_end(Peer(target, "", "", 22).stop)
        env = {"RES_OPTIONS": f"timeout:{2 * DEADLINE} attempts:1"}
        return Run(lab, cell, argv, env, place="target.example", reached=reached)

    return in_namespace(start)


def at_port(lab: Lab, cell: tuple[str, str], port: int) -> Run:
    argv: list[str | Path] = [lab.program, "-w", str(DEADLINE), LOOPBACK, str(port)]
    return Run(lab, cell, argv, place=f"{LOOPBACK}:{port}", reached=lambda: True)


def at_hop(lab: Lab, cell: tuple[str, str], *before: str, cipher: str = "") -> Run:
    """With the fault at the hop after those; cipher: one that is not AES-GCM."""
    stage = cell[0]
    peer = Peer(faulty_hop.hop, *cell)
    lab.at_end(peer.stop)
    name = f"bad{peer.port}"
    asks = stage.startswith("login by") and stage != "login by publickey"
    lab.host(name, Port=peer.port, BatchMode="no", PubkeyAuthentication="no" if asks else "yes")
    if stage.startswith(("relay", "close")):
        lab.host(name, ServerAliveInterval=1, ServerAliveCountMax=2)
    if cipher:
        lab.host(name, Ciphers=cipher)
    if stage in faulty_hop.GROUPS:
        lab.host(name, KexAlgorithms=faulty_hop.GROUP_EXCHANGE)
    lab.know(name, peer.port, [f"{faulty_hop.KEY.get_name()} {faulty_hop.KEY.get_base64()}"])
    askpass = lab.top / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o755)
    number = len(before) + 1
    return Run(
        lab,
        cell,
        [lab.program, "-F", lab.write_config(), "-w", str(DEADLINE), "/".join([*before, name, "target"])],
        {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"},
        place=f"hop {number} of {number} ({name})",
        reached=peer.reached.is_set,
        table=OTHER_CIPHER if cipher else TABLE,
    )


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.server("good")
    lab.host("target", Port=9)
    return lab


def test_every_cell_is_filled() -> None:
    assert {stage: set(row) for stage, row in TABLE.items()} == {stage: set(FAULTS) for stage in TABLE}
    assert set(TABLE) == {"name look-up", "TCP", *PROXIES, *HOPS}
    assert all(set(row) == set(FAULTS) for row in OTHER_CIPHER.values())


@pytest.mark.parametrize("cell", cells(PROXIES, waits=False), ids=": ".join)
def test_proxy(lab: Lab, cell: tuple[str, str]) -> None:
    at_proxy(lab, cell).finish()
    assert lab.remaining(5) == {}


@pytest.mark.parametrize("cell", cells(HOPS, waits=False), ids=": ".join)
def test_hop(chain: Lab, cell: tuple[str, str]) -> None:
    runs = [at_hop(chain, cell)]
    if cell[0] in LATER:
        runs[0].until_reached()  # the next one writes the ssh_config anew
        runs.append(at_hop(chain, cell, "good"))
    for run in runs:
        run.finish()
    assert chain.remaining(5) == {}


@pytest.mark.parametrize("cell", cells(OTHER_CIPHER, waits=False, table=OTHER_CIPHER), ids=": ".join)
def test_hop_with_another_cipher(chain: Lab, cell: tuple[str, str]) -> None:
    at_hop(chain, cell, cipher=CIPHER).finish()
    assert chain.remaining(5) == {}


@pytest.mark.parametrize("cell", cells(["name look-up"], waits=False), ids=": ".join)
def test_name(lab: Lab, cell: tuple[str, str]) -> None:
    at_name(lab, cell).finish()
    assert lab.remaining(5) == {}


def test_port(lab: Lab) -> None:
    ((_, fault),) = cells(["TCP"], waits=False)
    with closed_port() as port:
        at_port(lab, ("TCP", fault), port).finish()
    assert lab.remaining(5) == {}


def test_what_takes_until_a_deadline(chain: Lab) -> None:
    """All of it at the same time, one started after the other has come to its fault."""
    runs = []

    def start(run: Run) -> None:
        run.until_reached()
        runs.append(run)

    with full_port() as port:
        start(at_port(chain, ("TCP", "silence"), port))
        for cell in cells(["name look-up"], waits=True):
            start(at_name(chain, cell))
        for cell in cells(PROXIES, waits=True):
            start(at_proxy(chain, cell))
        for cell in cells(HOPS, waits=True):
            start(at_hop(chain, cell))
            if cell[0] in LATER:
                start(at_hop(chain, cell, "good"))
        for cell in cells(OTHER_CIPHER, waits=True, table=OTHER_CIPHER):
            start(at_hop(chain, cell, cipher=CIPHER))
        for run in runs:
            run.finish()
    assert len(runs) > len(cells(TABLE, waits=True))
    assert chain.remaining(5) == {}
