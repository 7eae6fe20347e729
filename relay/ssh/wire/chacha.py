"""chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305).

packet_length is encrypted with a key of its own. The packet's number is the nonce. The tag covers the encrypted length
and the encrypted packet. It is compared in constant time before the packet itself is decrypted.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.poly1305 import Poly1305

from relay.ssh.wire.packet import CHANGED, LENGTH, UINT32, BadPacket, Opener, Sealer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.packet import Shape

UINT64 = Struct(">Q")
ZEROS = bytes(64)


class _ChaCha:
    """The two key streams of chacha20-poly1305. They are reset for each packet."""

    __slots__ = ("_length", "_main", "encrypt_into")

    def __init__(self, key: bytes) -> None:
        def stream(part: bytes) -> CipherContext:
            return Cipher(algorithms.ChaCha20(part, bytes(16)), None).encryptor()

        self._main, self._length = stream(key[:32]), stream(key[32:])
        self.encrypt_into = self._main.update_into

    def length(self, number: int, data: bytes | memoryview) -> bytes:
        """Encrypt or decrypt the packet_length of packet `number`."""
        self._length.reset_nonce(bytes(8) + UINT64.pack(number))
        return self._length.update(data)

    def tag_key(self, number: int) -> bytes:
        """Poly1305's key for packet `number`. Afterwards `encrypt_into` is at the packet's first byte."""
        self._main.reset_nonce(bytes(8) + UINT64.pack(number))
        return self._main.update(ZEROS)[:32]


class ChaChaSealer(Sealer):
    """chacha20-poly1305@openssh.com."""

    __slots__ = ("_cipher",)

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._cipher = _ChaCha(keys.key)

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Seal one packet (see Sealer.seal)."""
        cipher, number, tag = self._cipher, self.number, LENGTH + end - at
        into[:LENGTH] = cipher.length(number, UINT32.pack(end - at))
        key = cipher.tag_key(number)
        cipher.encrypt_into(slot[at:end], into[LENGTH:tag])
        into[tag:] = Poly1305.generate_tag(key, into[:tag])
        self.packets += 1
        self.bytes += len(into)


class ChaChaOpener(Opener):
    """chacha20-poly1305@openssh.com."""

    __slots__ = ("_cipher",)

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._cipher = _ChaCha(keys.key)

    def open(self, source: Buffer) -> int:
        """Open the next packet (see Opener.open)."""
        start, view = source.start, source.view
        size = self._size
        if not size:
            if source.end - start < LENGTH:
                return 0
            (size,) = UINT32.unpack(self._cipher.length(self.number, view[start : start + LENGTH]))
            self.shape.check(size)
            self._size = size
        tag = start + LENGTH + size
        after = tag + self.shape.tag
        if after > source.end:
            return 0
        key = self._cipher.tag_key(self.number)
        if not compare_digest(Poly1305.generate_tag(key, view[start:tag]), view[tag:after]):
            raise BadPacket(CHANGED)
        self._cipher.encrypt_into(view[start + LENGTH : tag], self._fit(size))
        return self._opened(source, size)
