"""What tests talk to: programs that must be there, and servers that misbehave as no real one does.

Every server here listens on loopback, on a port of the kernel's choosing.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

LOOPBACK = "127.0.0.1"
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])


def missing(reason: str) -> None:
    """A test's peer cannot be had: the test fails under CI, and elsewhere is skipped with the reason."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need(*programs: str) -> str:
    """The path of the first program; a program that is not there is `missing`."""
    paths = [shutil.which(program, path=SYSTEM_PATH) for program in programs]
    for program, path in zip(programs, paths, strict=True):
        if path is None:
            missing(f"{program} is not installed; `make test` installs it, or says how")
    return str(paths[0])


def need_ipv6() -> None:
    """A loopback without ::1 is `missing`."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        missing(f"this machine has no IPv6: {error}")


class Scripted:
    """A server that says `greeting` to whoever connects, then hangs up, or stays silent for ever.

    accepted: how many connections there have been. reached: set at the first one.
    """

    def __init__(self, greeting: bytes = b"", *, hang_up: bool) -> None:
        self.greeting = greeting
        self.hang_up = hang_up
        self.accepted = 0
        self.reached = threading.Event()
        self._held: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for connection in connections(self._listener):
            self.accepted += 1
            self.reached.set()
            connection.sendall(self.greeting)
            if self.hang_up:
                # Not a bare close: with bytes of the client unread that would be a reset.
                connection.shutdown(socket.SHUT_WR)
            self._held.append(connection)

    def stop(self) -> None:
        """Close every socket; whoever still waits sees the connection end."""
        close_listener(self._listener)
        self._thread.join()
        for connection in self._held:
            connection.close()


def connections(listener: socket.socket) -> Iterator[socket.socket]:
    """Whoever connects, until `close_listener`."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        yield connection


def close_listener(listener: socket.socket) -> None:
    """Close a listener that a thread of ours waits on (shutdown is what wakes accept); again is no harm."""
    if listener.fileno() < 0:
        return
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        # macOS refuses, and wakes accept by a connection only.
        with socket.socket() as knock:
            knock.connect_ex(listener.getsockname())
    listener.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else gets meanwhile: bound, never listening."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


def free_ports() -> Iterator[int]:
    """Ports that nobody has, and that the kernel gives nobody by itself: below its own range."""
    ports = list(range(10000, 32000))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        yield port


def until(done: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Look again and again until it is done: for what another program does and tells nobody of."""
    end = time.monotonic() + seconds
    clock = threading.Event()
    while not done():
        assert time.monotonic() < end, f"no {what} within {seconds:.0f} seconds"
        clock.wait(0.05)
