r"""The layout of a packet (RFC 4253 section 6), what makes and opens packets, and memory for many.

    packet_length    4 bytes; counts what lies between itself and the tag
    padding_length   1 byte   \
    payload                    } packet_length bytes
    padding          4 to 255 /
    tag              as many bytes as the cipher has, or the MAC

What must be a multiple of the cipher's block: all but the tag; under a cipher that does not encrypt packet_length
with the rest (AES-GCM, chacha20-poly1305, encrypt-then-MAC), all but these two.

No input or output, no threads, no paramiko: bytes in, bytes out. Whatever the bytes are, an Opener gives packets or
raises BadPacket, and what BadPacket was raised for is never handed out.
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.wire.buffer import Buffer

LENGTH = 4  # bytes of packet_length
MIN_PADDING = 4
MAX_BLOCK = 16
MAX_LENGTH = 256 * 1024  # bytes; what OpenSSH takes, too (packet.c, PACKET_MAX_SIZE)

UINT32 = Struct(">I")
HEAD = 8  # bytes that are free before a packet's padding_length, for what its MAC covers, too: number, packet_length
PLAIN = Struct(">BBII")  # a packet from its padding_length to its data: that, the message's type, channel, size
DATA = HEAD + PLAIN.size  # bytes of a slot before its data
SLOTS = 8  # packets that one read fills
NUMBERS = 0xFFFFFFFF  # packets are numbered modulo 2^32
SMALL = 4 * 1024  # bytes of memory for an opened packet, until one needs more
NOISE = 4096  # bytes of padding that are made at once


class BadPacket(Exception):
    """Bytes that are not a packet, or were not made with the key. Nothing after them can be read."""


CHANGED = "a packet was changed on its way"


class Shape:
    """How large packets are under a cipher.

    block: what a packet's size is a multiple of. tag: bytes after it. counted: bytes of packet_length that count in
    this. overhead: bytes of a packet besides the packet_length ones. growth: by how much a packet is at most larger
    than the data in it. paddings: how many bytes of padding a payload needs, by its size modulo block.
    """

    __slots__ = ("block", "counted", "growth", "overhead", "paddings", "tag")

    def __init__(self, block: int, tag: int, *, counted: bool) -> None:
        self.block = block
        self.tag = tag
        self.counted = LENGTH if counted else 0
        self.overhead = LENGTH + tag
        self.growth = PLAIN.size + MIN_PADDING + block - 1 + self.overhead
        self.paddings = [MIN_PADDING + -(self.counted + 1 + size + MIN_PADDING) % block for size in range(block)]

    def padding(self, payload: int) -> int:
        """How many bytes of padding a payload of so many bytes needs."""
        return self.paddings[payload % self.block]

    def wire(self, payload: int) -> int:
        """How many bytes the packet of a payload of so many bytes has."""
        return 1 + payload + self.padding(payload) + self.overhead

    def payload(self, size: int) -> int:
        """The largest payload whose packet is at most so many bytes."""
        body = (size - self.overhead + self.counted) // self.block * self.block - self.counted
        return body - 1 - MIN_PADDING

    def check(self, size: int) -> None:
        """Raise BadPacket when packet_length is out of bounds."""
        if not self.block - self.counted <= size <= MAX_LENGTH or (size + self.counted) % self.block:
            raise BadPacket(f"a packet of {size} bytes")


class _Counts:
    """What has been done with one key.

    packets, bytes: so far, bytes as they are on the wire. first: the number of the first packet, modulo 2^32.
    """

    __slots__ = ("bytes", "first", "packets", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.first = 0
        self.packets = 0
        self.bytes = 0

    @property
    def number(self) -> int:
        """The next packet's number (RFC 4253 section 6.4)."""
        return (self.first + self.packets) & NUMBERS

    def count_from(self, number: int) -> None:
        """The next packet has this number."""
        self.first = number - self.packets


