"""How programs that pyrelay has started are ended."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from relay.errors import RelayError
from relay.run.children import PATIENCE, Children

# It only notes the signals, as ssh does at a question when they come just before it waits for what is typed; and says
# how many it has noted when it is told to once more.
DEAF = """
import os, signal
noted = []
def note(number, frame):
    if len(noted) == 2:
        os._exit(7)
    noted.append(number)
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, note)
os.write(1, b"ready")
while True:
    signal.pause()
"""
STUBBORN = """
import os, signal
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
os.write(1, b"ready")
while True:
    signal.pause()
"""


def ended(*programs: str) -> tuple[list[int], float]:
    """The exit statuses of programs that were ended, and how long that took."""
    children = Children()
    running = []
    for program in programs:
        near, far = socket.socketpair()
        with near, far:
            running.append(children.connect([sys.executable, "-c", program], far))
            assert near.recv(5) == b"ready"
    began = time.monotonic()
    children.end()
    return [child.wait() for child in running], time.monotonic() - began


def test_what_has_not_noticed_is_told_again() -> None:
    assert ended(DEAF)[0] == [7]


def test_nothing_is_started_once_the_end_has_begun() -> None:
    """It would outlive us."""
    children = Children()
    children.end()
    near, far = socket.socketpair()
    with near, far:
        for start in (
            lambda: children.connect(["true"], far),
            lambda: children.ask(["true"]),
            lambda: children.add(lambda: pytest.fail("started")),
        ):
            with pytest.raises(RelayError, match="the program is about to end"):
                start()


def test_what_a_program_says_is_safe_to_print() -> None:
    told: list[str] = []
    children = Children(tell=told.append)
    near, far = socket.socketpair()
    with near, far:
        children.connect(["sh", "-c", r"printf 'a\033[31mb\377\n \n\233c' >&2"], far).wait()
    children.hear_out(PATIENCE)
    assert told == ["a [31mb\ufffd", "\ufffdc"]


def test_what_does_not_end_is_killed() -> None:
    statuses, took = ended(STUBBORN)
    assert statuses == [-9]
    assert took >= PATIENCE


def test_one_that_does_not_end_keeps_no_other_from_being_told_again() -> None:
    assert ended(DEAF, STUBBORN)[0] == [7, -9]
