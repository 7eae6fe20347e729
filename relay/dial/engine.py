"""Enters a hop by the engine that the plan names: our own client, the system's ssh, or a live ControlMaster."""

from __future__ import annotations

from relay.dial.plan import CLIENT, MASTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Hop  # CONTRACT

    from relay.contract import Reach
    from relay.dial.master import Control
    from relay.dial.plan import Leg
    from relay.run.run import Run
    from relay.ssh.session import Client


class Engines:
    """What enters the hops of one route.

    control: the connection to the first hop's ControlMaster, where one lives.
    """

    def __init__(self, run: Run, control: Control | None = None) -> None:
        self._run = run
        self._control = control
        self._client: Client | None = None

    def enter(self, leg: Leg, reach: Reach, before: Hop | None, following: Leg) -> Hop:
        """The hop that a leg leads to. Our own client has logged in then; ssh does so when the hop forwards.

        before: the hop that it is reached through. following: the leg that it is to open at once. Raises RelayError:
        Unserved, when it turns out at the key exchange that it is not for our client.
        """
        assert leg.entered is not None  # noqa: S101  (for the type checker: it is a hop's)
        self._run.progress.note(1, str(leg.entered))
        if leg.entered.kind == CLIENT:
            return self._log_in(leg, reach, before, following)
        if leg.entered.kind == MASTER and self._control is not None:
            from relay.dial.master import MasterHop  # it has been imported

            return MasterHop(leg.settings, self._control, self._run.progress)
        from relay.dial.openssh import OpensshHop  # few hops need it

        return OpensshHop(leg.settings, reach, self._run)

    def _log_in(self, leg: Leg, reach: Reach, before: Hop | None, following: Leg) -> Hop:
        stream, address = reach()  # first: while the connection is made, our client is still being imported

        from relay.ssh.session import Client, log_in  # ssh does without paramiko

        if self._client is None:
            self._client = Client(self._run.progress, self._run.prompt, self._run.children)
        jumps = before.jumps() if before is not None else ""
        to = following.settings.hostname, following.settings.port
        return log_in(self._client, stream, leg.settings, address, jumps=jumps, following=to)
