"""A connection whose bytes one thread moves, whatever it carries.

    Connection   the socket, read and written without waiting
    Link         one transport over it, or over a flow of the link before (link.py)
    Flow         one channel of a link (flow.py)

Whoever polls the socket drives all of it: with one relay that is the pump;
with many channels over one transport a loop that serves them all.
"""

from __future__ import annotations

import threading
from _socket import SHUT_WR
from weakref import WeakValueDictionary

from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.packet import Slots
from relay.ssh.wire.reader import Waker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from relay.contract import Flow
    from relay.ssh.wire.reader import Reader

    class Link(Protocol):
        """What a connection asks of a link that is carried over it (link.py)."""

        source: Buffer

        def take(self) -> None:
            """Open every packet that has come whole, and see to it."""

        def leave(self) -> None:
            """Tell the server that we leave."""

        def fail(self, error: BaseException) -> None:
            """The link is lost, and with it all that it carries."""

        def look_round(self) -> None:
            """See whether another thread has given the link's transport up."""

        def begins(self) -> None:
            """The first byte of a stream has come by way of the link."""

        behind: bool
        waits: bool

        def go_on(self) -> None:
            """See to what `take` has left, if it may be seen to now."""


DRAIN_MOST = 16  # reads before the connection is closed
READ_SIZE = 256 * 1024  # bytes of the socket at once
SMALL_READ = 16 * 1024  # bytes; fewer are not part of a transfer, and to be acknowledged at once
TALK = 8  # reads in a row, each after something was sent; then the next thing sent is most likely near


class Connection:
    """A connection's socket and all that is carried over it.

    fd: what to poll, for reading always, for writing while `sending`; -1 once it
    is closed.
    links: the outermost, which the socket carries, comes first. changed: where
    whoever serves many flows puts a set, the flows of which something has become
    known. turn: how many packets a call sees to, 0 for all; whoever serves many
    connections sets it, so that none holds up the others. left: how many of them
    are left in the call under way.
    """

    def __init__(self, reader: Reader) -> None:
        self.socket = reader.socket
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.waker = Waker()
        self.lock = threading.RLock()
        self.output = Buffer(0)
        self.links: list[Link] = []
        self.changed: set[Flow] | None = None
        self.turn = 0
        self.left = -1
        self._reader = reader
        self._most = SMALL_READ  # bytes to read at once; memory for more is got when a transfer has begun
        self._unacknowledged = False  # what has come last, and is to be
        self._asked = False  # something was sent since the last read
        self._answers = 0  # reads in a row, each after something was sent
        self._slots: WeakValueDictionary[int, Slots] = WeakValueDictionary()

    @property
    def wake_fd(self) -> int:
        """What to poll for reading; when it says something, call `look_round`."""
        return self.waker.fd

    @property
    def reading(self) -> bool:
        """Whether there is room: windows hold the far side up, and keys must come through.

        False only while the outermost link waits for its transport's thread, and others are not to wait with it.
        """
        return not (self.turn and self.links and self.links[0].waits)

    @property
    def behind(self) -> bool:
        """Whether packets have come that the last call has not seen to, as its turn was over."""
        return any(link.behind for link in self.links)

    @property
    def sending(self) -> bool:
        """Whether bytes wait for the socket to take more."""
        return self.output.end > 0

    def receive(self) -> None:
        """Read what has come, once, and pass it on to the flows."""
        if not self.links:
            return
        self.left = self.turn or -1
        if self.turn and self.behind:
            self._go_on()
            return
        link = self.links[0]
        source = link.source
        try:
            size = self.socket.recv_into(source.room(self._most), self._most)
        except BlockingIOError:
            return
        except OSError as error:
            link.fail(error)
            return
        if not size:
            link.fail(EOFError())
            return
        source.wrote(size)
        if size == self._most:
            self._most = READ_SIZE
        self._unacknowledged = size < SMALL_READ
        self._answers = self._answers + 1 if self._asked else 0
        self._asked = False
        link.take()

    def flush(self) -> None:
        """Send what the socket takes now."""
        output = self.output
        with self.lock:
            while output.end:
                try:
                    output.drop(self.socket.send(output.view[output.start : output.end]))
                    self._unacknowledged = False  # what is sent carries the acknowledgement
                    self._asked = True
                except BlockingIOError:
                    return
                except OSError:
                    output.drop(len(output))  # why, `receive` will find out, after all that has still come

    @property
    def patient(self) -> bool:
        """Whether to wait a moment with `rest`: in a conversation, the next question carries the acknowledgement."""
        return self._unacknowledged and self._answers >= TALK

    def rest(self) -> None:
        """Acknowledge what has come, unless something was sent since. (Reader.acknowledge says why.)"""
        if self._unacknowledged:
            self._unacknowledged = False
            self._reader.acknowledge()

    def look_round(self) -> None:
        """See to what other threads have left to do: bytes that wait, a transport that was given up."""
        self.waker.clear()
        self.flush()
        for link in self.links[:]:
            link.look_round()
        self.left = self.turn or -1
        self._go_on()

    def _go_on(self) -> None:
        """See to what was left before, the outermost link's first."""
        for link in self.links[:]:
            link.go_on()

    def begins(self) -> None:
        """The first byte of a stream has come: what was not to delay it may be done now."""
        for link in self.links:
            link.begins()

    def slots(self, size: int) -> Slots:
        """Where data that is to be sent in packets of size bytes is read to."""
        slots = self._slots.get(size)
        if slots is None:
            slots = self._slots[size] = Slots(size)  # for as long as a channel has packets of that size
        return slots

    def release(self) -> None:
        """It is closed, and whoever has driven it polls `wake_fd` no more."""
        self.waker.close()

    def close(self) -> None:
        """Close the connection. Servers whose links are not lost are told first, as far as that waits for nothing."""
        for link in reversed(self.links):
            link.leave()
        self.flush()
        try:
            # With bytes unread, the close would be a reset, and might overtake what has just been sent.
            self.socket.shutdown(SHUT_WR)
            for _ in range(DRAIN_MOST):
                if not self.socket.recv(READ_SIZE):
                    break
        except OSError:
            pass  # there is nothing more to read, or the connection has ended
        self.socket.close()
        self.fd = -1
