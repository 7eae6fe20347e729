"""The line that says what is waited for: shown to a person, to nobody else, and gone before anything else is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from lab import Lab
from peers import LOOPBACK, need
from scripted_proxy import BANNER, BOUND, Line, Peer
from terminal import Terminal

from relay.run.status import ERASE

GONE = ERASE.decode()
WAIT = 2.0  # seconds that a proxy takes where nobody tells it to answer; the line comes after one


class Slow:
    """A SOCKS5 proxy that answers when it is told to, or after a while."""

    def __init__(self) -> None:
        self.code = 0
        self.answer = threading.Event()
        self._patience: float | None = None
        self._peer = Peer(self._play)
        self.address = f"{LOOPBACK}:{self._peer.port}"
        self.line = f"pyrelay: waiting for the SOCKS5 proxy {self.address} to reach target.example"

    def by_itself(self) -> None:
        self._patience = WAIT

    def _play(self, line: Line) -> None:
        line.hear(3)
        line.say(b"\x05\x00")
        line.hear(4)
        line.hear_field()
        line.hear(2)
        self.answer.wait(self._patience)
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


def test_ssh_has_no_part_in_it(lab: Lab, slow: Slow) -> None:
    """It is the terminal that it is written on, not ssh's stderr."""
    lab.host("target", HostName="target.example", ProxyCommand=f"pyrelay -x {slow.address} %h 22 2>/dev/null")
    with Terminal(lab, "ssh", "-F", lab.config, "target") as terminal:
        terminal.expect(slow.line)
        slow.answer.set()
        terminal.expect(GONE)


def test_not_for_one_who_wants_quiet(lab: Lab, slow: Slow) -> None:
    slow.by_itself()
    with started(lab, slow, "-q") as terminal:
        assert terminal.expect(BANNER.decode().strip()) == ""


def test_not_from_the_background(lab: Lab, slow: Slow) -> None:
    slow.by_itself()
    command = f"{lab.program} -x {slow.address} target.example </dev/null >{lab.top}/out 2>&1 & wait; echo over"
    with Terminal(lab, need("bash"), "--norc", "-c", f"set -m; {command}") as terminal:
        terminal.expect("over")
        assert "waiting" not in terminal.shown
        assert (lab.top / "out").read_bytes() == BANNER


def test_not_without_a_terminal(lab: Lab, slow: Slow) -> None:
    slow.by_itself()
    ran = lab.run(lab.program, "-x", slow.address, "target.example")
    assert (ran.stdout, ran.stderr) == (BANNER.decode(), "")
