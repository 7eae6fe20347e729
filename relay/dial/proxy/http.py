"""HTTP CONNECT, byte for byte: RFC 9110 section 9.3.6, RFC 9112 section 3.2.3, RFC 7617 (Basic).

Own code, for PySocks reads beyond the header and loses what the server has said
already. Headers are read line by line, each taken off the wire exactly.
"""

from __future__ import annotations

from relay.errors import RelayError, printable
from relay.spec.proxy import HINT_REFUSED, HINT_WANTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.dial.proxy.wire import Wire

HEADERS = 200  # lines; a proxy that sends more means no good
# Status: hint. The reason is the proxy's own.
HINTS = {
    400: "it may be no proxy for CONNECT",
    403: "many proxies allow port 443 only",
    405: "it is no proxy for CONNECT",
    501: "it is no proxy for CONNECT",
}


def negotiate(wire: Wire, host: str, port: int, user: str | None, password: str | None) -> None:
    """Ask the proxy to connect to host. Raises RelayError."""
    wire.send(_request(host, port, user, password))
    status, reason, schemes = _response(wire)
    while 100 <= status < 200:  # an interim response may come at any time (RFC 9110 section 15.2)
        status, reason, schemes = _response(wire)
    # Any 2xx is the tunnel, whatever its headers say of a body.
    if not 200 <= status < 300:
        raise _refused(wire, status, reason, schemes, user)


def _request(host: str, port: int, user: str | None, password: str | None) -> bytes:
    try:
        name = host.encode("ascii" if host.isascii() else "idna").decode()
    except UnicodeError as error:
        raise RelayError("the name cannot be sent: a part of it is empty or has more than 63 bytes") from error
    authority = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if user is not None:
        from binascii import b2a_base64  # only a user pays

        credentials = f"{user}:{password or ''}".encode("utf-8", "surrogateescape")
        lines.append(f"Proxy-Authorization: Basic {b2a_base64(credentials, newline=False).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _response(wire: Wire) -> tuple[int, str, list[str]]:
    """Read one response's head: its status, its reason, and the schemes of authentication it wants (lower case)."""
    first = wire.line()
    version, _, rest = first.decode("utf-8", "replace").partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if not (version.upper().startswith("HTTP/") and len(status) == 3 and status.isascii() and status.isdigit()):
        raise wire.fault(f"does not speak HTTP: it answers {printable(repr(first)[2:-1], 40)}", hint="-X 5 or -X 4a")
    wire.answered()
    schemes: list[str] = []
    for _ in range(HEADERS):
        line = wire.line()
        if not line:
            return int(status), printable(reason, 100), schemes
        name, _, value = line.decode("utf-8", "replace").partition(":")
        if name.strip().lower() == "proxy-authenticate":
            schemes.append(value.split(maxsplit=1)[0].lower() if value.strip() else "")
    raise wire.fault("sends headers without an end")


def _refused(wire: Wire, status: int, reason: str, schemes: list[str], user: str | None) -> RelayError:
    """The error for a status that is no tunnel."""
    hint = HINTS.get(status, "")
    if status in {401, 407}:  # 407 is what RFC 9110 has for proxies; tinyproxy answers a wrong password by 401
        hint = HINT_WANTED if user is None else HINT_REFUSED
        if schemes and "basic" not in schemes:
            hint = f"it wants {printable(', '.join(schemes), 60)}; pyrelay has Basic only"
    said = f"{status} {reason}".rstrip()
    return RelayError(f"{wire.proxy} refuses: {said}", hint=hint)
