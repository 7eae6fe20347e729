"""A stream that is its descriptor: a connected socket, as the contract has it (relay/contract.py).

A socket to a program that carries the stream is a subclass, whose `check` knows how that program has ended.
"""

from __future__ import annotations

from _socket import SHUT_RDWR, SHUT_WR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from relay.contract import Flow
    from relay.errors import RelayError


class SocketStream:
    """A connected socket. What is not said below is as the contract says it."""

    carrier = ""
    channel = None

    def __init__(self, descriptor: socket) -> None:
        self.descriptor = descriptor

    def recv(self, size: int, /) -> bytes:
        """At most size bytes, waited for; b"" at the end. Raises OSError."""
        return self.descriptor.recv(size)

    def sendall(self, data: bytes, /) -> None:
        """All of data, waited for. Raises OSError."""
        self.descriptor.sendall(data)

    def shutdown_write(self) -> None:
        """Tell the far side that nothing follows."""
        try:
            self.descriptor.shutdown(SHUT_WR)
        except OSError:
            pass  # the far side has gone: reading finds that out, too

    def attach(self) -> Flow | None:
        """None: the descriptor is the way."""
        return None

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """None: it is this process that has the stream."""
        return None

    def check(self, *, heard: bool = True) -> None:
        """Nothing: a socket itself says how it has ended, by an error of recv."""

    def loss(self, _flow: Flow) -> RelayError | None:
        """None: it is never attached."""
        return None

    def close(self) -> None:
        """Give the stream up, whatever other descriptors there are of the socket; a recv that waits returns."""
        try:
            self.descriptor.shutdown(SHUT_RDWR)
        except OSError:
            pass  # it has ended, or was never connected
        self.descriptor.close()
