"""What a relay and the holder say to each other, over a unix stream socket.

A message is some fields of bytes, of which the first is its kind:

    uint32    length of what follows
    string    a field (RFC 4251 section 5), as often as there are fields

Both sides are the same version of the program and run as the same user. Even
so, any bytes are safe to receive: they give a message, or BadMessage.
"""

from __future__ import annotations

import os
import select

from relay.errors import encoded
from relay.run import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    Field: TypeAlias = bytes | str | int

MOST = 4 * 1024 * 1024  # bytes of a message; the largest hold an environment, or the ssh_config of some hops
FDS_MOST = 4  # of a ProxyCommand (carried.py); stdin and stdout are two
_LENGTH = 4  # bytes


class BadMessage(Exception):
    """Bytes that are not a message."""


class Ended(Exception):
    """The other side has gone."""


def pack(fields: Iterable[Field]) -> bytes:
    """Fields as bytes, each with its length before it. Text is encoded in the locale; a number becomes its digits."""
    parts: list[bytes] = []
    for field in fields:
        data = field if isinstance(field, bytes) else encoded(str(field))
        parts += (len(data).to_bytes(_LENGTH, "big"), data)
    return b"".join(parts)


def framed(kind: str, fields: Iterable[Field]) -> bytes:
    """A message as bytes."""
    body = pack((kind, *fields))
    return len(body).to_bytes(_LENGTH, "big") + body


def unpack(data: bytes) -> list[bytes]:
    """The fields that `pack` has packed. Raises BadMessage."""
    fields: list[bytes] = []
    at = 0
    while at < len(data):
        if len(data) - at < _LENGTH:
            raise BadMessage("a field's length is cut off")
        size = int.from_bytes(data[at : at + _LENGTH], "big")
        at += _LENGTH
        if size > len(data) - at:
            raise BadMessage("a field is cut off")
        fields.append(data[at : at + size])
        at += size
    return fields


def text(field: bytes) -> str:
    """A field's text."""
    return os.fsdecode(field)


def has_come(fd: int, seconds: float | None) -> bool:
    """Whether there is something to read within so many seconds, None: for ever; the end of file counts."""
    look = select.poll()
    look.register(fd, select.POLLIN)
    return bool(look.poll(None if seconds is None else seconds * 1000))


class Wire:
    """One side's end of the socket; the holder's is a HolderWire. fds: descriptors that were received and not taken."""

    def __init__(self, sock: socket) -> None:
        self.socket = sock
        self.fds: list[int] = []

    def send(self, kind: str, *fields: Field, fds: Sequence[int] = ()) -> None:
        """Send a message, and descriptors with it. Raises Ended when nobody takes it."""
        data = framed(kind, fields)
        try:
            if fds:
                data = data[unix.send(self.socket, data, fds) :]
            if data:  # (if nothing is left, the other side may have read it all, and gone)
                self.socket.sendall(data)
        except OSError as error:
            raise Ended from error

    def receive(self) -> tuple[str, list[bytes]]:
        """The next message: its kind and its other fields. Raises Ended and BadMessage."""
        size = int.from_bytes(self._exactly(_LENGTH), "big")
        if size > MOST:
            raise BadMessage(f"a message of {size} bytes")
        fields = unpack(self._exactly(size))
        if not fields:
            raise BadMessage("a message without a kind")
        return text(fields[0]), fields[1:]

    def take_fds(self, *counts: int) -> list[int]:
        """Return the descriptors that came with a message; the caller closes them.

        counts: how many there may be. Raises BadMessage.
        """
        if len(self.fds) not in counts:
            raise BadMessage(f"{len(self.fds)} descriptors")
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        """Close the socket, and the descriptors that were not taken."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part, fds = unix.receive(self.socket, size, FDS_MOST)
            except OSError as error:
                raise Ended from error
            self.fds += fds
            if len(self.fds) > FDS_MOST:
                raise BadMessage("descriptors that nobody expects")
            if not part:
                raise Ended
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
