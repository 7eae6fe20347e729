"""A channel whose data one thread moves: its windows, what waits to be delivered, and how it ends (RFC 4254 section 5).

The window that the far side may fill is refilled as its bytes are delivered,
and only so: a reader that stops holds up nobody else, and never has more than a
window's worth waiting here.
"""

from __future__ import annotations

from struct import Struct

from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.numbers import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from relay.ssh.wire.packet import DATA, HEAD, PLAIN, SLOTS, UINT32, BadPacket, Slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from relay.ssh.wire.connection import Connection
    from relay.ssh.wire.library import paramiko
    from relay.ssh.wire.packets import Packetizer

    class Link(Protocol):
        """What a flow asks of the link whose channel it is, and of the one that it carries (link.py)."""

        packetizer: Packetizer
        source: Buffer
        flows: dict[int, Flow]

        @property
        def connection(self) -> Connection:
            """What is read and written."""

        @property
        def carrier(self) -> Flow | None:
            """The flow that carries the link."""

        @property
        def clear(self) -> bool:
            """Whether data may be sent."""

        def send(self, payload: bytes) -> None:
            """Send a message, whatever the state of a key exchange."""

        def post(self, payload: bytes) -> None:
            """Send a message when no key exchange is under way."""

        def check_limits(self) -> None:
            """Ask for a new key when it is time."""

        def take(self) -> None:
            """Open every packet that has come whole, and see to it."""

        def end(self, error: BaseException) -> None:
            """Nothing follows what has come: see to all of that, and then the link is lost."""

    Read = Callable[[list[memoryview]], int]  # as os.readv: how many bytes were read, 0 at the end

MAX_DATA = 32768  # bytes of a packet, however many more the server takes: memory for SLOTS of them is held
MAX_WINDOW = 2**32 - 1  # bytes; RFC 4254 section 5.2
STDERR_MOST = 64 * 1024  # bytes of a command's stderr that may wait for the listener; the rest is dropped
REFILLS = 8  # messages by which a whole window is refilled
LOOK = 64  # packets, of small ones, between two looks at whether new keys are due
LITTLE = 8  # one part of so many of a window is too little to send, while more is to be expected

MESSAGE = Struct(">BI")  # type, channel
MESSAGE_AND_SIZE = Struct(">BII")


