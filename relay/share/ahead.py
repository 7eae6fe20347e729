"""A channel from a shared hop, opened in its own thread, and where that can be ahead of time.

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


GRACE = 5.0  # seconds that a hop has to open a channel after the deadline of the relay that it is for
WORDS_MOST = 100  # lines that are kept


class Ahead:
    """A channel from hop to host and port. Call `take` or `drop` once. netcat: as for Session.forward.

    progress: the relay's, where it is known already that the relay wants this channel. Raises RuntimeError when no
    more threads may be started; a channel that has been asked for is then closed like one that nobody holds any more.
    """

    def __init__(
        self, hop: SharedHop, host: str, port: int, netcat: Netcat | None, progress: Progress | None = None
    ) -> None:
        self.hop = hop
        self.to = (host, port)
        self._netcat = netcat
        self._limit = progress.left() + GRACE if progress is not None else None
        # In this thread, which runs: the one that waits for the answer may have to wait for a processor first.
        self._asked = None if netcat is not None and netcat.named else hop.ask(self.to)
        self._words = _Words(progress)
        self._stream: Stream | None = None
        self._error: RelayError | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._dropped = False
        threading.Thread(target=self._open, daemon=True).start()

    def take(self, progress: Progress) -> Stream | None:
        """Wait for the channel and return it; None when the hop is dead. Raises RelayError."""
        self._words.go_to(progress)
        try:
            if self._is_dead(progress):
                self.drop()
                return None
            while not self._done.wait(progress.left()):  # the clock may have stood still: a master asks its person
                pass
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
        self._words.leave()
        with self._lock:
            self._dropped = True
            if self._stream is not None:
                self._stream.close()

    def _open(self) -> None:
        try:
            stream = self.hop.forward(*self.to, self._words, self._netcat, self._limit, asked=self._asked)
            with self._lock:
                self._stream = stream
                if self._dropped:
                    stream.close()
        except RelayError as error:
            self._error = error
        finally:
            self._done.set()


class _Words(Progress):
    """What is said while the channel opens (by a netcat, say): for the relay's Progress; kept until there is one."""

    def __init__(self, to: Progress | None) -> None:
        super().__init__(verbosity=to.verbosity if to is not None else 0)
        self._lock = threading.RLock()
        self._to = to
        self._kept: list[tuple[str, str]] = []
        self._asking = False

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins: the relay's, once there is one."""
        with self._lock:
            self.doing, self.hint = doing, hint
            if self._to is not None:
                self._to.stage(doing, hint=hint)

    def pause(self) -> None:
        """A person is asked something: the relay's clock stands still."""
        with self._lock:
            self._asking = True
            if self._to is not None:
                self._to.pause()

    def resume(self) -> None:
        """The person has answered."""
        with self._lock:
            if self._asking and self._to is not None:
                self._to.resume()
            self._asking = False

    def remaining(self) -> float:
        """Seconds left until the relay's deadline."""
        to = self._to
        return to.remaining() if to is not None else super().remaining()

    def timed_out(self) -> TimedOut:
        """The relay's deadline has passed."""
        to = self._to
        return to.timed_out() if to is not None else super().timed_out()

    def tell(self, text: str, *, place: str = "") -> None:
        """Pass the line on to the relay, or keep it while there is none."""
        with self._lock:
            if self._to is not None:
                self._to.tell(text, place=place)
            elif len(self._kept) < WORDS_MOST:
                self._kept.append((text, place))

    def go_to(self, progress: Progress) -> None:
        """Pass the stage and the kept lines on to this Progress, and all later ones; nothing if they go there now."""
        with self._lock:
            if self._to is progress:
                return
            self._to = progress
            self.verbosity = progress.verbosity
            progress.stage(self.doing or "waiting for the hop to connect", hint=self.hint)
            if self._asking:
                progress.pause()
            for text, place in self._kept:
                progress.tell(text, place=place)
            self._kept.clear()

    def leave(self) -> None:
        """Nobody wants the channel: nothing more is passed on."""
        with self._lock:
            self.resume()
            self._to = None
