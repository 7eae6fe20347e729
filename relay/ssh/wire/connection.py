"""A connection whose bytes one thread moves, whatever it carries.

    Connection   the socket, read and written without waiting
    Link         one transport over it, or over a flow of the link before (link.py)
    Flow         one channel of a link (flow.py)

Whoever polls the socket drives all of it: with one relay that is the pump;
with many channels over one transport a loop that serves them all.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import paramiko

from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.flow import Slots
from relay.ssh.wire.link import Link
from relay.ssh.wire.reader import Waker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.ssh.wire.flow import Flow
    from relay.ssh.wire.packets import Packetizer
    from relay.ssh.wire.reader import Reader

READ_SIZE = 256 * 1024  # bytes of the socket at once
SMALL_READ = 16 * 1024  # bytes; fewer are not part of a transfer, and to be acknowledged at once


class Connection:
    """A connection's socket and all that is carried over it.

    links: the outermost, which the socket carries, comes first. changed: where
    whoever serves many flows puts a set, the flows of which something has become
    known.
    """

    def __init__(self, reader: Reader) -> None:
        self.socket = reader.socket
        self.socket.setblocking(False)
        self.waker = Waker()
        self.lock = threading.RLock()
        self.output = Buffer(0)
        self.links: list[Link] = []
        self.changed: set[Flow] | None = None
        self._reader = reader
        self._slots: WeakValueDictionary[int, Slots] = WeakValueDictionary()

    @property
    def fd(self) -> int:
        """What to poll: for reading always, for writing while `sending`."""
        return self.socket.fileno()

    @property
    def wake_fd(self) -> int:
        """What to poll for reading; when it says something, call `look_round`."""
        return self.waker.fd

    @property
    def sending(self) -> bool:
        """Whether bytes wait for the socket to take more."""
        return self.output.end > 0

    def receive(self) -> None:
        """Read what has come, once, and pass it on to the flows."""
        if not self.links:
            return
        link = self.links[0]
        source = link.source
        try:
            size = self.socket.recv_into(source.room(READ_SIZE), READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            link.fail(error)
            return
        if not size:
            link.fail(EOFError())
            return
        source.wrote(size)
        if size < SMALL_READ:
            self._reader.acknowledge()
        link.take()

    def flush(self) -> None:
        """Send what the socket takes now."""
        output = self.output
        with self.lock:
            while output.end:
                try:
                    output.drop(self.socket.send(output.waiting()))
                except BlockingIOError:
                    return
                except OSError:
                    output.drop(len(output))  # why, `receive` will find out, after all that has still come

    def look_round(self) -> None:
        """See to what other threads have left to do: bytes that wait, a transport that was given up."""
        self.waker.clear()
        self.flush()
        for link in self.links[:]:
            if link.packetizer.closed:
                link.fail(link.packetizer.lost or link.transport.saved_exception or EOFError())

    def slots(self, size: int) -> Slots:
        """Where data that is to be sent in packets of size bytes is read to."""
        slots = self._slots.get(size)
        if slots is None:
            slots = self._slots[size] = Slots(size)  # for as long as a channel has packets of that size
        return slots

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def attach(channel: paramiko.Channel) -> Flow | None:
    """Take over the moving of a channel's data, which whoever calls Connection.receive does from then on.

    Only that thread may attach more channels to the connection. None when
    `take_over` is.
    """
    link = take_over(channel.transport)
    if link is None:
        return None
    link.packetizer.settle()  # what has come about the channel is with the channel
    return link.flow(channel)


def take_over(transport: paramiko.Transport) -> Link | None:
    """Take over the moving of all data from a transport and from those that carry it, where that is not done yet.

    None, and nothing changed, when one of them cannot hand its work over
    (Packetizer.can_park); None, too, when it has ended.
    """
    chain, carriers = _chain(transport)
    packetizers: list[Packetizer] = [each.packetizer for each in chain]
    reader = packetizers[-1].reader
    if reader is None or not can_take_over(transport):
        return None
    for packetizer in packetizers:
        # From the innermost: the outer ones still work, so what it is about to send, and waits for, gets through.
        packetizer.park()
    if any(packetizer.closed for packetizer in packetizers):
        _end_what_is_carried(packetizers)
        return None
    outermost: Link = packetizers[-1].link or Link(Connection(reader), chain[-1], None)
    link = outermost
    for each, carrier in zip(reversed(chain[:-1]), reversed(carriers), strict=True):
        link = each.packetizer.link or Link(link.connection, each, link.flow(carrier))
    for each in chain:
        each.sock = GivenUp()
    outermost.take()  # what had come before; it brings the inner ones theirs
    for packetizer in reversed(packetizers[:-1]):
        if packetizer.link is not None and packetizer.link.carrier is not None:
            packetizer.link.carrier.catch_up()
    return link if link.error is None else None


def _end_what_is_carried(packetizers: Sequence[Packetizer]) -> None:
    """A transport that is parked does not see that the one that carries it has ended. The innermost comes first."""
    ended = False
    for packetizer in reversed(packetizers):
        if ended and not packetizer.closed:
            packetizer.give_up(EOFError())
        ended = ended or packetizer.closed


def can_take_over(transport: paramiko.Transport) -> bool:
    """Whether it, and all that carry it, can hand their work over (Packetizer.can_park)."""
    packetizers = [each.packetizer for each in _chain(transport)[0]]
    return packetizers[-1].reader is not None and all(packetizer.can_park for packetizer in packetizers)


def _chain(transport: paramiko.Transport) -> tuple[list[paramiko.Transport], list[paramiko.Channel]]:
    """A transport and those that carry it, the innermost first, and the channels by which they do."""
    chain = [transport]
    carriers: list[paramiko.Channel] = []
    while isinstance(stream := chain[-1].packetizer.stream, paramiko.Channel):
        carriers.append(stream)
        chain.append(stream.transport)
    return chain, carriers


class GivenUp:
    """What a transport has for a socket once its Link has taken that over: closing it is the Link's business."""

    _closed = True  # paramiko's Transport.stop_thread asks for this

    def close(self) -> None:
        """Do nothing."""
