"""Identity files: every format that ssh-keygen writes, and signatures by the keys in them.

The keys are `cryptography`'s: paramiko's own readers know no PKCS#8 (RFC 5958)
and no public half without the passphrase. Which key is used, and who is asked
for a passphrase, is decided elsewhere.
"""

from __future__ import annotations

import os
from binascii import Error as NotBase64
from errno import EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR, ENXIO, EPERM

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm

from relay.errors import RelayError, printable, words
from relay.ssh.login import foreign, pem
from relay.ssh.pubkey import CERT_SUFFIX, BadKey, PublicKey, mpint, read_key, string
from relay.ssh.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LARGEST = 1 << 20  # bytes of a key file; sshbuf-io.c and authfile.c have such a limit, too
# What `cryptography` decrypts of what OpenSSH encrypts its files with, and what PEM files may be under.
_CIPHERS = frozenset({"aes256-ctr", "aes256-cbc", "aes256-gcm@openssh.com"}) | pem.KNOWN | pem.OURS
_ED25519 = "ssh-ed25519"
# An open with one of these errors shows that there is no key for us to use, as ssh takes it. Any other error, such as
# EMFILE, EIO or ESTALE, does not show what the file holds.
_NO_KEY = frozenset({EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR, ENXIO, EPERM})


class BadFile(Exception):
    """A private key file that cannot be used, with the reason."""


class WrongPassphrase(Exception):
    """The file is encrypted with another passphrase."""


