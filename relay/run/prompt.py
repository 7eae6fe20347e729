"""A person: asked on the terminal or through an askpass program, as OpenSSH's readpass.c has it.

This room knows nothing of what is asked for. stdin and stdout belong to the
data, so a person is met on /dev/tty. Nobody is ever asked under BatchMode, and
nobody on a terminal whose foreground is another process group. (An askpass
program that SSH_ASKPASS_REQUIRE puts before the terminal needs none.)

Questions are put by the thread that dials, and its read of the terminal cannot
be broken off; so the main thread, which may end the process at any moment, has
`restore` for that, and `survive_stops` for job control.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal makes enums of it, which a raw relay has no time for
import os
import sys
from _thread import RLock, allocate_lock

from relay.errors import RelayError, encoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    from relay.run.children import Asked, Children
    from relay.run.progress import Progress

    Modes: TypeAlias = list[Any]  # of a terminal, as tcgetattr has them

TTY = "/dev/tty"
_LONGEST = 8192  # characters of a question; a server may have had a hand in it
_PATIENCE = 1.0  # seconds that a terminal may take
_ENOUGH = 1024  # bytes read at once, and the longest answer of an askpass program


class NobodyToAsk(RelayError):
    """There is nobody who could answer, or asking is forbidden."""


class Cancelled(RelayError):
    """The person would not answer: end of file on the terminal, or askpass cancelled."""


class _Question:
    """What the terminal shows while an answer is waited for, and its modes before and meanwhile."""

    def __init__(self, tty: int, before: Modes, during: Modes, text: str) -> None:
        self.tty = tty
        self.before = before
        self.during = during
        self.text = text


class Notice:
    """What a person has been told to do. seen: whether anybody can see it."""

    def __init__(self, seen: bool, child: Asked | None = None) -> None:
        self.seen = seen
        self._child = child

    def end(self) -> None:
        """It has been done: a window that says it goes."""
        if self._child is not None:
            self._child.terminate()
            self._child.communicate()


class Prompt:
    """The one who asks, for every hop of a route: one question at a time.

    children: what starts askpass programs, and ends them with the program; their
    environment is the person's.
    batch: nobody may be asked anything; the dialer sets it for each hop (BatchMode).
    """

    def __init__(self, progress: Progress, children: Children, batch: bool = False) -> None:
        self.batch = batch
        self.environ = children.environ
        self._progress = progress
        self._children = children
        self._one = allocate_lock()
        self._modes = RLock()  # held while the terminal's modes change hands
        self._over = False
        self._open: _Question | None = None

    def ask(self, question: str, *, echo: bool = False) -> str:
        """Ask, and return the answer; it is shown as it is typed only with echo.

        os.fsencode makes the very bytes of it that were typed. The clock of the
        set-up stands still meanwhile. Raises NobodyToAsk and Cancelled.
        """
        if self.batch:
            raise NobodyToAsk("nobody may be asked (BatchMode)")
        text = f"pyrelay: {presentable(question)}"
        with self._one:
            self._progress.pause()
            self._progress.status.erase()
            try:
                return os.fsdecode(self._put(text, echo))
            finally:
                self._progress.resume()

    def tell(self, text: str) -> bool:
        """Say something that a person must know, on the terminal or on stderr; true when a terminal shows it.

        stderr is /dev/null in a master that ControlPersist keeps, hence the terminal.
        """
        text = presentable(text)
        if self._say_on_terminal(text):
            return True
        self._progress.tell(text)
        return _stderr_is_terminal() and not self.batch

    def notify(self, text: str) -> Notice:
        """Say what a person must do now, such as touch a key; where there is no terminal, through askpass.

        That is notify_start in readpass.c, which asks for no answer
        (SSH_ASKPASS_PROMPT=none); who notifies ends it.
        """
        if self.tell(text):
            return Notice(True)
        if self.batch or not askpass_rules(self.environ)[1]:
            return Notice(False)
        command: list[str | bytes] = [
            "env",
            "SSH_ASKPASS_PROMPT=none",
            _askpass(self.environ),
            encoded(f"pyrelay: {presentable(text)}"),
        ]
        return Notice(True, self._children.ask(command))

    def _say_on_terminal(self, text: str) -> bool:
        """Write a line on the terminal where stderr is none and we are in its foreground."""
        if self.batch or _stderr_is_terminal():
            return False
        tty = _open_tty()
        if tty is None:
            return False
        ours = _in_foreground(tty)
        if ours:
            self._progress.status.erase()
            where = f"{self._progress.place}: " if self._progress.place else ""
            _write(tty, f"\rpyrelay: {where}{text}\n")
        os.close(tty)
        return ours

    def restore(self) -> None:
        """Give the terminal back as it was; for the main thread, before it ends the process.

        May be called at any time, from a signal handler too, and again.
        """
        # The other thread may be just about to turn echo off; or it is stuck in that, as the terminal is stopped.
        free = self._modes.acquire(timeout=_PATIENCE)
        self._over = True
        question, self._open = self._open, None
        if question is not None and _set_modes(question.tty, question.before):
            _write(question.tty, "\n")
        if free:
            self._modes.release()

    def survive_stops(self) -> None:
        """From now on who goes on after Ctrl-Z is asked again, with echo off again; for the main thread.

        The stop itself is left to the kernel, which stops the read of the
        terminal with the process: a handler would come later, and the shell's
        next line would be taken for an answer. Shells set their own modes then.
        """

        def go_on(_number: int, _frame: object) -> None:
            question = self._open
            if question is not None and _set_modes(question.tty, question.during):
                _write(question.tty, f"\r{question.text}")

        _signal.signal(_signal.SIGCONT, go_on)

    def _put(self, text: str, echo: bool) -> bytes:
        """The answer to text, from whom the rules name."""
        first, allowed = askpass_rules(self.environ)
        if first and allowed:
            return self._ask_program(text)
        tty = _open_tty()
        if tty is None:
            if allowed:
                return self._ask_program(text)
            raise NobodyToAsk(
                "there is no terminal to ask on, and no askpass program may be used",
                hint="askpass needs SSH_ASKPASS, and DISPLAY or SSH_ASKPASS_REQUIRE=force",
            )
        try:
            if not _in_foreground(tty):
                raise NobodyToAsk("nobody can be asked from the background of a terminal")
            return self._ask_terminal(tty, text, echo)
        finally:
            os.close(tty)

    def _ask_terminal(self, tty: int, text: str, echo: bool) -> bytes:
        """Type-ahead is dropped, as it was not meant for us; the last character of an answer is its line feed."""
        import termios  # only who is asked on a terminal pays for it

        before = termios.tcgetattr(tty)
        during = [*before]
        if not echo:
            during[3] &= ~(termios.ECHO | termios.ECHONL)
        try:
            with self._modes:
                if self._over:
                    raise NobodyToAsk("the program is about to end")
                self._open = _Question(tty, before, during, text)
                termios.tcsetattr(tty, termios.TCSAFLUSH, during)
            _write(tty, f"\r{text}")
            answer = _read_line(tty)
        except (OSError, termios.error) as error:
            raise NobodyToAsk(f"the terminal is gone: {error}") from error
        finally:
            _set_modes(tty, before)
            self._open = None
            if not echo:
                _write(tty, "\n")
        return answer

    def _ask_program(self, text: str) -> bytes:
        """The first line that the askpass program prints; a status other than 0 means that it was cancelled."""
        program = _askpass(self.environ)
        try:
            child = self._children.ask([program, encoded(text)])
        except OSError as error:
            raise NobodyToAsk(f"the askpass program {program} cannot be run: {error.strerror}") from error
        answer, said = child.communicate()
        if child.returncode != 0:
            why = presentable(said.decode(errors="replace")).strip()
            raise Cancelled(f"the question was cancelled ({why})" if why else "the question was cancelled")
        return answer[:_ENOUGH].partition(b"\n")[0].rstrip(b"\r")


def _askpass(environ: Mapping[str, str]) -> str:
    """The askpass program."""
    return environ.get("SSH_ASKPASS") or "ssh-askpass"


def askpass_rules(environ: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether askpass goes before the terminal, and whether it may be used at all (read_passphrase, readpass.c)."""
    display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    require = environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if require == "force":
        return True, True
    return require == "prefer", display and require != "never"


