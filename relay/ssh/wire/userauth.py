"""The authentication protocol (RFC 4252): requests, and what the server answers.

This replaces paramiko's AuthHandler, which cannot do four things: ask whether
the server accepts a key before the key is used (PK_OK), tell a partial success
from a failure, say which methods the server accepts, and show the banner.
paramiko's thread only receives messages. The thread that logs in waits for them
and does everything else. This module decides nothing and prompts nobody.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue  # the module queue imports heapq and more
from threading import Event

from relay.errors import RelayError, printable
from relay.ssh.pubkey import BadKey, Reader, string
from relay.ssh.record import Record
from relay.ssh.wire.causes import in_words
from relay.ssh.wire.library import Message, SSHException
from relay.ssh.wire.numbers import (
    MSG_SERVICE_ACCEPT,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_INFO_REQUEST,
    MSG_USERAUTH_SUCCESS,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_INFO_RESPONSE,
    cMSG_USERAUTH_REQUEST,
)
from relay.ssh.wire.transport import Disconnected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    from relay.config.settings import HopSettings
    from relay.run.progress import Progress
    from relay.ssh.wire.opening import Opening
    from relay.ssh.wire.transport import Transport

_LOOK_ROUND = 1.0  # seconds between two checks that the link is alive
_BANNER_CHARACTERS = 8192
_BANNER_LINES = 60
_MOST_IN_VAIN = 3


def _show_nothing(_line: str) -> bool:
    """Drop a banner that comes after the login."""
    return False


def who(settings: HopSettings) -> str:
    """user@host as the route spells it, for prompts and messages."""
    return f"{settings.user}@{settings.name}"


class LinkLost(RelayError):
    """The link ended before the login did.

    disconnected: the server said why (SSH_MSG_DISCONNECT). refused: it had refused a login, before or by that.
    """

    def __init__(self, cause: str, *, disconnected: bool = False, refused: bool = False, hint: str = "") -> None:
        super().__init__(cause, hint=hint)
        self.disconnected = disconnected
        self.refused = refused


class Success(Record):
    """Logged in."""


class Failure(Record):
    """Not logged in (yet).

    methods: those that can continue. partial: the server granted this request
    and requires another method, too.
    """

    methods: tuple[str, ...]
    partial: bool


class More(Record):
    """Message 60. Its meaning depends on the request's method: PK_OK, PASSWD_CHANGEREQ or INFO_REQUEST."""

    body: Reader


Answer: TypeAlias = Success | Failure | More


