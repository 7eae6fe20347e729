"""Asks a person, on the terminal or through an askpass program, by the rules of OpenSSH's readpass.c.

This module does not know what the questions are about. stdin and stdout carry the
data, so it asks on /dev/tty. It asks nobody under BatchMode, nor on a terminal
whose foreground is another process group. (An askpass program that
SSH_ASKPASS_REQUIRE puts before the terminal does not need a terminal.)

The thread that dials asks, and nothing can interrupt its read of the terminal. The
main thread may end the process at any moment: `restore` then gives the terminal
back as it was. `go_on` is for job control (Ctrl-Z).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in relay/run/children.py
import os
import sys
from _thread import RLock, allocate_lock

from relay.errors import RelayError, encoded, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.run.asked import Asked
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.terminal import Modes

_TITLE = "pyrelay: "  # a question begins with this
_LONGEST = 8192  # characters of a question; part of it may come from a server
_PATIENCE = 1.0  # seconds to wait for the terminal's modes
_ENOUGH = 1024  # bytes of an askpass program's answer, at most


class NobodyToAsk(RelayError):
    """Nobody is there who could answer, or asking is forbidden."""


class Cancelled(RelayError):
    """The person did not answer: end of file on the terminal, or askpass was cancelled."""


class _Question:
    """A question on the terminal: its text, and the terminal's modes before and during it."""

    def __init__(self, tty: int, before: Modes, during: Modes, text: str) -> None:
        self.tty = tty
        self.before = before
        self.during = during
        self.text = text


class Notice:
    """A request to do something, such as to touch a key. seen: whether a person can see it."""

    def __init__(self, seen: bool, child: Asked | None = None) -> None:
        self.seen = seen
        self._child = child

    def end(self) -> None:
        """The person has done it: close the askpass window that shows the request."""
        if self._child is not None:
            self._child.terminate()
            self._child.communicate()


