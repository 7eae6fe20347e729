"""The packet ciphers: what is sealed can be opened, in whatever pieces it comes, and nothing else can.

The oracles are paramiko's own packets, cryptography's AES-GCM, and chacha20-poly1305 written out here from RFC 8439.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tracemalloc

import paramiko
import pytest
import sealing
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from sealing import KINDS, keys, plain_packet

from relay.ssh.wire import ciphers
from relay.ssh.wire.buffer import SLACK, Buffer
from relay.ssh.wire.ciphers import CIPHERS, CLEAR
from relay.ssh.wire.keys import Keys
from relay.ssh.wire.packet import MAX_LENGTH, MIN_PADDING, UINT32, BadPacket, Opener, Sealer

each_kind = pytest.mark.parametrize("kind", KINDS)
each_sort = pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], KINDS[3], KINDS[5]])  # one of each sealer and opener
GCM = KINDS[0]


def sealed(kind: str, *payloads: bytes) -> bytes:
    sealer = sealing.sealer(kind)
    return b"".join(bytes(sealer.packet(payload)) for payload in payloads)


def opened(kind: str, *pieces: bytes | bytearray) -> list[bytes]:
    """The payloads in a stream that comes in pieces."""
    opener, source, payloads = sealing.opener(kind), Buffer(0), []
    for piece in pieces:
        source.put(piece)
        while length := opener.open(source):
            payloads.append(bytes(opener.plain[1 : 1 + length]))
    return payloads


@each_kind
@pytest.mark.parametrize("size", [1, 2, 10, 11, 12, 13, 26, 27, 28, 32768, 35000, 65535, 100_000, MAX_LENGTH - 32])
def test_sizes(kind: str, size: int) -> None:
    payload = os.urandom(size)
    packet = sealed(kind, payload)
    shape = sealing.shape(kind)
    assert len(packet) == shape.wire(size)
    assert (len(packet) - shape.tag - (4 - shape.counted)) % shape.block == 0
    assert opened(kind, packet) == [payload]


@each_kind
@pytest.mark.parametrize("size", range(100, 140))
def test_the_largest_payload_for_a_size(kind: str, size: int) -> None:
    shape = sealing.shape(kind)
    most = shape.payload(size)
    assert shape.wire(most) <= size < shape.wire(most + 1)


@each_kind
def test_byte_by_byte(kind: str) -> None:
    payloads = [os.urandom(size) for size in (1, 200, 17)]
    assert opened(kind, *(bytes([byte]) for byte in sealed(kind, *payloads))) == payloads


@each_kind
def test_what_was_done_is_counted(kind: str) -> None:
    sealer, opener, source = sealing.sealer(kind), sealing.opener(kind), Buffer(0)
    for payload in (b"x", b"y" * 1000):
        source.put(sealer.packet(payload))
    size = len(source)
    while opener.open(source):
        pass
    assert (sealer.packets, sealer.bytes) == (opener.packets, opener.bytes) == (2, size)


@each_kind
@pytest.mark.parametrize("first", [0, 3, 2**32 - 2])
def test_packets_are_numbered_from_any_number(kind: str, first: int) -> None:
    """And modulo 2^32. The number matters wherever it is signed, or is the nonce."""
    sealer, opener, source = sealing.sealer(kind), sealing.opener(kind), Buffer(0)
    sealer.count_from(first)
    opener.count_from(first)
    for payload in (b"one", b"two", b"three"):
        source.put(sealer.packet(payload))
        length = opener.open(source)
        assert bytes(opener.plain[1 : 1 + length]) == payload
    assert sealer.number == opener.number == (first + 3) % 2**32
    opener.count_from(first)
    source.put(sealer.packet(b"four"))
    if "gcm" in kind:
        assert opener.open(source)
    else:
        with pytest.raises(BadPacket):
            opener.open(source)


@each_kind
@pytest.mark.parametrize("size", [1, 13])
def test_every_bit_counts(kind: str, size: int) -> None:
    """A packet with any one bit changed is refused, or, where that bit makes it longer, still waited for."""
    packet = sealed(kind, bytes(size))
    for bit in range(8 * len(packet)):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadPacket):
            assert opened(kind, changed) == []
            opened(kind, changed + bytes(MAX_LENGTH + 100))


@each_kind
def test_a_packet_cannot_be_sent_again_left_out_or_moved(kind: str) -> None:
    one, two = (bytes(packet) for packet in map(sealing.sealer(kind).packet, (b"one", b"two")))
    for stream in (one + one, two + bytes(MAX_LENGTH + 100), two + one):
        with pytest.raises(BadPacket):
            opened(kind, stream)


@each_kind
@pytest.mark.parametrize(("padding", "size"), [(3, 28), (0, 28), (27, 28), (255, 28)])
def test_bad_padding(kind: str, padding: int, size: int) -> None:
    size += -(size + sealing.shape(kind).counted) % sealing.shape(kind).block
    if padding == 27:
        padding = size - 1
    with pytest.raises(BadPacket) as caught:
        opened(kind, plain_packet(sealing.sealer(kind), bytes((padding,)) + bytes(size - 1)))
    assert str(caught.value) == f"a packet of {size} bytes with {padding} bytes of padding"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "chacha" not in kind and not kind.endswith(("256", "512"))])
@pytest.mark.parametrize("size", [0, 8, 24, MAX_LENGTH + 16, 2**32 - 16])
def test_sizes_out_of_bounds(kind: str, size: int) -> None:
    """Where packet_length is not encrypted: what it says is refused before anything else is waited for."""
    with pytest.raises(BadPacket) as caught:
        opened(kind, UINT32.pack(size))
    assert str(caught.value) == f"a packet of {size} bytes"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "chacha" in kind or kind.endswith(("256", "512"))])
@pytest.mark.parametrize("size", [0, 7, 13, MAX_LENGTH + 16, 2**32 - 16])
def test_encrypted_sizes_out_of_bounds(kind: str, size: int) -> None:
    """The same, by whoever has the key, and only these four bytes are decrypted, and once."""
    packet = bytearray(sealed(kind, bytes(10)))
    was = len(packet) - 4 - sealing.shape(kind).tag
    for index, byte in enumerate(struct.pack(">I", was ^ size)):
        packet[index] ^= byte
    with pytest.raises(BadPacket) as caught:
        opened(kind, packet[:4])
    assert str(caught.value) == f"a packet of {size} bytes"


# Oracles


class Pipe:
    """What paramiko's Packetizer takes for a socket."""

    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def recv(self, size: int) -> bytes:
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def paramikos(kind: str, pipe: Pipe, first: int) -> paramiko.packet.Packetizer:
    """paramiko's own code with the keys of a kind, both ways."""
    made = keys(kind)
    packetizer = paramiko.packet.Packetizer(pipe)
    rest = (None, 16, None)
    if made.mac is not None:
        sha2 = {32: hashlib.sha256, 64: hashlib.sha512}[made.mac.size]
        rest = (sha2, made.mac.size, made.mac.key)  # type: ignore[assignment]
    for number in range(first):
        packetizer.send_message(paramiko.Message(bytes((2, number % 256))))
        packetizer.read_message()
    if made.mac is None:
        packetizer.set_outbound_cipher(AESGCM(made.key), 16, *rest, aead=True, iv_out=made.iv)
        packetizer.set_inbound_cipher(AESGCM(made.key), 16, *rest, aead=True, iv_in=made.iv)
    else:
        cipher = Cipher(algorithms.AES(made.key), modes.CTR(made.iv))
        packetizer.set_outbound_cipher(cipher.encryptor(), 16, *rest, sdctr=True, etm=made.mac.etm)
        packetizer.set_inbound_cipher(cipher.decryptor(), 16, *rest, etm=made.mac.etm)
    return packetizer


