"""HTTP CONNECT, byte for byte: RFC 9110 section 9.3.6, RFC 9112 section 3.2.3, RFC 7617 (Basic).

Own code, for PySocks reads beyond the header and loses what the server has said
already. Headers are read line by line, each taken off the wire exactly.
"""

from __future__ import annotations

from relay.errors import RelayError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.dial.proxy.wire import Wire

HEADERS = 200  # lines; a proxy that sends more means no good


class Head:
    """The head of a response: its status, its reason (clean), and its fields by their names in lower case."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        self.fields: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        """The values of all lines with this name, in their order."""
        return [value for each, value in self.fields if each == name]

    def value(self, name: str) -> str:
        """The first of them, or ""."""
        return next(iter(self.all(name)), "")


def negotiate(wire: Wire, host: str, port: int, user: str | None, password: str | None) -> None:
    """Ask the proxy to connect to host. Raises RelayError."""
    wire.send(_request(host, port, user, password))
    head = _response(wire)
    while 100 <= head.status < 200:  # an interim response may come at any time (RFC 9110 section 15.2)
        head = _response(wire)
    # Any 2xx is the tunnel, whatever its headers say of a body.
    if not 200 <= head.status < 300:
        from relay.dial.proxy.causes import refusal  # only a refusal has any

        said, hint = refusal(head, user=user is not None)
        raise RelayError(f"{wire.proxy} refuses: {said}", hint=hint)


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


def _response(wire: Wire) -> Head:
    """Read one response's head."""
    first = wire.line()
    version, _, rest = first.decode("utf-8", "replace").partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if not (version.upper().startswith("HTTP/") and len(status) == 3 and status.isascii() and status.isdigit()):
        raise wire.fault(f"does not speak HTTP: it answers {printable(repr(first)[2:-1], 40)}", hint="-X 5 or -X 4a")
    wire.answered()
    head = Head(int(status), printable(reason, 100))
    for _ in range(HEADERS):
        line = wire.line()
        if not line:
            return head
        name, _, value = line.decode("utf-8", "replace").partition(":")
        head.fields.append((name.strip().lower(), value.strip()))
    raise wire.fault("sends headers without an end")
