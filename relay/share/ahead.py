"""A channel that is opened before it is known that it is wanted.

A relay first says how it was called, and only then, when ssh has read its
files, what that means. Who was called so before most likely wants the same
again: the channel to there is asked for meanwhile. It is only ever used when
it leads through the very same hops to the very same place.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.progress import Progress
from relay.share.hops import ANSWER

if TYPE_CHECKING:
    from relay.share.hops import SharedHop
    from relay.ssh.channel import ChannelStream


class Ahead:
    """The channel: from hop to host and port, netcat as for Session.forward. `take` it or `drop` it."""

    def __init__(self, hop: SharedHop, host: str, port: int, netcat: str | None) -> None:
        self.hop = hop
        self.to = (host, port)
        self._netcat = netcat
        self._stream: ChannelStream | None = None
        self._error: RelayError | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._dropped = False
        threading.Thread(target=self._open, daemon=True).start()

    def take(self, progress: Progress) -> ChannelStream | None:
        """The channel, once it is there; None when the hop is dead. Raises RelayError."""
        progress.stage("waiting for the hop to connect")
        if not self._done.wait(min(ANSWER, progress.left())) and not self.hop.responds():
            self.drop()
            return None
        if not self._done.wait(progress.left()):
            raise progress.timed_out()
        if self._error is not None:
            if not self.hop.alive:
                return None
            raise self._error
        return self._stream

    def drop(self) -> None:
        """It is not wanted: close it, now or when it is there."""
        with self._lock:
            self._dropped = True
            if self._stream is not None:
                self._stream.close()

    def _open(self) -> None:
        try:
            if self.hop.session is not None:
                stream = self.hop.session.forward(*self.to, Progress(), self._netcat)
                with self._lock:
                    self._stream = stream
                    if self._dropped:
                        stream.close()
        except RelayError as error:
            self._error = error
        finally:
            self._done.set()
