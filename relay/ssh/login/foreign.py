"""Keys of types that our client lacks: a newer ssh may log in with them, so they must be known for what they are.

What is looked at is the public half alone, which every key file and every agent shows without a passphrase. So the
outside of OpenSSH's key files is read here, for all of them.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64

from relay.ssh.pubkey import BadKey, Reader, plain_type

# How the names begin of the types that our client has, or the agent alone (relay/ssh/pubkey.py), and of how they sign.
_KNOWN = ("ssh-ed25519", "ssh-rsa", "rsa-sha2-", "ssh-dss", "ecdsa-sha2-", "sk-", "webauthn-sk-")
BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
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
    """Return the public half of the key of an IdentityFile, and whether the file has the private one, too.

    Where the file itself does not show it, the .pub beside it may. b"" if neither does.
    """
    public, private = _in_file(path)
    return public or _in_file(f"{path}.pub")[0], private


def _in_file(path: str) -> tuple[bytes, bool]:
    """Return the same of one file: a private key in OpenSSH's format, or one line with a public key."""
    try:
        with open(path, "rb") as file:
            data = file.read(_ENOUGH)
    except (OSError, ValueError):  # (ValueError: a NUL in the name)
        return b"", False
    try:
        if data.lstrip().startswith(BEGIN):
            return _in_private(data), True
        words = data.split(None, 2)
        blob = a2b_base64(words[1]) if len(words) > 1 else b""
        return (blob, False) if blob and Reader(blob).string() == words[0] else (b"", False)
    except (BadKey, NotBase64):
        return b"", False


def openssh_body(data: bytes) -> Reader:
    """Return what an OpenSSH private key file holds, behind its magic (PROTOCOL.key). Raises BadKey and NotBase64."""
    reader = Reader(a2b_base64(data.partition(BEGIN)[2].partition(b"-----END")[0]))
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise BadKey("no magic")
    return reader


def _in_private(data: bytes) -> bytes:
    """Return the public half in a private key file. Raises BadKey and NotBase64."""
    reader = openssh_body(data)
    for _ in range(3):  # the cipher, and how the passphrase becomes its key
        reader.string()
    reader.number()  # of keys
    return reader.string()
