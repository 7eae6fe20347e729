"""Keys without cryptography's module serialization: to import all of it takes longer than all else of a login.

The key in an OpenSSH file (PROTOCOL.key) without a passphrase, or under the cipher that ssh-keygen takes by itself,
which most files are; and any key's public half.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm

from relay.ssh.pubkey import BadKey, PublicKey, Reader, mpint, point, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = (b"none", b"none", b"")
_BLOCK = 16  # bytes of the cipher's; what is hidden is padded to it, or to 8
_KEY = 32  # bytes of the cipher's key


class OtherPassphrase(Exception):
    """The file is encrypted with another passphrase."""


def read(file: Reader, public: PublicKey, passphrase: bytes) -> Any | None:
    """Return cryptography's key; None for what is not read here: a type, a cipher, a file that is irregular in any way.

    file: what follows the magic. public: the public half that stands in it. passphrase: b"" for none. Raises
    OtherPassphrase.
    """
    if public.type not in _KINDS:
        return None
    inside, half = _KINDS[public.type]
    try:
        how = (file.string(), file.string(), file.string())
        if (file.number(), file.string()) != (1, public.blob) or (hidden := _decrypted(how, file, passphrase)) is None:
            return None
        section = Reader(hidden)
        if section.number() != section.number():  # the check numbers
            if how == _PLAIN:
                return None
            raise OtherPassphrase
        kind = section.text()
        key = inside(section, public)
        section.string()  # the comment
        padding = section.rest()
        whole = kind == public.type and half(key) == public.blob
    except (BadKey, ValueError, ZeroDivisionError, UnsupportedAlgorithm):
        return None
    return key if whole and padding == bytes(range(1, _BLOCK))[: len(padding)] else None


def _decrypted(how: tuple[bytes, bytes, bytes], file: Reader, passphrase: bytes) -> bytes | None:
    """Return the private section, which is all that the file still has; None where that is not so, or not read here.

    how: the cipher, what makes its key of a passphrase, and by what numbers. Raises BadKey and ValueError.
    """
    hidden = file.string()
    if file.rest():
        return None
    if how == _PLAIN:
        return hidden
    if how[:2] != (b"aes256-ctr", b"bcrypt") or not passphrase:
        return None
    from bcrypt import kdf
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    numbers = Reader(how[2])
    made = kdf(passphrase, numbers.string(), _KEY + _BLOCK, numbers.number(), ignore_few_rounds=True)
    decryptor = Cipher(AES(made[:_KEY]), CTR(made[_KEY:])).decryptor()
    return decryptor.update(hidden) + decryptor.finalize()


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
