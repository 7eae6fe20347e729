"""One line on the terminal that says what is being waited for, and goes when the waiting ends.

For a person only: it is written on /dev/tty, neither stdout nor stderr, and only
by a process in the terminal's foreground group. It never asks, and never fails.
"""

from __future__ import annotations

import os
from _thread import RLock

from relay.errors import encoded, printable

TTY = "/dev/tty"
ERASE = b"\r\x1b[K"  # to the first column, then clear to the end of the line (ECMA-48's CR and EL)


class StatusLine:
    """The line; at most one at a time. quiet: never write it.

    One thread shows it while another, or a signal's handler, takes it away.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = -1  # open as long as the line is there
        self._closed = False
        self._lock = RLock()

    def show(self, text: str) -> None:
        """Write text, cut to the terminal's width; once, and not again after `close`."""
        with self._lock:
            if self._quiet or self._closed or self._tty >= 0:
                return
            try:
                # O_NOCTTY: whoever has no terminal is not given one.
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
        """Take the line away, if it is there."""
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
        """Take the line away for good: an error message or the session itself comes next."""
        self._closed = True
        self.erase()
