"""Every packet cipher with keys for tests, by names such as "aes128-ctr hmac-sha2-256"."""

from __future__ import annotations

from relay.ssh.wire import ciphers
from relay.ssh.wire.ciphers import CIPHERS, MACS
from relay.ssh.wire.keys import Keys, Mac
from relay.ssh.wire.packet import HEAD, Opener, Sealer, Shape

KINDS = [f"{name} {mac}".rstrip() for name, cipher in CIPHERS.items() for mac in (("",) if cipher.tag else MACS)]


def keys(kind: str) -> Keys:
    """What a key exchange might have come to; the same each time."""
    name, _, mac = kind.partition(" ")
    cipher = CIPHERS[name]
    size = 64 if "512" in mac else 32
    made = Mac(size, bytes(range(100, 100 + size)), "etm" in mac) if mac else None
    return Keys(name, bytes(range(cipher.key)), bytes(range(50, 50 + cipher.iv)), made)


def sealer(kind: str) -> Sealer:
    """What makes packets of a kind."""
    return ciphers.sealer(keys(kind))


def opener(kind: str) -> Opener:
    """What opens them."""
    return ciphers.opener(keys(kind))


def shape(kind: str) -> Shape:
    """How large they are."""
    return ciphers.shape(keys(kind))


def plain_packet(by: Sealer, plain: bytes) -> bytes:
    """A packet whose tag is right, whatever stands in it from its padding_length to its padding."""
    slot = memoryview(bytearray(HEAD) + plain)
    sealed = bytearray(len(plain) + by.shape.overhead)
    by.seal(slot, HEAD, len(slot), memoryview(sealed))
    return bytes(sealed)
