"""What stands between a client and a real server and passes on what both say, until it does its harm.

The server's bytes are counted: in the clear packet by packet (RFC 4253
section 6) up to NEWKEYS, then byte by byte. A stage names a place in them.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from peers import LOOPBACK, close_listener, connections

NEWKEYS = 21  # RFC 4253 section 12
KEXINIT = 20

# How much of what a server has said may still be passed on: None as long as the place has not been reached.
Place: TypeAlias = Callable[[bytes], "int | None"]
# Does the harm: with the client's connection, and what the server would still have said of what has come.
Harm: TypeAlias = Callable[[socket.socket, bytes], None]


def after(count: int) -> Place:
    """After so many bytes."""
    return lambda said: count if len(said) >= count else None


def never(said: bytes) -> None:
    """Not before `Tamper.now`."""


def in_packet(kind: int, within: int) -> Place:
    """So many bytes into the first clear packet of this type, or so many behind its start where it is shorter."""

    def place(said: bytes) -> int | None:
        at = said.find(b"\n") + 1
        while at and len(said) >= at + 6:
            length, _, message = struct.unpack_from(">IBB", said, at)
            if message == kind:
                return at + within if len(said) >= at + within else None
            at += 4 + length
        return None

    return place


class Tamper:
    """A port that leads to another one, and does its harm at a place in what the server says.

    The harm is done once per connection. `now` does it to all at once, wherever they are.
    """

    def __init__(self, port: int, place: Place, harm: Harm) -> None:
        self._upstream = port
        self._place = place
        self._harm = harm
        self._over = False
        self._waker, self._woken = socket.socketpair()
        self._threads: list[threading.Thread] = []
        self._held: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def now(self) -> None:
        """The place has been reached."""
        self._place = len
        self._waker.send(b"!")

    def _accept(self) -> None:
        for connection in connections(self._listener):
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection((LOOPBACK, self._upstream)) as server, suppress(OSError):
            said = b""
            passed = 0
            while True:
                limit = self._place(said)
                end = len(said) if limit is None else min(limit, len(said))
                if end > passed:
                    client.sendall(said[passed:end])
                    passed = end
                if limit is not None:
                    break
                ready, _, _ = select.select([client, server, self._woken], [], [])
                if self._over:
                    return
                if server in ready:
                    if not (data := server.recv(65536)):
                        return
                    said += data
                if client in ready:
                    if not (data := client.recv(65536)):
                        return
                    server.sendall(data)
            self._harm(client, said[passed:])

    def stop(self) -> None:
        """Accept no more, and end."""
        self._over = True
        close_listener(self._listener)
        self._waker.close()
        for thread in [self._thread, *self._threads]:
            thread.join(10)
        self._woken.close()


# Harms


def reset(client: socket.socket, rest: bytes) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def end(client: socket.socket, rest: bytes) -> None:
    """An orderly end in the middle; what the client says is still read, so that it is no reset."""
    client.shutdown(socket.SHUT_WR)
    _listen(client)


def silence(client: socket.socket, rest: bytes) -> None:
    _listen(client)


def garbage(client: socket.socket, rest: bytes) -> None:
    client.sendall(os.urandom(4096))
    end(client, rest)


def zeros(client: socket.socket, rest: bytes) -> None:
    """No end of nothing."""
    with suppress(OSError):
        while True:
            client.sendall(bytes(65536))


def oversize(client: socket.socket, rest: bytes) -> None:
    """What would be the length of a packet of 4 GiB, and much behind it."""
    with suppress(OSError):
        while True:
            client.sendall(b"\xff" * 65536)


def drip(client: socket.socket, rest: bytes) -> None:
    """What the server would have said, byte by byte and never to its end."""
    with suppress(OSError):
        for byte in rest[:8]:
            client.sendall(bytes([byte]))
            if select.select([client], [], [], 0.2)[0] and not client.recv(65536):
                return
    _listen(client)


def _listen(client: socket.socket) -> None:
    """Until the client ends."""
    with suppress(OSError):
        while client.recv(65536):
            pass
