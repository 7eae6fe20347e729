"""paramiko's Transport with OpenSSH's habits.

With negotiation.py, which it stands on, the only file that overrides methods of paramiko's Transport (its minor version
is pinned; tests/ssh/wire/test_paramiko.py fails when those methods change). It knows nothing of routes, trust decisions
or logins.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from struct import Struct

from relay.errors import in_seconds, printable
from relay.ssh.wire import extensions
from relay.ssh.wire.causes import in_words
from relay.ssh.wire.ciphers import preferred
from relay.ssh.wire.library import Message, paramiko
from relay.ssh.wire.link import HELD_MOST, LAST_WORD
from relay.ssh.wire.negotiation import Negotiation
from relay.ssh.wire.numbers import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_DATA,
    cMSG_CHANNEL_OPEN,
    cMSG_GLOBAL_REQUEST,
    cMSG_IGNORE,
    cMSG_REQUEST_FAILURE,
)
from relay.ssh.wire.opening import Opening, Refused
from relay.ssh.wire.packets import Packetizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any, ClassVar

    from relay.run.progress import Progress
    from relay.ssh.trust.update import Update

# paramiko has time-outs of its own for each step; the deadline of the whole set-up takes their place.
_NEVER = 86_400.0
_LOOK_ROUND = 0.1  # seconds between two looks whether the transport still lives
_CONFIRMED = Struct(">4I")  # our number of a channel, the server's, its window, its largest packet
LEAST = 128  # bytes of a channel's packet: a packet of the next hop must fit in one
_ORIGIN = ("127.0.0.1", 65535)  # where a channel's connection is said to come from


class Seen(dict[int, bool]):
    """The numbers of all channels that have been asked for. paramiko ends without a word at any other one."""

    def __contains__(self, number: object) -> bool:
        if not super().__contains__(number):
            raise paramiko.SSHException(f"the server speaks of channel {number}, which nobody has opened")
        return True


class DeadLink(paramiko.SSHException):
    """The server has left ServerAliveCountMax requests unanswered."""


class Disconnected(paramiko.SSHException):
    """The server sent SSH_MSG_DISCONNECT (RFC 4253 section 11.1); its text is the message."""


def _feed(channel: paramiko.Channel, m: Message) -> None:
    """Data that no Link moves: paramiko takes it whatever the window (RFC 4254 section 5.2), and after the end, too."""
    channel._feed(_within_window(channel, m))


def _feed_stderr(channel: paramiko.Channel, m: Message) -> None:
    """Stderr that no Link moves. It counts against the window, even where no command reads it."""
    m.get_int()  # SSH_EXTENDED_DATA_STDERR, the only type
    channel.in_stderr_buffer.feed(_within_window(channel, m))


def _heed_request(channel: paramiko.Channel, m: Message) -> None:
    """A request that no Link has taken. paramiko keeps a command's status, but not that a signal killed it."""
    at = m.packet.tell()
    if m.get_text() == "exit-signal":  # RFC 4254 section 6.10
        channel.transport.killed.add(channel.chanid)
    m.packet.seek(at)
    channel._handle_request(m)


def _within_window(channel: paramiko.Channel, m: Message) -> bytes:
    """The data that a message ends with. (paramiko would make up what is missing.)"""
    data: bytes = m.get_remainder()[4:]
    if m.get_int() != len(data):
        raise paramiko.SSHException("data whose length is not the one stated")
    room = 0
    if not channel.eof_received:
        unread = len(channel.in_buffer) + len(channel.in_stderr_buffer)
        room = channel.in_window_size - channel.in_window_sofar - unread
    if len(data) > room:
        raise paramiko.SSHException(f"{len(data)} bytes of data where the window has room for {room}")
    return data


def _sign_of_life() -> Message:
    """A request for one."""
    request = paramiko.Message()
    request.add_byte(cMSG_GLOBAL_REQUEST)
    request.add_string("keepalive@openssh.com")
    request.add_boolean(True)
    return request


