"""A stream that is nothing but its descriptor: a connected socket that keeps the contract (relay/contract.py).

Where a program carries the stream, a subclass holds the socket to it. Its `check` knows how the program has ended.
"""

from __future__ import annotations

from _socket import SHUT_RDWR, SHUT_WR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from relay.contract import Flow
    from relay.errors import RelayError


class SocketStream:
    """A connected socket. The contract describes the methods; the docstrings here add what a socket does."""

    carrier = ""
    channel = None

    def __init__(self, descriptor: socket) -> None:
        self.descriptor = descriptor

    def recv(self, size: int, /) -> bytes:
        """Wait for bytes and return at most size of them; b"" at the end. Raises OSError."""
        return self.descriptor.recv(size)

    def sendall(self, data: bytes, /) -> None:
        """Send all of data, waiting as long as it takes. Raises OSError."""
        self.descriptor.sendall(data)

    def shutdown_write(self) -> None:
        """Tell the far side that nothing follows."""
        try:
            self.descriptor.shutdown(SHUT_WR)
        except OSError:
            pass  # the far side has gone: the next read reports it

    def attach(self) -> Flow | None:
        """Return None: the caller moves the bytes by the descriptor."""
        return None

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """Return None: this process has the stream, and must serve it itself."""
        return None

    def check(self, *, heard: bool = True) -> None:
        """Do nothing: a socket reports how it has ended by an error of recv."""

    def loss(self, _flow: Flow) -> RelayError | None:
        """Return None: a socket is never attached."""
        return None

    def close(self) -> None:
        """End the stream, even if other descriptors of the socket are open. A recv that waits returns."""
        try:
            self.descriptor.shutdown(SHUT_RDWR)
        except OSError:
            pass  # the socket has ended, or was never connected
        self.descriptor.close()
