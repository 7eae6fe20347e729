"""A key agent: its keys, and signatures by them (RFC 9987, the SSH agent protocol).

Own code because paramiko's client has no time-out (a stopped agent would hang
the login), no session-bind@openssh.com (keys with destination constraints
would not sign) and signs with no RSA certificate (5.1.0). It knows sockets and
messages; which key is wanted, and for what, is decided elsewhere.
"""

from __future__ import annotations

import _socket
import os
import time

from relay.errors import printable
from relay.ssh.login import foreign
from relay.ssh.pubkey import CERT_SUFFIX, BadKey, PublicKey, Reader, string
from relay.ssh.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUEST_IDENTITIES, IDENTITIES_ANSWER = b"\x0b", 12  # RFC 9987 section 5.1
SIGN_REQUEST, SIGN_RESPONSE = b"\x0d", 14
EXTENSION, SUCCESS = b"\x1b", 6
ADD_IDENTITY, ADD_CONSTRAINED = b"\x11", b"\x19"  # section 3.2
_LIFETIME, _CONFIRM = b"\x01", b"\x02"  # constraints, section 3.2.7
_SIGN_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}  # section 3.6.1: how to sign with an RSA key
_LARGEST = 256 * 1024  # bytes of an answer; authfd.c, MAX_AGENT_REPLY_LEN
_MOST_KEYS = 2048  # authfd.c, MAX_AGENT_IDENTITIES
PATIENCE = 1.0  # seconds after which an agent that has not signed is taken to wait for a person


class AgentFailed(Exception):
    """The agent does not answer, answers nonsense, or refuses."""


class AgentKey(Record):
    """A key or a certificate that the agent can sign with."""

    public: PublicKey
    comment: str  # fit for a terminal: an agent may be a forwarded one


