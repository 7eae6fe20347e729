"""The line that says what is waited for: shown to a person, to nobody else, and gone before anything else is said."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from lab import Lab
from login_server import SUCCESS, Request, asking, failure
from peers import LOOPBACK, need
from scripted_proxy import BANNER, BOUND, Line, Peer
from terminal import Terminal

from relay.errors import printable
from relay.run.guard import LOOK_ROUND
from relay.run.progress import PATIENCE
from relay.run.status import ERASE

GONE = ERASE.decode()
WIDTH = 80  # columns of the terminal
SOON = 30.0  # seconds; nothing here takes as long


class Slow:
    """A SOCKS5 proxy that answers when it is told to, or after a while."""

    def __init__(self) -> None:
        self.code = 0
        self.answer = threading.Event()
        self._peer = Peer(self._play)
        self.address = f"{LOOPBACK}:{self._peer.port}"
        self.place = f"the SOCKS5 proxy {self.address}"
        self.line = printable(
            f"pyrelay: target.example: waiting for {self.place} to reach target.example port 22", WIDTH - 1
        )

    def _play(self, line: Line) -> None:
        line.hear(3)
        line.say(b"\x05\x00")
        line.hear(4)
        line.hear_field()
        line.hear(2)
        self.answer.wait()
        line.say(bytes((5, self.code, 0)) + BOUND + (b"" if self.code else BANNER))
        line.last()

    def stop(self) -> None:
        self.answer.set()
        self._peer.stop()


@pytest.fixture
def slow() -> Iterator[Slow]:
    proxy = Slow()
    yield proxy
    proxy.stop()


def started(lab: Lab, slow: Slow, *options: str) -> Terminal:
    return Terminal(lab, lab.program, *options, "-x", slow.address, "target.example")


def test_it_is_there_as_long_as_is_waited(lab: Lab, slow: Slow) -> None:
    with started(lab, slow) as terminal:
        assert terminal.expect(slow.line).endswith(f"\n{GONE}")  # after the words for who runs it by hand
        slow.answer.set()
        assert terminal.expect(BANNER.decode().strip()) == GONE


def test_it_goes_before_an_error_is_said(lab: Lab, slow: Slow) -> None:
    slow.code = 4
    with started(lab, slow) as terminal:
        terminal.expect(slow.line)
        slow.answer.set()
        assert terminal.expect("pyrelay: target.example: host unreachable") == GONE
        assert terminal.wait() == 1


def test_it_goes_at_the_deadline(lab: Lab, slow: Slow) -> None:
    with started(lab, slow, "-w", "2") as terminal:
        terminal.expect(slow.line)
        assert terminal.expect("pyrelay: target.example: no answer within 2 seconds") == GONE


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_it_goes_at_a_signal(lab: Lab, slow: Slow, number: signal.Signals) -> None:
    with started(lab, slow) as terminal:
        terminal.expect(slow.line)
        terminal.signal_all(number)
        terminal.wait()
        assert terminal.shown.endswith(f"{slow.line}{GONE}")


def test_it_goes_before_the_first_byte_to_ssh(lab: Lab, slow: Slow) -> None:
    lab.host("target", HostName="target.example", ProxyCommand=f"pyrelay -x {slow.address} %h 22")
    with Terminal(lab, "ssh", "-F", lab.config, "target") as terminal:
        terminal.expect(slow.line)
        slow.answer.set()
        assert terminal.expect(GONE) == ""
        terminal.wait()
        assert GONE not in terminal.shown.partition(slow.line + GONE)[2]


# What keeps it away: the environment, the options, and the end of the shell's command or its beginning.
SILENT: dict[str, tuple[dict[str, str], str]] = {
    "quiet": ({}, "pyrelay -q {words}"),
    "whole lines": ({}, "pyrelay -v {words}"),
    "a low LogLevel": ({}, "pyrelay -o LogLevel=error {words}"),
    "a dumb terminal": ({"TERM": "dumb"}, "pyrelay {words}"),
    "stderr elsewhere": ({}, "pyrelay {words} 2>/dev/null"),
    "a program that reads keys": ({}, "stty -icanon; pyrelay {words}"),
    "a password that is typed": ({}, "stty -echo; pyrelay {words}"),
    "the background": ({}, "set -m; pyrelay {words} </dev/null >{out} & wait; cat {out}"),
}


def test_not_for_those_who_do_not_want_it(lab: Lab, slow: Slow) -> None:
    """The line of a run that wants it comes last; nothing has come to the others by then."""
    words = f"-x {slow.address} target.example"
    with ExitStack() as stack:
        terminals = {
            name: stack.enter_context(
                Terminal(lab, need("bash"), "--norc", "-c", command.format(words=words, out=lab.top / "out"), env=env)
            )
            for name, (env, command) in SILENT.items()
        }
        alone = lab.start(lab.program, *words.split())
        stack.enter_context(started(lab, slow)).expect(slow.line)
        terminals["whole lines"].expect(f"pyrelay: target.example: waiting for {slow.place} to reach")
        slow.answer.set()
        for name, terminal in terminals.items():
            terminal.expect(BANNER.decode().strip())
            assert GONE not in terminal.shown, name
        assert alone.communicate(timeout=SOON) == (BANNER, b"")


# Hops


def test_for_hops(lab: Lab) -> None:
    lab.silent("h1")
    lab.host("h2")
    shared = f"pyrelay -F {lab.write_config()} --share 1 h1/h2 </dev/null | cat"
    with (
        Terminal(lab, lab.program, "-F", lab.config, "h1/h2") as terminal,
        Terminal(lab, "sh", "-c", shared) as sharing,
    ):
        for each in (terminal, sharing):
            each.expect("pyrelay: hop 1 of 1 (h1): waiting for the server's ident")


def test_it_goes_before_a_question_and_comes_back_for_the_next_wait(lab: Lab) -> None:
    go_on = threading.Event()
    lab.at_end(go_on.set)

    def script(request: Request) -> list[bytes]:
        go_on.wait(SOON)
        go_on.clear()
        return [SUCCESS] if request.method == "password" else [failure("password")]

    asking(lab, "h1", script)
    lab.host("h2", Port=lab.server("h3").port)
    with Terminal(lab, lab.program, "-F", lab.config, "h1/h2") as terminal:
        terminal.expect("pyrelay: hop 1 of 1 (h1): login")
        go_on.set()
        assert terminal.expect("pyrelay: ") == f"{GONE}\r"
        terminal.answer("@h1's password: ", "x")
        assert GONE in terminal.expect("pyrelay: hop 1 of 1 (h1): login")
        go_on.set()
        assert terminal.expect("SSH-2.0-") == GONE


def test_the_loglevel_of_the_hop_counts(lab: Lab) -> None:
    go_on = threading.Event()
    lab.at_end(go_on.set)

    def script(_: Request) -> list[bytes]:
        go_on.wait(SOON)
        return [SUCCESS]

    asking(lab, "h1", script)
    asking(lab, "quiet", script)
    lab.host("quiet", LogLevel="ERROR")
    lab.host("h2", Port=lab.server("h3").port)
    with Terminal(lab, lab.program, "-F", lab.config, "quiet/h2") as quiet:
        with Terminal(lab, lab.program, "-F", lab.config, "h1/h2") as terminal:
            terminal.expect("hop 1 of 1 (h1): login")
        go_on.set()
        quiet.expect("SSH-2.0-")
        assert "(quiet)" not in quiet.shown  # what comes after that hop may have a line, on a busy machine


def test_the_terminal_is_left_to_a_program_that_may_write_on_it(lab: Lab) -> None:
    """A first hop's ProxyCommand, until its server has spoken."""
    go_on = lab.top / "go-on"
    os.mkfifo(go_on)
    program = lab.top / "command"
    port = lab.server("h3").port
    program.write_text(f"#!/bin/sh\necho Visit us: >/dev/tty\nread line <{go_on}\nexec pyrelay 127.0.0.1 {port}\n")
    program.chmod(0o755)
    lab.host("h1", ProxyCommand=program, Port=port)
    lab.know("h1", port, lab["h3"].host_keys)
    with Terminal(lab, lab.program, "-F", lab.config, "h1/h3") as terminal:
        terminal.expect("Visit us:\n")
        terminal.stays_as_it_is(PATIENCE + 2 * LOOK_ROUND)
        go_on.write_text("on\n")
        # What comes then may take more than a second, too, and be said.
        assert "server's ident" not in terminal.expect("SSH-2.0-")
