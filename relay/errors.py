"""What went wrong, in words for a person: the cause, the place, and what to try.

Knows nothing else of the program. Errors of libraries are turned into these
where the library is called; only the entry point prints them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

EXIT_FAILED = 1  # could not connect or log in, or the link was lost
EXIT_USAGE = 2  # the command line or the route
EXIT_FAULT = 255  # a fault of our own


class RelayError(Exception):
    """A failure that a user can understand.

    cause: what failed, lower case, no final stop: "connection refused".
    hint: what to try, one line, or "".
    place: which leg it was, such as "hop 2 of 3 (u1@h2:2022)"; who raises it
    seldom knows, so the dialer fills in an empty one with `at`.
    """

    exit_code = EXIT_FAILED

    def __init__(self, cause: str, *, hint: str = "", place: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.place = place

    def at(self, place: str) -> RelayError:
        """Name the place of an error that does not know its own; return the error."""
        self.place = self.place or place
        return self

    def __str__(self) -> str:
        """The whole message: one line, and a `hint:` line where there is one."""
        line = f"pyrelay: {self.place}: {self.cause}" if self.place else f"pyrelay: {self.cause}"
        return f"{line}\nhint: {self.hint}" if self.hint else line


class UsageError(RelayError):
    """A command line or a route that cannot be read."""

    exit_code = EXIT_USAGE


class Unserved(RelayError):
    """A hop that is beyond paramiko; nothing of a login has been tried."""


class NoRoom(RelayError):
    """A hop that opens no more sessions over the connection that there is."""


class TimedOut(RelayError):
    """The deadline of the set-up, or a hop's own ConnectTimeout, has passed."""


class Forked(BaseException):
    """A process of its own begins here, which keeps nothing of the run that it was forked from.

    go_on: what it does. The entry point calls it, where no frame holds on to what the run had.
    """

    def __init__(self, go_on: Callable[[], NoReturn]) -> None:
        super().__init__()
        self.go_on = go_on


def sentence(text: str) -> str:
    """A text from outside as the end of a line of ours: no capital at its start, unless it is an abbreviation's."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def words(error: OSError) -> str:
    """What the system says of an error, as a cause: "connection refused"."""
    return sentence(error.strerror or str(error))


def shortage(error: BaseException | None) -> str:
    """What this machine, or a limit of this process (ulimit), is short of, "" when that is not why something failed."""
    from errno import EMFILE, ENFILE, ENOMEM  # a usage error has no use for it

    while error is not None:
        if isinstance(error, MemoryError):
            return "out of memory"
        if isinstance(error, OSError) and error.errno in (ENOMEM, EMFILE, ENFILE):
            return words(error)
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return "no room for another thread: out of memory, or of processes"
        error = error.__cause__ or error.__context__
    return ""


def printable(text: str, limit: int = 200) -> str:
    """Text from outside, safe on a terminal: no control or format characters, one line, cut at limit characters."""
    clean = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def encoded(text: str) -> bytes:
    """Text as bytes of the locale: a file's name becomes its own bytes again, and "?" stands for what the locale lacks.

    For whatever leaves the program. The names of files, hosts and users came in by os.fsdecode, whose
    opposite (os.fsencode) this is as far as there is one.
    """
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return b"".join(map(_encoded, text))


def _encoded(character: str) -> bytes:
    try:
        return os.fsencode(character)
    except UnicodeEncodeError:
        return b"?"


def plain(text: str) -> str:
    """Lines that may hold text from outside, safe on a terminal: no control or format characters between their ends."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