class Dialogue:
    """The login of one user over a transport whose keys have been exchanged.

    banner: shows a line of the server's banner; returns whether a person can see it. The lines are clean and limited in
    number. After a line that is seen, the default deadline stands still until the server's answer.
    ask: requests the channel for after the login, where the request may be sent together with the last login request.
    opening: that channel, unless the request for it failed. channel_was_too_early: the server rejected the channel's
    request as too early, though the login succeeded.
    """

    def __init__(
        self,
        transport: Transport,
        user: str,
        progress: Progress,
        banner: Callable[[str], bool],
        ask: Callable[[], Opening] | None = None,
    ) -> None:
        self.username = user
        self._transport = transport
        self._progress = progress
        self._show = banner
        self._ask_for_channel = ask
        self.opening: Opening | None = None
        self._came: SimpleQueue[Answer | str | None] = SimpleQueue()  # str: a banner; None: the link ended
        self._owed = 0  # answers that the server still has to send
        self._in_vain = 0  # failed early requests for a channel; the transport keeps each
        self._refused_before = 0  # channels, when the last request was sent
        self._too_early = False  # the server did not understand a message: perhaps the early CHANNEL_OPEN
        self.channel_was_too_early = False
        self.refusals = 0  # login requests that the server has refused
        self._accepted = Event()  # the server has answered the request for the service
        self._banner_left = _BANNER_CHARACTERS
        self._lines_left = _BANNER_LINES
        transport.auth_handler = self
        self._send(cMSG_SERVICE_REQUEST + string(b"ssh-userauth"))

    def leave(self) -> None:
        """Forget the callbacks after the login. The transport keeps this object."""
        self._show, self._ask_for_channel = _show_nothing, None

    def request(self, method: str, fields: bytes = b"") -> Answer:
        """Send a login request (section 5). fields: what the method adds. Raises LinkLost and TimedOut."""
        return self._noted(method, self._ask(self._request(method, fields)))

    def request_last(self, method: str, fields: bytes) -> Answer:
        """Send a login request that will probably succeed, and request the channel for after the login with it.

        A server that refuses the login ignores the channel's request (_may_ask_on_the_way, enter.py). So does a server
        that reads the channel's request before it grants the login: the caller must request the channel again.
        """
        self._too_early = False
        self._refused_before = self._transport.channels_refused
        ask = self._ask_for_channel if self._in_vain < _MOST_IN_VAIN else None
        answer = self._noted(method, self._ask(self._request(method, fields), ask))
        if self.opening is not None and (self._too_early or not isinstance(answer, Success)):
            self.channel_was_too_early |= isinstance(answer, Success)
            self.opening.drop()
            self.opening = None
            self._in_vain += 1
        return answer

    def respond(self, answers: list[bytes]) -> Answer:
        """Answer an INFO_REQUEST (RFC 4256 section 3.4). Raises LinkLost and TimedOut."""
        message = cMSG_USERAUTH_INFO_RESPONSE + len(answers).to_bytes(4, "big")
        return self._noted("keyboard-interactive", self._ask(message + b"".join(string(answer) for answer in answers)))

    def _noted(self, method: str, answer: Answer) -> Answer:
        """Return the answer. Count a refusal, except of `none`, which only asks for the accepted methods."""
        self.refusals += isinstance(answer, Failure) and not answer.partial and method != "none"
        return answer

    @property
    def session(self) -> tuple[bytes, bytes, bytes]:
        """The server's host key blob, the session's identifier, and the host key's signature of the identifier."""
        return self._transport.host_key_blob, self._transport.session_id, self._transport.host_key_signature

    @property
    def server_version(self) -> str:
        """The server's ident."""
        return str(self._transport.remote_version)

    def to_be_signed(self, method: str, fields: bytes) -> bytes:
        """The bytes that the signature of a request covers (section 7)."""
        return string(self._transport.session_id) + self._request(method, fields)

    def await_extensions(self) -> None:
        """Wait until the server's extensions from before the login are known. This takes at most a round trip.

        The server's EXT_INFO comes before its answer to the request for the
        service (RFC 8308 section 2.4). Raises LinkLost and TimedOut.
        """
        while not self._transport.server_extensions and not self._accepted.wait(self._progress.left(_LOOK_ROUND)):
            if not self._transport.is_active():
                raise self._lost()

    def extension(self, name: str) -> str | None:
        """The value of an extension in EXT_INFO (RFC 8308); None if the server did not send it."""
        value = self._transport.server_extensions.get(name)
        return None if value is None else bytes(value).decode(errors="replace")

    # Called by paramiko's thread

    @property
    def _handler_table(self) -> Mapping[int, Callable[[Message], None]]:
        return {
            MSG_SERVICE_ACCEPT: self._served,
            MSG_USERAUTH_SUCCESS: self._succeeded,
            MSG_USERAUTH_FAILURE: self._failed,
            MSG_USERAUTH_BANNER: self._bannered,
            MSG_USERAUTH_INFO_REQUEST: lambda m: self._put(More(Reader(m.asbytes()))),
            MSG_UNIMPLEMENTED: self._not_understood,
        }

    def abort(self) -> None:
        """Note that the link has ended."""
        self._accepted.set()
        self._came.put(None)

    def _not_understood(self, _: Message) -> None:
        self._too_early = True

    def _served(self, _: Message) -> None:
        """SERVICE_ACCEPT: the server holds back its answer to the request that came along with ours for the service."""
        self._accepted.set()
        self._transport.carry_acknowledgements()

    def _succeeded(self, _: Message) -> None:
        """USERAUTH_SUCCESS: the server holds back its answer to the CHANNEL_OPEN that came along with the request.

        Where that has been refused before, it was read too early.
        """
        self._too_early |= self._transport.channels_refused > self._refused_before
        self._put(Success())
        self._transport.carry_acknowledgements()

    def _failed(self, message: Message) -> None:
        reader = Reader(message.asbytes())
        try:
            methods, partial = reader.string(), reader.number(1) != 0
        except BadKey as error:
            raise SSHException("a USERAUTH_FAILURE that cannot be read") from error
        self._put(Failure(tuple(printable(methods.decode(errors="replace"), 1000).split(",")), partial))

    def _bannered(self, message: Message) -> None:
        """Keep only as much of the banners as will be shown. A server could send them endlessly."""
        if self._banner_left <= 0:
            return
        text = message.get_string()[: 4 * self._banner_left].decode(errors="replace")[: self._banner_left]
        self._banner_left -= max(1, len(text))
        if self._banner_left <= 0:
            text += "\n(cut here)"
        self._came.put(text)

    def _put(self, answer: Answer) -> None:
        if not self._owed:
            raise SSHException("the server answers what it was not asked")
        self._owed -= 1
        self._came.put(answer)

    # Called by the thread that logs in

    def _send(self, message: bytes) -> None:
        """Send a message. It waits until a running key exchange is over. Raises LinkLost."""
        try:
            self._transport._send_user_message(Message(message))
        except (SSHException, OSError, EOFError) as error:
            raise self._lost() from error

    def _request(self, method: str, fields: bytes) -> bytes:
        names = (os.fsencode(self.username), b"ssh-connection", method.encode())
        return bytes(cMSG_USERAUTH_REQUEST + b"".join(string(name) for name in names) + fields)

    def _ask(self, message: bytes, ask: Callable[[], Opening] | None = None) -> Answer:
        """Send, wait for the answer, and show banners that come first. Raises LinkLost and TimedOut."""
        self._owed += 1
        self._send(message)
        if ask is not None:
            try:
                self.opening = ask()
            except (SSHException, OSError, EOFError):
                pass  # the answer came before the link ended, or _lost says why
        patient = False
        try:
            while True:
                try:
                    came = self._came.get(timeout=self._progress.left(_LOOK_ROUND))
                except Empty:
                    if self._transport.is_active():
                        continue
                    came = None
                if came is None:
                    raise self._lost()
                if not isinstance(came, str):
                    return came
                if self._banner(came) and not patient:
                    patient = self._progress.be_patient()
        finally:
            if patient:
                self._progress.end_patience()

    def _banner(self, text: str) -> bool:
        """Show the printable part of a banner. Section 5.4 says to filter control characters.

        It returns whether a person can see it.
        """
        seen = False
        for line in text.expandtabs().splitlines():
            clean = "".join(c for c in line if c.isprintable()).rstrip()
            if clean and self._lines_left > 0:
                self._lines_left -= 1
                seen = self._show(clean)
        return seen

    def _lost(self) -> LinkLost:
        """Why the link ended."""
        error: Any = self._transport.saved_exception
        if isinstance(error, Disconnected):
            # OpenSSH says so in place of the last FAILURE (auth_maxtries_exceeded).
            refused = self.refusals > 0 or "too many authentication failures" in str(error).lower()
            return LinkLost(str(error), disconnected=True, refused=refused)
        # A server that closes with our early CHANNEL_OPEN unread resets the connection: this is an ordinary end.
        unread = self.opening is not None and isinstance(error, ConnectionResetError)
        if error is None or unread or isinstance(error, EOFError):
            return LinkLost("the server closed the connection", refused=self.refusals > 0)
        return LinkLost(f"the connection was lost: {in_words(error)}", refused=self.refusals > 0)
