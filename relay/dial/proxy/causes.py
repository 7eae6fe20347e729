"""Why an HTTP proxy has refused, in words: from its status and from the fields that say more. Pure."""

from __future__ import annotations

from os import strerror

from relay.errors import printable
from relay.spec.proxy import BASIC, DIGEST, HINT_REFUSED, HINT_WANTED, NEGOTIATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.dial.proxy.login import Login
    from relay.dial.proxy.message import Head

# Status: hint. The message quotes the proxy's own reason.
HINTS = {
    400: "it may not be a proxy for CONNECT",
    403: "many proxies allow port 443 only, some only programs that they know: --proxy-header 'User-Agent: ...'",
    405: "not a proxy for CONNECT",
    501: "not a proxy for CONNECT",
}
HINT_KERBEROS = "klist shows the tickets, and --proxy-service names the proxy where it is not HTTP"
HINT_NTLM = "pyrelay has no NTLM; cntlm and px are proxies for this machine that do"
KNOWN = (NEGOTIATE, DIGEST, BASIC)
# X-Squid-Error: words, as in squid's error pages.
SQUID = {
    "ERR_ACCESS_DENIED": "its rules do not allow it",
    "ERR_CACHE_ACCESS_DENIED": "it wants a login",
    "ERR_CANNOT_FORWARD": "it has no way to forward",
    "ERR_CONNECT_FAIL": "it cannot connect",
    "ERR_DNS_FAIL": "it cannot find the host",
    "ERR_SECURE_CONNECT_FAIL": "it cannot connect by TLS",
    "ERR_TOO_BIG": "the request is too big for it",
    "ERR_UNSUP_REQ": "it does not know the request",
}


def refusal(head: Head, *, login: Login | None) -> tuple[str, str]:
    """Return what a response says that opens no tunnel, and what to try. login: the login so far, if any."""
    said = f"{head.status} {head.reason}".rstrip()
    squid = "" if head.status == 407 else _squid(head.value("x-squid-error"))
    more = [words for words in (squid, _proxy_status(head.all("proxy-status"))) if words]
    hint = HINTS.get(head.status, "")
    if head.status in {401, 407}:  # RFC 9110 has 407 for proxies, but tinyproxy answers a wrong password with 401
        hint = _login_hint(login)
        if login is not None and login.tried:
            more.append(f"it does not accept the login by {login.tried}")
    location = head.value("location")
    if location and (300 <= head.status < 400 or head.status == 511):
        more.append(f"it points to {printable(location, 200)}")
        hint = "open that address in a browser: the network may want you to log in there first"
    elif head.status == 511:  # RFC 6585 section 6
        hint = "open any page in a browser: the network wants you to log in first"
    return ": ".join([said, "; ".join(more)] if more else [said]), hint


def _login_hint(login: Login | None) -> str:
    """Return what to try if the proxy demands a login."""
    if login is None:
        return HINT_WANTED
    if login.tried:
        return HINT_KERBEROS if login.tried == NEGOTIATE else HINT_REFUSED
    offered = printable(", ".join(login.offered), 60)
    if login.problem is not None and "ntlm" not in login.offered:
        user = "" if login.has_user or set(login.offered).isdisjoint((DIGEST, BASIC)) else f"; or {HINT_WANTED}"
        problem = "; ".join(filter(None, (login.problem.cause, login.problem.hint)))
        return f"{problem}{user}"
    if not login.has_user and not set(login.offered).isdisjoint((DIGEST, BASIC)):
        return HINT_WANTED
    if "ntlm" in login.offered:
        return f"it wants {offered}; {HINT_NTLM}"
    return f"it wants {offered}; pyrelay has {', '.join(KNOWN)}"


def _squid(field: str) -> str:
    """Put X-Squid-Error in words: a name of squid's, then the system's error number ("ERR_CONNECT_FAIL 111")."""
    name, _, number = field.strip().partition(" ")
    if not name:
        return ""
    words = SQUID.get(name, "")
    # Errors are numbered as here, on nearly every proxy's system.
    if number.isascii() and number.isdigit() and 0 < int(number[:4]) < 200:
        reason = strerror(int(number[:4])).lower()
        words = f"{words}: {reason}" if words else reason
    said = printable(f"{name} {number}".rstrip(), 60)
    return f"{words} ({said})" if words else said


def _proxy_status(lines: Sequence[str]) -> str:
    """Put the error of the proxy nearest to the target in words (RFC 9209): its type and its details.

    The field is a list of structured items (RFC 8941). The proxy that failed added the first item, the proxy nearest
    to us the last one.
    """
    for member in _split(", ".join(lines), ","):
        name, *parameters = _split(member, ";")
        told = {key.strip().lower(): value.strip() for key, _, value in (each.partition("=") for each in parameters)}
        if error := told.get("error", ""):
            details = _unquoted(told.get("details", ""))
            words = " ".join(error.split("_")) + (f": {details}" if details else "")
            return printable(f"{words}, says {_unquoted(name.strip())}", 160)
    return ""


def _split(text: str, at: str) -> list[str]:
    """Split a text at the separators that stand outside quotes."""
    parts, begin, quoted, escaped = [], 0, False, False
    for here, letter in enumerate(text):
        if letter == at and not quoted:
            parts.append(text[begin:here])
            begin = here + 1
            continue
        quoted ^= letter == '"' and not escaped
        escaped = quoted and letter == "\\" and not escaped
    return [*parts, text[begin:]]


def _unquoted(text: str) -> str:
    """Return a structured string without its quotes, or a token unchanged."""
    return text[1:].removesuffix('"').replace('\\"', '"').replace("\\\\", "\\") if text.startswith('"') else text
