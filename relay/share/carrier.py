"""A connection to a hop, which the holder's loop drives, and the relays whose bytes it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from relay.pump.rules import GRACE

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

    from relay.contract import Flow, ManyFlows


TURN = 128  # packets of one connection, after which others have their turn; a small one takes some ten microseconds


class Carried(Protocol):
    """What a connection calls on a relay that it carries (served.py)."""

    def step(self, ready: dict[int, int]) -> None:
        """The relay's stdin or stdout is ready. ready: the events of poll, by descriptor."""

    def heard(self) -> None:
        """The relay's flow has news."""

    def send_next(self) -> None:
        """It is the relay's turn to send what the network had no room for."""


class Carrier:
    """A connection, driven by the loop.

    relays: the relays that it carries, by their flows. held_up: the relays whose stdin waits until the network takes
    more; the one that has waited longest comes first.
    """

    def __init__(self, connection: ManyFlows, loop: AbstractEventLoop) -> None:
        self.connection = connection
        self.relays: dict[Flow, Carried] = {}
        self.held_up: dict[Carried, None] = {}
        self.loop = loop
        self._fd, self._wake_fd = connection.fd, connection.wake_fd
        self._writing = False
        self._reading = True
        self._going_on = False
        self._later: list[Callable[[], None]] = []
        self._resting: TimerHandle | None = None
        connection.turn = TURN
        self._changed = connection.changed = set()
        loop.add_reader(self._fd, self._drive, connection.receive)
        loop.add_reader(self._wake_fd, self._drive, connection.look_round)
        self.settle()

    @property
    def closed(self) -> bool:
        """Whether the connection has been closed."""
        return self.connection.fd < 0

    def later(self, work: Callable[[], None]) -> None:
        """Do something when a transport's thread has woken the connection, before more packets are seen to."""
        self._later.append(work)

    def _do_what_waited(self) -> None:
        waited, self._later = self._later, []
        for work in waited:
            work()

    def step(self, relay: Carried, ready: dict[int, int]) -> None:
        """A relay's stdin or stdout is ready: let the relay move bytes, then settle."""
        relay.step(ready)
        self.settle()

    def settle(self) -> None:
        """Let every relay go on whose flow has news, then see what to wait for."""
        everybody = self.closed and self._fd >= 0
        if everybody:
            self._leave_loop()
        changed = self._changed
        while changed or self.held_up or everybody:
            concerned = (
                [*self.relays.values()] if everybody else [self.relays[flow] for flow in changed if flow in self.relays]
            )
            waiting = [relay for relay in self.held_up if relay not in concerned]
            changed.clear()
            everybody = False
            for relay in concerned:
                relay.heard()
            for relay in waiting:
                relay.send_next()
            if not changed:
                break
        if self.closed:
            self._do_what_waited()
        else:
            self._settle_rest()
            self._settle_polling()

    def _settle_rest(self) -> None:
        """Have the connection do what is due now, or in a moment."""
        if not self.connection.patient:
            self.connection.rest()
        elif self._resting is None:
            self._resting = self.loop.call_later(GRACE, self._rest)

    def _settle_polling(self) -> None:
        """Poll for reading unless a link waits, for writing only while bytes wait to be sent.

        The connection's next turn comes after that of others.
        """
        connection = self.connection
        if connection.sending != self._writing:
            self._writing = connection.sending
            if self._writing:
                self.loop.add_writer(self._fd, self._drive, connection.flush)
            else:
                self.loop.remove_writer(self._fd)
        if connection.reading != self._reading:
            self._reading = connection.reading
            if self._reading:
                self.loop.add_reader(self._fd, self._drive, connection.receive)
            else:
                self.loop.remove_reader(self._fd)
        if connection.behind and not self._going_on:
            self._going_on = True
            self.loop.call_soon(self._go_on)

    def _rest(self) -> None:
        self._resting = None
        if not self.closed:
            self.connection.rest()

    def _go_on(self) -> None:
        self._going_on = False
        if not self.closed:
            self._drive(self.connection.receive)

    def _drive(self, work: Callable[[], None]) -> None:
        self._do_what_waited()
        work()
        self.settle()

    def _leave_loop(self) -> None:
        self.loop.remove_writer(self._fd)
        self.loop.remove_reader(self._fd)
        self.loop.remove_reader(self._wake_fd)
        self.connection.release()
        self._fd = -1
