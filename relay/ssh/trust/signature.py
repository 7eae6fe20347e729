"""A signature by an SSH key: a server's in a key exchange, a CA's under a certificate.

RFC 4253 section 6.6, RFC 5656 section 3.1.2, RFC 8332, RFC 8709 and OpenSSH's
PROTOCOL.u2f; the keys are `cryptography`'s. What is needed for one type of key
is imported when such a key has signed: most are Ed25519. Whether the key is to
be trusted is not decided here.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from relay.ssh.pubkey import BadKey, PublicKey, Reader

_RSA_ALGORITHMS = frozenset({"ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"})


class BadSignature(BadKey):
    """A signature that is not by the key."""


def verify(key: PublicKey, signature: bytes, data: bytes) -> str:
    """Check a signature blob over data, by a key or by the key that a certificate is of; return its algorithm.

    Raises BadSignature, and BadKey for one that cannot be read.
    """
    reader = Reader(signature)
    algorithm = reader.text()
    value = reader.string()
    if algorithm != key.plain and not (key.plain == "ssh-rsa" and algorithm in _RSA_ALGORITHMS):
        raise BadKey("signed by another type of key")
    fields = key.fields
    if algorithm.startswith("sk-"):  # PROTOCOL.u2f, SSH U2F signatures: what a security key signs
        from relay.ssh.digest import Sha256  # only where it matters

        data = Sha256(fields[-1]).digest() + reader.take(1) + reader.take(4) + Sha256(data).digest()
    if reader.rest():
        raise BadKey("bytes after the signature")
    try:
        if key.plain == "ssh-rsa":
            _verify_rsa(fields, value, data, algorithm)
        elif "ecdsa" in key.plain:
            _verify_ecdsa(fields, value, data)
        else:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            Ed25519PublicKey.from_public_bytes(fields[0]).verify(value, data)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise BadSignature("the signature is not by this key") from error
    return algorithm


def _verify_rsa(fields: tuple[bytes, ...], value: bytes, data: bytes, algorithm: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512, HashAlgorithm

    digests: dict[str, type[HashAlgorithm]] = {"ssh-rsa": SHA1, "rsa-sha2-256": SHA256, "rsa-sha2-512": SHA512}
    exponent, modulus = (int.from_bytes(field, "big") for field in fields)
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    value = value.rjust((key.key_size + 7) // 8, b"\0")  # leading zeros may be missing (ssh-rsa.c, ssh_rsa_verify)
    key.verify(value, data, padding.PKCS1v15(), digests[algorithm]())


def _verify_ecdsa(fields: tuple[bytes, ...], value: bytes, data: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    # RFC 5656 section 6.2.1
    curve, digest = {
        b"nistp256": (ec.SECP256R1, SHA256),
        b"nistp384": (ec.SECP384R1, SHA384),
        b"nistp521": (ec.SECP521R1, SHA512),
    }[fields[0]]
    numbers = Reader(value)
    r, s = (int.from_bytes(numbers.mpint(), "big") for _ in range(2))
    if numbers.rest():
        raise BadKey("bytes after the signature")
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve(), fields[1])
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest()))
