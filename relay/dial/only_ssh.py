"""What only ssh can log in with, when it is at hand: a Kerberos ticket, this host's key, a key of a newer type.

Our client has neither gssapi-with-mic nor hostbased (RFC 4462, RFC 4252 section 9). Where one of them comes before the
methods that it has, in the order of PreferredAuthentications, the hop is left to ssh before a key of ours is tried:

    the hop is not known yet    ssh logs in at once, and is overheard: by which method has it got in?
    ssh got in by such a one    ssh logs in at once again
    ssh got in by another       our client logs in from then on, as long as it gets in
    a key of ours got in        our client logs in
    nothing can be remembered   our client asks the server what it takes, and leaves the hop to ssh if it takes that
"""

from __future__ import annotations

import os

from relay.ssh.login import foreign
from relay.ssh.login.methods import ASKING, METHODS, OURS, allowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from relay.config.settings import HopSettings
    from relay.ssh.memory import Shown

GSSAPI, HOSTBASED = "gssapi-with-mic", "hostbased"
# Where systems have it (_PATH_SSH_KEY_SIGN, pathnames.h, is set when ssh is built).
_KEYSIGN = tuple(
    f"{directory}/ssh-keysign"
    for directory in ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/libexec", "/usr/lib/ssh", "/usr/lib64/ssh")
)
_HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key.pub" for kind in ("ed25519", "ecdsa", "rsa"))


def first_methods(settings: HopSettings) -> list[str]:
    """Return the methods that only ssh has, are at hand, and come before those that our client has."""
    found = []
    for name in allowed(settings):
        if name in OURS:
            if name not in ASKING or not settings.yes("batchmode"):
                break
        elif _is_at_hand(name, settings):
            found.append(name)
    return found


def reason(settings: HopSettings, recall: Callable[[], Shown | None] | None) -> str:
    """Return why ssh logs in to a hop without a knock of ours, or "".

    recall: returns what is remembered of the hop, which may be nothing, or None if nothing can be remembered.
    """
    if recall is None:
        return ""
    methods = first_methods(settings)
    types = [kind for _, kind in _foreign_keys(settings)]
    if not methods and not types:
        return ""
    shown = recall()
    if shown is None:
        return ""
    if shown.by_ssh in (*methods, *types):
        return f"ssh has logged in there by {shown.by_ssh}"
    if not methods or shown.key or shown.by_ssh or not can_be_overheard(settings):
        return ""
    return f"{methods[0]} comes first, and is at hand"


def knock(
    settings: HopSettings,
    taken: Sequence[str],
    algorithms: Sequence[str],
    held: Callable[[], Sequence[tuple[bytes, str]]],
) -> str:
    """Return why a hop is left to ssh after it has said what it takes, or "".

    taken: the methods that the server takes. algorithms: its server-sig-algs. held: returns the agent's keys of types
    that our client lacks, each with its comment; the agent is asked only where the server takes such a type.
    """
    if any(name in taken for name in METHODS if name not in OURS):
        for name in first_methods(settings):
            if name in taken:
                return f"it takes {name}, which comes first and is at hand"
    if "publickey" in taken and any(map(foreign.is_foreign, algorithms)):
        for name, kind in _foreign_keys(settings, held()):
            if kind in algorithms:
                return f"{name} is a key of the type {kind}, which our client lacks"
    return ""


def learnt(settings: HopSettings, method: str) -> str:
    """Return what to remember of a hop that ssh has got in to by a method, "" if that is not known.

    If nothing that only ssh has is at hand, there is nothing to remember.
    """
    types = [kind for _, kind in _foreign_keys(settings)]
    at_hand = [*first_methods(settings), *types]
    if not at_hand:
        return ""
    if method == "publickey" and types:
        return types[0]
    return method or at_hand[0]


def can_be_overheard(settings: HopSettings) -> bool:
    """Whether ssh may be told to say by which method it has got in: its other words must stay as they are."""
    return settings.log_level in {"", "info", "verbose"}


def _is_at_hand(name: str, settings: HopSettings) -> bool:
    """Whether there is something to log in with by a method that only ssh has."""
    if name == GSSAPI:
        return settings.yes("gssapiauthentication") and has_ticket(settings.environ)
    if name == HOSTBASED:
        wanted = settings.yes("hostbasedauthentication") and settings.yes("enablesshkeysign")
        return wanted and any(map(os.path.exists, _HOST_KEYS)) and any(os.access(path, os.X_OK) for path in _KEYSIGN)
    return False


def without_kerberos(settings: HopSettings) -> HopSettings:
    """Return the settings with all of GSS-API off: its library asks our resolver for the name that it logs in to."""
    return settings.without("gssapiauthentication", "gssapikeyexchange")


def has_ticket(environ: Mapping[str, str]) -> bool:
    """Whether the user has a Kerberos ticket that is valid now.

    The library is asked only if there may be one: to load it takes longer than all else before a hop is connected to.
    """
    kind, _, path = environ.get("KRB5CCNAME", "").rpartition(":")
    if path and kind in {"", "FILE"}:
        if not os.path.exists(path):
            return False
    elif not path and not any(
        map(os.path.exists, (environ.get("KRB5_CONFIG", ""), "/etc/krb5.conf", f"/tmp/krb5cc_{os.getuid()}"))  # noqa: S108
    ):
        return False
    from relay.dial.proxy import gss  # few have Kerberos

    return gss.has_ticket(environ)


def _foreign_keys(settings: HopSettings, held: Sequence[tuple[bytes, str]] | None = None) -> Iterator[tuple[str, str]]:
    """The keys of types that our client does not know, each with what it is called and with its type.

    held: as `knock` gets it; None if the agent was not asked: then it may hold the key of every public one.
    """
    if settings.no("pubkeyauthentication"):
        return
    agents = dict(held or ())
    for path in settings.paths("identityfile"):
        public, private = foreign.public_half(path)
        kind = foreign.type_of(public)
        if kind and (private or held is None or public in agents):
            yield path, kind
    if not settings.yes("identitiesonly"):
        for public, comment in agents.items():
            yield f"the agent's {comment}", foreign.type_of(public)
