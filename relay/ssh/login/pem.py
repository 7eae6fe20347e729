"""Traditional PEM files under a passphrase (RFC 1421 section 4.6.1.1): which cipher, and what is inside.

OpenSSL reads them under every cipher that it has, and `cryptography` under three. The others that ssh's users have come
from here: AES-192, and Camellia.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64

KNOWN = frozenset({"AES-128-CBC", "AES-256-CBC", "DES-EDE3-CBC"})  # what `cryptography` reads itself
_BITS = {"AES-192-CBC": 192, "CAMELLIA-128-CBC": 128, "CAMELLIA-192-CBC": 192, "CAMELLIA-256-CBC": 256}
OURS = frozenset(_BITS)
_BLOCK = 16  # bytes of a block of both ciphers
_SALT = 8  # bytes; OpenSSL, PEM_do_header and EVP_BytesToKey
# Ciphers of PKCS#8 that `cryptography` has no name for, by the beginning of their DER: the object identifiers
# 1.2.392.200011.61.1.1.1 (RFC 3657) and 1.2.410.200046.1.1 (RFC 5794).
_PKCS8 = {"CAMELLIA": bytes.fromhex("2a83088c9a4b3d010101"), "ARIA": bytes.fromhex("2a831a8c9a6e0101")}


def cipher(data: bytes) -> str:
    """Return the cipher of an encrypted file, in OpenSSL's words, as far as the file says it in clear; else ""."""
    _, found, rest = data.partition(b"DEK-Info:")
    if found:
        return rest.partition(b"\n")[0].partition(b",")[0].strip().upper().decode("ascii", "replace")
    if b"BEGIN ENCRYPTED PRIVATE KEY" not in data:
        return ""
    inside = _body(data)
    return next((name for name, mark in _PKCS8.items() if mark in inside), "")


def decrypt(data: bytes, passphrase: bytes) -> bytes:
    """Return the DER of the key in a file that one of OURS encrypts. Raises ValueError if the passphrase is wrong."""
    from hashlib import md5  # few keys need any of this

    from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CBC
    from cryptography.hazmat.primitives.padding import PKCS7

    vector = bytes.fromhex(data.partition(b"DEK-Info:")[2].partition(b"\n")[0].partition(b",")[2].strip().decode())
    name = cipher(data)
    size = _BITS[name] // 8
    key = last = b""
    while len(key) < size:
        last = md5(last + passphrase + vector[:_SALT], usedforsecurity=False).digest()
        key += last
    algorithm = AES(key[:size]) if name.startswith("AES") else Camellia(key[:size])
    decryptor = Cipher(algorithm, CBC(vector)).decryptor()
    padded = decryptor.update(_body(data)) + decryptor.finalize()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _body(data: bytes) -> bytes:
    """Return what the base64 of a PEM file holds; b"" if it cannot be read."""
    text = data.partition(b"PRIVATE KEY-----")[2].partition(b"-----END")[0]
    lines = [line for line in text.splitlines() if b":" not in line]
    try:
        return a2b_base64(b"".join(lines))
    except NotBase64:
        return b""
