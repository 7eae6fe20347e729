"""UpdateHostKeys: a trusted hop announces further host keys and proves that it holds them; they are written down.

After OpenSSH's clientloop.c (client_input_hostkeys, hostkeys_find, client_global_hostkeys_prove_confirm) and PROTOCOL,
section 2.5. Keys are appended; one that the hop does not announce any more is named and left, since nothing in
known_hosts is ever rewritten. Nothing waits for any of this: it begins once the relay has had its first byte, in
threads of its own.

Whether a hop's keys may be updated at all is decided in trust.py, before the login.
"""

from __future__ import annotations

import os
import threading

from relay.errors import RelayError, words
from relay.ssh.pubkey import CERT_SUFFIX, BadKey, PublicKey, Reader, key_type, string
from relay.ssh.record import Record
from relay.ssh.trust import known_hosts
from relay.ssh.trust.signature import verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from relay.ssh.trust.known_hosts import Line

ANNOUNCED, PROVE = b"hostkeys-00@openssh.com", b"hostkeys-prove-00@openssh.com"
_PROOFS_BY_RSA = ("rsa-sha2-512", "rsa-sha2-256")  # HOSTKEY_PROOF_RSA_ALGS
_MOST = 64  # keys of one announcement; a server has a handful


class Policy(Record):
    """What an update needs to know of its hop, and no more: the holder of shared hops keeps it.

    name: as known_hosts has it. files: the user's own, of which the first is written to. known: the blobs of the keys
    that these had for the name before the login. types: of the keys that HostKeyAlgorithms permits. hashed:
    HashKnownHosts. digest: FingerprintHash.
    """

    name: str
    files: tuple[str, ...]
    known: frozenset[bytes]
    types: frozenset[str]
    hashed: bool
    digest: str


class Keys(Record):
    """The announced keys: those to be proved, and those that are known and not announced any more."""

    new: list[PublicKey]
    old: list[PublicKey]


class Skipped(Exception):
    """The reason why nothing is updated."""


class Update:
    """The update of one hop's keys. The transport's thread reports what comes; `begin` is called at the first byte.

    say: prints a line under -v.
    """

    def __init__(self, policy: Policy, say: Callable[[str], object]) -> None:
        self.say = say
        self._policy = policy
        self._lock = threading.Lock()
        self._announced: list[bytes] | None = None
        self._begun = self._over = False
        self._proved_by: tuple[bytes, str] = b"", ""
        self._send: Callable[[bytes], None] = lambda _: None
        self._awaited: list[PublicKey] = []

    def log_in(self, session_id: bytes, algorithm: str, send: Callable[[bytes], None]) -> None:
        """The keys have been exchanged. algorithm: of the host key. send: sends a request that the server answers."""
        self._proved_by = session_id, algorithm
        self._send = send

    def asked(self, name: bytes, data: bytes) -> None:
        """The server has sent a global request. Its first announcement of keys, a list of strings, counts."""
        if name != ANNOUNCED:
            return
        reader = Reader(data)
        blobs = []
        try:
            while reader.offset < len(data):
                blobs.append(reader.string())
        except BadKey:
            return
        with self._lock:
            if self._announced is not None or len(blobs) > _MOST:
                return
            self._announced = blobs
            self._over = self._policy.known == frozenset(blobs)
        self._start()

    def begin(self) -> None:
        """The relay has had its first byte."""
        if not self._begun:
            self._begun = True
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._over or not self._begun or self._announced is None:
                return
            self._over = True
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        """See which keys are new, and ask the server to prove that it holds them."""
        try:
            keys = sort(self._policy, self._announced or ())
        except (Skipped, RelayError) as error:
            self.say(f"UpdateHostKeys: nothing is updated: {error}")
            return
        for key in keys.old:
            self.say(f"UpdateHostKeys: not announced any more: {key.short} {key.fingerprint(self._policy.digest)}")
        if keys.new:
            self._awaited = keys.new
            self._send(string(PROVE) + b"\1" + b"".join(string(key.blob) for key in keys.new))

    def proven(self, data: bytes) -> None:
        """The server has answered a request with these bytes: its proofs, if any were asked for."""
        awaited, self._awaited = self._awaited, []
        if awaited:
            threading.Thread(target=self._learn, args=(awaited, data), daemon=True).start()

    def _learn(self, awaited: list[PublicKey], data: bytes) -> None:
        """Check the proofs and write the keys down."""
        policy = self._policy
        try:
            learnt = proofs(awaited, data, *self._proved_by)
            for key in learnt:
                known_hosts.append(policy.files[0], policy.name, key, hashed=policy.hashed)
                self.say(f"UpdateHostKeys: learned {key.short} {key.fingerprint(policy.digest)}")
        except BadKey as error:
            self.say(f"UpdateHostKeys: nothing is updated: a proof is not good: {error}")
        except OSError as error:
            self.say(f"UpdateHostKeys: {policy.files[0]} cannot be written to: {words(error)}")


