"""What goes wrong on a connection, and the peers that do it: each plays its protocol up to one message.

A peer listens on loopback; its script says message by message what a good
server would say. At the one message of its stage the fault takes the place
of what would be said. SSH hops are in faulty_hop.py.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from peers import LOOPBACK, Listener

FAULTS = (
    "refused",  # the protocol's own refusal, and the end
    "reset",
    "silence",
    "drip",  # the message byte by byte, and never its last one
    "garbage",
    "oversize",  # more than any message may be, and no end of it
    "early end",  # half of the message
    "late data",  # the refusal, and all that would have come without it
    "duplicate",  # the message twice
)
BANNER = b"SSH-2.0-target\r\n"
GARBAGE = random.Random(7).randbytes(4096)
DRIP = 0.1  # seconds between two bytes


class Over(Exception):
    """The fault has been done, and the client has left."""


class Wire:
    """A peer's end of a connection, and what becomes of the message of a stage.

    reached: set when the fault begins.
    """

    def __init__(self, connection: socket.socket, stage: str, fault: str, reached: threading.Event) -> None:
        self.socket = connection
        self.stage = stage
        self.fault = fault
        self.reached = reached

    def hear(self, size: int) -> bytes:
        """Wait for exactly so many bytes. Raises EOFError."""
        heard = b""
        while len(heard) < size:
            if not (data := self.socket.recv(size - len(heard))):
                raise EOFError
            heard += data
        return heard

    def hear_field(self) -> bytes:
        """Wait for a length byte and so many bytes."""
        return self.hear(self.hear(1)[0])

    def hear_past(self, end: bytes) -> None:
        """Wait for what ends so."""
        heard = b""
        while not heard.endswith(end):
            heard += self.hear(1)

    def say(self, stage: str, right: bytes, refusal: bytes = b"") -> None:
        """Say the message of a stage; if it is this one, what the fault makes of it. Raises Over."""
        if stage != self.stage:
            self.socket.sendall(right)
        elif self.fault == "duplicate":
            self.reached.set()
            self.socket.sendall(2 * right)
        elif self.fault in {"refused", "late data"}:
            self.reached.set()
            self.socket.sendall(refusal if self.fault == "refused" else refusal + right + BANNER)
            self.last()
        else:
            self.harm(right)

    def last(self) -> None:
        """No more to say; wait until the client leaves. Raises Over."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.listen()

    def listen(self) -> None:
        """Wait until the client leaves, whatever it says. Raises Over."""
        with suppress(OSError):
            while self.socket.recv(65536):
                pass
        raise Over

    def harm(self, right: bytes) -> None:
        """Do one of the faults that know no protocol, instead of sending the right message. Raises Over."""
        self.reached.set()
        with suppress(OSError):
            HARMS[self.fault](self, right)
        raise Over


# The faults that are the same in every protocol


def _reset(wire: Wire, right: bytes) -> None:
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.socket.close()


def _silence(wire: Wire, right: bytes) -> None:
    wire.listen()


def _drip(wire: Wire, right: bytes) -> None:
    for value in right[:-1]:
        wire.socket.sendall(bytes((value,)))
        time.sleep(DRIP)  # the fault itself: nobody waits for it
    wire.listen()


def _garbage(wire: Wire, right: bytes) -> None:
    wire.socket.sendall(GARBAGE)
    wire.last()


def _oversize(wire: Wire, right: bytes) -> None:
    wire.socket.sendall(b"\xff\xff\xff\xfc")  # a packet of 4 GiB, of a size that one can have
    while True:
        wire.socket.sendall(b"\xff" * 65536)


def _early_end(wire: Wire, right: bytes) -> None:
    wire.socket.sendall(right[: len(right) // 2])
    wire.last()


HARMS: dict[str, Callable[[Wire, bytes], None]] = {
    "reset": _reset,
    "silence": _silence,
    "drip": _drip,
    "garbage": _garbage,
    "oversize": _oversize,
    "early end": _early_end,
}

Script = Callable[[Wire], None]


class Peer:
    """A port whose connections are all served by one script, and have the same fault at the same stage.

    reached: set when a connection has come so far.
    """

    def __init__(self, script: Script, stage: str, fault: str, port: int = 0) -> None:
        self._script = script
        self._stage = stage
        self._fault = fault
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.reached = threading.Event()
        self._listener = Listener(self._accept, port=port)
        self.port = self._listener.port

    def _accept(self, connection: socket.socket) -> None:
        self._connections.append(connection)
        wire = Wire(connection, self._stage, self._fault, self.reached)
        thread = threading.Thread(target=self._serve, args=(wire,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, wire: Wire) -> None:
        with wire.socket, suppress(Over, OSError, EOFError):  # the client leaves when it has had enough
            self._script(wire)

    def stop(self) -> None:
        """Accept no more, and end every connection."""
        self._listener.stop()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # which wakes the thread that waits for it
        for thread in self._threads:
            thread.join()


# Proxies: each leads to a target that says its banner and ends


def socks4(wire: Wire) -> None:
    wire.hear(8)
    wire.hear_past(b"\0")  # the user
    wire.hear_past(b"\0")  # the name of 4a
    wire.say("SOCKS4a request", b"\0\x5a" + bytes(6), b"\0\x5b" + bytes(6))
    target(wire)


def socks5(wire: Wire) -> None:
    """RFC 1928, with the user and password of RFC 1929 if they are offered."""
    wire.hear(1)
    method = max(wire.hear_field())
    wire.say("SOCKS5 greeting", bytes((5, method)), b"\x05\xff")
    if method == 2:
        wire.hear(1)
        wire.hear_field()
        wire.hear_field()
        wire.say("SOCKS5 login", b"\x01\x00", b"\x01\x01")
    wire.hear(4)
    wire.hear_field()
    wire.hear(2)
    bound = b"\x01" + bytes(6)
    wire.say("SOCKS5 request", b"\x05\0\0" + bound, b"\x05\x05\0" + bound)
    target(wire)


def http(wire: Wire) -> None:
    wire.hear_past(b"\r\n\r\n")
    wire.say("HTTP request", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 403 Forbidden\r\n\r\n")
    target(wire)


def target(wire: Wire) -> None:
    wire.socket.sendall(BANNER)
    wire.last()


@contextmanager
def full_port() -> Iterator[int]:
    """A port that does not answer: nobody accepts there, and the queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for client in (first, second):  # one fits; the kernel lets a second one wait, or drops it as all that follow
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
