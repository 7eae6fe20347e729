"""paramiko's Packetizer with packet ciphers of our own, and one that can hand its work over.

At first the Transport's own thread reads and opens its packets here, as
paramiko has it: the whole of the set-up is that. Once parked, a Link (link.py)
moves the data, and that thread gets only the messages that Link hands to it:
key exchange, global requests and the opening of channels stay paramiko's.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from relay.ssh.wire import ciphers
from relay.ssh.wire.buffer import Buffer
from relay.ssh.wire.ciphers import CIPHERS, CLEAR, LARGE_BLOCKS, PACKETS
from relay.ssh.wire.library import NeedRekeyException, paramiko
from relay.ssh.wire.packet import BadPacket, Opener, Sealer
from relay.ssh.wire.reader import Reader, Silence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from relay.ssh.wire.keys import Keys

    class Link(Protocol):
        """What reads and writes instead of a Packetizer (link.py).

        heard: when something has come last (seconds since the epoch).
        """

        heard: float

        def send(self, payload: bytes) -> None:
            """Send a message, whatever the state of a key exchange."""

        def post(self, payload: bytes) -> None:
            """Send a message when no key exchange is under way."""

        def wake(self) -> None:
            """Make the thread that polls look round."""


READ_SIZE = 16 * 1024  # bytes asked for at once
LINES_MOST = 1024  # before the ident, as in OpenSSH (SSH_MAX_PRE_BANNER_LINES)
LINE_MOST = 8192  # bytes of a line before the ident, as in OpenSSH (kex.c, kex_exchange_identification)
TICK = 0.1  # seconds between two looks at the keepalives while nothing comes
SETTLE_MOST = 60.0  # seconds; it takes milliseconds
HANDED_MOST = 64  # messages that may wait for the Transport's thread


class Packetizer(paramiko.packet.Packetizer):
    """Packets over a connected socket, or over a channel.

    channel: the channel that carries this transport; None if a socket does.
    opener, sealer: open and make packets.
    input: received bytes that are not opened yet.
    said: the last line before the server's ident.
    link: once parked, it reads and writes instead of this object. lost: why the link has ended.
    answer_due: when the server has to have answered (time.monotonic); 0 for no such time.
    holds: what is sent now goes out with what is sent next. Two small packets in a row may take 40 ms where a proxy or
    a program such as nc carries the stream: it sends the second one only when the first is acknowledged (Nagle).
    awaits_keys: new keys are due, and have not come for both ways yet (`need_rekey`, without a call).
    """

    # How much may be done with one key (RFC 4344 section 3), as in OpenSSH; the cipher may allow less. paramiko's
    # 2^29 bytes would be a key exchange, and a pause for it, every half second here.
    REKEY_BYTES = LARGE_BLOCKS
    REKEY_PACKETS = PACKETS

    def __init__(self, stream: Any, channel: paramiko.Channel | None = None) -> None:
        super().__init__(stream)
        self.channel = channel
        self.input = Buffer(0)
        self.opener = Opener(CLEAR)
        self.sealer = Sealer(CLEAR)
        self.link: Link | None = None
        self.lost: BaseException | None = None
        self.answer_due = 0.0
        self._ident_due = 0.0
        self._introduced = False  # the server has said its ident
        self.said = ""  # the first line that came in place of its ident
        self._kind_in: tuple[str, int, bool] | None = None  # the algorithms, once there are keys
        self._kind_out: tuple[str, int, bool] | None = None
        self._skips = False  # the next message is passed over
        self._earlier = 0  # messages that came before those of the opener
        self._asked = (0, 0)  # packets and bytes of the opener when a new key was asked for
        self._sending = threading.Lock()
        self.holds = False
        self._held = bytearray()
        self._ended = False
        self.reader = Reader(stream) if channel is None else None
        self._silence = Silence()
        # Once parked, two threads share the following.
        self._turn = threading.Condition()
        self._inbox: deque[tuple[int, paramiko.Message]] = deque()
        self._parking = False
        self._idle = False  # the Transport's thread is done with all that it was handed
        self._is_awaited = False  # the Link is to be woken then
        self._rekey_due = False  # it has not been told yet to ask for a new key
        self.awaits_keys = False

    # Keys, as the Transport sets them

    def set_inbound_cipher(self, block_engine: Keys, **how: Any) -> None:
        """What follows is opened with a new key. Raises SSHException when it is for another kind of cipher."""
        super().set_inbound_cipher(block_engine, **how)
        keys = block_engine.with_mac(**how)
        self._kind_in = _check_same_kind(self._kind_in, keys)
        before, self.opener = self.opener, ciphers.opener(keys)
        self.opener.count_from(before.number)
        self._earlier += before.packets
        self._asked = (0, 0)
        self.awaits_keys = self.need_rekey()

    def set_outbound_cipher(self, block_engine: Keys, **how: Any) -> None:
        """What follows is sealed with a new key. Raises SSHException when it is for another kind of cipher."""
        super().set_outbound_cipher(block_engine, **how)
        keys = block_engine.with_mac(**how)
        self._kind_out = _check_same_kind(self._kind_out, keys)
        before, self.sealer = self.sealer, ciphers.sealer(keys)
        self.sealer.count_from(before.number)
        self.REKEY_BYTES = min(self.REKEY_BYTES, CIPHERS[keys.cipher].limit)
        self.awaits_keys = self.need_rekey()

    def reset_seqno_in(self) -> None:
        """Number messages anew (strict key exchange): after the new key has been set."""
        self.opener.count_from(0)

    def reset_seqno_out(self) -> None:
        """Number our own messages anew (strict key exchange): before the new key is set."""
        self.sealer.count_from(0)

    # Reading, by the Transport's thread

    def read_message(self) -> tuple[int, paramiko.Message]:
        """The next message: its type, and what follows.

        Raises SSHException when the packet is not in order, EOFError at the
        end, NeedRekeyException when it is time to ask for a new key.
        """
        opener = self.opener
        try:
            while not self._parking:
                if length := opener.open(self.input):
                    payload = bytes(opener.plain[1 : 1 + length])
                    self.check_limits()
                    if self._skips:
                        self._skips = False
                        continue
                    return self.message(payload)
                self._fill(check_rekey=True)
        except BadPacket as error:
            raise paramiko.SSHException(str(error)) from error
        return self._next_handed()

    def start_handshake(self, timeout: float) -> None:
        """Do nothing: one deadline holds for the whole set-up, and paramiko's time-out would be a thread."""

    def skip_next(self) -> None:
        """The next message is passed over: the server has guessed the key exchange, and wrongly (RFC 4253, 7.1)."""
        self._skips = True

    def message(self, payload: bytes) -> tuple[int, paramiko.Message]:
        """The last packet's payload as paramiko has it."""
        message = paramiko.Message(payload[1:])
        message.seqno = (self.opener.number - 1) & 0xFFFFFFFF
        return payload[0], message

    def readline(self, timeout: float) -> str:
        """The server's ident, a line without its end. Raises TimeoutError.

        timeout: seconds for all lines up to the ident; paramiko would ask for each line, 2 seconds for any but the
        first. The lines need not be text; what of the ident is none stays the bytes that it was.
        """
        self._ident_due = self._ident_due or time.monotonic() + timeout
        for _ in range(LINES_MOST):
            line = self._line()
            if line.startswith(b"SSH-"):
                if line.count(b"-") < 2:  # RFC 4253 section 4.2
                    raise paramiko.SSHException("its ident is cut short")
                self._introduced = True
                return line.decode(errors="surrogateescape")
            self.said = self.said or line.decode(errors="replace").strip()
        raise paramiko.SSHException(f"more than {LINES_MOST} lines before its ident")

    def _line(self) -> bytes:
        """One line. Raises TimeoutError when it is too late for one."""
        while True:
            data, start, end = self.input.data, self.input.start, self.input.end
            after = data.find(b"\n", start, end) + 1
            if not after and len(self.input) > LINE_MOST:
                raise paramiko.SSHException(f"a line of more than {LINE_MOST} bytes")
            if data.find(b"\0", start, after or end) >= 0:
                raise UnicodeError  # a packet where there was no ident; it may hold an end of line
            if after:
                break
            self._fill(check_rekey=False)
            if time.monotonic() >= self._ident_due:
                raise TimeoutError
        return self.input.take(after - start).removesuffix(b"\n").removesuffix(b"\r")

    def _fill(self, check_rekey: bool) -> None:
        """Wait for bytes, at most a TICK, and read them."""
        if self._held and self._kind_in is None:  # the server's new keys have not come: it may be waiting for ours
            with self._sending:
                self._send_held()
        try:
            if self.reader is not None:
                self.reader.receive(self.input, READ_SIZE, TICK)
            elif data := self.channel.recv(READ_SIZE):  # type: ignore[union-attr]  # the one or the other
                self.input.put(data)
            elif not self._parking:
                raise EOFError
        except TimeoutError:
            if self.closed:
                raise EOFError from None
            self._check_keepalive()
            if check_rekey and self.need_rekey():
                raise NeedRekeyException from None
        except OSError:
            if self.closed:
                raise EOFError from None
            raise

    # Writing, by any thread

    def write_all(self, out: bytes) -> None:
        """Write to the stream. Raises EOFError when it has ended.

        Before the server's ident has come, reading finds that out, and what the server has said instead.
        """
        try:
            super().write_all(out)
        except EOFError:
            if self._introduced:
                raise

    def send_message(self, message: paramiko.Message) -> None:
        """Send a message, whatever the state of a key exchange. Raises EOFError when the stream has ended."""
        payload = message.asbytes()
        with self._sending:
            if self.link is not None:
                self.link.send(payload)
                return
            self._held += self.sealer.packet(payload)
            if not self.holds:
                self._send_held()
            self.check_limits()

    def _send_held(self) -> None:
        held, self._held = bytes(self._held), bytearray()
        self.write_all(held)

    # Limits of a key

    def check_limits(self) -> None:
        """Ask for a new key when enough has been done with this one. Raises SSHException when that is not heeded."""
        opener, sealer = self.opener, self.sealer
        if self.awaits_keys:
            packets, size = self._asked
            if (
                opener.packets - packets >= self.REKEY_PACKETS_OVERFLOW_MAX
                or opener.bytes - size >= self.REKEY_BYTES_OVERFLOW_MAX
            ):
                raise paramiko.SSHException("the server ignores our requests for new keys")
        elif (
            opener.bytes >= self.REKEY_BYTES
            or sealer.bytes >= self.REKEY_BYTES
            or opener.packets >= self.REKEY_PACKETS
            or sealer.packets >= self.REKEY_PACKETS
        ):
            self._trigger_rekey()

    def _trigger_rekey(self) -> None:
        super()._trigger_rekey()
        self.awaits_keys = True
        self._asked = (self.opener.packets, self.opener.bytes)
        with self._turn:
            self._rekey_due = True
            self._turn.notify_all()

    # Signs of life

    @property
    def is_overdue(self) -> bool:
        """Whether the server has not answered when it had to."""
        return 0 < self.answer_due < time.monotonic()

    def set_keepalive(self, interval: float, callback: Callable[[int], None]) -> None:
        """Call back as Silence does; interval: seconds."""
        self._silence.watch(interval, callback)

    def _check_keepalive(self) -> None:
        if self.is_overdue:
            raise paramiko.SSHException("no answer to what was sent before the server's ident")
        self._silence.look(self._earlier + self.opener.packets)

    # Parked: a Link reads and writes

    def park(self) -> None:
        """Make the Transport's thread read no more; return when it waits for what `hand` gives it, or has ended."""
        with self._turn:
            first, self._parking = not self._parking, True
        if first and self.reader is not None:
            self.reader.wake()
        elif first and self.channel is not None:
            self.channel.in_buffer.close()  # ends a recv that waits; what comes is put into it all the same
        self.settle()

    def hand(self, payload: bytes) -> bool:
        """Give the last packet's payload to the Transport's thread; return whether much waits for it now."""
        with self._turn:
            self._inbox.append(self.message(payload))
            self._idle = False
            self._turn.notify_all()
        return len(self._inbox) > HANDED_MOST

    def settle(self) -> None:
        """Wait until the Transport's thread has done all that it was handed, or has ended."""
        with self._turn:
            done = self._turn.wait_for(lambda: self._idle or self.closed, SETTLE_MOST)
        if not done:
            self.give_up(paramiko.SSHException("the server's last message took too long to deal with"))

    def is_settled(self) -> bool:
        """What `settle` waits for, without waiting: the Link is woken when it comes."""
        with self._turn:
            self._is_awaited = not (self._idle or self.closed)
            return not self._is_awaited

    def _next_handed(self) -> tuple[int, paramiko.Message]:
        """The next message that was handed over; meanwhile look after new keys and keepalives."""
        with self._turn:
            while not self._inbox:
                if self.closed:
                    raise self.lost or EOFError
                if self._rekey_due:
                    self._rekey_due = self._idle = False
                    raise NeedRekeyException
                self._idle = True
                self._turn.notify_all()
                if self._is_awaited and self.link is not None:
                    self._is_awaited = False
                    self.link.wake()
                if not self._turn.wait(self._silence.interval):
                    break
            self._idle = False
            if self._inbox and self._skips:
                self._skips = False
                self._inbox.popleft()
            if self._inbox:
                return self._inbox.popleft()
        self._check_keepalive()
        raise NeedRekeyException  # the Transport then calls again, as after any wait that brought nothing

    @property
    def closed(self) -> bool:
        """The stream has ended, or the Transport has given it up."""
        return self._ended or bool(super().closed)

    def give_up(self, error: BaseException) -> None:
        """End the stream, for this reason."""
        self.lost = error
        self.close()

    def close(self) -> None:
        """End the stream. Once parked, its Link closes it: a descriptor that another thread polls must live."""
        self._ended = True
        if self.link is None:
            try:
                super().close()
            except EOFError:
                pass  # a channel whose transport has ended cannot say that it is closed
        with self._turn:
            self._turn.notify_all()
        if self.link is not None:
            self.link.wake()
        elif self.reader is not None:
            self.reader.wake()


def _check_same_kind(before: tuple[str, int, bool] | None, keys: Keys) -> tuple[str, int, bool]:
    """Refuse a rekey to other algorithms: the most that a packet adds to its data is computed only once.

    Both sides choose from the same lists as before, so this does not happen in practice.
    """
    if before not in (None, keys.kind):
        raise paramiko.SSHException("the server rekeyed to another kind of cipher")
    return keys.kind
