"""Words for a relay that does not read, or reads late: they hold up nobody, and those that matter get there."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import uvloop
from contract import MIB, SOON, Ends, Meanwhile
from lab import Lab
from peers import until
from shared import AGAIN, command, control, holders, relay, under_way

from relay.share.holder_wire import KEPT_MOST, HolderWire
from relay.share.wire import Ended, Wire

LINES = 20_000  # more than a socket or a pipe holds
FLOOD = f"seq 1 {LINES} >&2; touch {{done}}"


# The wire


class Talk:
    """A holder's wire with its loop, and the relay's wire at the other end.

    heard: the kinds of the messages that the relay has read. over: whether the holder's wire has closed by itself.
    """

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.loop = uvloop.new_event_loop()
        self.holder, self.relay = HolderWire(near, self.loop), Wire(far)
        self.heard: list[str] = []
        self.over = False

    def finish(self) -> None:
        """The holder has no more to say."""
        self.holder.finish(self._end)
        self.loop.call_later(SOON, self.loop.stop)
        self.loop.run_forever()

    def _end(self) -> None:
        self.over = True
        self.loop.stop()

    def read(self) -> None:
        """Read until the end."""
        with suppress(Ended):
            while True:
                self.heard.append(self.relay.receive()[0])


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.holder.close()
    made.relay.close()
    made.loop.close()


def test_what_is_not_taken_at_once_is_kept(talk: Talk) -> None:
    talk.holder.send("lines", bytes(3 * MIB))
    talk.holder.send("ended")
    with Meanwhile(talk.read):
        talk.finish()
    assert talk.over
    assert talk.heard == ["lines", "ended"]


def test_lines_for_stderr_are_dropped_before_they_fill_the_memory(talk: Talk) -> None:
    """No other message is."""
    lines = 4 * KEPT_MOST // 1000
    for _ in range(lines):
        talk.holder.say("shared hop (h1)", "x" * 1000)
    talk.holder.send("ended")
    with Meanwhile(talk.read):
        talk.finish()
    assert KEPT_MOST // 1100 < talk.heard.count("say") < lines
    assert talk.heard[-1] == "ended"


def test_an_answer_that_comes_too_late_is_passed_over(talk: Talk) -> None:
    assert talk.holder.receive_within(0) is None
    assert talk.holder.receive_within(0) is None
    for word in ("first", "second", "third", "fourth"):
        talk.relay.send(word)
    assert talk.holder.receive_within(SOON) == ("third", [])
    assert talk.holder.receive() == ("fourth", [])
    assert talk.holder.receive_within(0) is None
    for word in ("fifth", "sixth"):
        talk.relay.send(word)
    assert talk.holder.receive() == ("sixth", [])


def test_nothing_is_kept_for_a_relay_that_has_gone(talk: Talk) -> None:
    talk.holder.send("lines", bytes(3 * MIB))
    talk.relay.close()
    talk.finish()
    assert talk.over
    with pytest.raises(Ended):
        talk.holder.send("ended")


# Relays


def test_a_program_that_says_much_while_the_bytes_move(shared: Lab) -> None:
    """Its relay shows all of it, as the words of its hop, and then knows how the stream has ended."""
    gate, done, said = (shared.top / name for name in ("gate", "done", "said"))
    os.mkfifo(gate)
    script = shared.top / "script"
    script.write_text(f"#!/bin/sh\n(read -r _ <{gate}; {FLOOD.format(done=done)}) &\nexec nc $1 $2\n")
    script.chmod(0o755)
    shared.host("h1", ProxyCommand=f"{script} %h %p")
    with said.open("wb") as stderr:
        ends = under_way(Ends(command(shared), env=shared.environment(), stderr=stderr))
    os.kill(ends.process.pid, signal.SIGSTOP)
    gate.write_text("go\n")
    until(done.exists, "end of the words", SOON)
    os.kill(ends.process.pid, signal.SIGCONT)
    until(lambda: said.read_bytes().count(b"\n") >= LINES, "words", SOON)
    ends.converse(3)
    ends.end()
    ends.far_end()
    assert ends.status() == 0
    assert said.read_text() == "".join(f"pyrelay: hop 1 of 1 (h1): {line}\n" for line in range(1, LINES + 1))
    ends.close()


@pytest.mark.parametrize("stage", ["login", "bytes"])
def test_a_relay_whose_stderr_nobody_reads_holds_up_nobody(lab: Lab, stage: str) -> None:
    """Nor does it keep the holder from its end."""
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.servers("h2", "h3")
    done = lab.top / "done"
    crossing = f"({FLOOD.format(done=done)}) & exec " + ("sleep 1000" if stage == "login" else "nc %h %p")
    other = under_way(relay(lab, "h3"))
    with ExitStack() as stack:
        stack.callback(other.close)
        if stage == "login":
            lab.start(lab.program, "-F", lab.write_config(), *AGAIN, "--netcat-command", crossing, "h1/h2/h3")
        else:
            stack.callback(relay(lab, "h1", "--netcat-command", crossing).close)
        until(done.exists, "end of the words", SOON)
        other.converse(3)
        control(lab, "exit")
        assert other.status() == 1
        until(lambda: not holders(lab), "end of the holder", SOON)
