"""A channel that a server has been asked to open, and what it answers (RFC 4254 section 5.1).

paramiko's open_channel asks and waits in one; here they are two, because a
login may ask on its way for what is wanted after it.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_OPEN

if TYPE_CHECKING:
    from relay.ssh.wire.transport import Transport

_LOOK_ROUND = 0.1  # seconds between two looks whether the transport still lives
_ORIGIN = ("127.0.0.1", 65535)  # where the connection is said to come from


class Refused(paramiko.SSHException):
    """The server refused to open a channel; its text is the message."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Opening:
    """A channel that has been asked for: `wait` for it or `drop` it.

    to: the host and port that it is to lead to.
    """

    def __init__(self, transport: Transport, kind: str, host: str = "", port: int = 0) -> None:
        """Ask for a "session", or for "direct-tcpip" to a host that the server looks up (section 7.2).

        Raises SSHException, OSError and EOFError when that cannot be sent.
        """
        self.to = host, port
        self._transport = transport
        self._answered = threading.Event()
        self._refusal: Refused | None = None
        self._dropped = False
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        with transport.lock:
            self._number = transport._next_channel()
            self._channel = paramiko.Channel(self._number)
            window, packet = transport._sanitize_window_size(None), transport._sanitize_packet_size(None)
            self._channel._set_transport(transport)
            self._channel._set_window(window, packet)
            transport._channels.put(self._number, self._channel)
            transport.channels_seen[self._number] = True
            transport.openings[self._number] = self
        for number in (self._number, window, packet):
            message.add_int(number)
        if kind == "direct-tcpip":
            for name, number in (self.to, _ORIGIN):
                message.add_string(name)
                message.add_int(number)
        transport._send_user_message(message)

    def wait(self, seconds: float | None = None) -> paramiko.Channel:
        """The channel, in so many seconds if that is bounded. Raises Refused, or else what ended the transport."""
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        while not self._answered.wait(_LOOK_ROUND) and self._transport.active:
            if time.monotonic() > end:
                self.drop()
                raise paramiko.SSHException(f"no answer in {seconds:.0f} seconds")
        if self._refusal is not None:
            raise self._refusal
        if not self._answered.is_set():
            raise self._transport.saved_exception or EOFError
        return self._channel

    def drop(self) -> None:
        """It is not wanted any more: it is closed when it opens after all, or has."""
        with self._transport.lock:
            self._dropped = True
        self._transport._channels.delete(self._number)
        if self._answered.is_set():
            with suppress(OSError, EOFError, paramiko.SSHException):
                self._channel.close()

    # What the transport's thread calls, once

    def opened(self, number: int, window: int, packet: int) -> None:
        """The server has opened it, and says its own number of the channel, and how much it takes."""
        with self._transport.lock:
            if not self._dropped:
                self._channel._set_remote_channel(number, window, packet)
                self._answered.set()
                return
        close = paramiko.Message()
        close.add_byte(cMSG_CHANNEL_CLOSE)
        close.add_int(number)
        self._transport._send_user_message(close)

    def refused(self, reason: int, text: str) -> None:
        """The server does not open it, and says why; the text is clean."""
        self._transport._channels.delete(self._number)
        self._refusal = Refused(reason, text)
        self._answered.set()
