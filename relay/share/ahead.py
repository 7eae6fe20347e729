"""A channel that is opened ahead of time, in its own thread.

A relay first sends its command line. It sends the route only later, when ssh
has read its files. An earlier relay with the same command line most likely
wanted the same channel, so the holder opens that one meanwhile. The relay gets
it only if its route has the same hops and the same target.

In the end the channel may not be needed, or its hop may be dead.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from relay.errors import RelayError, TimedOut
from relay.run.progress import Progress
from relay.share.hops import ANSWER

if TYPE_CHECKING:
    from relay.contract import Netcat, Stream
    from relay.share.hops import SharedHop


WORDS_MOST = 100  # lines that are kept


class Ahead:
    """A channel from hop to host and port. Call `take` or `drop` once. netcat, limit: as for Session.forward."""

    def __init__(self, hop: SharedHop, host: str, port: int, netcat: Netcat | None, limit: float | None = None) -> None:
        self.hop = hop
        self.to = (host, port)
        self._netcat = netcat
        self._limit = limit
        self._words = _Words()
        self._stream: Stream | None = None
        self._error: RelayError | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._dropped = False
        threading.Thread(target=self._open, daemon=True).start()

    def take(self, progress: Progress) -> Stream | None:
        """Wait for the channel and return it; None when the hop is dead. Raises RelayError."""
        self._words.go_to(progress)
        progress.stage("waiting for the hop to connect")
        try:
            if self._is_dead(progress):
                self.drop()
                return None
            if not self._done.wait(progress.left()):
                raise progress.timed_out()
        except TimedOut:
            self.drop()
            raise
        if self._error is not None:
            if not self.hop.alive:
                return None
            raise self._error
        return self._stream

    def _is_dead(self, progress: Progress) -> bool:
        """Wait for the channel, but not for a hop that shows no sign of life: one that was quiet is asked at once."""
        if self._done.is_set():
            return False
        return not self.hop.responds() or not (self._done.wait(progress.left(ANSWER)) or self.hop.responds(ANSWER))

    def drop(self) -> None:
        """No longer wanted: close the channel if it is open, or as soon as it opens."""
        with self._lock:
            self._dropped = True
            if self._stream is not None:
                self._stream.close()

    def _open(self) -> None:
        try:
            stream = self.hop.forward(*self.to, self._words, self._netcat, self._limit)
            with self._lock:
                self._stream = stream
                if self._dropped:
                    stream.close()
        except RelayError as error:
            self._error = error
        finally:
            self._done.set()


class _Words(Progress):
    """Keeps the lines that are said while the channel opens (by a netcat, say) until a relay takes the channel."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._to: Progress | None = None
        self._kept: list[tuple[str, str]] = []

    def tell(self, text: str, *, place: str = "") -> None:
        """Pass the line on to the relay, or keep it while there is none."""
        with self._lock:
            if self._to is not None:
                self._to.tell(text, place=place)
            elif len(self._kept) < WORDS_MOST:
                self._kept.append((text, place))

    def go_to(self, progress: Progress) -> None:
        """Pass the kept lines on to this Progress, and all later ones."""
        with self._lock:
            self._to = progress
            for text, place in self._kept:
                progress.tell(text, place=place)
            self._kept.clear()
