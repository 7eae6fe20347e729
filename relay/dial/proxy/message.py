"""The HTTP messages of CONNECT: the request, and the head of a response, which is read to its last byte and no further.

RFC 9112 sections 3.2.3 (the request's form), 4 and 5 (status and fields). This module does not interpret them.
"""

from __future__ import annotations

import os

from relay.dial.proxy.wire import HINT_SSH, SSH, encoded_name
from relay.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.dial.proxy.wire import Wire

HEADERS = 200  # lines; a proxy that sends more is hostile
HEAD = 64 * 1024  # bytes of them all, as in squid


class Head:
    """The head of a response: its status, its reason (made printable), and its fields by name in lower case."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        self.fields: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        """Return the values of all lines with this name, in their order."""
        return [value for each, value in self.fields if each == name]

    def value(self, name: str) -> str:
        """Return the value of the first line with this name, or ""."""
        return next(iter(self.all(name)), "")


def authority(host: str, port: int) -> str:
    """Return the authority that CONNECT asks for, "name:port" (RFC 9110 section 7.2). Raises RelayError."""
    name = encoded_name(host).decode()
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def request(wanted: str, headers: Sequence[str]) -> bytes:
    """Return the request for an authority. headers: "NAME: VALUE" each; a Host among them replaces ours."""
    lines = [f"CONNECT {wanted} HTTP/1.1"]
    if not any(header.partition(":")[0].lower() == "host" for header in headers):
        lines.append(f"Host: {wanted}")
    return os.fsencode("\r\n".join([*lines, *headers, "", ""]))


def response(wire: Wire) -> Head:
    """Read one response's head. Raises RelayError."""
    first = wire.line()
    version, _, rest = first.decode("utf-8", "replace").partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if not (version.upper().startswith("HTTP/") and len(status) == 3 and status.isascii() and status.isdigit()):
        hint = HINT_SSH if first.startswith(SSH) else "-X 5 or -X 4a"
        raise wire.fault(f"does not speak HTTP: it answers {printable(repr(first)[2:-1], 40)}", hint=hint)
    wire.answered()
    head = Head(int(status), printable(reason, 100))
    size = 0
    for _ in range(HEADERS):
        line = wire.line()
        if not line:
            return head
        size += len(line)
        if size > HEAD:
            break
        if line[:1] in {b" ", b"\t"} and head.fields:  # a folded line (RFC 9112 section 5.2)
            head.fields[-1] = head.fields[-1][0], f"{head.fields[-1][1]} {os.fsdecode(line).strip()}"
            continue
        name, _, value = os.fsdecode(line).partition(":")
        head.fields.append((name.strip().lower(), value.strip()))
    raise wire.fault("sends headers without an end")
