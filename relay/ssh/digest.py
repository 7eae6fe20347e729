"""Hashes by cryptography, whose OpenSSL a login needs anyway: hashlib and hmac load the system's beside it.

That is a twelfth of the import of our client. What runs without a login has hashlib and hmac.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, Hash
from cryptography.hazmat.primitives.hmac import HMAC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from cryptography.hazmat.primitives.hashes import HashAlgorithm


_HASHES: dict[str, HashAlgorithm] = {"sha1": SHA1(), "sha256": SHA256()}  # noqa: S303  (OpenSSH hashes names so)


class Sha256:
    """The SHA-256 of some data, with as much of hashlib's interface as paramiko asks for."""

    algorithm: ClassVar[type[HashAlgorithm]] = SHA256

    def __init__(self, data: bytes = b"") -> None:
        hashed = Hash(self.algorithm())
        hashed.update(data)
        self._digest = hashed.finalize()

    @property
    def digest_size(self) -> int:
        """How many bytes it has."""
        return len(self._digest)

    def digest(self) -> bytes:
        """Its bytes."""
        return self._digest


class Sha384(Sha256):
    """SHA-384."""

    algorithm = SHA384


class Sha512(Sha256):
    """SHA-512."""

    algorithm = SHA512


def hmac(key: bytes, data: bytes, sha: str) -> bytes:
    """The HMAC of some data under a key, by "sha1" or "sha256" (RFC 2104)."""
    authenticated = HMAC(key, _HASHES[sha])
    authenticated.update(data)
    return authenticated.finalize()