class Prompt:
    """Asks the questions of every hop of a route, one at a time.

    children: starts askpass programs, and ends them when pyrelay ends; their
    environment is the person's.
    batch: whether asking is forbidden; the dialer sets it for each hop (BatchMode).
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

    def ask(
        self, question: str, *, mark: str = "", echo: bool = False, askpass: str = "", confirm: bool = False
    ) -> str:
        """Ask, and return the answer. echo: show the answer while it is typed.

        mark: what stands before each line of a question in somebody else's words, and before each of the terminal's
        rows: without a mark, they would look like a question of our own.
        askpass: what an askpass program is asked in place of the question; it may know ssh's own sentence.
        confirm: askpass is to show "yes" and "no" (SSH_ASKPASS_PROMPT); an empty answer of its is a yes.
        os.fsencode turns the answer into the bytes that were typed. The clock of the
        set-up stands still meanwhile. Raises NobodyToAsk and Cancelled.
        """
        if self.batch:
            raise NobodyToAsk("nobody may be asked (BatchMode)")
        lines = presentable(question).split("\n")

        def text(columns: int) -> str:
            if not mark or not columns:
                return _TITLE + "\n".join(f"{mark}{line}" for line in lines)
            from relay.run.terminal import rows

            return "\n".join(rows(_TITLE, mark, lines, columns))

        with self._one:
            self._progress.pause()
            self._progress.speak()
            try:
                return os.fsdecode(self._put(text, echo, presentable(askpass) or text(0), confirm))
            finally:
                self._progress.resume()

    def tell(self, text: str) -> bool:
        """Say something that a person must know, on the terminal or on stderr; true when a terminal shows it.

        In a master that ControlPersist keeps, stderr is /dev/null; so this writes on the terminal.
        """
        text = presentable(text)
        if self._say_on_terminal(text):
            return True
        self._progress.tell(text)
        return _stderr_is_terminal() and not self.batch

    def notify(self, text: str) -> Notice:
        """Say what a person must do now, such as touch a key. Without a terminal, askpass says it.

        As notify_start in readpass.c, it asks for no answer (SSH_ASKPASS_PROMPT=none).
        The caller must end the notice.
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

    def sees(self, *, on_stderr: bool = False) -> bool:
        """Whether somebody is at the terminal, in its foreground, who may be waited for; never under BatchMode.

        on_stderr: what they have to see is written on stderr, which must be a terminal, too.
        """
        if self.batch or (on_stderr and not _stderr_is_terminal()):
            return False
        from relay.run import terminal

        tty = terminal.open_own()
        if tty is None:
            return False
        ours = terminal.in_foreground(tty)
        os.close(tty)
        return ours

    def _say_on_terminal(self, text: str) -> bool:
        """Write a line on the terminal, if stderr is not a terminal and we are in the terminal's foreground."""
        if self.batch or _stderr_is_terminal():
            return False
        from relay.run import terminal

        tty = terminal.open_own()
        if tty is None:
            return False
        ours = terminal.in_foreground(tty)
        if ours:
            self._progress.speak()
            where = f"{self._progress.place}: " if self._progress.place else ""
            terminal.write(tty, f"\rpyrelay: {where}{text}\n")
        os.close(tty)
        return ours

    def restore(self) -> None:
        """Set the terminal's modes back to what they were; for the main thread, before it ends the process.

        It may be called at any time, more than once, and from a signal's handler.
        """
        # The other thread may be about to turn echo off, or be stuck in that, if the terminal is stopped.
        free = self._modes.acquire(timeout=_PATIENCE)
        self._over = True
        question, self._open = self._open, None
        if question is not None:
            from relay.run import terminal

            if terminal.set_modes(question.tty, question.before):
                terminal.write(question.tty, "\n")
        if free:
            self._modes.release()

    def go_on(self) -> None:
        """Ask again, with echo off again: the process goes on after Ctrl-Z. For the main thread, in a signal's handler.

        There is no handler for the stop itself. It would run while the read of the terminal goes on, and that would
        take the shell's next line for an answer. So Ctrl-Z ends the read, and the code that reads then stops us.
        """
        question = self._open
        if question is not None:
            from relay.run import terminal

            if terminal.set_modes(question.tty, question.during):
                terminal.write(question.tty, f"\r{question.text}")

    def _put(self, text: Callable[[int], str], echo: bool, askpass: str, confirm: bool) -> bytes:
        """Ask on the terminal or through askpass, as the rules say; return the answer.

        text: returns the question's text for a terminal with so many columns, 0 if that is not known.
        """
        first, allowed = askpass_rules(self.environ)
        if first and allowed:
            return self._ask_program(askpass, confirm)
        from relay.run import terminal

        tty = terminal.open_own()
        if tty is None:
            if allowed:
                return self._ask_program(askpass, confirm)
            raise NobodyToAsk(
                "there is no terminal to ask on, and no askpass program may be used",
                hint="askpass needs SSH_ASKPASS, and DISPLAY or SSH_ASKPASS_REQUIRE=force",
            )
        try:
            if not terminal.in_foreground(tty):
                raise NobodyToAsk("nobody can be asked from the background of a terminal")
            return self._ask_terminal(tty, text(terminal.columns(tty)), echo)
        finally:
            os.close(tty)

    def _ask_terminal(self, tty: int, text: str, echo: bool) -> bytes:
        """Ask on the terminal; return the answer. Type-ahead is dropped: it was not meant for us."""
        import termios

        from relay.run import terminal

        before = termios.tcgetattr(tty)
        during = [*before]
        if not echo:
            during[3] &= ~(termios.ECHO | termios.ECHONL)
        suspend = b""
        if _signal.getsignal(_signal.SIGTSTP) is not _signal.SIG_IGN:
            suspend = terminal.stop_by_read(during, tty)

        def stop() -> None:
            """As ssh does at Ctrl-Z: some shells take the terminal's modes as they find them (dash, ash)."""
            terminal.set_modes(tty, before)
            os.killpg(0, _signal.SIGTSTP)  # ssh and us; go_on asks again

        try:
            with self._modes:
                if self._over:
                    raise NobodyToAsk("the program is about to end")
                self._open = _Question(tty, before, during, text)
                termios.tcsetattr(tty, termios.TCSAFLUSH, during)
            terminal.write(tty, f"\r{text}")
            answer = terminal.read_line(tty, suspend, stop)
        except (OSError, termios.error) as error:
            raise NobodyToAsk(f"the terminal is gone: {error}") from error
        finally:
            terminal.set_modes(tty, before)
            self._open = None
            if not echo:
                terminal.write(tty, "\n")
        if answer is None:
            raise Cancelled("the question was not answered")
        return answer

    def _ask_program(self, text: str, confirm: bool) -> bytes:
        """Return the first line that the askpass program prints; an exit status other than 0 means Cancelled."""
        program = _askpass(self.environ)
        hint = ["env", "SSH_ASKPASS_PROMPT=confirm"] if confirm else []
        try:
            child = self._children.ask([*hint, program, encoded(text)])
        except OSError as error:
            raise NobodyToAsk(f"the askpass program {program} cannot be run: {error.strerror}") from error
        answer, said = child.communicate()
        if child.returncode != 0:
            why = presentable(said.decode(errors="replace")).strip()
            raise Cancelled(f"the question was cancelled ({why})" if why else "the question was cancelled")
        line = answer[:_ENOUGH].partition(b"\n")[0].rstrip(b"\r")
        return b"yes" if confirm and not line else line


def _askpass(environ: Mapping[str, str]) -> str:
    """The askpass program."""
    return environ.get("SSH_ASKPASS") or "ssh-askpass"


def askpass_rules(environ: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether askpass comes before the terminal, and whether it may be used at all (read_passphrase, readpass.c)."""
    display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    require = environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if require == "force":
        return True, True
    return require == "prefer", display and require != "never"


def presentable(text: str) -> str:
    """Text that is safe on a terminal: without control and format characters, except line ends, and cut at _LONGEST."""
    return plain(text[:_LONGEST].replace("\r", ""))


def _stderr_is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):  # closed, or never there
        return False
