"""A proxy that plays a script, on a real socket."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from peers import LOOPBACK, Listener

BANNER = b"SSH-2.0-target\r\n"
BOUND = b"\x01\0\0\0\0\0\0"  # where the proxy has connected from: IPv4, address, port


class Peer:
    """A server that plays a script with whoever connects, one connection after another.

    path: a unix socket to listen on, else a port of host's. heard: what each connection has said so far.
    """

    def __init__(self, script: Callable[[Line], None], path: Path | None = None, host: str = LOOPBACK) -> None:
        self._script = script
        self.heard: list[bytearray] = []
        listener = Listener(self._serve, host=host, path=path)
        self.port = listener.port
        self.stop = listener.stop

    def _serve(self, connection: socket.socket) -> None:
        heard = bytearray()
        self.heard.append(heard)
        # The client may leave, as it does when it does not like what it hears.
        with connection, suppress(OSError, EOFError):
            self._script(Line(connection, heard))


class Line:
    """A script's end of a connection."""

    def __init__(self, connection: socket.socket, heard: bytearray) -> None:
        self.connection = connection
        self._heard = heard

    def hear(self, size: int) -> bytes:
        """Wait for exactly so many bytes."""
        start = len(self._heard)
        while len(self._heard) < start + size:
            data = self.connection.recv(start + size - len(self._heard))
            if not data:
                raise EOFError
            self._heard += data
        return bytes(self._heard[start:])

    def hear_field(self) -> bytes:
        """Wait for a length byte and so many bytes."""
        return self.hear(self.hear(1)[0])

    def hear_headers(self) -> None:
        while not self._heard.endswith(b"\r\n\r\n"):
            self.hear(1)

    def say(self, data: bytes) -> None:
        self.connection.sendall(data)

    def dribble(self, data: bytes) -> None:
        """Say data byte by byte, each one only when the one before has been read (for unix sockets)."""
        for value in data:
            self.say(bytes((value,)))
            while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, bytes(4)))[0]:
                os.sched_yield()

    def last(self) -> None:
        """No more to say; wait until the client leaves."""
        self.connection.shutdown(socket.SHUT_WR)
        while self.connection.recv(1000):
            pass


def socks5(line: Line, code: int = 0, choose: int | None = None) -> None:
    """A SOCKS5 server that takes any user and password; its reply has this code, and with 0 the target speaks."""
    line.hear(1)
    methods = line.hear_field()
    method = max(methods) if choose is None else choose
    line.say(bytes((5, method)))
    if method == 2:
        line.hear(1)
        line.hear_field()
        line.hear_field()
        line.say(b"\x01\x00")
    kind = line.hear(4)[3]
    if kind == 3:
        line.hear_field()
    line.hear({1: 4, 3: 0, 4: 16}[kind] + 2)
    line.say(bytes((5, code, 0)) + BOUND + (b"" if code else BANNER))
    line.last()
