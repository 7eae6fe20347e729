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
from contextlib import contextmanager, suppress
from pathlib import Path

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
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def _serve(self, connection: socket.socket) -> None:
        self._held.append(connection)
        self.accepted += 1
        self.reached.set()
        with suppress(OSError):  # the client may have left
            connection.sendall(self.greeting)
            if self.hang_up:
                # Not a bare close: with bytes of the client unread that would be a reset.
                connection.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Close every socket; whoever still waits sees the connection end."""
        self._listener.stop()
        for connection in self._held:
            connection.close()


class Listener:
    """Gives whoever connects to `serve`, one after another, in a thread of its own.

    path: a unix socket to listen on, else it is a port of host's. port: the one that it got.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], object],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        path: Path | None = None,
    ) -> None:
        self.port = port
        self._serve = serve
        if path is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
            self.port = self._socket.getsockname()[1]
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(path))
            self._socket.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        for connection in connections(self._socket):
            self._serve(connection)

    def stop(self) -> None:
        """Accept no more, and wait until the last one is served; again is no harm."""
        close_listener(self._socket)
        self._thread.join()


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
