"""aes128-ctr, aes192-ctr and aes256-ctr (RFC 4344) with hmac-sha2-256 or -512 (RFC 6668).

The key stream goes on from packet to packet, and a packet's number is signed with it. With encrypt-then-MAC (OpenSSH's
PROTOCOL, section 1.5) packet_length is not encrypted, and the MAC is compared before anything is decrypted; else the
MAC is over what was encrypted (RFC 4253 section 6.4), and packet_length is known once its bytes are decrypted. It is
compared in constant time.
"""

from __future__ import annotations

from _operator import _compare_digest as compare_digest  # hmac would load the system's OpenSSL
from struct import Struct

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from relay.ssh.record import Record
from relay.ssh.wire.packet import CHANGED, HEAD, LENGTH, UINT32, BadPacket, Opener, Sealer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.hmac import HMAC

    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.packet import Shape

NUMBER_AND_LENGTH = Struct(">II")


class _Ctr(Record):
    """What a key of AES-CTR and one of a MAC come to."""

    crypt: Callable[[bytes | memoryview], bytes]
    crypt_into: Callable[[memoryview, memoryview], int]
    mac: Callable[[], HMAC]


def _ctr(keys: Keys) -> _Ctr:
    mac = keys.mac
    if mac is None:
        raise ValueError("AES-CTR needs a MAC")
    stream = Cipher(algorithms.AES(keys.key), modes.CTR(keys.iv)).encryptor()  # decrypting is the same
    sha2 = {32: hashes.SHA256, 64: hashes.SHA512}[mac.size]()
    return _Ctr(stream.update, stream.update_into, hmac.HMAC(mac.key, sha2).copy)


class EtmSealer(Sealer):
    """AES-CTR, encrypt-then-MAC: packet_length is not encrypted."""

    __slots__ = ("_crypt_into", "_mac")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        _, self._crypt_into, self._mac = _ctr(keys)

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Seal one packet (see Sealer.seal)."""
        tag = LENGTH + end - at
        UINT32.pack_into(into, 0, end - at)
        self._crypt_into(slot[at:end], into[LENGTH:tag])
        mac = self._mac()
        mac.update(UINT32.pack(self.number))
        mac.update(into[:tag])
        into[tag:] = mac.finalize()
        self.packets += 1
        self.bytes += len(into)


class EtmOpener(Opener):
    """AES-CTR, encrypt-then-MAC."""

    __slots__ = ("_crypt_into", "_mac")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        _, self._crypt_into, self._mac = _ctr(keys)

    def open(self, source: Buffer) -> int:
        """Open the next packet (see Opener.open)."""
        start = source.start
        if source.end - start < LENGTH:
            return 0
        (size,) = UINT32.unpack_from(source.data, start)
        self.shape.check(size)
        tag = start + LENGTH + size
        after = tag + self.shape.tag
        if after > source.end:
            return 0
        view = source.view
        mac = self._mac()
        mac.update(UINT32.pack(self.number))
        mac.update(view[start:tag])
        if not compare_digest(mac.finalize(), view[tag:after]):
            raise BadPacket(CHANGED)
        self._crypt_into(view[start + LENGTH : tag], self._fit(size))
        return self._opened(source, size)


class MacSealer(Sealer):
    """AES-CTR, and a MAC over what is encrypted with it, packet_length included (RFC 4253 section 6.4)."""

    __slots__ = ("_crypt_into", "_mac")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        _, self._crypt_into, self._mac = _ctr(keys)

    def seal(self, slot: memoryview, at: int, end: int, into: memoryview) -> None:
        """Seal one packet (see Sealer.seal)."""
        tag = LENGTH + end - at
        NUMBER_AND_LENGTH.pack_into(slot, at - HEAD, self.number, end - at)
        mac = self._mac()
        mac.update(slot[at - HEAD : end])
        self._crypt_into(slot[at - LENGTH : end], into[:tag])
        into[tag:] = mac.finalize()
        self.packets += 1
        self.bytes += len(into)


class MacOpener(Opener):
    """AES-CTR, and a MAC over what is encrypted with it."""

    __slots__ = ("_crypt", "_crypt_into", "_mac")

    def __init__(self, keys: Keys, shape: Shape) -> None:
        super().__init__(shape)
        self._crypt, self._crypt_into, self._mac = _ctr(keys)

    def open(self, source: Buffer) -> int:
        """Open the next packet (see Opener.open)."""
        start, view = source.start, source.view
        size = self._size
        if not size:
            if source.end - start < LENGTH:
                return 0
            # Exactly these bytes, and once: the key stream goes on with every byte.
            (size,) = UINT32.unpack(self._crypt(view[start : start + LENGTH]))
            self.shape.check(size)
            self._size = size
        tag = start + LENGTH + size
        after = tag + self.shape.tag
        if after > source.end:
            return 0
        self._crypt_into(view[start + LENGTH : tag], self._fit(size))
        NUMBER_AND_LENGTH.pack_into(self._memory, 0, self.number, size)
        mac = self._mac()
        mac.update(self._memory[: HEAD + size])
        if not compare_digest(mac.finalize(), view[tag:after]):
            raise BadPacket(CHANGED)
        return self._opened(source, size)
