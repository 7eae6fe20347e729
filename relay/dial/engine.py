"""Enters a hop by the engine that the plan names: our own client, the system's ssh, or a live ControlMaster."""

from __future__ import annotations

from relay.dial.plan import CLIENT, MASTER, TOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.contract import Hop, Reach
    from relay.dial.master import Control
    from relay.dial.plan import Leg
    from relay.run import Run
    from relay.ssh.login.client import Client
    from relay.ssh.memory import Memory


class Engines:
    """Enters the hops of one route.

    first: the route's first leg. control: the connection to the first hop's ControlMaster, if that is alive.
    """

    def __init__(self, run: Run, first: Leg, control: Control | None = None) -> None:
        self._run = run
        self._first = first
        self._control = control
        self._client: Client | None = None

    def enter(self, leg: Leg, reach: Reach, before: Hop | None, following: Leg) -> Hop:
        """Enter the hop that a leg leads to. Our own client logs in now; ssh logs in when the hop forwards.

        before: the hop that it is reached through. following: the leg to open at once. Raises RelayError; Unserved
        when the key exchange shows that our client cannot serve the hop.
        """
        assert leg.entered is not None  # noqa: S101  (for the type checker: a hop's leg has one)
        self._run.progress.note(1, str(leg.entered))
        self._run.progress.learn("entered", str(leg.entered))
        if leg.entered.kind == CLIENT:
            return self._log_in(leg, reach, before, following)
        if leg.entered.kind == MASTER and self._control is not None:
            from relay.dial.master import MasterHop  # finding the master has imported it already

            return MasterHop(leg.settings, self._control, self._run.progress)
        from relay.dial.openssh import OpensshHop  # few hops need ssh

        return OpensshHop(leg.settings, reach, self._run)

    def _log_in(self, leg: Leg, reach: Reach, before: Hop | None, following: Leg) -> Hop:
        reached = reach()  # before the import: a thread imports our client meanwhile

        from relay.ssh.enter import log_in  # only here: ssh needs no paramiko

        if self._client is None:
            self._client = client_of(self._run, self._first)
        jumps = before.jumps() if before is not None else ""
        to = None
        # --netcat: a command carries the next leg. --check connects to the target once, and not along with a login.
        if not self._run.options.checks and (leg.netcat is None or not leg.netcat.named):
            to = following.settings.hostname, following.settings.port
        return log_in(self._client, reached, leg.settings, jumps=jumps, following=to, again=reach)


def client_of(run: Run, first: Leg) -> Client:
    """Return the client that logs in to the hops of a route. first: the route's first leg."""
    from relay.ssh.login.client import Client

    return Client(run.progress, run.prompt, run.children, memory_of(run, first), writes=not run.options.checks)


def memory_of(run: Run, first: Leg) -> Memory:
    """Return the memory of what the hops of a route have shown. first: the route's first leg.

    It holds nothing of a route that begins at Tor, unless the user names a directory (--memory).
    """
    from relay.ssh import memory

    chosen = run.options.memory
    where = "" if first.reached.kind == TOR and chosen is None else memory.directory(run.children.environ, chosen)
    return memory.Memory(where, str(first.reached), writes=not run.options.checks)