class Flow:
    """A channel of a link.

    received: the far side's bytes that wait to be delivered. The code that
    delivers them drops them there and calls `delivered`.
    eof: the far side sends no more. closed: it does not receive any more, either.
    began: the far side has sent something. status_due: seconds to wait after the
    last byte for a command's exit status; 0 if this is not a command.
    killed: a signal ended the command, so it has no status. error: why the
    channel ended early. carries: the link of the next hop's transport, if this
    channel carries one.
    """

    def __init__(self, link: Link, channel: paramiko.Channel) -> None:
        """Take over a channel whose transport is parked; what it has received waits in `received`."""
        self.link = link
        self.channel = channel
        self.received = Buffer(0)
        self.carries: Link | None = None
        self.status_due = 0.0
        self.killed = channel.chanid in channel.transport.killed
        self.error: BaseException | None = None
        with channel.lock:
            buffered = channel.in_buffer.empty()
            self.number: int = channel.chanid
            self.remote: int = channel.remote_chanid
            self.eof = bool(channel.eof_received) or channel.closed
            self.closed: bool = channel.closed
            self.eof_sent = bool(channel.eof_sent)
            self._close_sent = self.closed
            self.window: int = channel.out_window_size  # bytes that may be sent
            self.max_data = min(channel.out_max_packet_size, MAX_DATA)
            # What is left of a window that the far side is sure to refill: packets for that are waste. See _refilled.
            self._too_little = -1
            self._widest = self.window
            self._refills_at = MAX_WINDOW  # bytes
            self._window_size: int = channel.in_window_size
            # Bytes delivered since the far side's window was refilled; stderr is as good as that.
            self._undelivered: int = channel.in_window_sofar + len(channel.in_stderr_buffer)
            self._credit = self._window_size - self._undelivered - len(buffered)  # bytes that may come
            channel.closed = True  # so that paramiko sends nothing about it
        self.began = bool(buffered)
        self.received.put(buffered)
        self._backlog = bytearray()  # of the transport that this channel carries, until windows let it go
        self._touched = False
        outer = link.carrier
        if outer is not None:
            # A full packet of this link is to fit in one of the link outside.
            self.max_data = min(self.max_data, link.packetizer.sealer.shape.payload(outer.max_data) - PLAIN.size + 1)
        self._slots = link.connection.slots(self.max_data)
        # What must let a packet of ours go: each flow on the way out, with the size that a full one has there and by
        # how much any may have grown.
        self._gates = [(self, self.max_data, 0)]
        while (outer := self._gates[-1][0].link.carrier) is not None:
            inner, size, growth = self._gates[-1]
            shape = inner.link.packetizer.sealer.shape
            self._gates.append((outer, shape.wire(size + PLAIN.size - 1), growth + shape.growth))

    def carry(self, link: Link) -> None:
        """Bytes received are from now on the input of a link."""
        self.carries = link
        self._slots = Slots(self.max_data, 1)  # the other link's packets are sealed into it one by one
        self._undelivered -= len(link.source)  # paramiko takes these to be delivered; the link will say so again
        link.source.put(self.received.waiting())
        self.received = link.source

    @property
    def connection(self) -> Connection:
        """What is to be driven."""
        return self.link.connection

    @property
    def over(self) -> bool:
        """Whether nothing follows what is in `received`, and it is known why."""
        return self.eof and (self.closed or self.began or not self.status_due)

    # From the far side

    def accept(self, data: memoryview) -> bool:
        """Keep data until it is delivered; return whether the link that this carries is to be told.

        Raises BadPacket when the far side sends more than the window allows.
        """
        size = len(data)
        if size > self._credit or self.eof:
            self._refuse(size)
        self._credit -= size
        if not self.began:
            self._begin()
        self.received.put(data)
        if self.carries is None:
            changed = self.link.connection.changed
            if changed is not None:
                changed.add(self)
            return False
        if self._touched:
            return False
        self._touched = True
        return True

    def _begin(self) -> None:
        """The far side has sent its first byte."""
        self.began = True
        if self.carries is None:
            self.link.connection.begins()

    def pass_on(self) -> None:
        """Let the link that this carries take what has come for it."""
        if self.carries is not None:
            received = self.received
            waiting = received.end - received.start
            self.carries.take()
            self.delivered(waiting - (received.end - received.start))

    def catch_up(self) -> None:
        """Pass on what had come before there was a link to take it, and the end if that has come, too."""
        self.pass_on()
        if self.eof:
            self._end_of_far_side()

    def _has_changed(self) -> None:
        """Notify the flow's server that data has come, or that the flow has ended."""
        if self.link.connection.changed is not None:
            self.link.connection.changed.add(self)

    def _refuse(self, size: int) -> NoReturn:
        """Raise BadPacket: so many bytes have come, and the window had no room for them."""
        raise BadPacket(f"{size} bytes of data where the window has room for {0 if self.eof else self._credit}")

    def delivered(self, size: int) -> None:
        """So many bytes of `received` have gone on: let the far side send as many more, some at a time."""
        self._touched = False
        self._undelivered += size
        if self._undelivered > self._window_size // REFILLS and not self.eof:
            self.link.post(MESSAGE_AND_SIZE.pack(MSG_CHANNEL_WINDOW_ADJUST, self.remote, self._undelivered))
            self._credit += self._undelivered
            self._undelivered = 0

    def message(self, kind: int, payload: bytes) -> None:
        """A message about this channel that is not plain data. Raises BadPacket, struct.error, IndexError."""
        self._has_changed()
        if kind == MSG_CHANNEL_WINDOW_ADJUST:
            with self.link.connection.lock:
                window = self.window + UINT32.unpack_from(payload, 5)[0]
                if window > MAX_WINDOW:
                    raise BadPacket("a window of more than 2^32 - 1 bytes")
                self._refilled(window)
                self.push()
        elif kind == MSG_CHANNEL_EXTENDED_DATA:
            # A command's stderr counts as delivered at once: its listener does not hold up the stream.
            data = payload[13:]
            if len(data) > self._credit or self.eof:
                self._refuse(len(data))
            self._credit -= len(data)
            if self.status_due:  # otherwise this is not a command, and nobody listens
                stderr = self.channel.in_stderr_buffer
                stderr.feed(data[: max(STDERR_MOST - len(stderr), 0)])
            self.delivered(len(data))
        elif kind == MSG_CHANNEL_EOF:
            self._end_of_far_side()
        elif kind == MSG_CHANNEL_CLOSE:
            self.close()
            self.closed = True
            self.link.flows.pop(self.number, None)
            self._end_of_far_side()
        elif kind == MSG_CHANNEL_REQUEST:
            self._heed(payload)

    def _refilled(self, window: int) -> None:
        """The far side has refilled our window.

        A server that has done so with some bytes missing does it again when as many are missing. (When it refills
        only an empty window, all of it has to be used.) dropbear's window is one packet: what is left of it, here or
        in a link outside, would be sent as a second packet of a few bytes, which costs every hop as much.
        """
        if window > self._widest:
            self._widest, self._refills_at = window, MAX_WINDOW
        else:
            self._refills_at = min(self._refills_at, self._widest - self.window)
        self._too_little = min(self._widest // LITTLE, self.max_data // 2, self._widest - self._refills_at)
        self.window = window

    def _heed(self, payload: bytes) -> None:
        """Handle a request: a command's exit status or signal (RFC 4254 section 6.10). Others are not supported."""
        (length,) = UINT32.unpack_from(payload, 5)
        name = payload[9 : 9 + length]
        if name == b"exit-status":
            (self.channel.exit_status,) = UINT32.unpack_from(payload, 10 + length)
            self.channel.status_event.set()
        elif name == b"exit-signal":
            self.killed = True
        elif payload[9 + length]:  # sshd's ClientAliveInterval asks this way, and takes any answer
            self.link.post(MESSAGE.pack(MSG_CHANNEL_FAILURE, self.remote))

    def _end_of_far_side(self) -> None:
        self.eof = True
        self.channel.in_stderr_buffer.close()
        if self.carries is not None:
            self.carries.end(EOFError())

    def fail(self, error: BaseException) -> None:
        """The link is lost."""
        self._has_changed()
        self.error = error
        self.eof = self.closed = True
        self.channel.in_stderr_buffer.close()
        self.channel.status_event.set()
        if self.carries is not None:
            self.carries.end(error)

    # To the far side

    def room(self) -> int:
        """How many bytes `read_from` may read now: as many as all windows on the way allow, 0 while keys change."""
        if self.window <= self._too_little or self.eof_sent or self.link.connection.output.end:
            return 0
        packets, most = SLOTS, MAX_WINDOW
        for flow, size, growth in self._gates:
            if flow._backlog or flow.closed or not flow.link.clear:
                return 0
            window = flow.window
            if window < SLOTS * size:
                if window <= flow._too_little:
                    return 0
                packets = min(packets, window // size)
                most = min(most, window - growth)
        return packets * self.max_data if packets else max(most, 0)

    def read_from(self, read: Read) -> int:
        """Let `read` read as much as there is room for, and send it; return what it returned.

        Whatever it raises is raised.
        """
        connection = self.link.connection
        with connection.lock:  # held while reading, too: what was read must be sent before the next key exchange
            room = self.room()
            slots = self._slots
            size = read(slots.views(room)) if room else -1
            if size <= 0:
                return size
            at, left = HEAD, size
            while left > slots.size:
                self._send_data(slots.plain, at, slots.size)
                at += slots.stride
                left -= slots.size
            self._send_data(slots.plain, at, left)
            connection.flush()
        if size >= self.max_data or not self.link.packetizer.sealer.packets % LOOK:
            self._check_limits()
        return size

    def write(self, data: bytes | bytearray) -> int:
        """Send bytes of the transport that this channel carries; return how many must wait for a window."""
        self._backlog += data
        self.push()
        return len(self._backlog)

    def push(self) -> None:
        """Send what waits, as far as keys and windows let it go."""
        while self._backlog and self.window and self.link.clear and not self.closed:
            data = self._backlog[: min(self.window, self.max_data)]
            del self._backlog[: len(data)]
            self.window -= len(data)
            self.link.send(MESSAGE_AND_SIZE.pack(MSG_CHANNEL_DATA, self.remote, len(data)) + data)

    def end(self) -> None:
        """Tell the far side that nothing follows."""
        if not self.eof_sent:
            self.eof_sent = True
            self.link.post(MESSAGE.pack(MSG_CHANNEL_EOF, self.remote))

    def close(self) -> None:
        """Tell the far side that this channel is done with."""
        if not self._close_sent:
            self._close_sent = self.eof_sent = True
            self._backlog.clear()
            self.link.post(MESSAGE.pack(MSG_CHANNEL_CLOSE, self.remote))

    def _send_data(self, plain: memoryview, at: int, size: int) -> None:
        """Seal the packet whose data stands ready in plain[at:], after PLAIN, and have it carried."""
        link = self.link
        sealer = link.packetizer.sealer
        PLAIN.pack_into(plain, at, 0, MSG_CHANNEL_DATA, self.remote, size)
        end = sealer.pad(plain, at, at + PLAIN.size + size)
        self.window -= size
        wire = end - at + sealer.shape.overhead
        outer = link.carrier
        if outer is None:
            sealer.seal(plain, at, end, link.connection.output.place(wire))
        else:
            slot = outer._slots.plain
            sealer.seal(plain, at, end, slot[DATA : DATA + wire])
            outer._send_data(slot, HEAD, wire)

    def _check_limits(self) -> None:
        link: Link | None = self.link
        while link is not None:
            link.check_limits()
            link = link.carrier.link if link.carrier else None
