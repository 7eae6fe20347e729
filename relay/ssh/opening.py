"""A channel that a server has been asked to open, and what it answers (RFC 4254 section 5.1).

paramiko's open_channel asks and waits in one; here they are two, because a
login may ask on its way for what is wanted after it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import cMSG_CHANNEL_OPEN

if TYPE_CHECKING:
    from relay.ssh.transport import Transport

_LOOK_ROUND = 0.1  # seconds between two looks whether the transport still lives
_ORIGIN = ("127.0.0.1", 65535)  # where the connection is said to come from


class Refused(paramiko.SSHException):
    """The server refused to open a channel; its text is the message."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Opening:
    """A channel that has been asked for: `wait` for it or `drop` it.

    kind: "session", or "direct-tcpip" to host and port, which the server looks
    up (section 7.2). refusal: why it does not open it, once it has said so.
    """

    def __init__(self, transport: Transport, kind: str, host: str = "", port: int = 0) -> None:
        """Ask. Raises SSHException, OSError and EOFError when that cannot be sent."""
        self.to = host, port
        self.refusal: Refused | None = None
        self._transport = transport
        message = paramiko.Message()
        with transport.lock:
            self._number = transport._next_channel()
            self._channel = paramiko.Channel(self._number)
            window, packet = transport._sanitize_window_size(None), transport._sanitize_packet_size(None)
            self._channel._set_transport(transport)
            self._channel._set_window(window, packet)
            transport._channels.put(self._number, self._channel)
            transport.channels_seen[self._number] = True
            transport.openings[self._number] = self
            self._answered = transport.channel_events[self._number] = threading.Event()
        message.add_byte(cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        for number in (self._number, window, packet):
            message.add_int(number)
        if kind == "direct-tcpip":
            for name, number in ((host, port), _ORIGIN):
                message.add_string(name)
                message.add_int(number)
        transport._send_user_message(message)

    def wait(self, seconds: float | None = None) -> paramiko.Channel:
        """The channel, in so many seconds if that is bounded. Raises Refused, or else what it ended with."""
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        while not self._answered.wait(_LOOK_ROUND) and self._transport.active:
            if time.monotonic() > end:
                self.drop()
                raise paramiko.SSHException(f"no answer in {seconds:g} seconds")
        if self.refusal is not None:
            raise self.refusal
        if not self._transport.active:
            raise self._transport.saved_exception or EOFError
        return self._channel

    def drop(self) -> None:
        """It is not waited for any more; an answer that still comes is ignored."""
        with self._transport.lock:
            self._transport._channels.delete(self._number)
            self._transport.channel_events.pop(self._number, None)
            self._transport.openings.pop(self._number, None)

    def refuse(self, refusal: Refused) -> None:
        """The server has refused it."""
        self.drop()
        self.refusal = refusal
        self._answered.set()
