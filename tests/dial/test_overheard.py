"""What ssh says of a hop that it carries, where pyrelay listens to learn by which method ssh has got in."""

from __future__ import annotations

import os
import socket
from threading import Thread, Timer

import pytest

from relay.dial import overheard
from relay.dial.openssh import SshStream
from relay.run.program import Program

LINES = 400  # the pipe that ssh writes to holds all of them


def filled() -> tuple[int, int]:
    """A pipe that takes nothing more until it is read: what a terminal is after Ctrl-S."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.parametrize("before", ["", 'Authenticated to h1 ([192.0.2.1]:22) using "publickey".'])
def test_its_last_words_are_passed_on_before_it_counts_as_ended(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    reader, writer = filled()
    monkeypatch.setattr(overheard, "STDERR", writer)
    shown: list[bytes] = []

    def show() -> None:
        while data := os.read(reader, 4096):
            shown.append(data)

    terminal = Thread(target=show)
    heard = overheard.Overheard(all_of_it=False)
    ours, theirs = socket.socketpair()
    says = f"echo '{before}'; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i of ssh; done; exit 255"
    with theirs:
        child = Program(["sh", "-c", says], os.environ, {0: theirs.fileno(), 1: heard.writer})
    heard.started()
    stream = SshStream(ours, child, lambda: None, "hop 1 of 1 (h1)")
    stream.heard = heard
    Timer(0.5, terminal.start).start()
    assert stream.status() == 255
    os.close(writer)
    terminal.join()
    assert b"".join(shown).count(b" of ssh\n") == LINES
    os.close(reader)
    stream.close()
