"""aes128-gcm@openssh.com and aes256-gcm@openssh.com (RFC 5647): packet_length is not encrypted but authenticated."""

from __future__ import annotations

from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.ssh.wire.packet import CHANGED, LENGTH, MAX_LENGTH, UINT32, BadPacket, Opener, Sealer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.packet import Shape

LOW_64_BITS = (1 << 64) - 1
NONCE = Struct(">4sQ")  # RFC 5647 section 7.1: a fixed part, and one that counts packets
TAG = 16


class GcmSealer(Sealer):
    """AES-GCM."""

    __slots__ = ("_counter", "_encrypt_into", "_fixed")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._encrypt_into = AESGCM(keys.key).encrypt_into
        self._fixed, self._counter = NONCE.unpack(keys.iv)

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Seal one packet (see Sealer.seal)."""
        counter = self._counter
        self._counter = (counter + 1) & LOW_64_BITS
        length = UINT32.pack(end - at)
        into[:LENGTH] = length
        self._encrypt_into(NONCE.pack(self._fixed, counter), slot[at:end], length, into[LENGTH:])
        self.packets += 1
        self.bytes += len(into)


class GcmOpener(Opener):
    """AES-GCM."""

    __slots__ = ("_counter", "_decrypt_into", "_fixed")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._decrypt_into = AESGCM(keys.key).decrypt_into
        self._fixed, self._counter = NONCE.unpack(keys.iv)

    def open(self, source: Buffer) -> int:
        """Open the next packet (see Opener.open)."""
        start = source.start
        body = start + LENGTH
        if body > source.end:
            return 0
        (size,) = UINT32.unpack_from(source.data, start)
        if not 16 <= size <= MAX_LENGTH or size % 16:  # Shape.check, without a call for each packet
            raise BadPacket(f"a packet of {size} bytes")
        after = body + size + TAG
        if after > source.end:
            return 0
        counter = self._counter
        self._counter = (counter + 1) & LOW_64_BITS
        nonce = NONCE.pack(self._fixed, counter)
        try:
            self._decrypt_into(nonce, source.view[body:after], UINT32.pack(size), self._fit(size))
        except InvalidTag:
            raise BadPacket(CHANGED) from None
        return self._opened(source, size)
