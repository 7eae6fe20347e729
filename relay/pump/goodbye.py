"""Signals that end the process while hops are logged in to: the relay takes leave of the hops first.

ssh ends its ProxyCommand by SIGHUP. The guard's handler would end the process between two steps of a move, where
nothing can be sent. So these signals are held back until the relay heeds them, which it does whenever it waits.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in relay/run/guard.py
from select import POLLIN, poll

from relay.run.guard import ENDING, read_alarm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int, object], object]

PATIENCE = 0.5  # seconds for the relay to heed a signal: a write to a stopped terminal may hold it up


class Goodbye:
    """Holds signals back. alarm: guard.alarm's descriptor, -1 to hold none back. leave: takes leave of the hops."""

    def __init__(self, alarm: int, leave: Callable[[], None]) -> None:
        self._alarm = alarm
        self._leave = leave
        self._handlers: dict[int, Handler] = {}
        for number in ENDING if alarm >= 0 else ():
            handler = _signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                _signal.signal(number, self._hold_back)

    def _hold_back(self, number: int, _frame: object) -> None:
        """Let the relay heed a signal. If it does not, end the process without a goodbye."""
        _signal.signal(_signal.SIGALRM, lambda *_: self._handlers[number](number, None))
        _signal.setitimer(_signal.ITIMER_REAL, PATIENCE)

    def heed(self) -> None:
        """The alarm can be read from: if a signal has been held back, say goodbye and let it end the process."""
        for number in read_alarm(self._alarm):
            if number in self._handlers:
                self._leave()
                self._handlers[number](number, None)

    def over(self) -> None:
        """Nothing is left to say: hold back no more signals, and let one that has come end the process."""
        for number, handler in self._handlers.items():
            _signal.signal(number, handler)
        if self._handlers:
            look = poll()
            look.register(self._alarm, POLLIN)
            if look.poll(0):
                self._leave = _nothing
                self.heed()


def _nothing() -> None:
    """All has been said."""
