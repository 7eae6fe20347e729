"""A channel that is opened by a thread of its own: it may not be wanted in the end, or its hop be dead.

A relay first says how it was called, and only then, when ssh has read its
files, what that means. Who was called so before most likely wants the same
again: the channel to there is asked for meanwhile. It is only ever used when
it leads through the very same hops to the very same place.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from relay.errors import RelayError, TimedOut
from relay.run.progress import Progress
from relay.share.hops import ANSWER

if TYPE_CHECKING:
    from relay.contract import Stream
    from relay.share.hops import SharedHop


WORDS_MOST = 100  # lines that are kept


class Ahead:
    """The channel: from hop to host and port, netcat as for Session.forward. `take` it or `drop` it."""

    def __init__(self, hop: SharedHop, host: str, port: int, netcat: str | None) -> None:
        self.hop = hop
        self.to = (host, port)
        self._netcat = netcat
        self._words = _Words()
        self._stream: Stream | None = None
        self._error: RelayError | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._dropped = False
        threading.Thread(target=self._open, daemon=True).start()

    def take(self, progress: Progress) -> Stream | None:
        """The channel, once it is there; None when the hop is dead. Raises RelayError."""
        self._words.go_to(progress)
        progress.stage("waiting for the hop to connect")
        try:
            if not self._done.wait(progress.left(ANSWER)) and not self.hop.responds(ANSWER):
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

    def drop(self) -> None:
        """It is not wanted: close it, now or when it is there."""
        with self._lock:
            self._dropped = True
            if self._stream is not None:
                self._stream.close()

    def _open(self) -> None:
        try:
            stream = self.hop.forward(*self.to, self._words, self._netcat)
            with self._lock:
                self._stream = stream
                if self._dropped:
                    stream.close()
        except RelayError as error:
            self._error = error
        finally:
            self._done.set()


class _Words(Progress):
    """What is to be told meanwhile, by a netcat say: kept until it is known whom to tell."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._to: Progress | None = None
        self._kept: list[tuple[str, str]] = []

    def tell(self, text: str, *, place: str = "") -> None:
        """Tell it, or keep it."""
        with self._lock:
            if self._to is not None:
                self._to.tell(text, place=place)
            elif len(self._kept) < WORDS_MOST:
                self._kept.append((text, place))

    def go_to(self, progress: Progress) -> None:
        """Tell it to this one from now on."""
        with self._lock:
            self._to = progress
            for text, place in self._kept:
                progress.tell(text, place=place)
            self._kept.clear()