class Agent:
    """A connection to an agent, for one login: a session is bound to it once.

    path: its socket. seconds: how long it may take to answer, but for signatures. foreign: its keys of types that our
    client lacks, as blobs, each with its comment; `keys` fills it.
    Raises AgentFailed when nobody listens there.
    """

    def __init__(self, path: str, seconds: float) -> None:
        from relay.run import unix  # not every login has an agent

        self.foreign: list[tuple[bytes, str]] = []
        self._seconds = seconds
        self._socket = _socket.socket(_socket.AF_UNIX)
        until = time.monotonic() + seconds

        def left() -> float:
            if (seconds := until - time.monotonic()) <= 0:
                raise TimeoutError("nobody answers there")
            return seconds

        try:
            unix.connect(self._socket, path, left)
            self._socket.settimeout(seconds)
        except OSError as error:
            self._socket.close()
            raise AgentFailed(f"{path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the connection, and with it what the agent knows of the session."""
        self._socket.close()

    def bind(
        self,
        host_key: bytes,
        session_id: bytes,
        signature: bytes,
        waiting: Callable[[], float | None] | None = None,
    ) -> bool:
        """Tell the agent which host this login is to (PROTOCOL.agent, section 1); false if it does not know how.

        host_key: the blob. signature: the server's over session_id, from the
        first key exchange. Keys with destination constraints are listed and
        sign only after this. waiting: as for `sign`.
        """
        message = EXTENSION + string(b"session-bind@openssh.com")
        message += string(host_key) + string(session_id) + string(signature) + b"\0"  # not forwarded
        kind, _ = self._ask(message, waiting)
        return kind == SUCCESS

    def keys(self, waiting: Callable[[], float | None] | None = None) -> list[AgentKey]:
        """What the agent holds, in its order; keys of unknown types are left out, see `foreign`. Raises AgentFailed.

        waiting: as for `sign`; an agent that is locked may ask its person to unlock it first.
        """
        kind, answer = self._ask(REQUEST_IDENTITIES, waiting)
        if kind != IDENTITIES_ANSWER:
            raise AgentFailed("it does not list its keys")
        found = []
        try:
            count = answer.number()
            if count > _MOST_KEYS:
                raise BadKey("too many keys")
            for _ in range(count):
                blob, comment = answer.string(), printable(answer.string().decode(errors="replace"))
                try:
                    found.append(AgentKey(PublicKey(blob), comment))
                except BadKey:
                    self.foreign += [(blob, comment)] if foreign.type_of(blob) else []
        except BadKey as error:
            raise AgentFailed(f"its list of keys cannot be read: {error}") from error
        return found

    def add(self, private: bytes, comment: str, *, seconds: int = 0, confirm: bool = False) -> None:
        """Give the agent a private key to hold (section 3.2). Raises AgentFailed.

        private: as PrivateKey.for_agent writes it. seconds: after which the agent drops it; 0 is never. confirm: the
        agent asks its person at each use.
        """
        constraints = _LIFETIME + seconds.to_bytes(4, "big") if seconds else b""
        constraints += _CONFIRM if confirm else b""
        kind = ADD_CONSTRAINED if constraints else ADD_IDENTITY
        answer, _ = self._ask(kind + private + string(os.fsencode(comment)) + constraints)
        if answer != SUCCESS:
            raise AgentFailed("it refuses the key")

    def sign(self, key: PublicKey, data: bytes, algorithm: str, waiting: Callable[[], float | None]) -> bytes:
        """The signature blob over data by a key or certificate of the agent's. Raises AgentFailed.

        waiting: called when the agent has been silent for PATIENCE
        seconds, as it is when it asks a person; returns how many seconds more
        it may take, None for no end.
        """
        flags = _SIGN_FLAGS.get(algorithm.removesuffix(CERT_SUFFIX), 0)
        request = SIGN_REQUEST + string(key.blob) + string(data) + flags.to_bytes(4, "big")
        kind, answer = self._ask(request, waiting)
        if kind != SIGN_RESPONSE:
            raise AgentFailed("it refuses to sign")
        try:
            signature = answer.string()
            signed_by = Reader(signature).text()
        except BadKey as error:
            raise AgentFailed(f"its signature cannot be read: {error}") from error
        # An old agent does not know the flags and signs with SHA-1, which no server of today takes.
        if flags and signed_by != algorithm.removesuffix(CERT_SUFFIX):
            raise AgentFailed(f"it signs with {signed_by} instead of {algorithm}")
        return signature

    def _ask(self, message: bytes, waiting: Callable[[], float | None] | None = None) -> tuple[int, Reader]:
        """Send a message; the type of the answer and the rest of it. Raises AgentFailed."""
        try:
            self._socket.settimeout(self._seconds)
            self._socket.sendall(string(message))
            limit: float | None = self._seconds
            if waiting is not None:
                self._socket.settimeout(PATIENCE)
                try:
                    self._socket.recv(1, _socket.MSG_PEEK)
                except TimeoutError:
                    limit = waiting()
            until = None if limit is None else time.monotonic() + limit
            size = int.from_bytes(self._read(4, until), "big")
            if not 0 < size <= _LARGEST:
                raise AgentFailed("its answer is too long")
            answer = Reader(self._read(size, until))
        except TimeoutError as error:
            raise AgentFailed("it does not answer") from error
        except OSError as error:
            raise AgentFailed(error.strerror or str(error)) from error
        return answer.number(1), answer

    def _read(self, count: int, until: float | None) -> bytes:
        """So many bytes, by the moment `until` of the monotonic clock."""
        data = b""
        while len(data) < count:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(count - len(data))
            if not more:
                raise AgentFailed("it closed the connection")
            data += more
        return data


def socket_path(identity_agent: str, environ: Mapping[str, str]) -> str | None:
    """Where the agent listens, or None when no agent is to be used.

    identity_agent: as `ssh -G` prints it: nothing, "none", SSH_AUTH_SOCK, the
    name of a variable behind a $, or a path (ssh.c, main).
    """
    if identity_agent == "none":
        return None
    if identity_agent in {"", "SSH_AUTH_SOCK"}:
        return environ.get("SSH_AUTH_SOCK") or None
    if identity_agent.startswith("$") and not identity_agent.startswith("${"):
        return environ.get(identity_agent[1:]) or None
    return os.path.expanduser(identity_agent)
