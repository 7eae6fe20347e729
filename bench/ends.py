"""The far ends of a measured stream, as cheap as they can be made: python ends.py KIND PORT [SIZE].

Each sends READY first, so that a throughput can leave out the time of the
set-up.
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
OLD = b"SSH-1.5-bench\r\n"
READY = b"SSH-2.0-bench\r\n"  # a real ssh takes it for a server's first line


def banner(sock: socket.socket, _size: int) -> None:
    """Send nothing but READY, and wait for the end."""
    take(sock)


def refusal(sock: socket.socket, _size: int) -> None:
    """Send a banner at which ssh gives up, so that its run time is the time until the banner."""
    take(sock)


def source(sock: socket.socket, size: int) -> None:
    """Send size bytes, and wait for the end."""
    send(sock, size)
    take(sock)


def sink(sock: socket.socket, size: int) -> None:
    """Take size bytes, and answer with how many have come. (Not at their end: some proxies know no half-close.)"""
    sock.sendall(b"%d\n" % take(sock, size))
    take(sock)


def both(sock: socket.socket, size: int) -> None:
    """Send size bytes and take as many at the same time, then answer with how many have come."""
    count = 0
    done = allocate_lock()
    done.acquire()

    def taking() -> None:
        nonlocal count
        try:
            count = take(sock, size)
        except OSError:
            pass  # the relay has gone, see _serve
        finally:
            done.release()

    start_new_thread(taking, ())
    try:
        send(sock, size)
    finally:
        done.acquire()
    sock.sendall(b"%d\n" % count)
    take(sock)


def echo(sock: socket.socket, _size: int) -> None:
    """Send all bytes back."""
    while data := sock.recv(CHUNK):
        sock.sendall(data)


def send(sock: socket.socket, size: int) -> None:
    """Send size zeros."""
    zeros = memoryview(bytes(CHUNK))
    left = size
    while left:
        left -= sock.send(zeros[: min(left, CHUNK)])


def take(sock: socket.socket, size: int | None = None) -> int:
    """Read size bytes, or up to the end, and return how many. MSG_TRUNC (on Linux) spares copying them."""
    flags = socket.MSG_TRUNC if sys.platform == "linux" else 0
    buffer = bytearray(CHUNK)
    count = 0
    while (size is None or count < size) and (got := sock.recv_into(buffer, CHUNK, flags)):
        count += got
    return count


def _serve(serve: Callable[[socket.socket, int], None], sock: socket.socket, size: int) -> None:
    with sock:
        try:
            sock.sendall(OLD if serve is refusal else READY)
            serve(sock, size)
        except OSError:
            pass  # the relay under test has gone; its other end shows what it did


def main(kind: str, port: str, size: str = "0") -> None:
    """Serve connections side by side, each in a thread of its own."""
    kinds = {"banner": banner, "refusal": refusal, "source": source, "sink": sink, "both": both, "echo": echo}
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