class PrivateKey:
    """A private key that signs. public: its other half. key: cryptography's, of that type."""

    def __init__(self, public: PublicKey, key: Any) -> None:
        self.public = public
        self._key = key

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """The signature blob over data (RFC 4253 section 6.6); algorithm may be a certificate's."""
        name = algorithm.removesuffix(CERT_SUFFIX)
        if self.public.plain == _ED25519:
            value: bytes = self._key.sign(data)  # RFC 8709 section 6
        elif self.public.plain == "ssh-rsa":
            value = self._sign_rsa(data, name)
        else:
            value = self._sign_ecdsa(data)
        return string(name.encode()) + string(value)

    def for_agent(self) -> bytes:
        """The key as an agent is given it (RFC 9987 section 3.2)."""
        kind = string(self.public.plain.encode())
        if self.public.plain == _ED25519:
            point = self.public.fields[0]
            return kind + string(point) + string(self._key.private_bytes_raw() + point)
        numbers = self._key.private_numbers()
        if self.public.plain != "ssh-rsa":
            return kind + b"".join(map(string, (*self.public.fields, mpint(numbers.private_value))))
        of_all = numbers.public_numbers
        parts = (of_all.n, of_all.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)
        return kind + b"".join(string(mpint(part)) for part in parts)

    def _sign_rsa(self, data: bytes, name: str) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512, HashAlgorithm

        # RFC 4253 section 6.6, RFC 8332
        digests: dict[str, type[HashAlgorithm]] = {"ssh-rsa": SHA1, "rsa-sha2-256": SHA256, "rsa-sha2-512": SHA512}
        return bytes(self._key.sign(data, PKCS1v15(), digests[name]()))

    def _sign_ecdsa(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

        # RFC 5656 section 6.2.1, by the bits of the curve
        digests: dict[int, type[HashAlgorithm]] = {256: SHA256, 384: SHA384, 521: SHA512}
        numbers = decode_dss_signature(self._key.sign(data, ECDSA(digests[self._key.curve.key_size]())))
        return b"".join(string(mpint(number)) for number in numbers)  # section 3.1.2


class PrivateFile(Record):
    """What a private key file holds.

    public: the public half, where the file says it without a passphrase.
    cipher: what it is encrypted with, as far as the file says that in clear.
    """

    data: bytes
    encrypted: bool
    public: PublicKey | None
    cipher: str

    def check(self) -> None:
        """Raise BadFile when no passphrase would help."""
        if self.encrypted and self.cipher and self.cipher not in _CIPHERS:
            raise BadFile(f"it is encrypted with {self.cipher}; `ssh-keygen -p -f` on it would change that")

    def unlock(self, passphrase: bytes | None = None) -> PrivateKey:
        """The key inside; passphrase: None for a file without one. Raises WrongPassphrase and BadFile."""
        self.check()
        if self.public is not None and (key := _openssh_key(self.data, self.public, passphrase or b"")) is not None:
            return _checked(self.public, key)
        import warnings

        from cryptography.hazmat.primitives import serialization

        ssh = b"-----BEGIN OPENSSH" in self.data
        load, data = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key, self.data
        try:
            if self.encrypted and self.cipher in pem.OURS:
                data, passphrase = pem.decrypt(data, passphrase or b""), None
                load = serialization.load_der_private_key
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a key of an old type, which is not used anyway
                return _private_key(load(data, passphrase, unsafe_skip_rsa_key_validation=True))  # see _checked
        except (UnsupportedAlgorithm, NotImplementedError) as error:  # the latter for a point that is compressed
            raise BadFile("a key of this type or encryption is not supported") from error
        except (ValueError, TypeError, InvalidTag) as error:
            # cryptography tells a wrong passphrase from a broken file only by its words.
            if str(error).startswith("Unknown key encryption"):  # of a PKCS#8 file, and not in pem.py's list
                raise BadFile("its encryption is not supported; `ssh-keygen -p -f` on it would change that") from error
            if self.encrypted:
                raise WrongPassphrase from error
            raise BadFile("not a private key") from error


def read_private(path: str) -> PrivateFile:
    """Read a private key file. Raises BadFile, and OSError when there is no key to use.

    Raises RelayError when the file cannot be read for another reason (_NO_KEY).
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            # authfile.c, sshkey_perm_ok: others' files are their owners' business
            if status.st_uid == os.getuid() and status.st_mode & 0o077:
                raise BadFile(f"permissions {status.st_mode & 0o777:04o} are too open: others can read it (chmod 600)")
            data = file.read(_LARGEST)
    except OSError as error:
        _check_known(path, error)
        raise
    return parse_private(data)


def _check_known(path: str, error: OSError) -> None:
    """Raise RelayError when the error leaves it open which key the file holds: another key must not be used for it."""
    if error.errno not in _NO_KEY:
        raise RelayError(f"{printable(path)} cannot be read: {words(error)}") from error


def parse_private(data: bytes) -> PrivateFile:
    """What a private key file says without its passphrase. Raises BadFile when the file holds no private key."""
    if foreign.BEGIN in data:
        cipher, public = _openssh_header(data)
        return PrivateFile(data, cipher != "none", public, cipher)
    if b"PRIVATE KEY-----" not in data:
        raise BadFile("not a private key")
    # RFC 1421 section 4.6.1.1 (Proc-Type: 4,ENCRYPTED), RFC 5958 section 3 (BEGIN ENCRYPTED PRIVATE KEY)
    return PrivateFile(data, b"ENCRYPTED" in data, None, pem.cipher(data))


def _openssh_header(data: bytes) -> tuple[str, PublicKey | None]:
    """The cipher and the public key of an OpenSSH private key file (PROTOCOL.key). Raises BadFile."""
    try:
        reader = foreign.openssh_body(data)
        cipher = reader.text()
        reader.string()  # the key derivation
        reader.string()  # and its options
        if reader.number() != 1:
            raise BadKey("more than one key")
        blob = reader.string()
    except (BadKey, NotBase64) as error:
        raise BadFile(f"it cannot be read: {error}") from error
    try:
        return cipher, PublicKey(blob)
    except BadKey:
        return cipher, None


def _openssh_key(data: bytes, public: PublicKey, passphrase: bytes) -> Any | None:
    """cryptography's key of an OpenSSH file; None where that is left to cryptography. Raises WrongPassphrase."""
    from relay.ssh.login import opensshkey  # keys of an agent need none of these

    try:
        return opensshkey.read(foreign.openssh_body(data), public, passphrase)
    except opensshkey.OtherPassphrase as error:
        raise WrongPassphrase from error


def _private_key(key: object) -> PrivateKey:
    """A key of cryptography's. Raises BadFile when it is of a type that signs no login."""
    from relay.ssh.login.opensshkey import public_half

    if (half := public_half(key)) is None:
        raise BadFile("a key of this type is not supported")
    try:
        return _checked(PublicKey(half), key)
    except BadKey as error:
        raise BadFile(f"it cannot be used: {error}") from error


def _checked(public: PublicKey, key: Any) -> PrivateKey:
    """The key. Raises BadFile for an RSA key whose numbers do not belong together: what it signs would be refused.

    cryptography would look whether two of them are primes, too. ssh does not (ssh-rsa.c), and it takes up to a second.
    """
    if public.plain == "ssh-rsa":
        numbers = key.private_numbers()
        p, q, d, e = numbers.p, numbers.q, numbers.d, numbers.public_numbers.e
        if not (
            min(p, q) > 1
            and p * q == numbers.public_numbers.n
            and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
            and d * e % (p - 1) == d * e % (q - 1) == numbers.iqmp * q % p == 1
        ):
            raise BadFile("an RSA key whose numbers do not belong together")
    return PrivateKey(public, key)


def comment_of(path: str) -> str:
    """The comment of the public key in a file; "" where there is none."""
    try:
        with open(path, "rb") as file:
            words = file.readline(_LARGEST).split(None, 2)
    except (OSError, ValueError):
        return ""
    return os.fsdecode(words[2].strip()) if len(words) > 2 else ""


def read_public(path: str) -> PublicKey | None:
    """The key or certificate in a public key file: its first line that is one (authfile.c, sshkey_try_load_public).

    A private key ends the search: its public half may stand behind it in the same file.
    None when the file has no usable key. Raises RelayError when the file cannot be read for another reason (_NO_KEY).
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST)
    except OSError as error:
        _check_known(path, error)
        return None
    except ValueError:  # a NUL in the name
        return None
    for line in data.splitlines():
        if line.startswith(b"-----BEGIN"):
            return None
        words = line.split(None, 2)
        if len(words) < 2 or line.lstrip().startswith(b"#"):
            continue
        try:
            return read_key(words[0], words[1])
        except BadKey:
            continue
    return None
