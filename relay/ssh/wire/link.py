"""One transport over a connection, or over a channel of the transport before: keys, and where each packet goes.

A Link opens its packets itself. Data goes to its flow; the flow that carries
the next hop's transport is that one's Link's input, so bytes of the innermost
channel pass all links without leaving the thread. What is not about an
attached channel is handed to the transport's own thread (Packetizer.hand); it
is waited for where the message may change keys.

Other threads may send (`send`), give their transport up, and look on; what
they share with the mover is under Connection.lock.
"""

from __future__ import annotations

import struct
import time

from relay.ssh.pubkey import string
from relay.ssh.wire.flow import MESSAGE, MESSAGE_AND_SIZE, Flow
from relay.ssh.wire.library import paramiko
from relay.ssh.wire.numbers import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_UNIMPLEMENTED,
)
from relay.ssh.wire.packet import UINT32, BadPacket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.wire.connection import Connection
    from relay.ssh.wire.packets import Packetizer

BY_APPLICATION = 11  # SSH_DISCONNECT_BY_APPLICATION
LAST_WORD = MESSAGE.pack(MSG_DISCONNECT, BY_APPLICATION) + string(b"disconnected by user") + string(b"")
TRANSPORT_LAYER = 49  # the last message number of RFC 4253: these may change keys, or end it all
# IGNORED needs no answer. The transport's own thread handles HANDED. It does not get messages that belong only to
# the set-up: paramiko loops over an EXT_INFO as often as its count says, which may be four billion times.
IGNORED = {MSG_IGNORE, MSG_DEBUG, MSG_UNIMPLEMENTED, MSG_EXT_INFO}
HANDED = {
    *(MSG_DISCONNECT, MSG_KEXINIT, MSG_NEWKEYS, *range(30, TRANSPORT_LAYER + 1)),
    *(MSG_GLOBAL_REQUEST, MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE),
    *range(MSG_CHANNEL_OPEN, MSG_CHANNEL_FAILURE + 1),
}
HELD_MOST = 10_000  # messages that wait for the end of a key exchange; one channel needs a handful
OUTPUT_MOST = 4 * 1024 * 1024  # bytes of our answers that may wait for a server that asks and does not read


