"""A stream inside a layer of its own: TLS, or the records of GSS-API, over a socket to a proxy.

The descriptor is not the stream then: every byte passes through a codec here, so nothing may splice it or hand it to
another process. The pump drives it as it drives a channel of a hop (`attach`); where a hop is reached through it, two
threads read and write it by `recv` and `sendall`, which wait (ssh/wire/adapter.py).
"""

from __future__ import annotations

from _socket import MSG_DONTWAIT, MSG_PEEK, SHUT_RDWR, SHUT_WR
from _thread import allocate_lock
from errno import EPIPE
from select import POLLIN, poll

from relay.errors import RelayError, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Protocol

    from relay.contract import Flow

    class Codec(Protocol):
        """What a layer does to the bytes. No I/O.

        over: the far side has said that nothing follows. Raises RelayError at bytes that are none of its own.
        """

        over: bool

        def seal(self, data: bytes | memoryview, /) -> bytes:
            """What goes over the socket for data."""

        def open(self, data: bytes, /) -> bytes:
            """What the far side has said, as far as the bytes that have come complete it."""

        def end(self) -> bytes | None:
            """What says that nothing follows; None where the end of the socket says so."""

        def cut(self) -> None:
            """The socket has ended. Raises RelayError when that is amid something."""


SIZE = 128 * 1024  # bytes that are read at once, of the socket or of stdin
WAITING = 256 * 1024  # bytes in either direction from which on no more are read for it


class Received:
    """Bytes of the far side's that wait to be delivered."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def waiting(self) -> memoryview:
        """The bytes."""
        return memoryview(self._data)[self._at :]

    def drop(self, size: int) -> None:
        """Forget the first size of them."""
        self._at += size

    def put(self, data: bytes) -> None:
        """Add some."""
        self._data = self._data[self._at :] + data if len(self) else data
        self._at = 0


class Line:
    """The socket and its codec, read and written without waiting: what contract.Connection is.

    received: what the far side has said. over: it says no more. broken: it takes no more. error: why, if not in order.
    """

    wake_fd = -1  # no other thread has anything to do with it

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
        self.received.put(codec.open(b""))  # which a handshake may have read

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
        """Whether there is room for what comes, and something may come."""
        return not self.over and len(self.received) < WAITING

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
        """Bytes of the socket's have come, none at its end."""
        try:
            if data:
                self.received.put(self.codec.open(data))
                self.over = self.codec.over
            else:
                self.over = True
                self.codec.cut()
        except RelayError as error:
            self.fail(error)

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
            # EPIPE is how the kernel says that the far side had closed before: reading finds out what that was.
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
        """It is lost, in both directions."""
        self.error = self.error or error
        self.over = self.broken = True
        self._out = b""

    def look_round(self) -> None:
        """Nothing: no other thread leaves anything to do."""

    def close(self) -> None:
        """Close it, from any thread."""
        try:
            self.socket.shutdown(SHUT_RDWR)
        except OSError:
            pass  # it has ended
        self.socket.close()


class LayerFlow:
    """The stream as the pump moves it: what contract.Flow is."""

    status_due = 0.0

    def __init__(self, line: Line) -> None:
        self.connection = line
        self.received = line.received
        self._closing = False
        self._buffer = memoryview(bytearray(SIZE))

    @property
    def over(self) -> bool:
        """Whether nothing follows what is in `received`."""
        return self.connection.over

    @property
    def closed(self) -> bool:
        """Whether the far side takes nothing more, or has been given all that there was for it."""
        return self.connection.broken or (self._closing and not self.connection.sending)

    @property
    def error(self) -> BaseException | None:
        """Why it ended before that."""
        return self.connection.error

    def room(self) -> int:
        """How many bytes `read_from` may read now."""
        return self.connection.room

    def read_from(self, read: Callable[[list[memoryview]], int]) -> int:
        """Let `read` (as os.readv) read what there is room for, and send it; what it returned, -1 without room."""
        room = self.room()
        if not room:
            return -1
        size = read([self._buffer[:room]])
        if size > 0:
            self.connection.send(self._buffer[:size])
        return size

    def delivered(self, size: int) -> None:
        """Nothing: `Line.reading` looks at what is left."""

    def end(self) -> None:
        """Tell the far side that nothing follows."""
        self.connection.end()

    def close(self) -> None:
        """Tell the far side that this stream is done with."""
        self.connection.end()
        self._closing = True


class LayerStream:
    """Two-way bytes inside a layer (contract.Stream)."""

    carrier = ""
    channel = None
    descriptor = None  # it is not the stream

    def __init__(self, sock: socket, codec: Codec) -> None:
        self._line = Line(sock, codec)
        self._sending = allocate_lock()  # the order of records on the socket
        self._coding = allocate_lock()  # the codec is for one thread at a time
        self._unsent = b""

    def settimeout(self, seconds: float | None) -> None:
        """How long one wait may take, as for a socket."""
        self._line.socket.settimeout(seconds)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """At most size bytes, waited for; b"" at the end. flags: MSG_PEEK leaves them, MSG_DONTWAIT does not wait.

        Raises RelayError or OSError when the stream is lost.
        """
        line = self._line
        while not len(line.received) and not line.over:
            data = line.socket.recv(SIZE, flags & MSG_DONTWAIT)
            with self._coding:
                line.take(data)
        if not len(line.received) and line.error is not None:
            raise line.error
        with self._coding:
            data = bytes(line.received.waiting()[:size])
            if not flags & MSG_PEEK:
                line.received.drop(len(data))
        return data

    def send(self, data: bytes, /) -> int:
        """All of data; where a TimeoutError ends the wait, call it again with the same data. Raises as sendall."""
        if not self._unsent:
            with self._coding:
                self._unsent = self._line.codec.seal(data)
        while self._unsent:
            self._unsent = self._unsent[self._line.socket.send(self._unsent) :]
        return len(data)

    def sendall(self, data: bytes, /) -> None:
        """All of data, waited for. Raises RelayError or OSError when the stream is lost or takes no more."""
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
                pass  # the far side has gone: reading finds that out, too

    def wait_for_close(self, seconds: float) -> bool:
        """Whether the far side ends within so long."""
        ready = poll()
        ready.register(self._line.fd, POLLIN)
        return self._line.over or bool(ready.poll(seconds * 1000))

    def attach(self) -> Flow:
        """Leave the moving of bytes to the caller, who drives the flow's connection; the methods above are over."""
        self._line.socket.setblocking(False)
        return LayerFlow(self._line)

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """None: it is this process that has the stream."""
        return None

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has ended in no good order."""
        if (loss := _loss(self._line.error)) is not None:
            raise loss

    def loss(self, flow: Flow) -> RelayError | None:
        """Why an attached stream has ended, when that was no orderly end."""
        return _loss(flow.error)

    def close(self) -> None:
        """Give the stream up, from any thread; a recv or sendall that waits in another one returns or raises."""
        self._line.close()


def _loss(error: BaseException | None) -> RelayError | None:
    """What an end out of order is called."""
    if error is None or isinstance(error, RelayError):
        return error
    return RelayError(f"the link was lost: {words(error) if isinstance(error, OSError) else error}")