def sort(policy: Policy, blobs: Iterable[bytes]) -> Keys:
    """Compare announced keys with the user's files. Raises Skipped, and RelayError when a file cannot be read."""
    keys = _acceptable(policy, blobs)
    name = os.fsencode(known_hosts.lowered(policy.name))
    files = [data for _, data in known_hosts.read_files(policy.files, (), lambda _: None)]
    matching = [found for data in files for found in _matching(data, name)]
    known = [key for line, key in matching if not line.marker and not _is_complex(line.names)]
    new = [key for key in keys if not _has(known, key)]
    old = [key for key in known if not _has(keys, key)]
    if not keys or not (new or old):
        return Keys([], [])
    if len(known) < len(matching):
        raise Skipped(f"a line for {policy.name} has a pattern, a marker or more than two names")
    if _stands_elsewhere(files, name, keys):
        raise Skipped("an announced key stands under another name, too")
    if _stands_elsewhere(files, name, old):
        raise Skipped(f"a former key of {policy.name} stands under another name, too")
    if len(known) + len(new) > _MOST:  # former keys stay, and a hop could have a new one each time
        raise Skipped(f"there would be more than {_MOST} keys of {policy.name}")
    return Keys(new, old)


def _matching(data: bytes, name: bytes) -> Iterator[tuple[Line, PublicKey]]:
    """Every line of a file that holds a key of the hop, and the key."""
    for line in known_hosts.about(data, name):
        try:
            if not line.error:
                yield line, line.key()
        except BadKey:
            continue


def _stands_elsewhere(files: Iterable[bytes], name: bytes, keys: Iterable[PublicKey]) -> bool:
    return any(True for data in files for key in keys for _ in known_hosts.elsewhere(data, name, key))


def _has(keys: Iterable[PublicKey], key: PublicKey) -> bool:
    return any(each.is_same(key) for each in keys)


def _acceptable(policy: Policy, blobs: Iterable[bytes]) -> list[PublicKey]:
    """The keys that may be written down. Raises Skipped when one comes twice."""
    keys: list[PublicKey] = []
    for blob in blobs:
        try:
            key = PublicKey(blob)
        except BadKey:
            continue
        if key.is_cert or key.type not in policy.types:
            continue
        if _has(keys, key):
            raise Skipped("the server announces a key twice")
        keys.append(key)
    return keys


def _is_complex(names: bytes) -> bool:
    """Whether a line's names are not of the form that ssh writes: host, or host and address (hostspec_is_complex)."""
    return b"*" in names or b"?" in names or names.count(b",") > 1


def proofs(awaited: Iterable[PublicKey], data: bytes, session_id: bytes, algorithm: str) -> list[PublicKey]:
    """Return the keys that the server's signatures prove. Raises BadKey when one of these does not.

    algorithm: that of the host key in the key exchange. An RSA key proves itself by the same one if that is RSA's, and
    else by SHA-2; one that signs with SHA-1 is passed over.
    """
    agreed = algorithm.removesuffix(CERT_SUFFIX)
    by_rsa = (agreed,) if key_type(agreed) == "ssh-rsa" else _PROOFS_BY_RSA
    reader = Reader(data)
    proved = []
    for key in awaited:
        signature = reader.string()
        if key.plain == "ssh-rsa" and Reader(signature).text() not in by_rsa:
            if by_rsa is not _PROOFS_BY_RSA:
                raise BadKey(f"not signed with {agreed}, as agreed")
            continue
        verify(key, signature, string(PROVE) + string(session_id) + string(key.blob))
        proved.append(key)
    if reader.rest():
        raise BadKey("more than the signatures")
    return proved