class Link:
    """A transport whose packets this thread moves.

    carrier: the flow that carries it, None when that is the connection's socket.
    source: its bytes that have come. flows: by our number of the channel.
    heard: when something has come last (seconds since the epoch). error: why it
    has ended. behind: it has packets that it has not seen to, since the turn was
    over. waits: it sees to no more before its transport's thread is done with
    what it was handed; only where others would have to wait with it, else this
    thread waits.
    """

    def __init__(self, connection: Connection, transport: paramiko.Transport, carrier: Flow | None) -> None:
        self.connection = connection
        self.transport = transport
        self.packetizer: Packetizer = transport.packetizer
        self.source = self.packetizer.input
        self._keys_are_set = transport.clear_to_send.is_set
        self.carrier = carrier
        self.flows: dict[int, Flow] = {}
        self.heard = time.time()  # not monotonic: the sleep of a laptop is to count
        self.error: BaseException | None = None
        self.behind = self.waits = False
        self._held: list[bytes] = []  # messages that wait for the end of a key exchange
        self._touched: list[Flow] = []  # flows that carry a link and have bytes for it
        if carrier is not None:
            carrier.carry(self)
        connection.links.append(self)
        self.packetizer.link = self

    def flow(self, channel: paramiko.Channel) -> Flow:
        """The flow of a channel, which is attached when it is not yet."""
        flow = self.flows.get(channel.chanid)
        if flow is None:
            flow = Flow(self, channel)
            if not flow.closed:
                self.flows[flow.number] = flow
        return flow

    def begins(self) -> None:
        """The first byte of a stream has come by way of this link."""
        if self.transport.update is not None:
            self.transport.update.begin()

    # Inwards

    def take(self) -> None:
        """Open every packet that has come whole, and see to it."""
        self.heard = time.time()
        if self.error is not None or (self.waits and not self._is_settled()):
            return
        try:
            self._open_all()
            self.packetizer.check_limits()
        except (BadPacket, paramiko.SSHException) as error:
            self.fail(error)
        except (struct.error, IndexError):
            self.fail(BadPacket("a message that is cut short"))
        if self._touched:
            for flow in self._touched:
                flow.pass_on()
            self._touched.clear()

    def _open_all(self) -> None:
        packetizer, source, flows, connection = self.packetizer, self.source, self.flows, self.connection
        # The opener is looked up each time: a message may have brought a new key.
        while source.end and connection.left:
            opener = packetizer.opener
            length = opener.open(source)
            if not length:
                break
            connection.left -= 1
            plain = opener.plain
            kind, number, size = MESSAGE_AND_SIZE.unpack_from(plain, 1)  # plain has room for these, whatever has come
            if kind == MSG_CHANNEL_DATA:
                flow = flows.get(number)
                if flow is not None:
                    if size != length - 9:
                        raise BadPacket("data whose length is not the one stated")
                    if flow.accept(plain[10 : 10 + size]):
                        self._touched.append(flow)
                    continue
            self._message(bytes(plain[1 : 1 + length]))
            if self.error is not None or self.waits:
                break
        self.behind = not connection.left

    def _message(self, payload: bytes) -> None:
        """A message that is not data for an attached channel."""
        kind = payload[0]
        if kind in IGNORED:
            return
        if MSG_CHANNEL_WINDOW_ADJUST <= kind <= MSG_CHANNEL_FAILURE:
            flow = self.flows.get(UINT32.unpack_from(payload, 1)[0])
            if flow is not None:
                flow.message(kind, payload)
                return
        if kind not in HANDED:
            number = self.packetizer.message(payload)[1].seqno
            self.send(MESSAGE.pack(MSG_UNIMPLEMENTED, number))  # RFC 4253 section 11.4
            return
        if self.packetizer.hand(payload) or kind <= TRANSPORT_LAYER:
            self._settle()

    def _settle(self) -> None:
        """The transport's thread has a key exchange to do, or much else: go on when it is done."""
        if not self.connection.turn:
            self.packetizer.settle()
        elif not self.packetizer.is_settled():
            self.waits = True
            return
        self._has_settled()

    def _has_settled(self) -> None:
        """The transport's thread is done."""
        self.waits = False
        self.look_round()
        if self.error is None:
            self._resume()

    def _is_settled(self) -> bool:
        """Whether the transport's thread is done now, and the link lives; a thread that is not will wake us."""
        if not self.packetizer.is_settled():
            return False
        self._has_settled()
        return self.error is None

    def go_on(self) -> None:
        """See to what `take` has left, if it may be seen to now."""
        if self.error is None and (self.behind or self.waits):
            if self.carrier is None:
                self.take()
            else:
                self.carrier.pass_on()

    # Outwards

    @property
    def clear(self) -> bool:
        """Whether data may be sent: no key exchange is under way, or due."""
        return self._keys_are_set() and not self.packetizer.awaits_keys

    def send(self, payload: bytes) -> None:
        """Send a message, whatever the state of a key exchange: for the transport itself, from any thread."""
        with self.connection.lock:
            self._carry(payload)
            waits = self.connection.sending
        if waits:
            self.connection.waker.wake()

    def post(self, payload: bytes) -> None:
        """Send a message about a channel, when no key exchange is under way (RFC 4253 section 7.1) or else after it."""
        with self.connection.lock:
            if self.clear and not self._held:
                self.send(payload)
            else:
                self._held.append(payload)
                if len(self._held) > HELD_MOST:
                    self.packetizer.give_up(paramiko.SSHException("the server does not finish a key exchange"))

    def _carry(self, payload: bytes) -> None:
        if self.error is not None:
            return
        packet = self.packetizer.sealer.packet(payload)
        if self.carrier is None:
            self.connection.output.put(packet)
            self.connection.flush()
            waiting = len(self.connection.output)
        else:
            waiting = self.carrier.write(packet)
        if waiting > OUTPUT_MOST:
            self.packetizer.give_up(paramiko.SSHException("the server reads nothing"))

    def _resume(self) -> None:
        """Send what a key exchange has held up, if it is over."""
        with self.connection.lock:
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

    def leave(self) -> None:
        """Tell the server that we leave, as ssh does (RFC 4253 section 11.1)."""
        self.send(LAST_WORD)

    def wake(self) -> None:
        """Make the thread that polls the connection look round."""
        self.connection.waker.wake()

    def look_round(self) -> None:
        """See whether another thread has given the transport up."""
        if self.packetizer.closed:
            self.fail(self.packetizer.lost or self.transport.saved_exception or EOFError())

    def end(self, error: BaseException) -> None:
        """Nothing follows what has come: see to all of that, and then the link is lost.

        It is done at once, since there may be no other turn; it is no more than a window.
        """
        left, self.connection.left = self.connection.left, -1
        self.take()
        self.connection.left = left
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The link is lost, and with it all that it carries."""
        if self.error is not None:
            return
        self.error = error
        for flow in list(self.flows.values()):
            flow.fail(error)
        self.connection.links.remove(self)
        self.packetizer.give_up(error)
        self.transport.close()
        if self.carrier is None:
            self.connection.close()
        else:
            self.carrier.close()
