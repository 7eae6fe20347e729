"""The shared hops, and how many relays use each.

A hop's key (key.py) holds everything that decides which host it is, and who logs
in there: the way to it, its ssh_config, the agent, the proxy. Routes that begin
with the same hops share those hops. The threads of requests enter and leave hops;
the holder's loop closes them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from relay.errors import RelayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.contract import Hop, Netcat, Stream
    from relay.contract import Progress as Clock
    from relay.run.children import Children
    from relay.run.progress import Progress

QUIET = 10.0  # seconds without a packet, after which a hop is asked for a sign of life before it is used
ANSWER = 5.0  # seconds that a hop has to give that sign of life
USES_MOST = 1000  # command lines that are remembered


class Abandoned(RelayError):
    """The relay that was logging in has gone; the next relay that waits for the same hop tries now."""


class Stuck(Exception):
    """The relay that was logging in has gone, and its login may hang for ever: make a new hop."""


class Dead(RelayError):
    """A hop on the way does not answer any more: enter the route again, from its first hop."""


class SharedHop:
    """One hop, from the first request for it to its end.

    outer: the hop that it is reached through. children: the programs that
    carry it, which end with it. session: None until a relay has logged in.
    relays: how many relays and requests hold it now. moved: bytes of the relays
    that have ended. retired: it goes on serving its relays, and takes no others.
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
        self.expires = 0.0  # monotonic: when to close the hop, unless it is used
        self._turn = threading.Condition()
        self._entering = False
        self._has_led = False  # whether it has opened a channel
        self._opening = 0  # channels that are being opened
        self._stuck = False
        self._failure: tuple[float, RelayError] | None = None

    @property
    def path(self) -> list[SharedHop]:
        """The hops from the first one to this one."""
        return [*(self.outer.path if self.outer else ()), self]

    @property
    def alive(self) -> bool:
        """Whether channels can be opened on this hop."""
        return self.session is not None and self.session.alive

    @property
    def place(self) -> str:
        """What messages call the hop; not by its number, which differs from route to route."""
        return f"shared hop ({self.name})"

    @property
    def jumps(self) -> str:
        """The hops up to this one, as an argument for ssh -J."""
        return self.session.jumps() if self.session is not None else ""

    def enter(
        self, login: Callable[[], Hop], progress: Progress, since: float, is_own: Callable[[RelayError], bool]
    ) -> Hop:
        """Return the hop's session. The first relay logs in; the others wait for its login, until their own deadline.

        since: when this request was made (monotonic). If a login fails after that, this request fails with it:
        otherwise every waiting relay would have the same password refused. is_own: whether a failure is the failing
        relay's own; the next relay then tries to log in itself. Raises RelayError, and Stuck.
        """
        with self._turn:
            if self._entering:
                hint = "a question of that relay may wait for its answer; `pyrelay -O exit` ends its login"
                progress.stage("waiting for another relay's login", hint=hint)
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

    def ask(self, to: tuple[str, int]) -> Any:
        """Ask for a channel from this hop; as Hop.ask (relay/contract.py)."""
        return self.session.ask(to) if self.session is not None else None

    def forward(
        self,
        host: str,
        port: int,
        progress: Clock,
        netcat: Netcat | None = None,
        limit: float | None = None,
        *,
        asked: Any = None,
    ) -> Stream:
        """Open a channel from this hop; as Hop.forward (relay/contract.py). Raises RelayError."""
        if self.session is None:
            raise Abandoned("the hop before was left")
        with self._turn:
            self._opening += 1
        try:
            stream = self.session.forward(host, port, progress, netcat, limit, asked=asked)
            self._has_led = True
            return stream
        finally:
            with self._turn:
                self._opening -= 1
                self._turn.notify_all()

    def leads(self) -> bool:
        """Whether it has opened a channel; waits for those that are being opened now, ANSWER seconds at most."""
        with self._turn:
            return self._turn.wait_for(lambda: self._has_led or not self._opening, ANSWER) and self._has_led

    def give_up(self) -> None:
        """The relay that is logging in has gone: let the other relays stop waiting for it. Call it from any thread."""
        with self._turn:
            self._stuck = True
            self._turn.notify_all()
        self.children.end()

    def responds(self, quiet: float | None = None) -> bool:
        """Whether the hop is alive; waits ANSWER seconds at most. A hop without a session yet counts as alive.

        quiet: seconds without a packet, after which the hop is asked for a sign of life; QUIET by default.
        """
        if self.session is None:
            return True
        quiet = QUIET if quiet is None else quiet
        return bool(self.session.alive and (self.session.quiet_for() < quiet or self.session.probe(ANSWER)))


