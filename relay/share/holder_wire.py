"""The holder's end of a wire. It never waits for the relay: one that does not read would hold up all the others.

What the relay does not take at once is kept, and sent by the holder's loop when there is room.
"""

from __future__ import annotations

import threading
from _socket import MSG_DONTWAIT
from time import monotonic
from typing import TYPE_CHECKING

from relay.share.wire import Ended, Wire, framed, has_come

if TYPE_CHECKING:
    from _socket import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from relay.share.wire import Field

KEPT_MOST = 1024 * 1024  # bytes kept for a relay, above which no more lines for its stderr are


class HolderWire(Wire):
    """The holder's end of the socket. Any thread may send; the others of its own methods are for the loop's thread."""

    def __init__(self, sock: socket, loop: AbstractEventLoop) -> None:
        super().__init__(sock)
        self._loop = loop
        self._sending = threading.Lock()  # held for as long as a system call takes that does not wait
        self._kept = bytearray()
        self._done: Callable[[], object] | None = None
        self._late = 0  # answers that were not waited for

    def send(self, kind: str, *fields: Field) -> None:  # type: ignore[override]  # it has no descriptors to send
        """Send a message, or keep it until the relay takes more. Raises Ended when the relay has gone."""
        with self._sending:
            waits = bool(self._kept)  # the loop sends it
            self._kept += framed(kind, fields)
            if waits:
                return
            self._send_kept()
            if self._kept:
                self._loop.call_soon_threadsafe(self._go_on)

    def tell(self, kind: str, *fields: Field) -> None:
        """Send a message to a relay that may have gone."""
        try:
            self.send(kind, *fields)
        except Ended:
            pass

    def receive(self) -> tuple[str, list[bytes]]:
        """The next message, after the answers that came too late for `receive_within`. Raises Ended and BadMessage."""
        while self._late:
            super().receive()
            self._late -= 1
        return super().receive()

    def receive_within(self, seconds: float) -> tuple[str, list[bytes]] | None:
        """The next message, or None if it has not come in time: a relay may be stopped, and others wait for its login.

        Raises Ended and BadMessage.
        """
        until = monotonic() + seconds
        while has_come(self.socket.fileno(), max(until - monotonic(), 0)):
            message = super().receive()
            if not self._late:
                return message
            self._late -= 1
        self._late += 1
        return None

    def say(self, place: str, text: str) -> None:
        """Send a line for the relay's stderr. It is dropped if the relay has left too many untaken."""
        if len(self._kept) < KEPT_MOST:
            self.tell("say", place, text)

    def finish(self, done: Callable[[], object]) -> None:
        """Close the socket when the relay has taken all that is kept, or has gone; then have the loop call done."""
        self._done = done
        self._go_on()

    def close(self) -> None:
        """Close the socket at once."""
        with self._sending:
            self._kept.clear()
            self._await_room(False)
            super().close()

    def _send_kept(self) -> None:
        try:
            while self._kept:
                del self._kept[: self.socket.send(self._kept, MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError as error:
            self._kept.clear()
            raise Ended from error

    def _go_on(self) -> None:
        """Send what there is room for, and have the loop wait for room for the rest."""
        with self._sending:
            try:
                self._send_kept()
            except Ended:
                pass
            self._await_room(bool(self._kept))
            done = None if self._kept else self._done
        if done is not None:
            self._done = None
            self.close()
            self._loop.call_soon(done)

    def _await_room(self, waits: bool) -> None:
        fd = self.socket.fileno()
        if waits:
            self._loop.add_writer(fd, self._go_on)
        elif fd >= 0:
            self._loop.remove_writer(fd)
