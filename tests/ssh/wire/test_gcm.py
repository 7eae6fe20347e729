"""AES-GCM packets: what is sealed can be opened, in whatever pieces it comes, and nothing else can."""

from __future__ import annotations

import os
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.gcm import MAX_LENGTH, OVERHEAD, BadPacket, Opener, Sealer

KEY = AESGCM(bytes(range(16)))
IV = bytes(range(12))


def sealed(*payloads: bytes) -> bytes:
    sealer = Sealer(KEY, IV)
    return b"".join(bytes(sealer.packet(payload)) for payload in payloads)


def sealed_as_it_is(plain: bytes) -> bytes:
    """A packet whose tag is right, whatever stands in it."""
    length = struct.pack(">I", len(plain))
    return length + KEY.encrypt(IV, plain, length)


def opened(*pieces: bytes) -> list[bytes]:
    """The payloads in a stream that comes in pieces."""
    opener, source, payloads = Opener(KEY, IV), Buffer(0), []
    for piece in pieces:
        source.put(piece)
        while length := opener.open(source):
            payloads.append(bytes(opener.plain[1 : 1 + length]))
    return payloads


@pytest.mark.parametrize("size", [1, 2, 10, 11, 12, 13, 26, 27, 28, 32768, 35000, 65535, 100_000, MAX_LENGTH - 5])
def test_sizes(size: int) -> None:
    payload = os.urandom(size)
    packet = sealed(payload)
    assert (len(packet) - OVERHEAD) % 16 == 0
    assert opened(packet) == [payload]


def test_byte_by_byte() -> None:
    payloads = [os.urandom(size) for size in (1, 200, 17)]
    assert opened(*(bytes([byte]) for byte in sealed(*payloads))) == payloads


def test_the_packet_that_paramiko_makes() -> None:
    """And the nonces that go with it (RFC 5647 section 7.1)."""
    lengths = [struct.pack(">I", 16)] * 2
    nonces = [IV, IV[:4] + (int.from_bytes(IV[4:], "big") + 1).to_bytes(8, "big")]
    plains = [b"\x0a" + b"hello" + bytes(10), b"\x04" + b"hello again" + bytes(4)]
    packets = [aad + KEY.encrypt(nonce, plain, aad) for aad, nonce, plain in zip(lengths, nonces, plains, strict=True)]
    assert opened(*packets) == [b"hello", b"hello again"]


def test_the_counter_starts_over_after_its_last_value() -> None:
    last = IV[:4] + b"\xff" * 8
    sealer, opener, source = Sealer(KEY, last), Opener(KEY, last), Buffer(0)
    for payload in (b"one", b"two"):
        source.put(sealer.packet(payload))
        length = opener.open(source)
        assert bytes(opener.plain[1 : 1 + length]) == payload


def test_what_was_done_is_counted() -> None:
    sealer, opener, source = Sealer(KEY, IV), Opener(KEY, IV), Buffer(0)
    for payload in (b"x", b"y" * 1000):
        source.put(sealer.packet(payload))
    size = len(source)
    while opener.open(source):
        pass
    assert (sealer.packets, sealer.bytes) == (opener.packets, opener.bytes) == (2, size)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (struct.pack(">I", 0), "a packet of 0 bytes"),
        (struct.pack(">I", 8), "a packet of 8 bytes"),
        (struct.pack(">I", 24), "a packet of 24 bytes"),
        (struct.pack(">I", MAX_LENGTH + 16), f"a packet of {MAX_LENGTH + 16} bytes"),
        (struct.pack(">I", 2**32 - 16), f"a packet of {2**32 - 16} bytes"),
        (b"SSH-2.0-what?", "a packet of 1397966893 bytes"),
        (sealed_as_it_is(b"\x03" + bytes(15)), "a packet of 16 bytes with 3 bytes of padding"),
        (sealed_as_it_is(b"\x00" + bytes(15)), "a packet of 16 bytes with 0 bytes of padding"),
        (sealed_as_it_is(b"\x0f" + bytes(15)), "a packet of 16 bytes with 15 bytes of padding"),
        (sealed_as_it_is(b"\xff" + bytes(15)), "a packet of 16 bytes with 255 bytes of padding"),
        (struct.pack(">I", 16) + bytes(32), "a packet was changed on its way"),
    ],
)
def test_what_is_no_packet(data: bytes, complaint: str) -> None:
    with pytest.raises(BadPacket) as caught:
        opened(data)
    assert str(caught.value) == complaint


def test_a_packet_cannot_be_sent_again_left_out_or_moved() -> None:
    sealer = Sealer(KEY, IV)
    one, two = (bytes(sealer.packet(payload)) for payload in (b"one", b"two"))
    for stream in (one + one, two, two + one):
        with pytest.raises(BadPacket):
            opened(stream)


# Properties


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Nobody without the key can make a packet: there is none, or our error."""
    try:
        assert opened(data) == []
    except BadPacket:
        pass


@given(st.binary(min_size=16, max_size=320))
def test_any_plaintext(plain: bytes) -> None:
    """Whoever has the key can seal anything: a payload within the packet, or our error."""
    try:
        payloads = opened(sealed_as_it_is(plain))
    except BadPacket:
        return
    assert payloads == [plain[1 : len(plain) - plain[0]]]
    assert payloads[0]


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=8), st.data())
def test_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    stream = sealed(*payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert opened(*pieces) == payloads


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.data())
def test_any_change(payloads: list[bytes], data: st.DataObject) -> None:
    """What comes before a change is read; the packet that was changed is not, nor anything after it."""
    stream = bytearray(sealed(*payloads))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    opener, source, got = Opener(KEY, IV), Buffer(0), []
    source.put(stream)
    try:
        while length := opener.open(source):
            got.append(bytes(opener.plain[1 : 1 + length]))
    except BadPacket:
        pass
    assert got == payloads[: len(got)]
    assert len(got) < len(payloads)


@given(st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 60)), max_size=50), st.integers(0, 40))
def test_a_buffer_is_a_queue_of_bytes(steps: list[bytes | int], capacity: int) -> None:
    buffer, model = Buffer(capacity), b""
    for step in steps:
        if isinstance(step, int):
            size = min(step, len(model))
            assert buffer.take(size) == model[:size]
            model = model[size:]
        elif len(step) % 2:
            buffer.put(step)
            model += step
        else:
            room = buffer.room(len(step))
            room[: len(step)] = step
            buffer.wrote(len(step))
            model += step
        assert buffer.waiting() == model
        assert len(buffer) == len(model)