class Sealer(_Counts):
    """Makes packets, with one key; this one does not encrypt, which is right until keys have been exchanged."""

    __slots__ = ("_noise", "_used")

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._noise = b""
        self._used = NOISE

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Make a packet of slot[at:end], which goes from its padding_length to its padding.

        The HEAD bytes before it may be written to; into has as many bytes as the packet.
        """
        size = end - at
        UINT32.pack_into(into, 0, size)
        into[LENGTH:] = slot[at:end]
        self.packets += 1
        self.bytes += len(into)

    def packet(self, payload: bytes) -> bytearray:
        """A whole packet with that payload."""
        end = HEAD + 1 + len(payload)
        slot = memoryview(bytearray(end + MIN_PADDING + self.shape.block))
        slot[HEAD + 1 : end] = payload
        end = self.pad(slot, HEAD, end)
        sealed = bytearray(end - HEAD + self.shape.overhead)
        self.seal(slot, HEAD, end, memoryview(sealed))
        return sealed

    def pad(self, slot: memoryview, at: int, end: int) -> int:
        """Write padding_length before the payload slot[at + 1 : end], and random padding after it; return its end."""
        shape = self.shape
        size = shape.paddings[(end - at - 1) % shape.block]
        used = self._used
        if used + size > NOISE:
            self._noise, used = os.urandom(NOISE), 0
        self._used = used + size
        slot[at] = size
        slot[end : end + size] = self._noise[used : used + size]
        return end + size


class Opener(_Counts):
    """Opens packets, with one key; this one opens what is not encrypted.

    plain: the last packet that was opened, from its padding_length on; good until the next one is.
    """

    __slots__ = ("_fitted", "_memory", "_overhead", "_size", "plain")

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._overhead = shape.overhead
        self._size = 0  # of the next packet, where that is encrypted and has been decrypted
        self._remember(SMALL)

    def open(self, source: Buffer) -> int:
        """Take the next packet out of source; return its payload's length, 0 when it is not whole yet.

        The payload is plain[1 : 1 + length]. Raises BadPacket.
        """
        start = source.start
        if source.end - start < LENGTH:
            return 0
        (size,) = UINT32.unpack_from(source.data, start)
        self.shape.check(size)
        if source.end - start < LENGTH + size:
            return 0
        body = start + LENGTH
        self._fit(size)[:] = source.view[body : body + size]
        return self._opened(source, size)

    def _remember(self, size: int) -> None:
        self._memory = memoryview(bytearray(HEAD + size))
        self.plain = self._fitted = self._memory[HEAD:]

    def _fit(self, size: int) -> memoryview:
        """plain[:size], whose memory is made larger where need be."""
        if size != len(self._fitted):  # most often, a packet is as large as the one before
            if size > len(self.plain):
                self._remember(1 << (size - 1).bit_length())
            self._fitted = self.plain[:size]
        return self._fitted

    def _opened(self, source: Buffer, size: int) -> int:
        """plain holds a packet whose tag is right: take it out of source, and return its payload's length."""
        padding = self.plain[0]
        payload: int = size - 1 - padding
        if payload < 1 or padding < MIN_PADDING:
            raise BadPacket(f"a packet of {size} bytes with {padding} bytes of padding")
        whole = size + self._overhead
        self.packets += 1
        self.bytes += whole
        self._size = 0
        source.drop(whole)
        return payload


class Slots:
    """Memory for packets that are read into: each has its data after a place for HEAD and PLAIN, and padding after it.

    size: bytes of data in each. stride: from one to the next.
    """

    def __init__(self, size: int, count: int = SLOTS) -> None:
        self.size = size
        self.stride = DATA + size + 2 * MAX_BLOCK
        self.plain = memoryview(bytearray(count * self.stride))
        self._all = [self.plain[at + DATA :][:size] for at in range(0, len(self.plain), self.stride)]
        self._room, self._views = count * size, self._all

    def views(self, room: int) -> list[memoryview]:
        """Where so many bytes of data go."""
        if room != self._room:  # most often, a window has as much room as before
            full, rest = divmod(room, self.size)
            self._views = [*self._all[:full], self._all[full][:rest]] if rest else self._all[:full]
            self._room = room
        return self._views
