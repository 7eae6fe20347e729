"""Keys of types that our client lacks: a newer ssh may log in with them, so they must be known for what they are.

What is looked at is the public half alone, which every key file and every agent shows without a passphrase.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64

from relay.ssh.pubkey import BadKey, Reader, plain_type

# How the names begin of the types that our client has, or the agent alone (relay/ssh/pubkey.py), and of how they sign.
_KNOWN = ("ssh-ed25519", "ssh-rsa", "rsa-sha2-", "ssh-dss", "ecdsa-sha2-", "sk-", "webauthn-sk-")
_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"  # OpenSSH's PROTOCOL.key
_ENOUGH = 65536  # bytes of a key file; its public half stands at the beginning


def is_foreign(name: str) -> bool:
    """Whether this is the name of a type, or of how a key of it signs, that our client lacks."""
    return name.replace("-", "").replace("@", "").replace(".", "").isalnum() and not name.startswith(_KNOWN)


def type_of(blob: bytes) -> str:
    """Return the type of a public key, or of the key in a certificate, if our client lacks it; else ""."""
    try:
        name = plain_type(Reader(blob).text())
    except BadKey:
        return ""
    return name if is_foreign(name) else ""


def public_half(path: str) -> tuple[bytes, bool]:
    """Return the public half of the key in a file, and whether the private one is there, too.

    The file is a private key in OpenSSH's format, or one line with a public key. b"" if it is neither.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_ENOUGH)
    except (OSError, ValueError):  # (ValueError: a NUL in the name)
        return b"", False
    try:
        if data.lstrip().startswith(_BEGIN):
            return _in_private(data.partition(_BEGIN)[2]), True
        words = data.split(None, 2)
        blob = a2b_base64(words[1]) if len(words) > 1 else b""
        return (blob, False) if blob and Reader(blob).string() == words[0] else (b"", False)
    except (BadKey, NotBase64):
        return b"", False


def _in_private(text: bytes) -> bytes:
    """Return the public half in a private key file, from what follows its first line. Raises BadKey and NotBase64."""
    reader = Reader(a2b_base64(text.partition(b"-----END")[0]))
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise BadKey("no magic")
    for _ in range(3):  # the cipher, and how the passphrase becomes its key
        reader.string()
    reader.number()  # of keys
    return reader.string()
