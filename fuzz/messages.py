"""Fuzz the messages of a hop that has the keys: a link goes on, or it fails with BadPacket; it raises nothing.

`make fuzz`, or python fuzz/messages.py [libFuzzer's options]. What paramiko's
own thread sees to is left out: a stand-in takes it.
"""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

import atheris

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import paramiko

with atheris.instrument_imports(include=["relay"]):
    from relay.ssh.wire import ciphers
    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.connection import Connection
    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.link import Link
    from relay.ssh.wire.packet import BadPacket

KEYS = Keys("aes128-gcm@openssh.com", bytes(16), bytes(12))


class Packetizer:
    """What a Link asks of a parked Packetizer."""

    def __init__(self) -> None:
        self.input = Buffer(0)
        self.opener = ciphers.opener(KEYS)
        self.sealer = ciphers.sealer(KEYS)
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


class Socket:
    """Takes everything."""

    def setblocking(self, _flag: bool) -> None:
        pass

    def send(self, data: memoryview) -> int:
        return len(data)

    def close(self) -> None:
        pass


def one_input(data: bytes) -> None:
    """Up to 20 messages, for a link with two channels; an exception is a find."""
    provider = atheris.FuzzedDataProvider(data)
    clear = threading.Event()
    clear.set()
    transport = SimpleNamespace(
        killed=set(), packetizer=Packetizer(), clear_to_send=clear, saved_exception=None, close=lambda: None, sock=None
    )
    connection = Connection(SimpleNamespace(socket=Socket(), acknowledge=lambda: None))
    link = Link(connection, transport, None)
    flows = [link.flow(channel(transport, number)) for number in (0, 1)]
    server = ciphers.sealer(KEYS)
    for _ in range(20):
        link.source.put(server.packet(provider.ConsumeBytes(provider.ConsumeIntInRange(1, 60)) or b"\x02"))
    connection.turn = provider.ConsumeIntInRange(0, 5)
    connection.left = connection.turn or -1
    link.take()
    for _ in range(70):
        connection.look_round()
    assert not (connection.behind or (link.waits and link.error is None))
    for flow in flows:
        assert len(flow.received) <= 2**21
        assert 0 <= flow.window < 2**32
        flow.room()
    assert link.error is None or isinstance(link.error, BadPacket), link.error


def channel(transport: Any, number: int) -> paramiko.Channel:
    """A channel that is open."""
    made = paramiko.Channel(number)
    made.transport = transport
    made.active = True
    made.in_window_size = 2**21
    made.out_window_size = 1000
    made.out_max_packet_size = 32768
    return made


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
