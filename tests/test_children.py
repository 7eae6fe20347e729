"""How programs that pyrelay has started are ended."""

from __future__ import annotations

import socket
import sys
import time

from relay.children import PATIENCE, Children

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


def ended(program: str) -> tuple[int | None, float]:
    """The exit status of a program that was ended, and how long that took."""
    near, far = socket.socketpair()
    children = Children()
    with near, far:
        child = children.connect([sys.executable, "-c", program], far)
        assert near.recv(5) == b"ready"
        began = time.monotonic()
        children.end()
        return child.wait(), time.monotonic() - began


def test_what_has_not_noticed_is_told_again() -> None:
    assert ended(DEAF)[0] == 7


def test_what_does_not_end_is_killed() -> None:
    status, took = ended(STUBBORN)
    assert status == -9
    assert took >= PATIENCE
