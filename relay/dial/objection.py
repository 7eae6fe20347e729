"""Why our own client cannot serve a hop, as far as ssh_config shows before we connect to the hop."""

from __future__ import annotations

import os

from relay.dial import only_ssh
from relay.ssh.login.methods import ASKING, OURS, allowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.config.settings import HopSettings
    from relay.ssh.memory import Shown

_AGENT_SECONDS = 2.0


def objection(settings: HopSettings, recall: Callable[[], Shown | None] | None = None) -> str:
    """Return why paramiko cannot serve a hop with these settings, or "" if the settings show no reason.

    recall: as for only_ssh.reason.
    """
    return (
        _no_method(settings)
        or _by_version(settings)
        or _no_algorithm(settings, recall)
        or _token(settings)
        or _by_spaces(settings)
        or only_ssh.reason(settings, recall)
    )


def _no_method(settings: HopSettings) -> str:
    """Return why no login method is left for us: the settings leave only methods that only ssh has.

    GSSAPIAuthentication being on is not a reason: distributions turn it on for all hosts (see only_ssh.py).
    """
    batch = settings.yes("batchmode")
    left = [name for name in allowed(settings) if not (batch and name in ASKING)]
    if not left or not set(left).isdisjoint(OURS):
        return ""
    return f"only {' and '.join(left)} may be tried"


def _by_version(settings: HopSettings) -> str:
    """Return what the versions of ssh read in different ways, so that the installed one must read it, or ""."""
    if any("%" in name or "${" in name for name in settings.all("revokedhostkeys")):
        return "its RevokedHostKeys has a token"  # older versions replace none there
    jump = bool(settings.named("proxyjump"))
    for key in ("identityfile", "certificatefile", "knownhostscommand"):
        value = " ".join(settings.all(key)).replace("%%", "")
        if "%j" in value or (jump and "%C" in value):  # newer versions count a ProxyJump into %C
            return f"its {key} has a token that not every ssh has"
    return ""


def _by_spaces(settings: HopSettings) -> str:
    """Return which list of files can be read in more than one way, or "": `ssh -G` prints it without the quotes.

    What can be read is a list of absolute names, of which each but the first begins at " /".
    """
    for key in ("UserKnownHostsFile", "GlobalKnownHostsFile", "RevokedHostKeys"):
        line = settings.get(key.lower())
        words = line.split(" ")
        relative = any(settings.exists(word) for word in words[1:] if word and not word.startswith("/"))
        inside = any(os.path.isdir(f"{line[:at]} ") for at in range(len(line)) if line.startswith(" /", at))
        if len(words) > 1 and (not line.startswith("/") or relative or inside):
            return f"only ssh knows where one name of its {key} ends"
    return ""


def _no_algorithm(settings: HopSettings, recall: Callable[[], Shown | None] | None) -> str:
    """Return why no algorithm is left for us: a list in ssh_config holds none that paramiko knows.

    Or it begins with one that the hop once had, and paramiko lacks. recall: as for only_ssh.reason.
    """
    if not any(settings.chosen(key) for key in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms")):
        return ""
    shown = recall() if recall is not None else None
    had = shown.ssh_only if shown is not None else ""
    from relay.ssh.enter import CHOICES
    from relay.ssh.trust.hostkeys import ALGORITHMS  # only when the user chose algorithms

    for key, known in (*((key, known) for key, (_, known) in CHOICES.items()), ("hostkeyalgorithms", ALGORITHMS)):
        wanted = settings.algorithms(key)
        if wanted is not None and not set(wanted) & set(known):
            return f"our client has none of the {key} that ssh_config asks for"
        if had and wanted is not None and had in wanted and had not in known:
            return f"the hop has had {had}, which ssh_config chooses ({key}) and only ssh knows"
    return ""


def _token(settings: HopSettings) -> str:
    """Return why the key is out of reach: only ssh can use PKCS#11 tokens, and security keys whose handle is a file."""
    if settings.no("pubkeyauthentication"):
        return ""
    if settings.named("pkcs11provider"):
        return "PKCS11Provider"
    files = [path for path in settings.paths("identityfile") if os.path.exists(path)]
    handles = [path for path in files if _is_security_key(path)]
    if not handles:
        return ""
    from relay.ssh.login.agent import Agent, AgentFailed, socket_path  # only when a key file is a security key's
    from relay.ssh.login.identities import gather

    held = []
    agent = socket_path(settings.get("identityagent"), settings.environ)
    if agent is not None:
        try:
            connection = Agent(agent, _AGENT_SECONDS)
            held = connection.keys()
            connection.close()
        except AgentFailed:
            pass
    found = gather(settings, held).identities
    names = {identity.name for identity in found}
    if not found or (settings.chosen("identityfile") and not names.issuperset(handles)):
        return f"{handles[0]} is a security key"
    return ""


def _is_security_key(path: str) -> bool:
    """Whether a private key file is the handle of a security key. The public key beside it says so."""
    try:
        with open(f"{path}.pub", "rb") as file:
            return file.read(3) == b"sk-"
    except OSError:
        return False
