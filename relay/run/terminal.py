"""The terminal that this process belongs to (/dev/tty). Most runs ask nobody, and do not import this."""

from __future__ import annotations

import os
import termios

from relay.errors import encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Modes: TypeAlias = list[Any]  # of a terminal, as tcgetattr returns them

TTY = "/dev/tty"
_ENOUGH = 1024  # bytes read at once


def open_own() -> int | None:
    """Open the terminal that this process belongs to; None when there is none."""
    try:
        return os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def in_foreground(tty: int) -> bool:
    """Whether this process may read from the terminal and set its modes."""
    try:
        return os.tcgetpgrp(tty) == os.getpgrp()
    except OSError:
        return False


def rows(line: str, width: int) -> list[str]:
    """Cut a line into pieces of at most so many columns, so that the terminal does not break it by itself."""
    from unicodedata import east_asian_width  # most runs show nothing of a server's

    cut, begin, used = [], 0, 0
    for at, char in enumerate(line):
        columns = 2 if east_asian_width(char) in "WFA" else 1
        if used + columns > width:
            cut.append(line[begin:at])
            begin, used = at, 0
        used += columns
    return [*cut, line[begin:]]


def set_modes(tty: int, modes: Modes) -> bool:
    """Set the terminal's modes; false if we are in its background: the kernel would stop a process that tries."""
    try:
        if not in_foreground(tty):
            return False
        termios.tcsetattr(tty, termios.TCSANOW, modes)
    except termios.error:
        return False
    return True


def stop_by_read(modes: Modes, tty: int) -> bytes:
    """Change modes so that Ctrl-Z ends a read instead of stopping us with it; return that character, b"" for none."""
    characters = modes[6] = [*modes[6]]
    suspend, never = characters[termios.VSUSP], bytes([os.fpathconf(tty, "PC_VDISABLE") & 0xFF])
    if suspend == never:
        return b""
    characters[termios.VEOL], characters[termios.VSUSP] = suspend, never
    return bytes(suspend)


def read_line(tty: int, suspend: bytes = b"", stop: Callable[[], object] = lambda: None) -> bytes | None:
    """Wait for a typed line; return it without its line end, or None at the end of file (Ctrl-D).

    stop: is called when the character suspend was typed; what was typed before it is dropped.
    """
    line = b""
    while line[-1:] not in {b"\n", b"\r"}:
        more = os.read(tty, _ENOUGH)
        if suspend and more.endswith(suspend):
            line = b""
            stop()
            continue
        if not more:
            if line:
                break
            return None
        line += more
    return line.rstrip(b"\r\n")


def write(tty: int, text: str) -> None:
    """Write to a terminal. It is not an error if the terminal has gone: the next read reports that."""
    try:
        os.write(tty, encoded(text))
    except OSError:
        pass
