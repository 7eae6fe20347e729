"""One line on the terminal that says what the program waits for; it is erased when the wait ends.

The line is for a person only: it is written on /dev/tty, not on stdout or stderr, and
only in the terminal's foreground group. It never asks anything, and never fails.
"""

from __future__ import annotations

import os
from _thread import RLock

from relay.errors import encoded, printable

TTY = "/dev/tty"
ERASE = b"\r\x1b[K"  # to the first column, then clear to the end of the line (ECMA-48's CR and EL)


class StatusLine:
    """The line; at most one at a time. quiet: never write it.

    One thread shows the line; another thread, or a signal's handler, erases it.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = -1  # open while the line is shown
        self._closed = False
        self._lock = RLock()

    def show(self, text: str) -> None:
        """Write text, cut to the terminal's width; do nothing if a line is shown already, or after `close`."""
        with self._lock:
            if self._quiet or self._closed or self._tty >= 0:
                return
            try:
                # O_NOCTTY: a process without a terminal must not get one.
                self._tty = tty = os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                # A background job that wrote here would mix its line into another program's screen.
                if os.tcgetpgrp(tty) == os.getpgrp():
                    width = os.get_terminal_size(tty).columns or 80
                    os.write(tty, ERASE + encoded(printable(text, width - 1)))
                    return
            except OSError:
                pass
            self._leave()

    def erase(self) -> None:
        """Erase the line, if it is shown."""
        with self._lock:
            if self._tty < 0:
                return
            try:
                os.write(self._tty, ERASE)
            except OSError:
                pass
            self._leave()

    def _leave(self) -> None:
        tty, self._tty = self._tty, -1
        if tty >= 0:
            os.close(tty)

    def close(self) -> None:
        """Erase the line for good: an error message, or the session itself, comes next."""
        self._closed = True
        self.erase()
