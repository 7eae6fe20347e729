"""A host certificate: what it says, who signed it, and whether it is good for a host.

After OpenSSH's PROTOCOL.certkeys and sshkey.c (cert_parse,
sshkey_cert_check_host). The signature is checked by `cryptography`. Whether
the signer is to be trusted is not decided here.
"""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from relay.ssh.pubkey import BadKey, PublicKey, Reader, string
from relay.ssh.trust.known_hosts import match_pattern

if TYPE_CHECKING:
    from collections.abc import Collection

_USER, _HOST = 1, 2  # PROTOCOL.certkeys: SSH_CERT_TYPE_USER, SSH_CERT_TYPE_HOST
_MAX_PRINCIPALS = 256  # sshkey.h, SSHKEY_CERT_MAX_PRINCIPALS
_RSA_HASHES: dict[str, type[HashAlgorithm]] = {"ssh-rsa": SHA1, "rsa-sha2-256": SHA256, "rsa-sha2-512": SHA512}
_EC_HASHES: dict[int, type[HashAlgorithm]] = {256: SHA256, 384: SHA384, 521: SHA512}  # RFC 5656 section 6.2.1


class Certificate:
    """A certificate whose signature has been checked to be its issuer's.

    issuer: the key that signed it. algorithm: how. principals: the host names
    it is for. after, before: when it is valid, in seconds since 1970.
    Raises BadKey when it cannot be read or is not signed by the issuer it names.
    """

    def __init__(self, key: PublicKey) -> None:
        if not key.is_cert:
            raise BadKey("no certificate")
        reader = Reader(key.body)
        self.serial = reader.number(8)
        self._type = reader.number()
        self.key_id = reader.string()
        self.principals = tuple(_strings(reader.string()))
        self.after = reader.number(8)
        self.before = reader.number(8)
        self._critical = _options(reader.string())
        _options(reader.string())  # extensions: read, so that a broken certificate is refused; none is for hosts
        reader.string()  # reserved
        self.issuer = PublicKey(reader.string())
        signed = key.blob[: len(key.blob) - len(key.body) + reader.offset]
        signature = reader.string()
        if reader.rest():
            raise BadKey("more than a certificate")
        if self._type not in (_USER, _HOST) or len(self.principals) > _MAX_PRINCIPALS or self.issuer.is_cert:
            raise BadKey("no valid certificate")
        self.algorithm = _verify(self.issuer, signature, signed)

    def objection(self, host: str, now: float, algorithms: Collection[str]) -> str:
        """Why the certificate is not good for a host at that time, in OpenSSH's words, or "" when it is.

        algorithms: those that an issuer may sign with (CASignatureAlgorithms).
        """
        if self._type != _HOST:
            return "Certificate invalid: not a host certificate"
        if now < self.after:
            return "Certificate invalid: not yet valid"
        if now >= self.before:
            return "Certificate invalid: expired"
        if not self.principals:
            return "Certificate lacks principal list"
        if not any(match_pattern(host.encode(), name) for name in self.principals):
            return "Certificate invalid: name is not a listed principal"
        if self._critical:
            return "Certificate contains unsupported critical options"
        if self.algorithm not in algorithms:
            return f"Certificate signed with disallowed algorithm ({self.algorithm})"
        return ""


def _strings(data: bytes) -> list[bytes]:
    """Strings, one after another, to the end."""
    reader = Reader(data)
    found = []
    while reader.offset < len(data):
        found.append(reader.string())
    return found


def _options(data: bytes) -> list[bytes]:
    """The names of options: pairs of a name and data."""
    words = _strings(data)
    if len(words) % 2:
        raise BadKey("an option without its value")
    return words[::2]


def _verify(issuer: PublicKey, signature: bytes, data: bytes) -> str:
    """Check a signature over data; return its algorithm. Raises BadKey."""
    reader = Reader(signature)
    algorithm = reader.text()
    value = reader.string()
    if algorithm != issuer.plain and not (issuer.plain == "ssh-rsa" and algorithm in _RSA_HASHES):
        raise BadKey("signed by another type of key than the issuer's")
    if algorithm.startswith("sk-"):
        # PROTOCOL.u2f, SSH U2F signatures: what a security key signs
        data = sha256(issuer.fields[-1]).digest() + reader.take(1) + reader.take(4) + sha256(data).digest()
    if reader.rest():
        raise BadKey("more than a signature")
    try:
        key = load_ssh_public_key(_plain_line(issuer))
        if isinstance(key, Ed25519PublicKey):
            key.verify(value, data)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            numbers = Reader(value)
            r, s = (int.from_bytes(numbers.mpint(), "big") for _ in range(2))
            if numbers.rest():
                raise BadKey("more than a signature")
            key.verify(encode_dss_signature(r, s), data, ec.ECDSA(_EC_HASHES[key.key_size]()))
        elif isinstance(key, RSAPublicKey):
            # Leading zeros may be missing (ssh-rsa.c, openssh_RSA_verify).
            value = value.rjust((key.key_size + 7) // 8, b"\0")
            key.verify(value, data, padding.PKCS1v15(), _RSA_HASHES[algorithm]())
        else:
            raise BadKey("a type of issuer that is not known")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise BadKey("its signature is not its issuer's") from error
    return algorithm


def _plain_line(key: PublicKey) -> bytes:
    """The key as a line that cryptography reads; of a security key, the key inside."""
    blob, name = key.blob, key.plain
    if name.startswith("sk-"):
        name = name.removeprefix("sk-").removesuffix("@openssh.com")
        blob = b"".join(string(field) for field in (name.encode(), *key.fields[:-1]))
    return name.encode() + b" " + b2a_base64(blob, newline=False)
