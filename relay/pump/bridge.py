"""A stream without a file descriptor, made into one that has it: two threads and a socket pair.

For the channels of relay/ssh as long as they bring no faster way of their own.
"""

from __future__ import annotations

import socket
from _thread import allocate_lock, start_new_thread
from typing import TYPE_CHECKING, Protocol, Self

from relay.errors import RelayError
from relay.pump.rules import CLOSING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SIZE = 256 * 1024  # bytes


class Channel(Protocol):
    """What a stream without a file descriptor can do."""

    def recv(self, size: int, /) -> bytes:
        """At most size bytes; b"" at the end. Raises RelayError when the link is lost."""

    def sendall(self, data: bytes, /) -> None:
        """All of data. Raises RelayError when the link is lost, BrokenPipeError when the target takes no more."""

    def shutdown_write(self) -> None:
        """Tell the target that nothing follows."""

    def wait_for_close(self, seconds: float) -> bool:
        """Whether the far side closes it within so long, and so has passed on all that it had for the target."""

    def close(self) -> None:
        """Give it up; a recv or sendall that waits in another thread returns or raises."""


class Bridge:
    """A socket that carries what a channel carries. A context manager: closes both."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.socket, self._far = socket.socketpair()
        self._lost: RelayError | None = None
        self._sending = allocate_lock()

    def __enter__(self) -> Self:
        self._sending.acquire()
        start_new_thread(self._receive, ())
        start_new_thread(self._send, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.channel.close()

    def check(self) -> None:
        """Raise the error by which the channel ended, if it was one."""
        if self._lost:
            raise self._lost

    def send_the_rest(self, gone: Callable[[], bool]) -> None:
        """Wait until the target has what the socket was given, for as long as ssh is there. gone: whether it has left.

        (The server would forget some of it when the connection is closed before.)
        """
        self.socket.shutdown(socket.SHUT_WR)
        sent = closed = False
        while not closed:
            last = gone()
            sent = sent or self._sending.acquire(timeout=CLOSING)
            if sent:
                closed = self.channel.wait_for_close(CLOSING)
            if last:
                break

    def _receive(self) -> None:
        try:
            while data := self.channel.recv(SIZE):
                self._far.sendall(data)
            self._far.shutdown(socket.SHUT_WR)
        except (OSError, EOFError, RelayError) as error:
            self._end(error, socket.SHUT_RDWR)

    def _send(self) -> None:
        try:
            while data := self._far.recv(SIZE):
                self.channel.sendall(data)
            self.channel.shutdown_write()
        except (OSError, EOFError, RelayError) as error:
            self._end(error, socket.SHUT_RD)  # what has arrived is still to be delivered
        finally:
            self._sending.release()

    def _end(self, error: Exception, how: int) -> None:
        if isinstance(error, RelayError):
            self._lost = error
        try:
            self._far.shutdown(how)
        except OSError:
            pass  # the relay was over before
