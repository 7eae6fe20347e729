"""What ssh_config refuses of a host key by itself, whoever shows the key: the decision, and `--explain`, ask here."""

from __future__ import annotations

from relay.errors import Unserved
from relay.ssh.pubkey import CERT_SUFFIX, key_type
from relay.ssh.trust import known_hosts
from relay.ssh.trust.hostkeys import ALGORITHMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.ssh.pubkey import PublicKey


def too_short(key: PublicKey, settings: HopSettings) -> str:
    """What is wrong with the size of a key (RequiredRSASize), or ""."""
    least = settings.number("requiredrsasize")
    if not 0 < key.bits < least:
        return ""
    return f"the server's RSA host key has {key.bits} bits; RequiredRSASize is {least}"


def revoked_by(settings: HopSettings, key: PublicKey, issuer: PublicKey | None, children: Children) -> str:
    """Return the file of RevokedHostKeys that revokes a key, or its issuer if it is a certificate; "" if none does.

    Raises RelayError, or Unserved, as hosts_command.is_revoked does.
    """
    for path in settings.paths("revokedhostkeys"):
        from relay.ssh.trust import hosts_command  # few have such a list

        if hosts_command.is_revoked(path, key, issuer, children):
            return path
    return ""


def permitted_types(settings: HopSettings) -> frozenset[str]:
    """Return the types of plain keys that HostKeyAlgorithms permits."""
    chosen = settings.algorithms("hostkeyalgorithms") or ALGORITHMS
    return frozenset(key_type(name) for name in chosen if not name.endswith(CERT_SUFFIX))


def signers(settings: HopSettings) -> list[str]:
    """Return the algorithms that a CA may sign with (CASignatureAlgorithms)."""
    return settings.get("casignaturealgorithms").split(",")


def of_authority(key: PublicKey, settings: HopSettings) -> str:
    """Why no certificate that a CA has signed can be trusted, or "". key: the CA's."""
    if not any(name.endswith(CERT_SUFFIX) for name in settings.algorithms("hostkeyalgorithms") or ALGORITHMS):
        return "HostKeyAlgorithms leaves no certificate"
    if key.type not in map(key_type, signers(settings)):
        return f"CASignatureAlgorithms leaves out its CA's, {key.type}"
    return ""


def of_new(settings: HopSettings, host: str) -> tuple[str, str]:
    """Why a key that nobody has seen is refused, "" if that is not settled yet; and a hint, "" for the usual one.

    host: the name that the key would be written down under, without a port.
    Raises Unserved where only ssh can write it down.
    """
    if settings.strictness == "yes":
        return "StrictHostKeyChecking is yes", ""
    if not settings.paths("userknownhostsfile"):
        return "there is no UserKnownHostsFile to write it to", "name one"
    if known_hosts.recordable(host):
        return "", ""
    if settings.get("hostkeyalias"):
        raise Unserved("its HostKeyAlias has characters that only ssh writes to known_hosts")
    return "a name like this one cannot be written to known_hosts", "give it another with HostKeyAlias"
