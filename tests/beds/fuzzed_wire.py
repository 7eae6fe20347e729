"""The wire of SSH, given any bytes: openers of packets, and the messages of a hop that has the keys.

Each is given bytes by fuzz/ for minutes, by test_fuzzed.py for a moment.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import paramiko
import sealing

from relay.ssh.wire import ciphers
from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.connection import Connection
from relay.ssh.wire.link import Link
from relay.ssh.wire.packet import BadPacket, Opener, Sealer

CLEAR = "clear"  # what there is before the first keys
GCM = "aes128-gcm@openssh.com"


class Pieces:
    """What an input is cut into: numbers and bytes, from its beginning; zeros and nothing once it is used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self, least: int, most: int) -> int:
        """A number between these two."""
        return least + int.from_bytes(self.take(2), "big") % (most - least + 1)

    def take(self, size: int) -> bytes:
        """The next bytes, at most so many."""
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


# Packets


def _sealer(kind: str) -> Sealer:
    return Sealer(ciphers.CLEAR) if kind == CLEAR else sealing.sealer(kind)


def _opener(kind: str) -> Opener:
    return Opener(ciphers.CLEAR) if kind == CLEAR else sealing.opener(kind)


def packets(kind: str, data: bytes) -> None:
    """Any bytes give packets or BadPacket. The first one says whether they come from somebody who has the key."""
    pieces = Pieces(data)
    if pieces.number(0, 1):
        _outsider(kind, pieces)
    else:
        _insider(kind, pieces)


def _outsider(kind: str, pieces: Pieces) -> None:
    """Good packets, then anything, in pieces: the good ones come out and, where there is a key, nothing else."""
    make = _sealer(kind).packet
    payloads = [pieces.take(pieces.number(1, 100)) or b"x" for _ in range(3)]
    stream = b"".join(bytes(make(payload)) for payload in payloads)
    cuts = [pieces.number(1, 200) for _ in range(20)]
    stream += pieces.take(400)
    taker, source, got = _opener(kind), Buffer(0), []
    try:
        while stream:
            size = cuts.pop() if cuts else len(stream)
            source.put(stream[:size])
            stream = stream[size:]
            while length := taker.open(source):
                got.append(bytes(taker.plain[1 : 1 + length]))
    except BadPacket:
        pass
    assert got[:3] == payloads, (got, payloads)
    assert len(got) == 3 or kind == CLEAR, got


def _insider(kind: str, pieces: Pieces) -> None:
    """Any plaintext under the right key: a payload within it, or BadPacket."""
    plain = pieces.rest() or b"\0"
    source = Buffer(0)
    source.put(sealing.plain_packet(_sealer(kind), plain))
    taker = _opener(kind)
    try:
        size = taker.open(source)
    except BadPacket:
        return
    if not size:  # it says that it is longer than it is
        assert kind == CLEAR or len(source) < taker.shape.block + taker.shape.overhead, plain
        return
    assert size == len(plain) - 1 - plain[0] > 0, plain
    assert plain[0] >= 4, plain
    assert len(source) == 0


# Messages


class _Packetizer:
    """What a Link asks of a parked Packetizer. What paramiko's own thread sees to is left out."""

    def __init__(self) -> None:
        self.input = Buffer(0)
        self.opener = sealing.opener(GCM)
        self.sealer = sealing.sealer(GCM)
        self.closed = False
        self.link: Link | None = None
        self.lost: BaseException | None = None
        self.asked = 0
        self.awaits_keys = False

    def check_limits(self) -> None:
        pass

    def settle(self) -> None:
        pass

    def hand(self, payload: bytes) -> bool:
        assert payload
        return len(payload) % 7 == 0

    def is_settled(self) -> bool:
        self.asked += 1
        return self.asked % 3 == 0

    def message(self, _payload: bytes) -> tuple[int, Any]:
        return 0, SimpleNamespace(seqno=self.opener.packets)

    def give_up(self, error: BaseException) -> None:
        self.lost = error
        self.closed = True


def messages(data: bytes) -> None:
    """Up to 20 messages, for a link with two channels: it goes on, or fails with BadPacket; it raises nothing."""
    pieces = Pieces(data)
    clear = threading.Event()
    clear.set()
    transport: Any = SimpleNamespace(
        killed=set(),
        packetizer=_Packetizer(),
        clear_to_send=clear,
        saved_exception=None,
        close=lambda: None,
        sock=None,
        update=None,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader: Any = SimpleNamespace(socket=ours, acknowledge=lambda: None)
        connection = Connection(reader)
        try:
            _heed(pieces, connection, transport)
        finally:
            connection.waker.close()


def _heed(pieces: Pieces, connection: Connection, transport: Any) -> None:
    link = Link(connection, transport, None)
    flows = [link.flow(_channel(transport, number)) for number in (0, 1)]
    server = sealing.sealer(GCM)
    connection.turn = pieces.number(0, 5)
    connection.left = connection.turn or -1
    for _ in range(20):
        link.source.put(server.packet(pieces.take(pieces.number(1, 60)) or b"\x02"))
    link.take()
    for _ in range(70):
        connection.look_round()
    assert not (connection.behind or (link.waits and link.error is None))
    for flow in flows:
        assert len(flow.received) <= 2**21
        assert 0 <= flow.window < 2**32
        flow.room()
    assert link.error is None or isinstance(link.error, BadPacket), link.error


def _channel(transport: Any, number: int) -> paramiko.Channel:
    """A channel that is open."""
    made = paramiko.Channel(number)
    made.transport = transport
    made.active = True
    made.in_window_size = 2**21
    made.out_window_size = 1000
    made.out_max_packet_size = 32768
    return made


# By name. The kinds of packets are one of each sealer and opener.
KINDS = (
    CLEAR,
    GCM,
    "chacha20-poly1305@openssh.com",
    "aes128-ctr hmac-sha2-256-etm@openssh.com",
    "aes128-ctr hmac-sha2-512-etm@openssh.com",
    "aes128-ctr hmac-sha2-256",
    "aes256-ctr hmac-sha2-512",
)
WIRE: dict[str, Callable[[bytes], None]] = {"messages": messages, **{kind: partial(packets, kind) for kind in KINDS}}
