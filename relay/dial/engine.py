"""Enters a hop by the engine that the plan names: our own client, the system's ssh, or a live ControlMaster."""

from __future__ import annotations

from relay.dial.plan import AFTER_SSH, AUTO, CLIENT, MASTER, PROXIED, TOR
from relay.spec.route import is_onion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.config.settings import HopSettings
    from relay.contract import Hop, Reach
    from relay.dial.master import Control
    from relay.dial.plan import Choice, Leg
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

        hop = OpensshHop(leg.settings, reach, self._run)
        if leg.entered != AFTER_SSH and self._run.options.engine == AUTO and not self._run.options.checks:
            hop.learn = self._learner(leg.settings, before.jumps() if before is not None else "")
        return hop

    def _learner(self, settings: HopSettings, jumps: str) -> Callable[[str], None] | None:
        """Return what remembers by which method ssh has got in to a hop; None if there is nothing to remember.

        jumps: the hops before it, as ssh's -J has them.
        """
        from relay.dial import only_ssh

        if not only_ssh.learnt(settings, ""):
            return None
        memory = memory_of(self._run, self._first.reached, self._first.settings.hostname)
        if not memory.keeps:
            return None

        def learn(method: str) -> None:
            from relay.ssh.memory import Shown, name_of

            hop = name_of(settings, jumps)
            shown = memory.recall(hop) or Shown()
            memory.keep(hop, shown.but(by_ssh=only_ssh.learnt(settings, method), method="", key="", algorithm=""))

        return learn

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
    from relay.dial import only_ssh
    from relay.ssh.login.client import Client

    memory, writes = memory_of(run, first.reached, first.settings.hostname), not run.options.checks
    client = Client(run.progress, run.prompt, run.children, memory, writes=writes)
    client.leave = only_ssh.knock
    client.straight = first.reached.kind not in PROXIED
    return client


def memory_of(run: Run, first: Choice, host: str) -> Memory:
    """Return the memory of what the hops of a route have shown. first: what makes its first connection, to host.

    It holds nothing of a route that begins at Tor or an onion name, unless the user names a directory (--memory).
    """
    from relay.ssh import memory

    chosen = run.options.memory
    by_tor = first.kind == TOR or is_onion(host)  # the proxy or the command may be Tor's, too
    where = "" if by_tor and chosen is None else memory.directory(run.children.environ, chosen)
    return memory.Memory(where, str(first), writes=not run.options.checks)
