"""What a key exchange has come to, one way."""

from __future__ import annotations

from relay.ssh.record import Record


class Mac(Record):
    """A message authentication code. size: bytes of its tag. etm: it is over what has been encrypted."""

    size: int
    key: bytes
    etm: bool


class Keys(Record):
    """What a key exchange has come to, one way. mac: None where the cipher makes the tag."""

    cipher: str
    key: bytes
    iv: bytes
    mac: Mac | None = None

    def with_mac(self, *, aead: bool, mac_size: int, mac_key: bytes, etm: bool, **_: object) -> Keys:
        """Return the keys with the MAC that paramiko's Transport has made beside them; aead: none is used."""
        return self if aead else self._replace(mac=Mac(mac_size, mac_key, etm))

    @property
    def kind(self) -> tuple[str, int, bool]:
        """The algorithms."""
        return self.cipher, self.mac.size if self.mac else 0, self.mac is not None and self.mac.etm

    @property
    def signs_plain(self) -> bool:
        """Whether the MAC is over what is not encrypted yet."""
        return self.mac is not None and not self.mac.etm
