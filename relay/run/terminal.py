"""The terminal that this process belongs to (/dev/tty). Most runs ask nobody, and do not import this."""

from __future__ import annotations

import os
import termios

from relay.errors import encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Modes: TypeAlias = list[Any]  # of a terminal, as tcgetattr returns them

TTY = "/dev/tty"
_ENOUGH = 1024  # bytes read at once
_LEAST = 4  # columns of a row that are kept free for its text


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


def columns(tty: int) -> int:
    """How wide the terminal is, 0 if that is not known."""
    try:
        return os.get_terminal_size(tty).columns
    except OSError:
        return 0


def rows(title: str, mark: str, lines: Sequence[str], width: int) -> list[str]:
    """Lines with a mark before each, cut so that a terminal of so many columns breaks none: each of its rows has one.

    title: what the first row begins with, or what stands in a row of its own where that leaves too little.
    A mark that leaves too little is cut short.
    """
    mark = _cut(mark, max(width - _LEAST, 1))[0]
    room = width - _columns(mark)
    alone = _columns(title) > room - _LEAST
    pieces = _cut(lines[0], room if alone else room - _columns(title), room)
    pieces += [piece for line in lines[1:] for piece in _cut(line, room, room)]
    marked = [f"{mark}{piece}" for piece in pieces]
    return [title.rstrip(), *marked] if alone else [f"{title}{marked[0]}", *marked[1:]]


def _cut(text: str, first: int, further: int = 1) -> list[str]:
    """Cut text into pieces, the first of at most so many columns, each further one of at most so many."""
    cut, begin, used, room = [], 0, 0, first
    for at, char in enumerate(text):
        wide = _columns(char)
        if used + wide > room:
            cut.append(text[begin:at])
            begin, used, room = at, 0, further
        used += wide
    return [*cut, text[begin:]]


def _columns(text: str) -> int:
    """How many columns text takes at most: where that depends on the terminal's fonts, two for a letter."""
    from unicodedata import east_asian_width  # most runs show nothing of a server's

    return sum(2 if east_asian_width(char) in "WFA" else 1 for char in text)


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
