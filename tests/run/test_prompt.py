"""Asking: who is asked, and what is shown. What a person types is in test_login_asked.py."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.run import terminal
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import NobodyToAsk, Prompt, askpass_rules, presentable

SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    ("environ", "first", "allowed"),
    [
        ({}, False, False),
        (SCREEN, False, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, False, True),
        ({"DISPLAY": ""}, False, False),
        ({"SSH_ASKPASS": "/bin/x"}, False, False),
        ({"SSH_ASKPASS_REQUIRE": "force"}, True, True),
        ({"SSH_ASKPASS_REQUIRE": "FORCE"}, True, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, True, False),
        ({**SCREEN, "SSH_ASKPASS_REQUIRE": "prefer"}, True, True),
        ({**SCREEN, "SSH_ASKPASS_REQUIRE": "never"}, False, False),
        ({**SCREEN, "SSH_ASKPASS_REQUIRE": "other"}, False, True),
    ],
)
def test_the_rules_of_askpass(environ: dict[str, str], first: bool, allowed: bool) -> None:
    assert askpass_rules(environ) == (first, allowed)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: ", "password: "),
        ("two\r\nlines: ", "two\nlines: "),
        ("\x1b[2J\x9b2J\x07", " [2J 2J "),
        ("right \u202eto left", "right  to left"),
        ("Пароль: ", "Пароль: "),
    ],
)
def test_presentable(text: str, shown: str) -> None:
    assert presentable(text) == shown


@given(st.text())
def test_nothing_that_a_terminal_obeys(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in presentable(text))


def test_a_question_has_an_end() -> None:
    assert len(presentable("x" * 1_000_000)) < 10_000


def test_batch() -> None:
    with pytest.raises(NobodyToAsk):
        Prompt(Progress(), Children(), batch=True).ask("password: ")


def test_nothing_to_restore() -> None:
    prompt = Prompt(Progress(), Children())
    prompt.restore()
    prompt.restore()


def test_nobody_is_asked_once_the_terminal_has_been_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its echo would stay off."""
    master, slave = os.openpty()
    monkeypatch.setattr(terminal, "open_own", lambda: os.dup(slave))
    monkeypatch.setattr(terminal, "in_foreground", lambda _: True)
    prompt = Prompt(Progress(), Children())
    prompt.restore()
    # Only where it asks all the same, so that the test then fails and does not hang.
    answer = threading.Timer(1.0, os.write, (master, b"secret\n"))
    answer.start()
    with pytest.raises(NobodyToAsk, match="about to end"):
        prompt.ask("password: ")
    answer.cancel()
    answer.join()
    for fd in (master, slave):
        os.close(fd)


def test_a_persons_time_is_not_counted() -> None:
    """However the guard's look falls into `resume`, the deadline never comes nearer by it."""
    progress = Progress(60)
    left = progress.remaining()
    progress.pause()
    assert progress._waits is not None
    for span in (progress._waits.stopped, progress._waits.persons):
        span._since -= 1000  # as if asked a thousand seconds ago
    progress._start -= 1000
    progress._began -= 1000
    assert progress.remaining() == pytest.approx(left, abs=5)
    progress.resume()
    assert progress.remaining() == pytest.approx(left, abs=5)
    assert progress.taken() == pytest.approx(0, abs=5)


def test_patience_stops_the_deadline_and_counts_as_the_stages_own_time() -> None:
    progress = Progress(60)
    assert progress.be_patient()
    assert progress._waits is not None
    progress._waits.stopped._since -= 1000
    progress._start -= 1000
    progress._began -= 1000
    progress.pause()  # a question meanwhile
    progress.resume()
    progress.end_patience()
    assert progress.remaining() == pytest.approx(60, abs=5)
    assert progress.taken() == pytest.approx(1000, abs=5)


def test_no_patience_under_a_deadline_that_is_named() -> None:
    progress = Progress(60, strict=True)
    progress.by_program(seen=True)
    progress._start -= 1000
    assert progress.remaining() < 0
