"""Errors in words for a person: the cause, the place, and what to try.

This module knows nothing else of the program. A library's errors are turned into
these where the library is called. Only the entry point prints them.
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
    place: which leg failed, such as "hop 2 of 3 (u1@h2:2022)". The code that raises
    the error seldom knows it, so the dialer fills in an empty place by `at`.
    """

    exit_code = EXIT_FAILED

    def __init__(self, cause: str, *, hint: str = "", place: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.place = place

    def at(self, place: str) -> RelayError:
        """Set the place of an error that has none; return the error."""
        self.place = self.place or place
        return self

    @property
    def line(self) -> str:
        """The place and the cause."""
        return f"{self.place}: {self.cause}" if self.place else self.cause

    def __str__(self) -> str:
        """The whole message: one line, then a `hint:` line if there is a hint."""
        line = f"pyrelay: {self.line}"
        return f"{line}\nhint: {self.hint}" if self.hint else line


class UsageError(RelayError):
    """A command line or a route that cannot be parsed."""

    exit_code = EXIT_USAGE


class Unserved(RelayError):
    """A hop that our own client (paramiko) cannot enter, before a login is tried; or hops that cannot be shared."""


class CommandFailed(RelayError):
    """A ProxyCommand has ended with another status than 0: that may not be why the stream has ended.

    Bytes of the server had come through it: it may have failed, or have noticed that the server has closed.
    """


class NoRoom(RelayError):
    """A hop that opens no more sessions over its present connection."""


class TimedOut(RelayError):
    """The set-up's deadline, or a hop's own ConnectTimeout, has passed."""


class Forked(BaseException):
    """Raised in a forked process, to leave behind all that the run had.

    go_on: what the process does. The entry point calls it: no frame there refers to the run's objects any more.
    """

    def __init__(self, go_on: Callable[[], NoReturn]) -> None:
        super().__init__()
        self.go_on = go_on


def sentence(text: str) -> str:
    """A text from outside, to end a line of ours: its first letter in lower case, unless it starts an abbreviation."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def words(error: OSError) -> str:
    """The system's text for an error, as a cause: "connection refused"."""
    return sentence(error.strerror or str(error))


def in_seconds(number: float) -> str:
    """A time for a person: "1 second", "0.5 seconds"."""
    return f"{number:g} second{'s' * (number != 1)}"


def shortage(error: BaseException | None) -> str:
    """What has run out, on this machine or under this process's limits (ulimit); "" if an error has another cause."""
    from errno import EMFILE, ENFILE, ENOMEM  # a usage error does not need it

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
    """Text encoded in the locale. A file's name becomes its own bytes again; "?" replaces what the locale lacks.

    Use it for all text that leaves the program. The names of files, hosts and users came in by os.fsdecode;
    this undoes that (os.fsencode) as far as it can.
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
    """Lines that may hold text from outside, safe on a terminal: no control or format characters but line ends."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
