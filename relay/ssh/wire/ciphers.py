"""The packet ciphers by their names.

To add a cipher, add a row to CIPHERS and a module with its sealer and its opener.
"""

from __future__ import annotations

from relay.ssh.digest import Sha256, Sha512
from relay.ssh.record import Record
from relay.ssh.wire.packet import MAX_BLOCK, Shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from relay.ssh.wire.keys import Keys
    from relay.ssh.wire.packet import Opener, Sealer

    Room: TypeAlias = tuple[Callable[[Keys, Shape], Sealer], Callable[[Keys, Shape], Opener]]

# How many bytes may be encrypted with one key, as in OpenSSH (packet.c, ssh_set_newkeys; RFC 4344 section 3.2):
LARGE_BLOCKS = 2**36  # 2^32 blocks of 16 bytes
SMALL_BLOCKS = 2**30  # of smaller blocks
PACKETS = 2**31  # with any cipher (section 3.1)
CLEAR = Shape(8, 0, counted=True)  # before the first keys
CPU = 4096  # bytes to read of /proc/cpuinfo: enough for the first processor


class Cipher(Record):
    """A row: bytes of key, IV, block and of the cipher's own tag (0: a MAC makes the tag).

    rooms: returns the classes of its sealer and its opener. It imports their module only when the cipher is used.
    """

    key: int
    iv: int
    block: int
    tag: int
    rooms: Callable[[Keys], Room]

    @property
    def limit(self) -> int:
        """How many bytes may be encrypted with one key."""
        return LARGE_BLOCKS if self.block >= MAX_BLOCK else SMALL_BLOCKS


def _gcm(_: Keys) -> Room:
    from relay.ssh.wire import gcm

    return gcm.GcmSealer, gcm.GcmOpener


def _chacha(_: Keys) -> Room:
    from relay.ssh.wire import chacha

    return chacha.ChaChaSealer, chacha.ChaChaOpener


def _ctr(keys: Keys) -> Room:
    from relay.ssh.wire import ctr

    return (ctr.MacSealer, ctr.MacOpener) if keys.signs_plain else (ctr.EtmSealer, ctr.EtmOpener)


# In our order of preference: the fastest first, on a processor with instructions for AES.
CIPHERS = {
    "aes128-gcm@openssh.com": Cipher(16, 12, 16, 16, _gcm),
    "aes256-gcm@openssh.com": Cipher(32, 12, 16, 16, _gcm),
    "chacha20-poly1305@openssh.com": Cipher(64, 0, 8, 16, _chacha),
    "aes128-ctr": Cipher(16, 16, 16, 0, _ctr),
    "aes192-ctr": Cipher(24, 16, 16, 0, _ctr),
    "aes256-ctr": Cipher(32, 16, 16, 0, _ctr),
}
MACS = {
    "hmac-sha2-256-etm@openssh.com": Sha256,
    "hmac-sha2-512-etm@openssh.com": Sha512,
    "hmac-sha2-256": Sha256,
    "hmac-sha2-512": Sha512,
}


def shape(keys: Keys) -> Shape:
    """How large packets are under a cipher."""
    row = CIPHERS[keys.cipher]
    return Shape(row.block, keys.mac.size if keys.mac else row.tag, counted=keys.signs_plain)


def sealer(keys: Keys) -> Sealer:
    """What makes packets with these."""
    return CIPHERS[keys.cipher].rooms(keys)[0](keys, shape(keys))


def opener(keys: Keys) -> Opener:
    """What opens packets with these."""
    return CIPHERS[keys.cipher].rooms(keys)[1](keys, shape(keys))


def preferred() -> tuple[str, ...]:
    """The names of the ciphers, authenticated ones first, and of these the fastest on this processor."""
    names = tuple(CIPHERS)
    if _has_aes():
        return names
    return (names[2], *names[:2], *names[3:])


def _has_aes() -> bool:
    """Whether the processor has instructions for AES, as far as Linux says so; without them chacha20 is faster."""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            said = file.read(CPU)
    except OSError:
        return True
    flags = [line.split() for line in said.splitlines() if line.startswith((b"flags", b"Features"))]
    return not flags or b"aes" in flags[0]
