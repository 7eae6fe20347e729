"""What a hop's log has at the end of a relay: that its user has left, as it has of ssh -J; never a reset."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from shared import control

if TYPE_CHECKING:
    from lab import Lab
    from sshd import Server

LEFT = re.compile(r"^Received disconnect from \S+ port \d+:11: disconnected by user$", re.MULTILINE)


def left(server: Server, times: int = 1) -> bool:
    """Whether a server has been left in good order, so often and in no other way."""
    log = server.whole_log()
    return len(LEFT.findall(log)) == times and not re.search("reset by peer", log, re.IGNORECASE)


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


@pytest.mark.parametrize("way", [["h1/h3"], ["h1/h2/h3"], ["-J", "h1", "h3"], ["-J", "h1,h2", "h3"]], ids="-".join)
def test_ssh_has_ended(chain: Lab, way: list[str]) -> None:
    """(The second hop's sshd sees the first one close the connection, also with ssh -J.)"""
    assert chain.ssh(*way, "echo $SERVER").stdout == "h3\n"
    assert left(chain["h1"])


@pytest.mark.parametrize("stdin", [None, ""], ids=["", "eof"])
def test_the_target_has_ended(chain: Lab, stdin: str | None) -> None:
    chain.dying("x", b"bye\n")
    assert chain.pyrelay("h1/x", stdin=stdin).stdout == "bye\n"
    assert left(chain["h1"])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_relay(chain: Lab, number: int) -> None:
    process = chain.start(chain.program, "-F", chain.write_config(), "h1/h3", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"SSH-2.0-")
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert left(chain["h1"])


def test_nobody_waits_for_a_hop_that_does_not_answer(chain: Lab) -> None:
    process = chain.start(chain.program, "-F", chain.write_config(), "h1/h3", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"SSH-2.0-")
    hop = chain["h1"].connections[-1].process
    hop.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 128 + signal.SIGHUP
    assert time.monotonic() - began < 1
    hop.send_signal(signal.SIGCONT)


def test_shared_hops_are_left_by_the_holder(chain: Lab) -> None:
    chain.options += ["--share", "10m"]
    for _ in range(2):
        assert chain.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    control(chain, "exit")
    assert left(chain["h1"])
    assert "reset by peer" not in chain["h2"].whole_log()


def test_shared_hops_that_have_expired_are_left(chain: Lab) -> None:
    chain.options += ["--share", "1s"]
    assert chain.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert left(chain["h1"])


STUCK = """
import os, time
from relay.pump.goodbye import Goodbye
from relay.run import guard
guard.clean_up_on_signals(lambda: None)
held = Goodbye(guard.alarm(), lambda: None)
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:  # work that heeds nothing, and no sleep, before which a signal might come unseen
    pass
"""


def test_a_signal_that_is_not_heeded_ends_the_process_all_the_same() -> None:
    """Such as amid a write to a terminal that is stopped."""
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
