"""Turn a stream that is neither a socket nor a channel into a socket, with a socket pair and two threads.

A transport reads and writes a descriptor. A stream through TLS, for example, has no descriptor of its own.
The detour costs only speed. The stream's `check` still says how the stream has ended.
"""

from __future__ import annotations

import socket
import threading

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.contract import Stream

SIZE = 256 * 1024  # bytes moved at once
LOST = (OSError, EOFError, RelayError)


def as_socket(stream: Stream) -> socket.socket:
    """Return a socket that carries the stream's bytes. Closing the socket closes the stream."""
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
        pass  # it is shut already
