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
from binascii import Error as NotBase64
from binascii import a2b_base64

from relay.ssh.login.methods import ASKING, METHODS, OURS, allowed
from relay.ssh.pubkey import BadKey, Reader

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
# The types of keys that our client has, and those that the agent alone has (relay/ssh/pubkey.py).
_KNOWN = ("ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-", "sk-")
_MAGIC = b"openssh-key-v1\0"  # OpenSSH's PROTOCOL.key
_ENOUGH = 65536  # bytes of a key file; its public half stands at the beginning


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


def knock(settings: HopSettings, taken: Sequence[str], algorithms: Sequence[str]) -> str:
    """Return why a hop is left to ssh after it has said what it takes, or "".

    taken: the methods that the server takes. algorithms: its server-sig-algs.
    """
    if any(name in taken for name in METHODS if name not in OURS):
        for name in first_methods(settings):
            if name in taken:
                return f"it takes {name}, which comes first and is at hand"
    if "publickey" in taken:
        for path, kind in _foreign_keys(settings):
            if kind in algorithms:
                return f"{path} is a key of the type {kind}, which our client lacks"
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


def _foreign_keys(settings: HopSettings) -> Iterator[tuple[str, str]]:
    """The identity files whose key is of a type that our client does not know, each with that type."""
    if settings.no("pubkeyauthentication"):
        return
    for path in settings.paths("identityfile"):
        kind = _type_of(path)
        if kind and not kind.startswith(_KNOWN):
            yield path, kind


def _type_of(path: str) -> str:
    """Return the type of the private key in a file, as far as the file says it without a passphrase, or ""."""
    try:
        with open(path, "rb") as file:
            data = file.read(_ENOUGH)
    except (OSError, ValueError):  # (ValueError: a NUL in the name)
        return ""
    head, begin, text = data.partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    if head.strip() or not begin:
        return ""
    try:
        decoded = a2b_base64(text.partition(b"-----END")[0])
    except NotBase64:
        return ""
    if not decoded.startswith(_MAGIC):
        return ""
    reader = Reader(decoded[len(_MAGIC) :])
    try:
        for _ in range(3):  # the cipher, and how the passphrase becomes its key
            reader.string()
        reader.number()  # of keys
        name = Reader(reader.string()).text()  # the public half begins with its type
    except BadKey:
        return ""
    return name if name.replace("-", "").replace("@", "").replace(".", "").isalnum() else ""
