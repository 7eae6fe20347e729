"""A channel that a server has been asked to open, and what it answers (RFC 4254 section 5.1).

paramiko's open_channel asks and waits in one; here they are two, because a
login may ask on its way for what is wanted after it. Transport.ask makes one,
and the transport's thread answers it.
"""

from __future__ import annotations

from threading import Event, Lock

from relay.errors import in_seconds
from relay.ssh.wire.library import SSHException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.wire.library import paramiko


class Refused(SSHException):
    """The server refused to open a channel; its text is the message."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Opening:
    """A channel that has been asked for: `wait` for it or `drop` it.

    channel: the channel, which is of use once the server has opened it. to: the host and port that it is to lead to.
    """

    def __init__(self, channel: paramiko.Channel, to: tuple[str, int]) -> None:
        self.channel = channel
        self.to = to
        self._lock = Lock()
        self._answered = Event()
        self._failure: BaseException | None = None
        self._dropped = False

    def wait(self, seconds: float | None = None) -> paramiko.Channel:
        """The channel, in so many seconds if that is bounded. Raises Refused, or else what ended the transport."""
        if not self._answered.wait(seconds):
            self.drop()
            raise SSHException(f"no answer in {in_seconds(round(seconds or 0))}")
        if self._failure is not None:
            raise self._failure
        return self.channel

    def drop(self) -> None:
        """No longer wanted: close it if it is open, or as soon as it opens."""
        with self._lock:
            self._dropped = True
            is_open = self._answered.is_set() and self._failure is None
        if is_open:
            try:
                self.channel.close()
            except (OSError, EOFError, SSHException):
                pass

    # What the transport calls; the first answer counts

    def opened(self) -> bool:
        """The server has opened the channel. Whether it is still wanted; else the caller closes it."""
        with self._lock:
            self._answered.set()
            return not self._dropped

    def failed(self, error: BaseException) -> None:
        """The server does not open it, or the transport has ended before it said so."""
        with self._lock:
            if not self._answered.is_set():
                self._failure = error
                self._answered.set()
