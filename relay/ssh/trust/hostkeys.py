"""The keys that are known for one host, and the verdict on the key that a server shows.

Pure, after OpenSSH's hostfile.c (check_key_in_hostkeys) and sshconnect2.c
(order_hostkeyalgs). What follows from a verdict is decided elsewhere.
"""

from __future__ import annotations

from relay.errors import printable
from relay.ssh.pubkey import CERT_SUFFIX, BadKey, Reader, key_type
from relay.ssh.trust.known_hosts import CA, REVOKED, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.ssh.pubkey import PublicKey

# Verdicts on a key.
KNOWN = "known"
UNKNOWN = "unknown"  # no key of the host is known
CHANGED = "changed"  # others are known, and not this one
IS_REVOKED = "revoked"

# Host key algorithms in OpenSSH's own order (myproposal.h, KEX_DEFAULT_PK_ALG), as far as we have them:
# certificates first, since a server that has none passes them over.
PLAIN_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
ALGORITHMS = tuple(name + CERT_SUFFIX for name in PLAIN_ALGORITHMS) + PLAIN_ALGORITHMS


class HostKeys:
    """What known_hosts files hold for one name, in the order of the files."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)

    def check(self, key: PublicKey, issuer: PublicKey | None = None) -> tuple[str, Entry | None]:
        """The verdict on a server's key, and the entry that it rests on.

        issuer: the key that signed it, when the key is a certificate. For a
        certificate KNOWN means that its issuer is a CA of this host, CHANGED
        that the host has only other CAs.
        """
        shows = (key,) if issuer is None else (key, issuer)
        for entry in self.entries:
            if entry.marker == REVOKED and any(shown.has_same_key(entry.key) for shown in shows):
                return IS_REVOKED, entry
        other: Entry | None = None
        for entry in self.entries:
            if entry.marker != (CA if issuer is not None else ""):
                continue
            known = entry.key
            if issuer is not None:
                if known.has_same_key(issuer):
                    return KNOWN, entry
            elif known.is_same(key):
                return KNOWN, entry
            # A person will want to compare with a key of the same type: prefer it.
            if other is None or (known.type == key.type != other.key.type):
                other = entry
        return (UNKNOWN, None) if other is None else (CHANGED, other)

    def may_lead(self, algorithm: str) -> bool:
        """Whether nothing is lost when this algorithm is asked for before all others.

        A key of its type is known, and no CA, whose certificates come first.
        """
        return key_type(algorithm) in self._types() and not any(entry.marker == CA for entry in self.entries)

    def order(self, algorithms: Sequence[str]) -> list[str]:
        """Sort the algorithms: first those whose host key we may know, so that a person is asked less often.

        The order within each group stays. If the host's key of the first
        algorithm's type is known, nothing moves. OpenSSH does this with its
        default list.
        """
        types = self._types()
        has_ca = any(entry.marker == CA for entry in self.entries)
        if algorithms and key_type(algorithms[0].removesuffix(CERT_SUFFIX)) in types:
            return list(algorithms)

        def first(name: str) -> bool:
            plain = name.removesuffix(CERT_SUFFIX)
            return key_type(plain) in types or (has_ca and plain != name)

        return [name for name in algorithms if first(name)] + [name for name in algorithms if not first(name)]

    def _types(self) -> set[str]:
        """The types of which a key is known. Where the first one of a type is revoked, ssh looks at no other one."""
        firsts: dict[str, PublicKey] = {}
        for entry in self.entries:
            if not entry.marker:
                firsts.setdefault(entry.key.type, entry.key)
        revoked = [entry.key for entry in self.entries if entry.marker == REVOKED]
        return {kind for kind, key in firsts.items() if not any(key.has_same_key(other) for other in revoked)}


def check_proof(algorithm: str, blob: bytes, signature: bytes) -> None:
    """Check that the host key and the signature of a key exchange have the negotiated type.

    The caller verifies the signature itself. A server must not answer with
    another type of key, nor sign with rsa-sha2-256 where rsa-sha2-512 was
    agreed (sshkey.c, sshkey_check_sigtype; kex.c, kex_verify_host_key). Raises
    BadKey.
    """
    shown = Reader(blob).text()
    if shown != key_type(algorithm):
        raise BadKey(f"the server's host key is of type {printable(shown)}, not {key_type(algorithm)} as agreed")
    signed = Reader(signature).text()
    if signed != algorithm.removesuffix(CERT_SUFFIX):
        raise BadKey(f"the server signed with {printable(signed)}, not {algorithm} as agreed")
