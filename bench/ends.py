"""The far ends of a measured stream, as cheap as they can be made: python ends.py KIND PORT [SIZE].

Each says READY first, so that the time of the set-up can be left out of a
throughput.
"""

from __future__ import annotations

import os
import socket
import sys
from _thread import allocate_lock, start_new_thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20
READY = b"SSH-2.0-bench\r\n"  # a real ssh takes it for a server's first line


def banner(sock: socket.socket, _size: int) -> None:
    """Say no more than READY, and wait for the end."""
    swallow(sock)


def source(sock: socket.socket, size: int) -> None:
    """Send size bytes, end that direction, and wait for the other's end."""
    zeros = memoryview(bytes(CHUNK))
    left = size
    while left:
        left -= sock.send(zeros[: min(left, CHUNK)])
    sock.shutdown(socket.SHUT_WR)
    swallow(sock)


def sink(sock: socket.socket, _size: int) -> None:
    """Take everything, then answer with how many bytes there were."""
    sock.sendall(b"%d\n" % swallow(sock))


def both(sock: socket.socket, size: int) -> None:
    """Send size bytes and take everything at the same time."""
    done = allocate_lock()
    done.acquire()

    def take() -> None:
        try:
            swallow(sock)
        except OSError:
            pass  # see _serve
        finally:
            done.release()

    start_new_thread(take, ())
    zeros = memoryview(bytes(CHUNK))
    left = size
    while left:
        left -= sock.send(zeros[: min(left, CHUNK)])
    done.acquire()  # both ways end together, so that half-close is no part of the measurement


def swallow(sock: socket.socket) -> int:
    """Read until the end; return how many bytes there were. MSG_TRUNC: where it is known (Linux), nothing is copied."""
    flags = socket.MSG_TRUNC if sys.platform == "linux" else 0
    buffer = bytearray(CHUNK)
    count = 0
    while got := sock.recv_into(buffer, CHUNK, flags):
        count += got
    return count


def _serve(serve: Callable[[socket.socket, int], None], sock: socket.socket, size: int) -> None:
    with sock:
        try:
            sock.sendall(READY)
            serve(sock, size)
        except OSError:
            pass  # the relay under test has gone; what it did is seen at its other end


def main(kind: str, port: str, size: str = "0") -> None:
    """Serve connections side by side, each in a thread of its own."""
    kinds = {"banner": banner, "source": source, "sink": sink, "both": both}
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=128)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start_new_thread(_serve, (kinds[kind], sock, int(size)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        os._exit(130)
