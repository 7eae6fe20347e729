"""A stream inside a layer of its own: TLS, or the records of GSS-API, over a socket to a proxy.

Every byte passes through a codec here, so the descriptor alone is not the stream: nothing may splice it or hand it to
another process. The pump drives the stream like a channel of a hop (`attach`). If a hop is reached through it, two
threads read and write it instead, by `recv` and `sendall`, which wait (ssh/wire/adapter.py).
"""

from __future__ import annotations

from _socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RDWR, SHUT_WR
from _thread import allocate_lock
from errno import EPIPE
from time import monotonic

from relay.errors import RelayError, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from relay.contract import Flow

    class Codec(Protocol):
        """Translates between the data and the bytes on the socket. No I/O.

        over: whether the far side has said that nothing follows.
        """

        over: bool

        def seal(self, data: bytes | memoryview, /) -> bytes:
            """Return the bytes that go over the socket for data."""

        def open(self, data: bytes, /) -> Iterator[bytes]:
            """Take bytes from the socket, and yield the data in them that is complete.

            Raises RelayError for bytes that do not fit the layer, after the data before them.
            """

        def end(self) -> bytes | None:
            """Return the bytes that say that nothing follows; None if the end of the socket says so."""

        def cut(self) -> None:
            """Note that the socket has ended. Raises RelayError if it ended in the middle of a message."""


SIZE = 128 * 1024  # bytes of one read, from the socket or from stdin
WAITING = 256 * 1024  # bytes that may wait in each direction before we stop reading


