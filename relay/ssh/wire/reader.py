"""A socket that one thread reads, and that others can call away from it; and what is done when nothing comes."""

from __future__ import annotations

import _socket
import os
import select
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.ssh.wire.buffer import Buffer

QUICKACK: int = getattr(_socket, "TCP_QUICKACK", 0)  # Linux; 0 elsewhere


class Reader:
    """Reads a socket for a thread that waits for it."""

    def __init__(self, sock: _socket.socket) -> None:
        self.socket = sock
        self._waker = Waker()
        self._eager = QUICKACK != 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._waker.fd, select.POLLIN)

    def wake(self) -> None:
        """Make the `receive` that is under way return, or else the next one."""
        self._waker.wake()

    def close(self) -> None:
        """Nobody reads by this any more; the socket is not touched."""
        self._waker.close()

    def receive(self, into: Buffer, size: int, seconds: float) -> None:
        """Wait for bytes and read at most size of them. Raises TimeoutError after seconds, EOFError and OSError."""
        self.acknowledge()
        ready = [fd for fd, _ in self._poll.poll(seconds * 1000)]
        if not ready:
            raise TimeoutError
        if self._waker.fd in ready:
            self._waker.clear()
            return
        got = self.socket.recv_into(into.room(size), size)
        if not got:
            raise EOFError
        into.wrote(got)

    def acknowledge(self) -> None:
        """Acknowledge what has been read before waiting for more.

        sshd does not set TCP_NODELAY for a forwarded channel: its second small
        packet waits until the first is acknowledged (Nagle), and an
        acknowledgement that no data carries may be delayed by 40 ms. Linux
        takes TCP_QUICKACK back by itself, so it is said again each time.
        """
        if self._eager:
            try:
                self.socket.setsockopt(_socket.IPPROTO_TCP, QUICKACK, 1)
            except OSError:
                self._eager = False  # no TCP: a socket pair to a ProxyCommand


class Waker:
    """Ends another thread's poll. fd: what that thread polls for reading; -1 once it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # no byte may go to a descriptor that has become another file
        self.fd, self._other = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._other, False)

    def wake(self) -> None:
        """End the poll that is under way, or else the next one."""
        with self._lock:
            if self._other < 0:
                return
            try:
                os.write(self._other, b"\0")
            except BlockingIOError:
                pass  # so many have done the same that the poll ends anyway

    def clear(self) -> None:
        """The poll has ended."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Nobody polls any more. (What is garbage only in a circle may stay for long, and its descriptors with it.)"""
        with self._lock:
            fds, self.fd, self._other = (self.fd, self._other), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


class Silence:
    """Calls back when nothing has come for a while. interval: seconds; None while it does not.

    A server that sends is alive, whatever it sends; one may be dead amid a key exchange, and while we send.
    """

    def __init__(self) -> None:
        self.interval: float | None = None
        self._heard = 0  # messages at the last look
        self._looked = 0.0  # when the silence since then, or since the last call, began
        self._silences = 0

    def watch(self, interval: float, callback: Callable[[int], None]) -> None:
        """Call back after each interval in which nothing has come, with how many these have been in a row."""
        self.interval, self._callback = interval, callback
        self._looked = time.monotonic()

    def look(self, heard: int) -> None:
        """See whether something has come. heard: how many messages have, so far."""
        if self.interval is None:
            return
        now = time.monotonic()
        if heard != self._heard:
            self._heard, self._looked, self._silences = heard, now, 0
        elif now - self._looked >= self.interval:
            self._looked = now
            self._silences += 1
            self._callback(self._silences)
