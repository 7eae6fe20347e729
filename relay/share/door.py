"""Who comes in to the holder: the relays that it serves, those that it has no room for, and its commands (-O)."""

from __future__ import annotations

import os
import resource
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from relay.run.unix import peer_uid
from relay.share.holder_wire import HolderWire
from relay.share.wire import has_come

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

AGAIN = 1.0  # seconds until the listen queue is looked at again where no descriptor was left
SPARE = 24  # descriptors kept free: to answer -O, to turn relays away, and for logins
GLANCE = 0.01  # seconds that a client has to say what it wants, where there may be no room for it
HEAD = 12  # bytes of a message with its kind, where that is "call": two lengths, and four letters (wire.py)


class Door:
    """The holder's listener. All of it runs in the loop's thread.

    requests: the clients that have come in, until `done`; each begins in a thread of its own, which calls `serve`.
    turned: called after a client has been turned away.
    """

    def __init__(
        self,
        listener: socket.socket,
        loop: AbstractEventLoop,
        serve: Callable[[HolderWire], None],
        turned: Callable[[], None],
    ) -> None:
        self.requests: set[HolderWire] = set()
        self._listener = listener
        self._loop = loop
        self._serve = serve
        self._turned = turned
        self._open = True
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # closed to accept when no other is left

    def open(self) -> None:
        """Accept clients from now on."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Accept nobody else. A relay that has connected, and has had no answer, starts over."""
        self._open = False
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _accept(self, *, full: bool = False) -> None:
        """Accept a client; full: there is no room for a relay."""
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no more descriptors
            self._accept_by_spare()
            return
        sock.setblocking(True)
        if peer_uid(sock) != os.geteuid():
            sock.close()
            return
        wire = HolderWire(sock, self._loop)
        if (full or self._is_full(wire)) and not _is_command(wire):
            self._turn_away(wire, "the process that holds the shared hops has no descriptors left")
            return
        self.requests.add(wire)
        try:
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()
        except RuntimeError:  # no more threads may be started
            self.requests.remove(wire)
            self._turn_away(wire, "the process that holds the shared hops can start no thread")

    def _accept_by_spare(self) -> None:
        """Accept by the descriptor that is kept for it, or have the listen queue wait until there is one again."""
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)
            self._accept(full=True)
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if spare < 0 and self._spare < 0:
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(AGAIN, self._listen_again)

    def _listen_again(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _turn_away(self, wire: HolderWire, why: str) -> None:
        """Have a relay go by itself."""
        wire.tell("full", why)
        wire.close()
        self._loop.call_soon(self._turned)  # it may have been the first relay, and the only one

    def _is_full(self, wire: HolderWire) -> bool:
        """Whether too few descriptors are left to serve another relay.

        The kernel gives the lowest free number to a new descriptor, so the wire's number shows how many are in use.
        Each request that is under way will need two more, for stdin and stdout.
        """
        used = wire.socket.fileno() + 2 * len(self.requests)
        return used >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE


def _is_command(wire: HolderWire) -> bool:
    """Whether a client, which speaks as soon as it has connected, wants something else than a channel."""
    fd = wire.socket.fileno()
    return has_come(fd, GLANCE) and b"call" not in wire.socket.recv(HEAD, socket.MSG_PEEK)
