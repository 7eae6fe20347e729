"""Helpers that move a flow's bytes, and the far end's, in a pair."""

from __future__ import annotations

import contextlib
import struct

import paramiko
from contract import SOON, Meanwhile
from pair import Pair
from paramiko import common

from relay.ssh.wire.flow import Flow

MIB = 1 << 20


def take(flow: Flow, size: int = -1) -> bytes:
    """Deliver so many bytes of what waits, or all."""
    size = len(flow.received) if size < 0 else size
    data = flow.received.take(size)
    flow.delivered(len(data))
    return data


def give(pair: Pair, flow: Flow, data: bytes) -> None:
    """Send all of data."""
    left = memoryview(data)

    def read(views: list[memoryview]) -> int:
        nonlocal left
        count = 0
        for view in views:
            size = min(len(view), len(left))
            view[:size] = left[:size]
            left = left[size:]
            count += size
        return count

    while left:
        pair.drive(flow.room)
        flow.read_from(read)
    pair.drive(lambda: not pair.connection.sending)


def receive(pair: Pair, flow: Flow, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        pair.drive(lambda: len(flow.received) or flow.over)
        assert len(flow.received), flow.error
        parts.append(take(flow))
        size -= len(parts[-1])
    return b"".join(parts)


def read_all(channel: paramiko.Channel, size: int) -> bytes:
    channel.settimeout(SOON)
    parts: list[bytes] = []
    while size:
        parts.append(channel.recv(min(size, MIB)))
        assert parts[-1], "the channel ended"
        size -= len(parts[-1])
    return b"".join(parts)


def wait_for(pair: Pair, flow: Flow, size: int) -> None:
    """Until so many bytes wait to be delivered."""
    pair.drive(lambda: len(flow.received) == size)


def data_message(flow: Flow, data: bytes) -> bytes:
    return struct.pack(">BII", common.MSG_CHANNEL_DATA, flow.number, len(data)) + data


# Windows


def fill(pair: Pair, far: paramiko.Channel) -> int:
    """Send until the window has no more room; return how many bytes that took."""
    sent: list[int] = []
    done: list[bool] = []

    def send() -> None:
        far.settimeout(0.0)
        with contextlib.suppress(TimeoutError):
            while True:
                sent.append(far.send(bytes(100_000)))
        far.settimeout(SOON)
        done.append(True)

    with Meanwhile(send):
        pair.drive(lambda: done)
    return sum(sent)