class Received:
    """Bytes from the far side that wait to be delivered."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def waiting(self) -> memoryview:
        """The bytes that wait."""
        return memoryview(self._data)[self._at :]

    def drop(self, size: int) -> None:
        """Remove the first size bytes."""
        self._at += size

    def put(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._data = self._data[self._at :] + data if len(self) else data
        self._at = 0


class Line:
    """The socket and its codec, read and written without waiting. It is a contract.Connection.

    received: data from the far side. over: whether no more will come. broken: whether the far side takes no more.
    error: why, unless it ended in good order.
    """

    wake_fd = -1  # no other thread uses this connection

    def __init__(self, sock: socket, codec: Codec) -> None:
        self.socket = sock
        self.codec = codec
        self.received = Received()
        self.over = False
        self.broken = False
        self.error: BaseException | None = None
        self._ended = False
        self._out = b""
        self._end_follows = False
        self._decode(b"")  # what the handshake has read already

    @property
    def fd(self) -> int:
        """What to poll; -1 once it is closed."""
        return self.socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether bytes wait for the socket to take more."""
        return bool(self._out)

    @property
    def reading(self) -> bool:
        """Whether to read: more may come, and there is room for it."""
        return not self.over and len(self.received) < WAITING

    @property
    def patient(self) -> bool:
        """False: `rest` does nothing."""
        return False

    @property
    def room(self) -> int:
        """How many bytes `send` may be given now."""
        return 0 if self.broken or self._ended or len(self._out) >= WAITING else SIZE

    def receive(self) -> None:
        """Read what has come, once."""
        if not self.over:
            try:
                self.take(self.socket.recv(SIZE, MSG_DONTWAIT))
            except BlockingIOError:
                pass
            except OSError as error:
                self.fail(error)

    def take(self, data: bytes) -> None:
        """Decode bytes from the socket; b"" is its end."""
        if data:
            self._decode(data)
            return
        self.over = True
        try:
            self.codec.cut()
        except RelayError as error:
            self.fail(error)

    def _decode(self, data: bytes) -> None:
        parts: list[bytes] = []
        try:
            parts.extend(self.codec.open(data))  # what comes before an error stays there
            self.over = self.codec.over
        except RelayError as error:
            self.fail(error)
        self.received.put(b"".join(parts))

    def send(self, data: bytes | memoryview) -> None:
        """Send data, or keep it until the socket takes more."""
        self._out += self.codec.seal(data)
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._out:
                self._out = self._out[self.socket.send(self._out, MSG_DONTWAIT) :]
            if self._end_follows:
                self._end_follows = False
                self.socket.shutdown(SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._out = b""
            self.broken = True
            # EPIPE means that the far side has closed before. The next read finds out why.
            if error.errno != EPIPE and not self.over:
                self.error = self.error or error

    def end(self) -> None:
        """Tell the far side that nothing follows."""
        if not self._ended and not self.broken:
            self._ended = True
            said = self.codec.end()
            self._out += said or b""
            self._end_follows = said is None
            self.flush()

    def fail(self, error: BaseException) -> None:
        """Mark the connection as lost in both directions."""
        self.error = self.error or error
        self.over = self.broken = True
        self._out = b""

    def look_round(self) -> None:
        """Do nothing: no other thread leaves work here."""

    def rest(self) -> None:
        """Do nothing: nothing is put off here."""

    def close(self) -> None:
        """Close it, from any thread."""
        try:
            self.socket.shutdown(SHUT_RDWR)
        except OSError:
            pass  # the socket has ended
        self.socket.close()


class LayerFlow:
    """The stream as the pump moves it. It is a contract.Flow."""

    status_due = 0.0

    def __init__(self, line: Line) -> None:
        self.connection = line
        self.received = line.received
        self._closing = False
        self._buffer = memoryview(bytearray(SIZE))

    @property
    def over(self) -> bool:
        """Whether nothing more comes after the bytes in `received`."""
        return self.connection.over

    @property
    def closed(self) -> bool:
        """Whether sending is over: the far side takes no more, or has been sent everything."""
        return self.connection.broken or (self._closing and not self.connection.sending)

    @property
    def error(self) -> BaseException | None:
        """Why the stream has ended too early, or None."""
        return self.connection.error

    def room(self) -> int:
        """How many bytes `read_from` may read now."""
        return self.connection.room

    def read_from(self, read: Callable[[list[memoryview]], int]) -> int:
        """Let `read` (like os.readv) read as much as there is room for, and send that.

        Returns what `read` has returned, or -1 if there is no room.
        """
        room = self.room()
        if not room:
            return -1
        size = read([self._buffer[:room]])
        if size > 0:
            self.connection.send(self._buffer[:size])
        return size

    def delivered(self, size: int) -> None:
        """Do nothing: `Line.reading` looks at how many bytes are left."""

    def end(self) -> None:
        """Tell the far side that nothing follows."""
        self.connection.end()

    def close(self) -> None:
        """Close the stream, and tell the far side."""
        self.connection.end()
        self._closing = True


class LayerStream:
    """Two-way bytes inside a layer (contract.Stream)."""

    carrier = ""
    channel = None
    descriptor = None  # the socket's descriptor is not the stream

    def __init__(self, sock: socket, codec: Codec) -> None:
        self._line = Line(sock, codec)
        self._sending = allocate_lock()  # the order of records on the socket
        self._coding = allocate_lock()  # one thread at a time may use the codec
        self._unsent = b""

    def settimeout(self, seconds: float | None) -> None:
        """Set how long one wait may take, as for a socket."""
        self._line.socket.settimeout(seconds)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Wait for bytes and return at most size of them; b"" at the end.

        flags: MSG_PEEK leaves the bytes for the next call, MSG_DONTWAIT does not wait.
        Raises RelayError or OSError when the stream is lost. A far side that drips a message does not stretch the
        time that a wait may take.
        """
        line = self._line
        began = monotonic()
        while not len(line.received) and not line.over:
            data = line.socket.recv(SIZE, flags & MSG_DONTWAIT)
            with self._coding:
                line.take(data)
            most = line.socket.gettimeout()
            if most is not None and monotonic() - began > most and not len(line.received):
                raise TimeoutError
        if not len(line.received) and line.error is not None:
            raise line.error
        with self._coding:
            data = bytes(line.received.waiting()[:size])
            if not flags & MSG_PEEK:
                line.received.drop(len(data))
        return data

    def send(self, data: bytes, /) -> int:
        """Send all of data. After a TimeoutError, call it again with the same data. Raises the errors of sendall."""
        if not self._unsent:
            with self._coding:
                self._unsent = self._line.codec.seal(data)
        while self._unsent:
            self._unsent = self._unsent[self._line.socket.send(self._unsent) :]
        return len(data)

    def sendall(self, data: bytes, /) -> None:
        """Send all of data, waiting if need be. Raises RelayError or OSError if the stream is lost or takes no more."""
        with self._sending:
            with self._coding:
                sealed = self._line.codec.seal(data)
            self._line.socket.sendall(sealed)

    def shutdown_write(self) -> None:
        """Tell the far side that nothing follows."""
        with self._sending:
            with self._coding:
                said = self._line.codec.end()
            try:
                if said is None:
                    self._line.socket.shutdown(SHUT_WR)
                else:
                    self._line.socket.sendall(said)
            except OSError:
                pass  # the far side has gone: the next read reports it

    def attach(self) -> Flow:
        """Return a flow, whose connection the caller drives from now on. The methods above must not be used then."""
        self._line.socket.setblocking(False)
        return LayerFlow(self._line)

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """Return None: this process has the stream, and must serve it itself."""
        return None

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has not ended in good order."""
        if (loss := _loss(self._line.error)) is not None:
            raise loss

    def loss(self, flow: Flow) -> RelayError | None:
        """Return why an attached stream has not ended in good order, or None if it has."""
        return _loss(flow.error)

    def close(self) -> None:
        """Close the stream, from any thread. A recv or sendall that waits in another thread returns or raises."""
        self._line.close()


def _loss(error: BaseException | None) -> RelayError | None:
    """Return the error to report for an end that was not in good order, None for a good one."""
    if error is None or isinstance(error, RelayError):
        return error
    return RelayError(f"the link was lost: {words(error) if isinstance(error, OSError) else error}")