class Hops:
    """All shared hops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hops: dict[str, SharedHop] = {}
        self._retired: list[SharedHop] = []
        self._stopped = False
        self._uses: dict[str, tuple[str, str, int]] = {}

    def hold(self, key: str, make: Callable[[], SharedHop]) -> SharedHop:
        """Return the hop of that key; make it if there is none. It stays until every `hold` has had its `let_go`."""
        with self._lock:
            hop = self._hops.get(key)
            if hop is None:
                hop = self._hops[key] = make()
            hop.relays += 1
            return hop

    def has(self, key: str) -> bool:
        """Whether a hop of that key is logged in and alive."""
        with self._lock:
            hop = self._hops.get(key)
            return hop is not None and hop.alive

    def remember(self, call: str, key: str, to: tuple[str, int]) -> None:
        """Remember where a relay with this command line went: from the hop of that key to that host and port.

        call: the digest of the command line.
        """
        with self._lock:
            self._uses.pop(call, None)
            self._uses[call] = (key, *to)
            if len(self._uses) > USES_MOST:
                del self._uses[next(iter(self._uses))]

    def remembered(self, call: str) -> tuple[SharedHop, str, int] | None:
        """Where a relay with this command line went: hop, host, port. It holds the hops on the way there.

        None when no such relay is remembered, or its hop is not alive.
        """
        with self._lock:
            key, host, port = self._uses.get(call, ("", "", 0))
            hop = self._hops.get(key)
            if hop is None or not hop.alive:
                return None
            for each in hop.path:
                each.relays += 1
            return hop, host, port

    def let_go(self, hops: Sequence[SharedHop], linger: float | None, moved: int = 0) -> None:
        """A request or a relay that held these hops has ended. linger: seconds to keep the hops from now on.

        None: the request ended before it said how long. The hops then expire as they would have without it.
        """
        with self._lock:
            for hop in hops:
                hop.relays -= 1
                hop.moved += moved
                if hop.session is None:
                    hop.expires = time.monotonic()
                elif linger is not None:
                    hop.expires = time.monotonic() + (0 if self._stopped else linger)

    def retire(self, hop: SharedHop) -> None:
        """Let no other relay use this hop, nor the hops behind it; the next relay makes new ones."""
        with self._lock:
            for key, other in list(self._hops.items()):
                if hop in other.path:
                    del self._hops[key]
                    self._retire(other)

    def retire_dead(self, hop: SharedHop) -> SharedHop:
        """A hop does not answer any more: retire the first one on the way to it that does not, either, else the hop.

        It waits for the answers, and returns the one that it has retired.
        """
        dead = next((each for each in hop.path if each is not hop and not each.responds(0)), hop)
        self.retire(dead)
        return dead

    def stop(self) -> None:
        """Keep no hop any longer than it is used. Requests under way are still served, and share hops; none follow."""
        with self._lock:
            self._stopped = True
            for hop in self._hops.values():
                hop.expires = time.monotonic()

    def _retire(self, hop: SharedHop) -> None:
        hop.retired = True
        self._retired.append(hop)

    def take_expired(self, now: float) -> list[SharedHop]:
        """Forget the hops that are over, and return them, inner ones first; the caller closes them."""
        with self._lock:
            over = []
            for hop in sorted(self._all(), key=lambda hop: -len(hop.path)):
                dead = hop.session is not None and not hop.alive
                if hop.relays == 0 and (hop.retired or dead or hop.expires <= now) and not self._leads_on(hop):
                    over.append(hop)
                    self._forget(hop)
            return over

    def next_expiry(self) -> float | None:
        """When the next hop expires (monotonic); None when no hop is unused."""
        with self._lock:
            return min(
                (hop.expires for hop in self._all() if hop.relays == 0 and not self._leads_on(hop)), default=None
            )

    def all(self) -> list[SharedHop]:
        """All hops; a hop comes before the hops that are reached through it."""
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
    """A copy of a login's failure, for another relay that waited for that login."""
    return type(error)(error.cause, hint=error.hint, place=error.place)
