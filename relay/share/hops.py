"""Which hops are shared, and who uses them.

A hop is known by everything that decides who and where it is: the way to it,
what ssh_config says of it, the agent, the proxy. Routes with a common
beginning share that. Threads of requests enter and leave; what closes a hop is
the holder's loop.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.children import Children
    from relay.progress import Progress
    from relay.settings import HopSettings
    from relay.ssh.session import Session

QUIET = 10.0  # seconds without a packet, after which a hop is asked for a sign of life before it is used
ANSWER = 5.0  # seconds that it has for that


class Abandoned(RelayError):
    """Who was logging in has gone; whoever waits for the same hop tries it now."""


class SharedHop:
    """One hop, from the first request for it to its end.

    outer: the hop that it is reached through. children: the programs that
    carry it, which end with it. session: None until somebody has logged in.
    relays: that go through it now. moved: bytes of those that have ended.
    retired: it serves whom it serves, and nobody else.
    """

    def __init__(self, key: str, name: str, outer: SharedHop | None, children: Children) -> None:
        self.key = key
        self.name = name
        self.outer = outer
        self.children = children
        self.session: Session | None = None
        self.since = time.time()
        self.relays = 0
        self.moved = 0
        self.retired = False
        self.expires = 0.0  # monotonic; when it is to be closed unless it is used
        self._entering = threading.Lock()
        self._failure: tuple[float, RelayError] | None = None

    @property
    def path(self) -> list[SharedHop]:
        """The hops from the first one to this."""
        return [*(self.outer.path if self.outer else ()), self]

    @property
    def alive(self) -> bool:
        """Whether channels can be opened on it."""
        return self.session is not None and self.session.transport.is_active()

    def enter(self, login: Callable[[], Session], progress: Progress, since: float) -> Session:
        """The session; who comes first logs in, and the others wait for that, at most until their deadline.

        since: when this request was made (monotonic): it fails with a login
        that has failed after that, as nobody wants the same password refused
        once for each. Raises RelayError.
        """
        if not self._entering.acquire(blocking=False):
            progress.stage("waiting for another relay's login")
            if not self._entering.acquire(timeout=max(progress.left(), 0)):
                raise progress.timed_out()
        try:
            if self.session is not None:
                return self.session
            if self._failure is not None and self._failure[0] >= since:
                raise _again(self._failure[1])
            try:
                self.session = login()
            except Abandoned:
                raise
            except RelayError as error:
                self._failure = (time.monotonic(), error)
                raise
            self.since = time.time()
            return self.session
        finally:
            self._entering.release()

    def responds(self) -> bool:
        """Whether the connection that carries it lives, as far as is known without waiting longer than ANSWER."""
        first = self.path[0].session
        if first is None:
            return self.session is None
        return first.transport.quiet_for() < QUIET or first.transport.probe(ANSWER)


class Hops:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hops: dict[str, SharedHop] = {}
        self._retired: list[SharedHop] = []

    def hold(self, key: str, make: Callable[[], SharedHop]) -> SharedHop:
        """The hop of that key, made if there is none; it stays until it is let go of as often as it was held."""
        with self._lock:
            hop = self._hops.get(key)
            if hop is None:
                hop = self._hops[key] = make()
            hop.relays += 1
            return hop

    def has(self, key: str) -> bool:
        """Whether there is a hop of that key that has been logged in to."""
        with self._lock:
            hop = self._hops.get(key)
            return hop is not None and hop.alive

    def let_go(self, hops: Sequence[SharedHop], linger: float, moved: int = 0) -> None:
        """A request or a relay that has held these hops has ended. linger: seconds that they are to be kept."""
        with self._lock:
            for hop in hops:
                hop.relays -= 1
                hop.moved += moved
                hop.expires = time.monotonic() + (linger if hop.session is not None else 0)

    def retire(self, hop: SharedHop) -> None:
        """Let nobody in any more, nor to the hops that it leads to; the next one makes a new one."""
        with self._lock:
            for key, other in list(self._hops.items()):
                if hop in other.path:
                    del self._hops[key]
                    other.retired = True
                    self._retired.append(other)

    def take_expired(self, now: float) -> list[SharedHop]:
        """The hops that are over, inner ones first; they are forgotten. For who closes them."""
        with self._lock:
            over = []
            for hop in sorted(self._all(), key=lambda hop: -len(hop.path)):
                dead = hop.session is not None and not hop.alive
                if hop.relays == 0 and (hop.retired or dead or hop.expires <= now) and not self._leads_on(hop):
                    over.append(hop)
                    self._forget(hop)
            return over

    def next_expiry(self) -> float | None:
        """When the next hop is over (monotonic), None when none is to be."""
        with self._lock:
            return min(
                (hop.expires for hop in self._all() if hop.relays == 0 and not self._leads_on(hop)), default=None
            )

    def all(self) -> list[SharedHop]:
        """The hops there are, outer ones before those that they lead to."""
        with self._lock:
            return sorted(self._all(), key=lambda hop: [each.since for each in hop.path])

    def _all(self) -> list[SharedHop]:
        return [*self._hops.values(), *self._retired]

    def _leads_on(self, hop: SharedHop) -> bool:
        return any(other.outer is hop for other in self._all())

    def _forget(self, hop: SharedHop) -> None:
        if hop.retired:
            self._retired.remove(hop)
        else:
            del self._hops[hop.key]


def key(settings: HopSettings, outer: str, more: Sequence[str]) -> str:
    """What a hop is known by. outer: the key of the one before. more: what else decides who and where it is."""
    parts = [outer, settings.lines(), *settings.paths("identityfile"), *more]
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogateescape")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _again(error: RelayError) -> RelayError:
    """The same failure for somebody else."""
    return type(error)(error.cause, hint=error.hint, place=error.place)
