"""Key exchanges by one message each way: curve25519-sha256 (RFC 8731), mlkem768x25519-sha256, sntrup761x25519-sha512.

(The others are draft-ietf-sshm-mlkem-hybrid-kex and draft-ietf-sshm-ntruprime-ssh.) paramiko's Transport makes one of
the class that was agreed on, calls `start_kex`, then `parse_next` with each message that it was told to expect. What
few servers need stands in kex_others.py. The client's side only.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from relay.ssh.digest import Sha256, Sha512
from relay.ssh.pubkey import BadKey, Reader, mpint, string
from relay.ssh.wire.library import Message, SSHException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Protocol

    class Exchanging(Protocol):
        """What an exchange needs of the transport: the idents, both KEXINITs, and methods of paramiko's."""

        local_version: str
        remote_version: str
        local_kex_init: bytes
        remote_kex_init: bytes

        def _send_message(self, data: Message) -> None: ...
        def _expect_packet(self, *ptypes: int) -> None: ...
        def _set_K_H(self, k: int | bytes, h: bytes) -> None: ...  # noqa: N802  (paramiko's name)
        def _verify_key(self, host_key: bytes, sig: bytes) -> None: ...
        def _activate_outbound(self) -> None: ...


INIT, REPLY = 30, 31  # RFC 5656 section 4; SSH_MSG_KEX_HYBRID_INIT and _REPLY


class Exchange:
    """A key exchange: one public value to the server, its key, its value and its signature back.

    hash_algo: of the exchange, and of the keys that come of it (paramiko's name for it).
    """

    hash_algo: ClassVar[type[Sha256]] = Sha256
    init, reply = INIT, REPLY

    def __init__(self, transport: Exchanging) -> None:
        self.transport = transport
        self.ours = b""  # the public value that was sent
        self._expected = 0  # the message that the server answers with

    def start_kex(self) -> None:
        """Send our public value."""
        self.ours = self.begin()
        self.send(self.init, string(self.ours), self.reply)

    def go_on(self) -> None:
        """Wait for the answer to what `start_kex` sent before the server's KEXINIT had come."""
        self.transport._expect_packet(self._expected)

    def parse_next(self, _: int, message: Message) -> None:
        """The server's answer. Raises SSHException, also when its signature is not its own."""
        reader = Reader(message.asbytes())
        try:
            self.take(reader)
        except BadKey as error:
            raise SSHException("a message of the key exchange that cannot be read") from error

    def take(self, reader: Reader) -> None:
        """The reply. Raises BadKey and SSHException."""
        host_key, theirs, signature = reader.string(), self.read_value(reader), reader.string()
        if reader.rest():
            raise BadKey("bytes after the reply")
        try:
            secret = self.finish(theirs)
        except ValueError as error:
            raise SSHException("the server's public value of the key exchange is not valid") from error
        transport = self.transport
        idents = (transport.local_version.encode(), transport.remote_version.encode(errors="surrogateescape"))
        hashed = (*idents, transport.local_kex_init, transport.remote_kex_init, host_key)
        data = b"".join(map(string, hashed)) + self.parameters() + string(self.ours) + string(theirs)
        shared = string(secret if isinstance(secret, bytes) else mpint(secret))
        transport._set_K_H(secret, type(self).hash_algo(data + shared).digest())
        transport._verify_key(host_key, signature)
        transport._activate_outbound()

    def send(self, kind: int, body: bytes, expected: int) -> None:
        """Send a message, and have the transport wait for one."""
        self.transport._send_message(Message(bytes([kind]) + body))
        self._expected = expected
        self.transport._expect_packet(expected)

    def begin(self) -> bytes:
        """Make a key; return our public value, without its length."""
        raise NotImplementedError

    def read_value(self, reader: Reader) -> bytes:
        """The server's public value, as the hash has it, without its length."""
        return reader.string()

    def finish(self, theirs: bytes) -> int | bytes:
        """The shared secret: a number, or the bytes of a string. Raises ValueError when the public value is bad."""
        raise NotImplementedError

    def parameters(self) -> bytes:
        """What the hash has between host key and public values."""
        return b""


class Curve25519(Exchange):
    """curve25519-sha256, also under the name that it had before RFC 8731."""

    def begin(self) -> bytes:
        """A key for this exchange alone."""
        self._key = X25519PrivateKey.generate()
        return self._key.public_key().public_bytes_raw()

    def finish(self, theirs: bytes) -> int | bytes:
        """The secret as a number, its bytes in network order (section 3)."""
        return int.from_bytes(agree(self._key, theirs), "big")


class Hybrid(Exchange):
    """The secrets of a post-quantum exchange and of X25519, hashed, so that either one protects what is recorded today.

    The server encapsulates the first one to our key; its answer is the ciphertext and its point.
    """

    ciphertext: ClassVar[int]  # bytes
    _POINT = 32  # bytes: RFC 7748

    def begin(self) -> bytes:
        """A key of each kind."""
        self._key = X25519PrivateKey.generate()
        return self.generate() + self._key.public_key().public_bytes_raw()

    def finish(self, theirs: bytes) -> int | bytes:
        """The hash of the two secrets, the post-quantum one first; a string, unlike all others."""
        if len(theirs) != self.ciphertext + self._POINT:
            raise ValueError("neither longer nor shorter")
        secret = self.decapsulate(theirs[: self.ciphertext])
        digest: bytes = type(self).hash_algo(secret + agree(self._key, theirs[self.ciphertext :])).digest()
        return digest

    def generate(self) -> bytes:
        """Make a post-quantum key; return the public one."""
        raise NotImplementedError

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret of a ciphertext that has the right length."""
        raise NotImplementedError


class MlKem768X25519(Hybrid):
    """mlkem768x25519-sha256."""

    ciphertext = 1088  # FIPS 203, table 3

    def generate(self) -> bytes:
        """Make a key of cryptography's."""
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey  # it may not have it

        self._post_quantum = MLKEM768PrivateKey.generate()
        return self._post_quantum.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """A ciphertext that somebody made up gives a secret that nobody else has."""
        return self._post_quantum.decapsulate(ciphertext)


class Sntrup761X25519(Hybrid):
    """sntrup761x25519-sha512, also under the name that it had before OpenSSH 9.9; with the package pqcrypto."""

    hash_algo = Sha512
    ciphertext = 1039

    def generate(self) -> bytes:
        """Make a key of pqcrypto's, which takes some 14 ms."""
        from pqcrypto.kem import sntrup_761  # the extra pq

        public, self._secret = sntrup_761.keygen()
        return bytes(public)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """A ciphertext that somebody made up gives a secret that nobody else has."""
        from pqcrypto.kem import sntrup_761

        return bytes(sntrup_761.decaps(self._secret, ciphertext))


def agree(key: X25519PrivateKey, theirs: bytes) -> bytes:
    """X25519 (RFC 7748 section 6.1). Raises ValueError when a point of small order makes it nothing (RFC 8731)."""
    secret = key.exchange(X25519PublicKey.from_public_bytes(theirs))
    if not any(secret):
        raise ValueError("a point of small order")
    return secret
