"""SOCKS5 with GSS-API: the login, and the records in which everything passes after it (RFC 1961).

    +-----+------+-------+----------------+
    | ver | mtyp | length|     token      |      1, then 1 (authentication), 2 (protection), 3 (a record), or
    |  1  |  1   |   2   | up to 2^16 - 1 |      0xff (the server gives up, and nothing follows)
    +-----+------+-------+----------------+

dante and curl also have protection level 0, which is not in the RFC: no records follow, and the bytes pass as they
are. Level 3 (selective) is refused: the RFC does not say which protection a message would then have.
"""

from __future__ import annotations

from relay.dial.proxy import gss
from relay.dial.proxy.layer import LayerStream
from relay.errors import RelayError, TimedOut
from relay.spec.proxy import PROTECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.dial.proxy.gss import Context
    from relay.dial.proxy.wire import Wire

VERSION = 1
AUTHENTICATION, PROTECTION, RECORD, ABORT = 1, 2, 3, 0xFF
HEADER = 4  # bytes
MOST = 0xFFFF  # bytes of a token
FLAGS = gss.MUTUAL | gss.REPLAY | gss.SEQUENCE | gss.CONFIDENTIALITY | gss.INTEGRITY


class Records:
    """The codec of the records, see layer.Codec. secret: whether to refuse records that are not encrypted."""

    def __init__(self, context: Context, *, secret: bool) -> None:
        self.over = False
        self._context = context
        self._secret = secret
        self._limit = context.wrap_limit(MOST, secret=secret)
        self._left = b""  # the beginning of a record that is not complete yet

    def seal(self, data: bytes | memoryview, /) -> bytes:
        """Return the records for data."""
        sealed = []
        for start in range(0, len(data), self._limit):
            token = self._context.wrap(bytes(data[start : start + self._limit]), secret=self._secret)
            sealed.append(message(RECORD, token))
        return b"".join(sealed)

    def open(self, data: bytes, /) -> Iterator[bytes]:
        """Yield the data in the records that are complete."""
        data = self._left + data
        at = 0
        while len(data) - at >= HEADER:
            if data[at + 1] == ABORT:
                raise RelayError("the proxy has given up the connection")
            if data[at : at + 2] != bytes((VERSION, RECORD)):
                raise RelayError(f"the proxy sent something other than a GSS-API record: {data[at : at + 8].hex(' ')}")
            end = at + HEADER + int.from_bytes(data[at + 2 : at + HEADER])
            if len(data) < end:
                break
            plain, secret = self._context.unwrap(data[at + HEADER : end])
            if self._secret and not secret:
                raise RelayError("the proxy sent a record without the encryption that it had agreed to")
            yield plain
            at = end
        self._left = data[at:]

    def end(self) -> None:
        """Return None: the end of the socket says that nothing follows."""
        return

    def cut(self) -> None:
        """Raise RelayError if the socket has ended in the middle of a record."""
        if self._left:
            raise RelayError("the link was lost in the middle of a GSS-API record")


def message(kind: int, token: bytes) -> bytes:
    """Return a message as it goes over the wire."""
    return bytes((VERSION, kind)) + len(token).to_bytes(2) + token


def agree(wire: Wire, context: Context, first: bytes, wanted: str) -> None:
    """Log in and agree on a protection. From then on the wire speaks inside the records.

    first: the context's first token. wanted: one of PROTECTIONS. Raises RelayError.
    """
    token = first
    while True:
        if token:
            wire.send(message(AUTHENTICATION, token))
        if context.complete:
            break
        token = context.step(_token(wire, AUTHENTICATION))
    if not context.got & gss.MUTUAL:
        raise RelayError(f"{wire.proxy} does not prove that it is {context.service}")
    level = PROTECTIONS.index(wanted)
    wire.send(message(PROTECTION, context.wrap(bytes((level,)), secret=False)))
    granted = context.unwrap(_token(wire, PROTECTION))[0]
    if granted == b"\3":
        raise RelayError(f"{wire.proxy} wants to choose the protection of each message (selective)")
    if len(granted) != 1 or granted[0] > 2:
        raise wire.fault(f"grants no protection that is known: {granted.hex(' ')}")
    if granted[0] < level:
        raise RelayError(
            f"{wire.proxy} grants {PROTECTIONS[granted[0]]} where {wanted} was asked for",
            hint=f"--proxy-protection {PROTECTIONS[granted[0]]} takes it",
        )
    if granted[0]:
        wire.wrap(LayerStream(wire.tcp, Records(context, secret=granted[0] == 2)))


def _token(wire: Wire, kind: int) -> bytes:
    """Read the next message, which must be of this kind, and return its token. Raises RelayError."""
    try:
        head = wire.exactly(2)
    except TimedOut:
        raise
    except RelayError as error:  # the proxy has closed: dante refuses that way
        raise _given_up(wire, kind) from error
    if head[1] == ABORT:
        raise _given_up(wire, kind)
    if head != bytes((VERSION, kind)):
        raise wire.fault(f"sent something other than a GSS-API message: {head.hex(' ')}")
    return wire.exactly(int.from_bytes(wire.exactly(2)))


def _given_up(wire: Wire, kind: int) -> RelayError:
    """Return the error for a proxy that gives up. kind: the kind of the message that we waited for."""
    if kind == PROTECTION:
        return RelayError(
            f"{wire.proxy} does not grant the protection that it was asked for",
            hint="it may grant another one: --proxy-protection integrity, or none",
        )
    return RelayError(
        f"{wire.proxy} does not accept the login by Kerberos",
        hint="klist shows the tickets, --proxy-service names the proxy where it is not rcmd",
    )