def presentable(text: str) -> str:
    """Text for a terminal: no control or format characters but the ends of lines, and not without end."""
    return "\n".join(
        "".join(c if c.isprintable() else " " for c in line) for line in text[:_LONGEST].replace("\r", "").split("\n")
    )


def _read_line(tty: int) -> bytes:
    """A line as it is typed, without its end; raises Cancelled when there is no line (Ctrl-D)."""
    line = b""
    while line[-1:] not in {b"\n", b"\r"}:
        more = os.read(tty, _ENOUGH)
        if not more:
            if line:
                break
            raise Cancelled("the question was not answered")
        line += more
    return line.rstrip(b"\r\n")


def _in_foreground(tty: int) -> bool:
    """Whether this process may read from the terminal and set its modes."""
    try:
        return os.tcgetpgrp(tty) == os.getpgrp()
    except OSError:
        return False


def _open_tty() -> int | None:
    """The terminal that this process belongs to, open, or None when there is none."""
    try:
        return os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _stderr_is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):  # closed, or never there
        return False


def _set_modes(tty: int, modes: Modes) -> bool:
    """Set the terminal's modes; false when it is not ours to set (who tries from the background is stopped)."""
    import termios

    try:
        if not _in_foreground(tty):
            return False
        termios.tcsetattr(tty, termios.TCSANOW, modes)
    except termios.error:
        return False
    return True


def _write(tty: int, text: str) -> None:
    """Write to a terminal; one that has gone is no reason to fail, as the read says so."""
    try:
        os.write(tty, encoded(text))
    except OSError:
        pass
