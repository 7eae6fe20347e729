"""chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305).

packet_length is encrypted with a key of its own. The packet's number is the nonce. The tag covers the encrypted length
and the encrypted packet. It is compared in constant time before the packet itself is decrypted.
"""

from __future__ import annotations

from _operator import _compare_digest as compare_digest  # hmac would load the system's OpenSSL
from struct import Struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.poly1305 import Poly1305

from relay.ssh.wire.packet import CHANGED, LENGTH, UINT32, BadPacket, Opener, Sealer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.packet import Shape

NONCE = Struct(">8xQ")  # ChaCha20's block counter, which begins at 0, and the packet's number
ZEROS = bytes(64)
KEY = 32  # bytes of Poly1305's key
TAG = 16
generate_tag = Poly1305.generate_tag


def _streams(key: bytes) -> tuple[CipherContext, CipherContext]:
    """Two key streams, that of packet_length and that of the packet. Each is set to a packet's number before its use.

    The packet's begins with a block of which 32 bytes are Poly1305's key.
    """
    length, packet = (Cipher(algorithms.ChaCha20(part, bytes(16)), None).encryptor() for part in (key[32:], key[:32]))
    return length, packet


class ChaChaSealer(Sealer):
    """chacha20-poly1305@openssh.com."""

    __slots__ = ("_length", "_packet")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._length, self._packet = _streams(keys.key)

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Seal one packet (see Sealer.seal)."""
        length, packet, nonce = self._length, self._packet, NONCE.pack(self.number)
        size = end - at
        tag = LENGTH + size
        length.reset_nonce(nonce)
        into[:LENGTH] = length.update(UINT32.pack(size))
        packet.reset_nonce(nonce)
        key = packet.update(ZEROS)[:KEY]
        packet.update_into(slot[at:end], into[LENGTH:tag])
        into[tag:] = generate_tag(key, into[:tag])
        self.packets += 1
        self.bytes += len(into)


class ChaChaOpener(Opener):
    """chacha20-poly1305@openssh.com."""

    __slots__ = ("_length", "_packet")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._length, self._packet = _streams(keys.key)

    def open(self, source: Buffer) -> int:
        """Open the next packet (see Opener.open)."""
        start, view = source.start, source.view
        body = start + LENGTH
        if body > source.end:
            return 0
        nonce, size = NONCE.pack(self.number), self._size
        if not size:
            self._length.reset_nonce(nonce)
            (size,) = UINT32.unpack(self._length.update(view[start:body]))
            self.shape.check(size)
            self._size = size
        tag = body + size
        after = tag + TAG
        if after > source.end:
            return 0
        packet = self._packet
        packet.reset_nonce(nonce)
        key = packet.update(ZEROS)[:KEY]
        if not compare_digest(generate_tag(key, view[start:tag]), view[tag:after]):
            raise BadPacket(CHANGED)
        packet.update_into(view[body:tag], self._fit(size))
        return self._opened(source, size)
