"""One line on the terminal that says what the program waits for; it is erased when the wait ends.

The line is for a person only. It is written where stderr is the terminal that this process belongs to, in the
terminal's foreground group, and while the terminal is in its ordinary mode (ICANON and ECHO): a program that fills the
screen, or asks for a password, has another. It never asks anything, and never fails.
"""

from __future__ import annotations

import os
from _thread import RLock

from relay.errors import encoded, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TTY = "/dev/tty"
STDERR = 2
ERASE = b"\r\x1b[K"  # to the first column, then clear to the end of the line (ECMA-48's CR and EL)


class StatusLine:
    """The line; at most one at a time.

    One thread shows the line; another thread, or a signal's handler, erases it.
    """

    def __init__(self) -> None:
        self._tty = -1  # open while the line is shown
        self._text = ""
        self._closed = os.environ.get("TERM") == "dumb"
        self._lock = RLock()

    def show(self, text: str, allowed: Callable[[], bool] = lambda: True) -> None:
        """Write text, cut to the terminal's width, in place of the line that is shown; do nothing after `close`.

        allowed: asked when no other thread can erase the line meanwhile.
        """
        with self._lock:
            if self._closed or not allowed() or (self._tty >= 0 and text == self._text):
                return
            try:
                if self._tty < 0:
                    # O_NOCTTY: a process without a terminal must not get one.
                    self._tty = os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                if _is_ours():
                    width = os.get_terminal_size(self._tty).columns or 80
                    os.write(self._tty, ERASE + encoded(printable(text, width - 1)))
                    self._text = text
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
                if _is_ours():  # else another program writes there now
                    os.write(self._tty, ERASE)
            except OSError:
                pass
            self._leave()

    def _leave(self) -> None:
        tty, self._tty = self._tty, -1
        if tty >= 0:
            os.close(tty)

    def close(self) -> None:
        """Erase the line for good."""
        self._closed = True
        self.erase()


def _is_ours() -> bool:
    """Whether stderr is our terminal, we are in its foreground, and it is in its ordinary mode.

    tcgetpgrp fails where stderr is not a terminal, or not the one that this process belongs to.
    """
    import termios  # most runs are over before there is a line

    if os.tcgetpgrp(STDERR) != os.getpgrp():
        return False
    ordinary = termios.ICANON | termios.ECHO
    try:
        return bool(termios.tcgetattr(STDERR)[3] & ordinary == ordinary)
    except termios.error:
        return False
