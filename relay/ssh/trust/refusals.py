"""What ssh_config refuses of a host key by itself, whoever shows the key: the decision, and `--explain`, ask here."""

from __future__ import annotations

from relay.errors import Unserved
from relay.ssh.trust import known_hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.ssh.pubkey import PublicKey


def too_short(key: PublicKey, settings: HopSettings) -> str:
    """What is wrong with the size of a key (RequiredRSASize), or ""."""
    least = settings.number("requiredrsasize")
    if not 0 < key.bits < least:
        return ""
    return f"the server's RSA host key has {key.bits} bits; RequiredRSASize is {least}"


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
