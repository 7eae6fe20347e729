"""A stream that is neither a socket nor a channel, as a socket: a pair of them, and two threads.

For a hop that is reached through TLS, say: what comes out of it is a stream of bytes of its own, and a transport reads
and writes a descriptor. Nothing is lost by the detour but speed: how the stream has ended, its `check` says.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from relay.contract import Stream

SIZE = 256 * 1024  # bytes moved at once
LOST = (OSError, EOFError, RelayError)


def as_socket(stream: Stream) -> socket.socket:
    """A socket that carries what the stream carries. Closing it closes the stream."""
    ours, theirs = socket.socketpair()
    receiving = threading.Thread(target=_receive, args=(stream, theirs), daemon=True)
    receiving.start()
    threading.Thread(target=_send, args=(stream, theirs, receiving), daemon=True).start()
    return ours


def _receive(stream: Stream, far: socket.socket) -> None:
    try:
        while data := stream.recv(SIZE):
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
    except LOST:
        _shut(far)


def _send(stream: Stream, far: socket.socket, receiving: threading.Thread) -> None:
    try:
        while data := far.recv(SIZE):
            stream.sendall(data)
    except LOST:
        _shut(far)
    stream.close()  # which ends the other thread
    _shut(far)
    receiving.join()
    far.close()


def _shut(far: socket.socket) -> None:
    try:
        far.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is by now
