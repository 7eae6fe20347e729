"""The connection to a proxy while the handshake lasts.

It sends whole messages and reads exactly what it needs: the bytes after the
handshake stay in the socket for ssh. One deadline holds for the whole handshake,
no matter how many reads it takes and how slowly the bytes come.
"""

from __future__ import annotations

import _socket  # not `socket`, which costs start-up time
from _socket import IPPROTO_TCP, MSG_DONTWAIT, MSG_PEEK
from time import monotonic

from relay.dial.stream import SocketStream
from relay.errors import RelayError, TimedOut, in_seconds, printable
from relay.spec.proxy import SECURE, SOCKS5, TOR

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

QUICKACK: int | None = getattr(_socket, "TCP_QUICKACK", None)
LINE = 8192  # bytes; no line of a real proxy is longer
SSH, HINT_SSH = b"SSH-", "a proxy's port is meant; ssh hops are written h1/h2"  # how an SSH server's first line begins
ALERT = b"\x15\x03"  # how a TLS server's answer to a request in clear begins (RFC 8446 sections 5.1 and 6)


def encoded_name(host: str) -> bytes:
    """Return a name as a proxy gets it: an international one in its xn-- form. Raises RelayError."""
    if host.isascii():
        return host.encode()
    try:
        name = host.encode("idna")
        same = name.decode("idna") == host.lower()
    except UnicodeError:
        same = False
    if not same:  # Python's codec (IDNA 2003) would make another name of it: "ss" of a sharp s, ":" of a wide one
        raise RelayError("the name cannot be sent as it stands", hint="write its xn-- form")
    return name


class NoAnswer(RelayError):
    """The server does not speak the proxy's protocol, does not answer, or cannot be reached."""


class NoMethod(RelayError):
    """A SOCKS5 proxy refuses all login methods that we offered, and does not say which one it wants."""


class Wire:
    """A connected socket to `proxy`, which is asked to connect to `wanted`.

    seconds: how long the whole handshake may take. first: how long the first
    answer may take. None: as long as progress has left. A context manager: it
    closes the socket at the end, unless `leave` has given it away.
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
        self.socket: socket | LayerStream = sock  # the socket, or the layer over it
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
        """Speak inside a layer from now on, over the same socket."""
        self._layer = self.socket = stream

    def leave(self) -> Stream:
        """End the handshake and return the connection as a stream. It belongs to the caller from now on."""
        self._left_behind = True
        self.tcp.settimeout(None)
        return self._layer or SocketStream(self.tcp)

    def answered(self) -> None:
        """Note that the proxy's first answer makes sense. Later faults are errors of this proxy, not NoAnswer."""
        self._answered = True

    def send(self, message: bytes) -> None:
        """Send the whole message."""
        while message:
            sent = self._attempt(lambda rest=message: self.socket.send(rest))  # type: ignore[misc]
            message = message[sent:]

    def receive(self, most: int) -> bytes:
        """Read at least one byte and at most `most`. Raises RelayError if the proxy has closed."""
        data = self._attempt(lambda: self.socket.recv(most))
        self._acknowledge()
        if not data:
            socks = self._answered and self.proxy.kind == SOCKS5
            hint = "ssh -D, for one, does so where the host cannot be reached" if socks else ""
            raise self.fault("closed the connection", hint=hint)
        return data

    def exactly(self, size: int) -> bytes:
        """Read exactly so many bytes. Raises RelayError if the proxy closes before that."""
        data = b""
        while len(data) < size:
            data += self.receive(size - len(data))
        return data

    def line(self) -> bytes:
        """Read up to the next new-line, and return the line without it."""
        line = b""
        while len(line) < LINE:
            # Peek first, so that only bytes of this line are taken.
            seen = self._attempt(lambda: self.socket.recv(LINE, MSG_PEEK))
            end = seen.find(b"\n") + 1
            line += self.receive(end or max(len(seen), 1))
            if line.startswith(ALERT):
                raise self.fault("answers in TLS", hint="--proxy https://...")
            if end:
                return line[:-1].removesuffix(b"\r")
        raise self.fault("sends a line without an end")

    def _acknowledge(self) -> None:
        """Acknowledge at once what has arrived, if the system lets us (Linux).

        A proxy without TCP_NODELAY holds the target's first bytes back until we
        acknowledge its reply. The kernel would take 40 ms for that.
        """
        if QUICKACK is not None:
            try:
                self.tcp.setsockopt(IPPROTO_TCP, QUICKACK, 1)
            except OSError:
                pass  # a unix socket

    def glimpse(self) -> bytes:
        """Return the bytes that have arrived already, and leave them in the socket."""
        try:
            return self.socket.recv(64, MSG_PEEK | MSG_DONTWAIT)
        except OSError:
            return b""

    def fault(self, what: str, *, hint: str = "") -> RelayError:
        """Return the error for a fault of the proxy: NoAnswer before its first valid answer, else RelayError."""
        if self._answered:
            return RelayError(f"{self.proxy} {what}", hint=hint)
        if not hint and self.proxy.kind not in (SECURE, TOR):  # -X names neither
            hint = "does it speak another protocol? -X 4a, -X 5 and -X connect are known"
        return NoAnswer(f"{self.proxy} {what}", hint=hint)

    def _attempt(self, call: Callable[[], T]) -> T:
        """Repeat one call of the socket until it succeeds. Raises RelayError; TimedOut when time is up."""
        try:
            while True:
                self.socket.settimeout(self._left())
                try:
                    return call()
                except TimeoutError:  # `_left` says whose time is up
                    pass
                except RelayError as error:  # the layer's
                    raise self.fault(f"broke off: {error.cause}", hint=error.hint) from error
        except OSError as error:
            raise self.fault(f"broke off: {printable(error.strerror or str(error)).lower()}") from error

    def _left(self) -> float:
        """Return the seconds left. Raises TimedOut; NoAnswer if only the time for the first answer is over."""
        left = self._progress.left()
        since = monotonic() - self._began
        for limit, error in ((self._seconds, TimedOut), (None if self._answered else self._first, NoAnswer)):
            if limit is not None:
                left = min(left, limit - since)
                if left <= 0:
                    raise error(f"{self.proxy} gave no answer within {in_seconds(limit)}")
        return left
