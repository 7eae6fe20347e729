r"""SSH packets under AES-GCM: sealed and opened in buffers that are used again (RFC 4253 section 6, RFC 5647).

    packet_length    4 bytes, not encrypted but authenticated; counts what lies between itself and the tag
    padding_length   1 byte   \
    payload                    } packet_length bytes, encrypted, a multiple of 16
    padding          4 to 255 /
    tag              16 bytes

No input or output, no threads, no paramiko: bytes in, bytes out. Whatever the
bytes are, an Opener gives packets or raises BadPacket, and what BadPacket was
raised for is never handed out.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from relay.ssh.wire.buffer import Buffer

LENGTH = 4  # bytes of packet_length
TAG = 16
BLOCK = 16
OVERHEAD = LENGTH + TAG  # bytes of a packet besides the packet_length ones that are encrypted
MIN_PADDING = 4
MAX_LENGTH = 256 * 1024  # bytes; what OpenSSH takes, too (packet.c, PACKET_MAX_SIZE)

UINT32 = Struct(">I")
PLAIN = Struct(">BBII")  # a packet from its padding_length to its data: that, the message's type, channel, size
SLOTS = 8  # packets that one read fills
_LOW_64_BITS = (1 << 64) - 1


class BadPacket(Exception):
    """Bytes that are no packet, or not from who has the key. Nothing that follows them can be read."""


class _Nonces:
    """What is encrypted with one key: the nonces, 4 fixed bytes and a counter (RFC 5647 section 7.1), and how much.

    packets, bytes: sealed or opened so far, bytes as they are on the wire.
    """

    def __init__(self, iv: bytes) -> None:
        self.packets = 0
        self.bytes = 0
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], "big")

    def _next(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & _LOW_64_BITS
        self.packets += 1
        return nonce


class Sealer(_Nonces):
    """Makes packets, with one key."""

    def __init__(self, cipher: AESGCM, iv: bytes) -> None:
        super().__init__(iv)
        self._encrypt_into = cipher.encrypt_into

    def seal(self, plain: memoryview, into: memoryview) -> None:
        """Encrypt a packet from its padding_length to its padding; into has OVERHEAD bytes more than plain."""
        size = len(plain)
        UINT32.pack_into(into, 0, size)
        self._encrypt_into(self._next(), plain, into[:LENGTH], into[LENGTH:])
        self.bytes += size + OVERHEAD

    def packet(self, payload: bytes) -> bytearray:
        """A whole packet with that payload."""
        padding = padding_for(len(payload))
        plain = b"".join((bytes((padding,)), payload, os.urandom(padding)))
        sealed = bytearray(len(plain) + OVERHEAD)
        self.seal(memoryview(plain), memoryview(sealed))
        return sealed


class Opener(_Nonces):
    """Opens packets, with one key.

    plain: the last packet that was opened, from its padding_length on; good
    until the next one is.
    """

    def __init__(self, cipher: AESGCM, iv: bytes) -> None:
        super().__init__(iv)
        self._decrypt_into = cipher.decrypt_into
        self.plain = memoryview(bytearray(64 * 1024))

    def open(self, source: Buffer) -> int:
        """Take the next packet out of source; return its payload's length, 0 when it is not whole yet.

        The payload is plain[1 : 1 + length]. Raises BadPacket.
        """
        start, end = source.start, source.end
        if end - start < LENGTH:
            return 0
        (size,) = UINT32.unpack_from(source.data, start)
        if not BLOCK <= size <= MAX_LENGTH or size % BLOCK:
            raise BadPacket(f"a packet of {size} bytes")
        after = start + size + OVERHEAD
        if after > end:
            return 0
        if size > len(self.plain):
            self.plain = memoryview(bytearray(MAX_LENGTH))
        view = source.view
        body = start + LENGTH
        try:
            self._decrypt_into(self._next(), view[body:after], view[start:body], self.plain[:size])
        except InvalidTag:
            raise BadPacket("a packet was changed on its way") from None
        payload: int = size - 1 - self.plain[0]
        if payload < 1 or self.plain[0] < MIN_PADDING:
            raise BadPacket(f"a packet of {size} bytes with {self.plain[0]} bytes of padding")
        self.bytes += size + OVERHEAD
        source.drop(after - start)
        return payload


def padding_for(payload: int) -> int:
    """How many bytes of padding a payload of so many bytes needs."""
    return MIN_PADDING + -(1 + payload + MIN_PADDING) % BLOCK


class Slots:
    """Memory for packets that are read into: each has its data after a place for PLAIN, and padding after it.

    size: bytes of data in each. stride: from one to the next.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.stride = PLAIN.size + size + 2 * BLOCK
        self.plain = memoryview(bytearray(SLOTS * self.stride))
        self._views = [self.plain[at + PLAIN.size :][:size] for at in range(0, len(self.plain), self.stride)]

    def views(self, room: int) -> list[memoryview]:
        """Where so many bytes of data go."""
        full, rest = divmod(room, self.size)
        return [*self._views[:full], self._views[full][:rest]] if rest else self._views[:full]
