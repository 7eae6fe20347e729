"""One thread moves the data of every channel of a connection.

    Engine   the connection's socket, read and written without waiting
    Link     one transport over it, or over a flow of the link before: keys, and who gets which packet
    Flow     one channel of a link (flow.py)

A Link opens its packets itself. Data goes to its flow; the flow that carries
the next hop's transport is that one's Link's input, so bytes of the innermost
channel pass all links without leaving the thread. What is not about an
attached channel is handed to the transport's own thread (Packetizer.hand); it
is waited for where the message may change keys.

Other threads may send (Link.send), give their transport up, and look on; what
they share with the mover is under Engine.lock.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_IGNORE,
)

from relay.ssh.buffer import Buffer
from relay.ssh.flow import CHANNEL_AND_SIZE, Flow, Slots
from relay.ssh.gcm import UINT32, BadPacket
from relay.ssh.reader import Waker

if TYPE_CHECKING:
    from relay.ssh.gcm import Sealer
    from relay.ssh.packets import Packetizer
    from relay.ssh.reader import Reader

READ_SIZE = 256 * 1024  # bytes of the socket at once
SMALL_READ = 16 * 1024  # bytes; fewer are not part of a transfer, and to be acknowledged at once
TRANSPORT_LAYER = 49  # the last message number of RFC 4253: these may change keys, or end it all


class Engine:
    """A connection's socket and all that is carried over it.

    links: the outermost, which the socket carries, comes first.
    """

    def __init__(self, reader: Reader) -> None:
        self.socket = reader.socket
        self.socket.setblocking(False)
        self.waker = Waker()
        self.lock = threading.RLock()
        self.output = Buffer(0)
        self.links: list[Link] = []
        self._reader = reader
        self._slots: dict[int, Slots] = {}

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

    def start(self) -> None:
        """See to what had come before the links took over."""
        for link in self.links:
            link.take()

    def receive(self) -> None:
        """Read what has come, once, and pass it on to the flows."""
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
        for link in self.links:
            if link.packetizer.closed:
                link.fail(link.transport.saved_exception or EOFError())

    def slots(self, size: int) -> Slots:
        """Where data that is to be sent in packets of size bytes is read to."""
        if size not in self._slots:
            self._slots[size] = Slots(size)
        return self._slots[size]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class Link:
    """A transport whose packets this thread moves.

    carrier: the flow that carries it, None when that is the engine's socket.
    source: its bytes that have come. flows: by our number of the channel.
    error: why it has ended.
    """

    def __init__(self, engine: Engine, transport: paramiko.Transport, carrier: Flow | None) -> None:
        self.engine = engine
        self.transport = transport
        self.packetizer: Packetizer = transport.packetizer
        self.source = self.packetizer.input
        self.carrier = carrier
        self.flows: dict[int, Flow] = {}
        self.error: BaseException | None = None
        self._held: list[bytes] = []  # messages that wait for the end of a key exchange
        self._touched: list[Flow] = []  # flows that carry a link and have bytes for it
        if carrier is not None:
            carrier.carry(self)
        engine.links.append(self)
        transport.sock = GivenUp()
        self.packetizer.link = self

    # Inwards

    def take(self) -> None:
        """Open every packet that has come whole, and see to it."""
        try:
            self._open_all()
        except BadPacket as error:
            self.fail(error)
        except (struct.error, IndexError):
            self.fail(BadPacket("a message that ends too soon"))
        self.check_limits()
        for flow in self._touched:
            flow.pass_on()
        self._touched.clear()

    def _open_all(self) -> None:
        packetizer, source, flows = self.packetizer, self.source, self.flows
        # The opener is looked up each time: a message may have brought a new key.
        while self.error is None and (length := packetizer.opener.open(source)):  # type: ignore[union-attr]
            plain = packetizer.opener.plain  # type: ignore[union-attr]
            if plain[1] == MSG_CHANNEL_DATA:
                number, size = CHANNEL_AND_SIZE.unpack_from(plain, 2)
                flow = flows.get(number)
                if flow is not None:
                    if size != length - 9:
                        raise BadPacket("data of another length than it says")
                    if flow.accept(plain[10 : 10 + size]):
                        self._touched.append(flow)
                    continue
            self._message(bytes(plain[1 : 1 + length]))

    def _message(self, payload: bytes) -> None:
        """A message that is not data for an attached channel."""
        kind = payload[0]
        if kind in (MSG_IGNORE, MSG_DEBUG):
            return
        if MSG_CHANNEL_WINDOW_ADJUST <= kind <= MSG_CHANNEL_FAILURE:
            flow = self.flows.get(UINT32.unpack_from(payload, 1)[0])
            if flow is not None:
                flow.message(kind, payload)
                return
        self.packetizer.hand(payload)
        if kind <= TRANSPORT_LAYER:
            self.packetizer.settle()
            if self.packetizer.closed:
                self.fail(self.transport.saved_exception or EOFError())
            else:
                self._resume()

    # Outwards

    @property
    def sealer(self) -> Sealer:
        """What makes packets now."""
        # There is one: `can_park` was true, and no rekey leads away from AES-GCM.
        return self.packetizer.sealer  # type: ignore[return-value]

    @property
    def clear(self) -> bool:
        """Whether data may be sent: no key exchange is under way."""
        return self.transport.clear_to_send.is_set()

    def send(self, payload: bytes) -> None:
        """Send a message, whatever the state of a key exchange: for the transport itself, from any thread."""
        with self.engine.lock:
            self._carry(payload)
            waits = self.engine.sending
        if waits:
            self.engine.waker.wake()

    def post(self, payload: bytes) -> None:
        """Send a message about a channel, when no key exchange is under way (RFC 4253 section 7.1) or else after it."""
        with self.engine.lock:
            if self.clear and not self._held:
                self._carry(payload)
            else:
                self._held.append(payload)

    def _carry(self, payload: bytes) -> None:
        if self.error is not None:
            return
        packet = self.sealer.packet(payload)
        if self.carrier is None:
            self.engine.output.put(packet)
            self.engine.flush()
        else:
            self.carrier.write(packet)

    def _resume(self) -> None:
        """Send what a key exchange has held up, if it is over."""
        with self.engine.lock:
            if self.clear:
                held, self._held = self._held, []
                for payload in held:
                    self._carry(payload)
                for flow in self.flows.values():
                    flow.push()

    def check_limits(self) -> None:
        """Ask for a new key when it is time."""
        try:
            self.packetizer.check_limits()
        except paramiko.SSHException as error:
            self.fail(error)

    # The end

    def fail(self, error: BaseException) -> None:
        """The link is lost, and with it all that it carries."""
        if self.error is not None:
            return
        self.error = error
        for flow in list(self.flows.values()):
            flow.fail(error)
        self.packetizer.lost = error
        self.transport.close()
        if self.carrier is None:
            self.engine.close()
        else:
            self.carrier.close()


def attach(channel: paramiko.Channel) -> Flow | None:
    """Take the moving of a channel's data over from the transports that carry it, innermost first.

    From then on it is done by whoever calls Engine.receive. None, and nothing
    changed, when one of them cannot hand it over (Packetizer.can_park).
    """
    chain = [channel]
    while isinstance(stream := chain[-1].transport.packetizer.stream, paramiko.Channel):
        chain.append(stream)
    packetizers: list[Packetizer] = [each.transport.packetizer for each in chain]
    reader = packetizers[-1].reader
    if reader is None or not all(packetizer.can_park for packetizer in packetizers):
        return None
    for packetizer in packetizers:
        # The outer ones still work: what this one's thread is about to send and waits for gets through.
        packetizer.park()
    if any(packetizer.closed for packetizer in packetizers):
        return None
    engine = Engine(reader)
    carrier: Flow | None = None
    for each in reversed(chain):
        link = Link(engine, each.transport, carrier)
        carrier = link.flows[each.chanid] = Flow(link, each)
    engine.start()
    return carrier


class GivenUp:
    """What a transport has for a socket once its Link has taken that over: closing it is the Link's business."""

    _closed = True  # paramiko's Transport.stop_thread asks for this

    def close(self) -> None:
        """Do nothing."""
