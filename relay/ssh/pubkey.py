"""A public key as SSH writes it: the blob of RFC 4253 section 6.6, its names and its fingerprint.

Pure: no file, no socket, no library of keys, but for a fingerprint one that hashes. What is checked here is the
shape of a key, which is what tells a good line of a known_hosts file from a
broken one; whether a server holds the key is checked by the code that exchanges
keys with it.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64

CERT_SUFFIX = "-cert-v01@openssh.com"
MIN_RSA_BITS = 1024  # sshkey.h, SSH_RSA_MINIMUM_MODULUS_SIZE: a shorter one is not taken at all
_MAX_MPINT = 16384 // 8  # bytes; sshbuf.h, SSHBUF_MAX_BIGNUM

# Type on the wire -> what messages call it and which fields a public key has:
# s a string, i a positive integer (mpint), c the name of a curve, p a point on
# it, e 32 bytes (RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, OpenSSH's PROTOCOL.u2f).
_TYPES = {
    "ssh-ed25519": ("ED25519", "e"),
    "ecdsa-sha2-nistp256": ("ECDSA", "cp"),
    "ecdsa-sha2-nistp384": ("ECDSA", "cp"),
    "ecdsa-sha2-nistp521": ("ECDSA", "cp"),
    "sk-ssh-ed25519@openssh.com": ("ED25519-SK", "es"),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("ECDSA-SK", "cps"),
    "ssh-rsa": ("RSA", "ii"),
}
_CURVES = {"nistp256": 32, "nistp384": 48, "nistp521": 66}  # bytes of a coordinate
# Signature algorithms whose key has another name (RFC 8332); known_hosts lines may use them, too.
_RSA_SIGNATURES = frozenset({"rsa-sha2-256", "rsa-sha2-512"})


class BadKey(ValueError):
    """Bytes that are not a public key."""


class Unsupported(BadKey):
    """A public key of a type or a length that is not taken here; no broken one."""


class TooShort(Unsupported):
    """An RSA key that OpenSSH would not take, either."""


class Reader:
    """Reads the data types of RFC 4251 section 5 from bytes. Raises BadKey when they end too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def take(self, count: int) -> bytes:
        """So many bytes."""
        end = self.offset + count
        if end > len(self._data):
            raise BadKey("too short")
        taken, self.offset = self._data[self.offset : end], end
        return taken

    def number(self, size: int = 4) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """A string: its length, then its bytes."""
        return self.take(self.number())

    def text(self) -> str:
        """A string that is a name: ASCII without NUL."""
        try:
            name = self.string().decode("ascii")
        except UnicodeDecodeError:
            raise BadKey("a name that is not ASCII") from None
        if "\0" in name:
            raise BadKey("a name with a NUL")
        return name

    def mpint(self) -> bytes:
        """A positive mpint without its leading zeros, so that equal numbers are equal bytes."""
        raw = self.string()
        if raw[:1] >= b"\x80":
            raise BadKey("a negative number")
        digits = raw.lstrip(b"\0")
        if len(digits) > _MAX_MPINT:
            raise BadKey("a number too large")
        return digits

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self.offset)


def string(data: bytes) -> bytes:
    """Data as an SSH string (RFC 4251 section 5)."""
    return len(data).to_bytes(4, "big") + data


