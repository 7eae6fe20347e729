"""Keys without cryptography's module serialization: to import all of it takes longer than all else of a login.

The key in an OpenSSH file without a passphrase (PROTOCOL.key), which most files are; and any key's public half.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm

from relay.ssh.pubkey import BadKey, PublicKey, Reader, mpint, point, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(file: Reader, public: PublicKey) -> Any | None:
    """Return cryptography's key; None for a type that is not read here, and for a file that is irregular in any way.

    file: what follows the magic. public: the public half that stands in it.
    """
    if public.type not in _KINDS:
        return None
    inside, half = _KINDS[public.type]
    try:
        header = (file.string(), file.string(), file.string(), file.number(), file.string())
        section = Reader(file.string())
        same = section.number() == section.number()  # the check numbers
        kind = section.text()
        key = inside(section, public)
        section.string()  # the comment
        padding = section.rest()
        whole = same and header == (b"none", b"none", b"", 1, public.blob) and half(key) == public.blob
    except (BadKey, ValueError, ZeroDivisionError, UnsupportedAlgorithm):
        return None
    end = not file.rest() and padding == bytes(range(1, 9))[: len(padding)]
    return key if whole and kind == public.type and end else None


def public_half(key: Any) -> bytes | None:
    """Return the public half of one of cryptography's private keys as SSH has it; None for a type without one here."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    halves = {Ed25519PrivateKey: _ed25519_half, RSAPrivateKey: _rsa_half, EllipticCurvePrivateKey: _ecdsa_half}
    return next((half(key) for kind, half in halves.items() if isinstance(key, kind)), None)


def _ed25519(section: Reader, public: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    half, pair = section.string(), section.string()
    if not public.fields[0] == half == pair[32:]:
        raise BadKey("another key's half")
    return Ed25519PrivateKey.from_private_bytes(pair[:32])


def _ed25519_half(key: Any) -> bytes:
    return string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())


def _rsa(section: Reader, _: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers

    n, e, d, iqmp, p, q = (int.from_bytes(section.mpint(), "big") for _ in range(6))
    numbers = RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), iqmp, RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)  # keyfile.py looks at what ssh looks at, and more


def _rsa_half(key: Any) -> bytes:
    numbers = key.public_key().public_numbers()
    return string(b"ssh-rsa") + string(mpint(numbers.e)) + string(mpint(numbers.n))


def _ecdsa(section: Reader, public: PublicKey) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    curves = {b"nistp256": ec.SECP256R1(), b"nistp384": ec.SECP384R1(), b"nistp521": ec.SECP521R1()}
    name, public_point, number = section.string(), section.string(), int.from_bytes(section.mpint(), "big")
    if public.fields != (name, public_point):
        raise BadKey("another key's half")
    return ec.derive_private_key(number, curves[name])


def _ecdsa_half(key: Any) -> bytes:
    name, numbers = f"nistp{key.key_size}".encode(), key.public_key().public_numbers()
    return string(b"ecdsa-sha2-" + name) + string(name) + string(point(numbers.x, numbers.y, key.key_size))


# By the type: what reads the private section of a file, and what makes the public half of a key.
_KINDS = {
    "ssh-ed25519": (_ed25519, _ed25519_half),
    "ssh-rsa": (_rsa, _rsa_half),
    **dict.fromkeys((f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)), (_ecdsa, _ecdsa_half)),
}
