"""Which hops are shared, and who uses them.

A hop is known by everything that decides who and where it is: the way to it,
what ssh_config says of it, the agent, the proxy. Routes with a common
beginning share that. Threads of requests enter and leave; what closes a hop is
the holder's loop.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.contract import Hop, Stream
    from relay.contract import Progress as Clock
    from relay.run.children import Children
    from relay.run.progress import Progress

QUIET = 10.0  # seconds without a packet, after which a hop is asked for a sign of life before it is used
ANSWER = 5.0  # seconds that it has for that
USES_MOST = 1000  # calls that are remembered


class Abandoned(RelayError):
    """Who was logging in has gone; whoever waits for the same hop tries it now."""


class Stuck(Exception):
    """Who was logging in has gone, and what that waited for may never come: a new hop is made."""


class SharedHop:
    """One hop, from the first request for it to its end.

    outer: the hop that it is reached through. children: the programs that
    carry it, which end with it. session: None until somebody has logged in.
    relays: that go through it now. moved: bytes of those that have ended.
    retired: it serves whom it serves, and nobody else. has_led: it has opened
    a channel.
    """

    def __init__(self, key: str, name: str, outer: SharedHop | None, children: Children) -> None:
        self.key = key
        self.name = name
        self.outer = outer
        self.children = children
        self.session: Hop | None = None
        self.since = time.time()
        self.relays = 0
        self.moved = 0
        self.retired = False
        self.has_led = False
        self.expires = 0.0  # monotonic; when it is to be closed unless it is used
        self._turn = threading.Condition()
        self._entering = False
        self._stuck = False
        self._failure: tuple[float, RelayError] | None = None

    @property
    def path(self) -> list[SharedHop]:
        """The hops from the first one to this."""
        return [*(self.outer.path if self.outer else ()), self]

    @property
    def alive(self) -> bool:
        """Whether channels can be opened on it."""
        return self.session is not None and self.session.alive

    @property
    def place(self) -> str:
        """What messages call it: which number it has depends on the route."""
        return f"shared hop ({self.name})"

    @property
    def jumps(self) -> str:
        """The hops up to this one, as ssh's -J has them."""
        return self.session.jumps() if self.session is not None else ""

    def enter(
        self, login: Callable[[], Hop], progress: Progress, since: float, is_own: Callable[[RelayError], bool]
    ) -> Hop:
        """The session; who comes first logs in, and the others wait for that, at most until their deadline.

        since: when this request was made (monotonic): it fails with a login
        that has failed after that, as nobody wants the same password refused
        once for each. is_own: whether a failure is a matter of who has logged
        in; the next one then tries it himself. Raises RelayError, and Stuck.
        """
        with self._turn:
            if self._entering:
                progress.stage("waiting for another relay's login")
            if not self._turn.wait_for(lambda: self._stuck or not self._entering, max(progress.left(), 0)):
                raise progress.timed_out()
            if self._stuck:
                raise Stuck
            if self.session is not None:
                return self.session
            if self._failure is not None and self._failure[0] >= since:
                raise _again(self._failure[1])
            self._entering = True
        try:
            self.session = login()
            self.since = time.time()
            return self.session
        except Abandoned:
            raise
        except RelayError as error:
            if not is_own(error):
                self._failure = (time.monotonic(), error)
            raise
        finally:
            with self._turn:
                self._entering = False
                self._turn.notify_all()

    def forward(
        self, host: str, port: int, progress: Clock, netcat: str | None = None, limit: float | None = None
    ) -> Stream:
        """A channel from it, as Hop.forward has it. Raises RelayError."""
        if self.session is None:
            raise Abandoned("the hop before was left")
        stream = self.session.forward(host, port, progress, netcat, limit)
        self.has_led = True
        return stream

    def give_up(self) -> None:
        """Who logs in has gone: nobody is to wait for that. From any thread."""
        with self._turn:
            self._stuck = True
            self._turn.notify_all()
        self.children.end()

    def responds(self, quiet: float | None = None) -> bool:
        """Whether the hop that was logged in to lives, as far as is known without waiting longer than ANSWER.

        quiet: seconds without a packet, after which it is asked; QUIET unless given.
        """
        if self.session is None:
            return True
        quiet = QUIET if quiet is None else quiet
        return bool(self.session.alive and (self.session.quiet_for() < quiet or self.session.probe(ANSWER)))


class Hops:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hops: dict[str, SharedHop] = {}
        self._retired: list[SharedHop] = []
        self._stopped = False
        self._uses: dict[str, tuple[str, str, int]] = {}

    def hold(self, key: str, make: Callable[[], SharedHop]) -> SharedHop:
        """The hop of that key, made if there is none; it stays until it is let go of as often as it was held."""
        with self._lock:
            hop = self._hops.get(key)
            if hop is None:
                hop = make()
                if self._stopped:
                    self._retire(hop)
                else:
                    self._hops[key] = hop
            hop.relays += 1
            return hop

    def has(self, key: str) -> bool:
        """Whether there is a hop of that key that has been logged in to."""
        with self._lock:
            hop = self._hops.get(key)
            return hop is not None and hop.alive

    def remember(self, call: str, key: str, to: tuple[str, int]) -> None:
        """A relay that was called so has gone from the hop of that key to that host and port."""
        with self._lock:
            self._uses.pop(call, None)
            self._uses[call] = (key, *to)
            if len(self._uses) > USES_MOST:
                del self._uses[next(iter(self._uses))]

    def remembered(self, call: str) -> tuple[SharedHop, str, int] | None:
        """Where a relay that was called so has gone, when it can go there again; the hops to there are held then."""
        with self._lock:
            key, host, port = self._uses.get(call, ("", "", 0))
            hop = self._hops.get(key)
            if hop is None or not hop.alive:
                return None
            for each in hop.path:
                each.relays += 1
            return hop, host, port

    def let_go(self, hops: Sequence[SharedHop], linger: float | None, moved: int = 0) -> None:
        """A request or a relay that has held these hops has ended. linger: seconds that they are to be kept.

        None for who has not come to say that: a hop is kept for as long as it would have been.
        """
        with self._lock:
            for hop in hops:
                hop.relays -= 1
                hop.moved += moved
                if hop.session is None:
                    hop.expires = time.monotonic()
                elif linger is not None:
                    hop.expires = time.monotonic() + linger

    def retire(self, hop: SharedHop) -> None:
        """Let nobody in any more, nor to the hops that it leads to; the next one makes a new one."""
        with self._lock:
            for key, other in list(self._hops.items()):
                if hop in other.path:
                    del self._hops[key]
                    self._retire(other)

    def retire_dead(self, hop: SharedHop) -> None:
        """Retire what does not answer of the hops up to this one, which leads nowhere any more. Waits for answers."""
        self.retire(next((each for each in hop.path if not each.responds(0)), hop))

    def stop(self) -> None:
        """Retire all, and from now on all that are made: who is on his way still gets there, and nobody else."""
        with self._lock:
            self._stopped = True
            for hop in self._hops.values():
                self._retire(hop)
            self._hops.clear()

    def _retire(self, hop: SharedHop) -> None:
        hop.retired = True
        self._retired.append(hop)

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


def _again(error: RelayError) -> RelayError:
    """The same failure for somebody else."""
    return type(error)(error.cause, hint=error.hint, place=error.place)
