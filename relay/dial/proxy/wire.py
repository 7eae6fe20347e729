"""The connection to a proxy while the handshake lasts.

Whole messages out, exact reads in: what lies behind the handshake stays in the
socket for ssh. One deadline holds for the whole handshake, however many reads it
takes and however slowly the bytes drip.
"""

from __future__ import annotations

import _socket  # not `socket`, which costs start-up time
from _socket import IPPROTO_TCP, MSG_DONTWAIT, MSG_PEEK
from time import monotonic

from relay.dial.stream import SocketStream
from relay.errors import RelayError, TimedOut, printable
from relay.spec.proxy import TOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Self, TypeVar

    from relay.contract import Stream
    from relay.dial.proxy.layer import LayerStream
    from relay.run.progress import Progress
    from relay.spec.proxy import Proxy

    T = TypeVar("T")

PATIENCE = 1.0  # seconds; a person who waits longer is told for what
QUICKACK: int | None = getattr(_socket, "TCP_QUICKACK", None)
LINE = 8192  # bytes; longer ones no header of a proxy has


class NoAnswer(RelayError):
    """What is there does not speak the protocol that it was asked in, or does not speak at all."""


class NoMethod(RelayError):
    """A SOCKS5 proxy takes none of the ways to log in that it was offered, and does not say which it would take."""


class Wire:
    """A connected socket to `proxy`, which is asked to reach `wanted`.

    seconds: how long the whole handshake may take; first: how long its first
    answer may. None is as long as progress has left. A context manager: closes
    the socket, unless it has left it to somebody else.
    """

    def __init__(
        self,
        sock: socket,
        proxy: Proxy,
        wanted: str,
        progress: Progress,
        *,
        seconds: float | None = None,
        first: float | None = None,
    ) -> None:
        self.tcp = sock
        self.socket: socket | LayerStream = sock  # what is spoken over
        self._layer: LayerStream | None = None
        self.proxy = proxy
        self._wanted = wanted
        self._progress = progress
        self._began = monotonic()
        self._seconds = seconds
        self._first = first
        self._answered = False
        self._left_behind = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._left_behind:
            self.socket.close()

    def wrap(self, stream: LayerStream) -> None:
        """From now on it is spoken inside a layer, over the same socket."""
        self._layer = self.socket = stream

    def leave(self) -> Stream:
        """The handshake is over: the connection as a stream, for whoever uses it from now on."""
        self._left_behind = True
        self.tcp.settimeout(None)
        return self._layer or SocketStream(self.tcp)

    def answered(self) -> None:
        """The proxy has said a first thing that makes sense: it is there, and faults are its own from now on."""
        self._answered = True

    def send(self, message: bytes) -> None:
        """Send the whole message."""
        while message:
            sent = self._attempt(lambda rest=message: self.socket.send(rest))  # type: ignore[misc]
            message = message[sent:]

    def receive(self, most: int) -> bytes:
        """At least one byte and at most `most`. Raises RelayError when the proxy has closed."""
        data = self._attempt(lambda: self.socket.recv(most))
        self._acknowledge()
        if not data:
            hint = "ssh -D, for one, does so where the host cannot be reached" if self._answered else ""
            raise self.fault("closed the connection", hint=hint)
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes. Raises RelayError when the proxy closes before."""
        data = b""
        while len(data) < size:
            data += self.receive(size - len(data))
        return data

    def line(self) -> bytes:
        """What comes up to the next new-line, which is taken off the wire and not returned."""
        line = b""
        while len(line) < LINE:
            # A look first: only what belongs to the line is taken.
            seen = self._attempt(lambda: self.socket.recv(LINE, MSG_PEEK))
            end = seen.find(b"\n") + 1
            line += self.receive(end or max(len(seen), 1))
            if end:
                return line[:-1].removesuffix(b"\r")
        raise self.fault("sends a line without an end")

    def _acknowledge(self) -> None:
        """Acknowledge at once what has arrived, where the system lets us (Linux).

        A proxy that has not set TCP_NODELAY holds the target's first bytes back
        until its own reply is acknowledged, which by itself takes 40 ms.
        """
        if QUICKACK is not None:
            try:
                self.tcp.setsockopt(IPPROTO_TCP, QUICKACK, 1)
            except OSError:
                pass  # a unix socket

    def glimpse(self) -> bytes:
        """What has arrived already, left where it is."""
        try:
            return self.socket.recv(64, MSG_PEEK | MSG_DONTWAIT)
        except OSError:
            return b""

    def fault(self, what: str, *, hint: str = "") -> RelayError:
        """The error for what the proxy does wrong; before its first answer it may be no such proxy at all."""
        if self._answered:
            return RelayError(f"{self.proxy} {what}", hint=hint)
        if not hint and self.proxy.kind != TOR:
            hint = "does it speak another protocol? -X 4a, -X 5 and -X connect are known"
        return NoAnswer(f"{self.proxy} {what}", hint=hint)

    def _attempt(self, call: Callable[[], T]) -> T:
        """Do one call of the socket's, once it can be done; tell a person who waits for it what for."""
        status = self._progress.status
        told = False
        try:
            while True:
                left = self._left()
                self.socket.settimeout(left if told else min(left, PATIENCE))
                try:
                    return call()
                except TimeoutError:
                    status.show(f"pyrelay: waiting for {self.proxy} to reach {self._wanted}")
                    told = True
        except OSError as error:
            raise self.fault(f"broke off: {printable(error.strerror or str(error)).lower()}") from error
        finally:
            status.erase()

    def _left(self) -> float:
        """Seconds left. Raises TimedOut, and NoAnswer when only the time for a first answer is over."""
        left = self._progress.left()
        since = monotonic() - self._began
        for limit, error in ((self._seconds, TimedOut), (None if self._answered else self._first, NoAnswer)):
            if limit is not None:
                left = min(left, limit - since)
                if left <= 0:
                    raise error(f"{self.proxy} gave no answer within {limit:g} seconds")
        return left