class Transport(Negotiation):
    """paramiko's Transport: its order of algorithms, its silent refusals and its time-outs replaced."""

    _channel_handler_table: ClassVar[dict[int, Any]] = {
        **paramiko.Transport._channel_handler_table,
        MSG_CHANNEL_DATA: _feed,
        MSG_CHANNEL_EXTENDED_DATA: _feed_stderr,
        MSG_CHANNEL_REQUEST: _heed_request,
    }
    _saved_exception: BaseException | None = None
    server_extensions: dict[str, bytes]
    _CLIENT_ID = "pyrelay"

    def __init__(
        self, descriptor: socket | None, channel: paramiko.Channel | None, progress: Progress, *, direct: bool = True
    ) -> None:
        """Over a socket, or else over a channel of another Transport. direct: the socket is TCP to the server."""
        super().__init__(descriptor or channel, packetizer_class=partial(Packetizer, channel=channel))
        self._preferred_ciphers = preferred()
        self.banner_timeout = _NEVER
        self.killed: set[int] = set()  # channels whose command a signal has killed, before a Link took them over
        self.update: Update | None = None  # of the server's host keys
        self._progress = progress
        # Whether the connection that reaches the server is another's: a hop's, a proxy's, a master's, a ProxyCommand's.
        self._is_others = channel is not None or not direct
        self._held: list[Message] = []  # what waits for the end of a key exchange
        self._ext_infos = 0  # that have come
        self._answered = threading.Event()  # a keepalive has been
        self._over = threading.Event()
        self.channels_seen = Seen()
        self._openings: dict[int, Opening] = {}  # those that the server has not answered, by the channels' numbers
        self.channels_refused = 0

    def ask(self, kind: str, host: str = "", port: int = 0) -> Opening:
        """Ask for a "session", or for "direct-tcpip" to a host that the server looks up (RFC 4254 section 7.2).

        Raises SSHException, OSError and EOFError when that cannot be sent.
        """
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        with self.lock:
            if self._over.is_set():
                raise self._end()
            number = self._next_channel()
            channel = paramiko.Channel(number)
            window, packet = self._sanitize_window_size(None), self._sanitize_packet_size(None)
            channel._set_transport(self)
            channel._set_window(window, packet)
            self._channels.put(number, channel)
            self.channels_seen[number] = True
            opening = self._openings[number] = Opening(channel, (host, port))
        for value in (number, window, packet):
            message.add_int(value)
        if kind == "direct-tcpip":
            for name, value in ((host, port), _ORIGIN):
                message.add_string(os.fsencode(name))
                message.add_int(value)
        self._send_user_message(message)
        return opening

    @property
    def saved_exception(self) -> BaseException | None:
        """What ended the transport. Whatever paramiko's parsers raise at bytes that are not a message is one error."""
        return self._saved_exception

    @saved_exception.setter
    def saved_exception(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (paramiko.SSHException, OSError, EOFError, MemoryError)):
            unreadable = paramiko.SSHException(in_words(error))
            unreadable.__cause__ = error
            error = unreadable
        self._saved_exception = error

    def _end(self) -> BaseException:
        """What ended the transport."""
        return self.saved_exception or self.packetizer.lost or EOFError()

    def _fail_openings(self) -> None:
        """Nobody answers them any more."""
        with self.lock:
            self._over.set()
            openings, self._openings = list(self._openings.values()), {}
        for opening in openings:
            opening.failed(self._end())

    def carry_acknowledgements(self) -> None:
        """Send a few bytes to be ignored (RFC 4253 section 11.2), for the acknowledgements that they carry.

        The legs between hops are not ours to hasten as Packetizer does; but
        bytes from us carry the acknowledgement on every leg, so that sshd's
        next small packet is not held back for 40 ms.
        """
        if self._is_others and self.clear_to_send.is_set():
            # (paramiko's send_ignore leaves the string's length out, which strict servers take for a broken packet,
            # and waits for the end of a key exchange, which it may itself hold up: this is the thread that reads.)
            message = paramiko.Message()
            message.add_byte(cMSG_IGNORE)
            message.add_string(b"")
            try:
                self._send_message(message)
            except (OSError, EOFError, paramiko.SSHException):
                pass  # what came before the end is still to be read

    def _parse_global_request(self, m: Message) -> None:
        """Whatever it is, it is not granted; paramiko would say so amid a key exchange, too.

        The server's hostkeys-00@openssh.com, which wants no answer, holds back its answer to CHANNEL_OPEN.
        """
        name = m.get_string()
        if m.get_boolean():
            self._send_user_message(paramiko.Message(cMSG_REQUEST_FAILURE))
        self.carry_acknowledgements()
        if self.update is not None:
            self.update.asked(name, m.get_remainder())

    def _parse_channel_open_success(self, m: Message) -> None:
        """Its answer to CHANNEL_OPEN holds back the first bytes of what the channel leads to."""
        number, *theirs = _CONFIRMED.unpack_from(m.asbytes())
        opening = self._openings.pop(number, None)
        if opening is not None:
            opening.channel._set_remote_channel(*theirs)
            opening.channel.out_max_packet_size = max(theirs[-1], LEAST)  # paramiko makes 4096 of less
            if not opening.opened():
                opening.channel.close()
        self.carry_acknowledgements()

    def _send_user_message(self, data: Message) -> None:
        """Send a message when no key exchange is under way (RFC 4253 section 7.1), or else after it, in order.

        paramiko makes each thread wait for the key exchange, for a limited
        time. That includes its own thread, which answers what the server sent
        before its KEXINIT and without which no key exchange ends. Here only
        the threads that send data wait.
        """
        if (link := self.packetizer.link) is not None:
            link.post(data.asbytes())
            return
        with self.clear_to_send_lock:
            if self.clear_to_send.is_set() and not self._held:
                self._send_message(data)
                return
            self._held.append(data)
            if len(self._held) > HELD_MOST:
                raise paramiko.SSHException("the server does not finish a key exchange")
        while data.asbytes()[:1] == cMSG_CHANNEL_DATA and self.active and not self.clear_to_send.wait(_LOOK_ROUND):
            pass

    def _activate_outbound(self) -> None:
        """Our new keys. What we say of extensions comes right after the first ones (RFC 8308 section 2.4)."""
        self.packetizer.holds = not self.initial_kex_done  # the request for the login follows
        super()._activate_outbound()
        if not self.initial_kex_done and extensions.SERVERS in self.remote_lists.get("kex_algo_list", ()):
            self._send_message(Message(extensions.OURS))
        self.packetizer.holds = False

    def _parse_newkeys(self, m: Message) -> None:
        """The end of a key exchange: send what it has held up."""
        super()._parse_newkeys(m)
        with self.clear_to_send_lock:
            held, self._held = self._held, []
            for message in held:
                self._send_message(message)

    def keep_alive(self, interval: float, most: int) -> None:
        """Send a keepalive after interval seconds of silence. After `most` without an answer the link is dead.

        What ServerAliveInterval and ServerAliveCountMax say (clientloop.c,
        server_alive_check). paramiko's own keepalive wants no answer, so it
        never notices a dead link.
        """

        def ask(silences: int) -> None:
            if silences > most:
                raise DeadLink(f"no answer to {most} keepalive{'s' * (most != 1)} in {in_seconds(interval * most)}")
            # Not between KEXINIT and NEWKEYS, nor behind a sender that may be waiting for a dead server.
            if self.clear_to_send_lock.acquire(blocking=False):
                try:
                    if self.clear_to_send.is_set():
                        self._send_message(_sign_of_life())
                finally:
                    self.clear_to_send_lock.release()

        self.packetizer.set_keepalive(interval, ask)

    def quiet_for(self) -> float:
        """Seconds since something has come on this, as far as that is known: only once it has been taken over."""
        link = self.packetizer.link
        return abs(time.time() - link.heard) if link is not None else float("inf")

    def probe(self, seconds: float) -> bool:
        """Whether the server answers a keepalive within so many seconds."""
        self._answered.clear()
        try:
            self._send_user_message(_sign_of_life())
        except (OSError, EOFError):
            return False
        return self._answered.wait(seconds) and self.is_active()

    def limit_keys(self, size: int, seconds: float) -> None:
        """Ask for new keys after so many bytes and so many seconds, each 0 for no limit of its own (RekeyLimit)."""
        if size:
            self.packetizer.REKEY_BYTES = min(self.packetizer.REKEY_BYTES, size)  # as packet.c, ssh_set_newkeys
        if seconds:
            threading.Thread(target=self._rekey_every, args=(seconds,), daemon=True).start()

    def _rekey_every(self, seconds: float) -> None:
        while not self._over.wait(seconds) and self.is_active():
            if not self.packetizer.need_rekey():
                self.packetizer._trigger_rekey()

    def run(self) -> None:
        """The transport's thread; at its end, whatever that is, those end that look after it."""
        try:
            super().run()
        finally:
            self._fail_openings()
            if self.packetizer.reader is not None:
                self.packetizer.reader.close()

    def stop_thread(self) -> None:
        """End the transport and its helpers. (paramiko's method needs what only Python's sockets have.)"""
        self.active = False
        self.packetizer.close()
        self._fail_openings()

    def leave(self) -> None:
        """Tell the server that we leave."""
        if self.active:
            try:
                self._send_message(Message(LAST_WORD))
            except (OSError, EOFError, paramiko.SSHException):
                pass  # it has left before

    def close(self) -> None:
        """Close the transport, also one that was never started. paramiko does not close those."""
        super().close()
        if self.ident is None:
            self._over.set()
            self.sock.close()

    def _parse_request_success(self, m: Message) -> None:
        """An answer to a keepalive, or one with bytes in it, which no keepalive has: the link is alive."""
        self._answered.set()
        if self.update is not None and (proofs := m.get_remainder()):
            self.update.proven(proofs)

    _parse_request_failure = _parse_request_success

    def _check_banner(self) -> None:
        """To a server that has taken it, our KEXINIT goes out with our ident, before its own is waited for.

        That is a round trip less; RFC 4253 section 7.1 lets either side send
        it first. What follows is the key exchange.
        """
        if self.early:
            self.begin_ahead()
        super()._check_banner()
        if (channel := self.packetizer.channel) is not None:
            channel.transport.carry_acknowledgements()
        self._progress.heard()
        self._progress.learn("ident", printable(self.remote_version))
        self._progress.stage("key exchange")

    def _parse_ext_info(self, m: Message) -> None:
        """Read the server's extensions. (paramiko loops as often as the message's count says.)"""
        self._ext_infos += 1
        self.server_extensions = extensions.heard(self.server_extensions, m.asbytes(), self._ext_infos)

    def _parse_disconnect(self, m: Message) -> None:
        """Keep the reason, which paramiko only logs."""
        m.get_int()
        text = printable(m.get_string().decode(errors="replace"))
        self.saved_exception = Disconnected(text or "it does not say why")

    def get_exception(self) -> BaseException | None:
        """Why the transport has ended. paramiko would forget the reason after the first call."""
        return self.saved_exception

    def _parse_channel_open_failure(self, m: Message) -> None:
        """Keep the server's text, which paramiko only logs."""
        number, reason, text = m.get_int(), m.get_int(), m.get_string()
        opening = self._openings.pop(number, None)
        if opening is not None:
            self._channels.delete(number)
            self.channels_refused += 1
            opening.failed(Refused(reason, printable(text.decode(errors="replace"))))