def padded(sealer: Sealer, payload: bytes) -> bytes:
    """A packet whose padding is zeros, as paramiko's is under AES-CTR."""
    padding = sealer.shape.padding(len(payload))
    return plain_packet(sealer, bytes((padding,)) + payload + bytes(padding))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "chacha" not in kind])
@pytest.mark.parametrize("first", [0, 3])
def test_paramikos_packets_are_ours(kind: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte, and both ways, for payloads of 1 to 144 bytes one after the other."""
    monkeypatch.setattr(paramiko.packet.os, "urandom", bytes)
    pipe, source = Pipe(), Buffer(0)
    theirs, sealer, opener = paramikos(kind, pipe, first), sealing.sealer(kind), sealing.opener(kind)
    sealer.count_from(first)
    opener.count_from(first)
    for size in range(1, 145):
        payload = os.urandom(size)
        theirs.send_message(paramiko.Message(payload))
        said = pipe.data
        assert said == padded(sealer, payload)
        number, message = theirs.read_message()
        assert (number, message.asbytes()) == (payload[0], payload[1:])
        source.put(said)
        length = opener.open(source)
        assert bytes(opener.plain[1 : 1 + length]) == payload


def rotated(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & 0xFFFFFFFF


def chacha20(key: bytes, counter: int, nonce: bytes) -> bytes:
    """A block of the key stream (RFC 8439 section 2.3), with the counter and the nonce of 64 bits each."""
    words = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key)]
    words += [*struct.unpack("<2I", struct.pack("<Q", counter)), *struct.unpack("<2I", nonce)]
    state = list(words)
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for _ in range(10):
        for a, b, c, d in columns + diagonals:
            for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                state[x] = (state[x] + state[y]) & 0xFFFFFFFF
                state[z] = rotated(state[z] ^ state[x], by)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(words, state, strict=True)))


def crypted(key: bytes, counter: int, nonce: bytes, data: bytes) -> bytes:
    stream = b"".join(chacha20(key, counter + number, nonce) for number in range(len(data) // 64 + 1))
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def poly1305(key: bytes, data: bytes) -> bytes:
    """RFC 8439 section 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def test_the_oracle() -> None:
    """RFC 8439 sections 2.3.2 and 2.5.2."""
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a00000000")  # 32 bits of the counter and 96 of the nonce there
    counter = 1 | int.from_bytes(nonce[:4], "little") << 32
    assert chacha20(key, counter, nonce[4:])[:16].hex() == "10f1e7e4d13b5915500fdd1fa32071c4"
    key = bytes.fromhex("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b")
    assert poly1305(key, b"Cryptographic Forum Research Group").hex() == "a8061dc1305136c6c22b8baf0c0127a9"


@pytest.mark.parametrize("first", [0, 3, 2**31 + 1])
def test_chacha20_poly1305_is_as_openssh_describes_it(first: int) -> None:
    kind = "chacha20-poly1305@openssh.com"
    key, sealer, opener, source = keys(kind).key, sealing.sealer(kind), sealing.opener(kind), Buffer(0)
    sealer.count_from(first)
    opener.count_from(first)
    for number, size in enumerate([1, 2, 3, 10, 11, 64, 200], first):
        payload = os.urandom(size)
        padding = sealer.shape.padding(size)
        plain = bytes((padding,)) + payload + bytes(padding)
        nonce = struct.pack(">Q", number)
        body = crypted(key[32:], 0, nonce, struct.pack(">I", len(plain))) + crypted(key[:32], 1, nonce, plain)
        packet = body + poly1305(chacha20(key[:32], 0, nonce)[:32], body)
        assert padded(sealer, payload) == packet
        source.put(packet)
        length = opener.open(source)
        assert bytes(opener.plain[1 : 1 + length]) == payload


def test_aes_gcms_counter_starts_over_after_its_last_value() -> None:
    last = Keys(GCM, bytes(range(16)), bytes(range(4)) + b"\xff" * 8)
    sealer, opener, source = ciphers.sealer(last), ciphers.opener(last), Buffer(0)
    for payload in (b"one", b"two"):
        source.put(sealer.packet(payload))
        length = opener.open(source)
        assert bytes(opener.plain[1 : 1 + length]) == payload


@pytest.mark.parametrize("size", [1, 3, 4, 11, 200])
def test_before_the_first_keys(size: int) -> None:
    sealer, opener, source = Sealer(CLEAR), Opener(CLEAR), Buffer(0)
    payload = os.urandom(size)
    packet = bytes(sealer.packet(payload))
    assert len(packet) % 8 == 0
    assert packet[:4] == struct.pack(">I", len(packet) - 4)
    assert packet[5 : 5 + size] == payload
    source.put(packet)
    length = opener.open(source)
    assert bytes(opener.plain[1 : 1 + length]) == payload


@pytest.mark.parametrize("size", [0, 11, 13, MAX_LENGTH + 4, 2**32 - 4])
def test_before_the_first_keys_sizes_have_bounds(size: int) -> None:
    source = Buffer(0)
    source.put(UINT32.pack(size))
    with pytest.raises(BadPacket):
        Opener(CLEAR).open(source)


# Our order


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("flags : fpu aes sse", "aes128-gcm@openssh.com"),
        ("Features : fp asimd aes pmull", "aes128-gcm@openssh.com"),
        ("flags : fpu vaes_no sse", "chacha20-poly1305@openssh.com"),
        ("Features : half thumb", "chacha20-poly1305@openssh.com"),
        ("isa : rv64imafdc", "aes128-gcm@openssh.com"),
    ],
)
def test_the_fastest_on_this_processor_comes_first(
    said: str, first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    path = f"{tmp_path}/cpuinfo"
    with open(path, "w") as file:
        file.write(f"processor : 0\n{said}\n")
    monkeypatch.setattr("builtins.open", lambda _, mode, buffering, find=open: find(path, mode, buffering))
    names = ciphers.preferred()
    monkeypatch.undo()
    assert names[0] == first
    assert sorted(names) == sorted(CIPHERS)
    assert [name for name in names if name.endswith("ctr")] == list(names[3:])


# Properties


@each_sort
@given(st.binary(max_size=300))
def test_any_bytes(kind: str, data: bytes) -> None:
    """Nobody without the key can make a packet: there is none, or our error."""
    try:
        assert opened(kind, data) == []
    except BadPacket:
        pass


@each_sort
@given(st.binary(min_size=1, max_size=320))
def test_any_plaintext(kind: str, plain: bytes) -> None:
    """Whoever has the key can seal anything: a payload within the packet, or our error."""
    try:
        payloads = opened(kind, plain_packet(sealing.sealer(kind), plain))
    except BadPacket:
        return
    assert payloads == [plain[1 : len(plain) - plain[0]]]
    assert payloads[0]
    assert plain[0] >= MIN_PADDING


@each_sort
@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=8), st.data())
def test_any_pieces(kind: str, payloads: list[bytes], data: st.DataObject) -> None:
    stream = sealed(kind, *payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert opened(kind, *pieces) == payloads


@each_sort
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5), st.data())
def test_any_change(kind: str, payloads: list[bytes], data: st.DataObject) -> None:
    """What comes before a change is read; the packet that was changed is not, nor anything after it."""
    stream = bytearray(sealed(kind, *payloads))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= data.draw(st.integers(1, 255))
    opener, source, got = sealing.opener(kind), Buffer(0), []
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


@pytest.mark.parametrize("looks_on", [False, True])
def test_a_buffer_takes_little_more_memory_than_its_bytes(looks_on: bool) -> None:
    """And less than twice as much while it grows, unless somebody has a view of it."""
    buffer, piece = Buffer(0), bytes(range(256)) * 128
    tracemalloc.start()
    try:
        for count in range(1, 65):
            view = buffer.waiting()[:8] if looks_on and len(buffer) else b""
            buffer.put(piece)
            assert buffer.waiting()[-len(piece) :] == piece
            assert len(buffer.data) <= 2 * count * len(piece)
            del view
        assert buffer.take(len(piece)) == piece
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    waiting = 64 * len(piece)
    assert len(buffer.data) <= waiting + SLACK + len(piece)
    assert looks_on or peak < waiting * 1.5