def mpint(number: int) -> bytes:
    """A number that is not negative, as the inside of an mpint (RFC 4251 section 5)."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b""


def point(x: int, y: int, bits: int) -> bytes:
    """A point of a curve over so many bits, uncompressed (SEC 1, section 2.3.3)."""
    size = (bits + 7) // 8
    return b"\4" + x.to_bytes(size, "big") + y.to_bytes(size, "big")


class PublicKey:
    """A public key or a certificate of one.

    type: as the blob names it. plain: the type of the key itself, which for a
    certificate is that of the key in it. fields: its
    public numbers; plain and fields are equal when the keys are. body: what
    follows the fields of a certificate.
    Raises BadKey, or Unsupported, when the blob is none.
    """

    __slots__ = ("blob", "body", "fields", "plain", "type")

    def __init__(self, blob: bytes) -> None:
        reader = Reader(blob)
        self.blob = blob
        self.type = reader.text()
        self.plain = plain_type(self.type)
        if self.plain not in _TYPES:
            raise Unsupported(f"unknown type {self.type!r}")
        if self.is_cert:
            reader.string()  # the nonce
        self.fields = tuple(_field(reader, kind, self.plain) for kind in _TYPES[self.plain][1])
        self.body = reader.rest()
        if self.body and not self.is_cert:
            raise BadKey("bytes after the key")
        if self.plain == "ssh-rsa" and self.bits < MIN_RSA_BITS:
            raise TooShort(f"an RSA key of {self.bits} bits")

    @property
    def is_cert(self) -> bool:
        """Whether this is a certificate (OpenSSH's PROTOCOL.certkeys)."""
        return self.type != self.plain

    @property
    def bits(self) -> int:
        """The length of an RSA key; 0 for others, whose type says it."""
        return int.from_bytes(self.fields[1], "big").bit_length() if self.plain == "ssh-rsa" else 0

    @property
    def short(self) -> str:
        """What ssh's messages call the type: ED25519, or ED25519-CERT."""
        return _TYPES[self.plain][0] + ("-CERT" if self.is_cert else "")

    @property
    def text(self) -> str:
        """Type and base64, as a line of a file has them."""
        return f"{self.type} {b2a_base64(self.blob, newline=False).decode()}"

    def certified(self) -> PublicKey:
        """The key itself, without its certificate."""
        if not self.is_cert:
            return self
        kinds = _TYPES[self.plain][1]
        fields = (
            # An mpint whose first bit is set gets its zero back.
            string(b"\0" + field if kind == "i" and field[:1] >= b"\x80" else field)
            for kind, field in zip(kinds, self.fields, strict=True)
        )
        return PublicKey(string(self.plain.encode()) + b"".join(fields))

    def has_same_key(self, other: PublicKey) -> bool:
        """Whether both are of the same key, certified or not (sshkey.c, sshkey_equal_public)."""
        return self.plain == other.plain and self.fields == other.fields

    def is_same(self, other: PublicKey) -> bool:
        """Whether both are the same key, or the same certificate (sshkey.c, sshkey_equal)."""
        return self.type == other.type and self.fields == other.fields and self.body == other.body

    def fingerprint(self, digest: str = "sha256") -> str:
        """As ssh prints it, for FingerprintHash sha256 or md5; a certificate has its key's."""
        value = self.digest(digest)
        if digest.lower() == "md5":
            return "MD5:" + value.hex(":")
        return "SHA256:" + b2a_base64(value, newline=False).decode().rstrip("=")

    def digest(self, name: str = "sha256") -> bytes:
        """The bytes of the fingerprint, by sha256 or md5."""
        blob = self.certified().blob
        if name.lower() == "md5":
            from hashlib import md5  # few ask for it

            return md5(blob, usedforsecurity=False).digest()
        from relay.ssh.digest import Sha256  # most keys are just known

        return Sha256(blob).digest()


def _field(reader: Reader, kind: str, plain: str) -> bytes:
    """One public field of a key of that type, checked."""
    if kind == "i":
        return reader.mpint()
    field = reader.string()
    if kind == "e" and len(field) != 32:
        raise BadKey("an Ed25519 key that is not 32 bytes")
    curve = plain.removesuffix("@openssh.com").rpartition("-")[2]
    if kind == "c" and field != curve.encode():
        raise BadKey("a key on another curve than its type says")
    if kind == "p" and (len(field) != 1 + 2 * _CURVES[curve] or field[0] != 4):  # SEC 1, 2.3.3: uncompressed
        raise BadKey("not a point on its curve")
    return field


def key_type(algorithm: str) -> str:
    """The key type, in the blob's own words, that a host key algorithm uses: rsa-sha2-512 uses ssh-rsa (RFC 8332)."""
    plain = plain_type(algorithm)
    return "ssh-rsa" + algorithm[len(plain) :] if plain in _RSA_SIGNATURES else algorithm


def plain_type(name: str) -> str:
    """The key type or algorithm within a certificate's; any other stays as it is (OpenSSH's PROTOCOL.certkeys)."""
    plain = name.removesuffix(CERT_SUFFIX)
    # For a security key the suffix stands in the place of the "@openssh.com" that its own type ends with.
    return f"{plain}@openssh.com" if plain != name and plain.startswith("sk-") else plain


def read_key(type_: bytes, base64: bytes) -> PublicKey:
    """The key on a line of a file, from its type and its base64 (sshkey.c, sshkey_read). Raises BadKey."""
    blob_type = key_type(type_.decode(errors="replace"))
    if plain_type(blob_type) not in _TYPES:
        raise Unsupported(f"unknown type {blob_type!r}")
    base64 = bytes(c for c in base64 if c not in b"\r\v\f")  # b64_pton() skips white space; spaces and tabs end a word
    try:
        blob = a2b_base64(base64, strict_mode=True)
    except NotBase64:
        raise BadKey("no base64") from None
    if b2a_base64(blob, newline=False) != base64:  # a2b takes bits after the end, b64_pton() does not
        raise BadKey("no base64")
    key = PublicKey(blob)
    if key.type != blob_type:
        raise BadKey(f"not of the type {blob_type}")
    return key
