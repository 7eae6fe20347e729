"""What a server says around a login: banners, reasons, and messages that fit nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from login_server import (
    SUCCESS,
    Request,
    asking,
    banner,
    change_request,
    disconnect,
    failure,
    passwords,
    questions,
)
from peers import until
from terminal import NO_STATUS, PATIENCE, ssh

if TYPE_CHECKING:
    from lab import Lab
from terminal import askpass

from relay.config.lookup import version
from relay.run.children import Children


@pytest.mark.parametrize("level", ["QUIET", "ERROR"])
def test_a_banner_that_is_not_wanted(target: Lab, level: str) -> None:
    asking(target, "h1", lambda _: [SUCCESS], banner(b"welcome\n"))
    target.host("h1", LogLevel=level)
    assert target.ssh("h1/h2", "true").stderr == ""


def test_a_banner_of_a_megabyte_of_control_characters(target: Lab) -> None:
    noise = bytes(range(1, 32)) + b"\x7f\x9b\xc2\x9b"
    text = b"Welcome.\n  Be \x1b[31mgood.\n" + noise * (1 << 20 >> 5)
    pieces = [text[at : at + 200_000] for at in range(0, len(text), 200_000)]  # a packet holds 256 KiB at most
    asking(target, "h1", passwords("secret"), *map(banner, pieces))
    with ssh(target, "h1/h2", "echo $SERVER", env=NO_STATUS) as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
        head = "pyrelay: hop 1 of 1 (h1): "
        assert f"{head}the server says:\n{head}  Welcome.\n{head}    Be [31mgood.\n" in terminal.shown
        assert all(c.isprintable() for c in terminal.shown.replace("\n", "").replace("\r", ""))
        assert len(terminal.shown) < 20_000


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (200_000, "the server says:"),
        (1_000_000, "a packet of 1000032 bytes" if version(Children()) >= (10, 6) else "closed the connection"),
    ],
)
def test_a_banner_of_a_real_server(lab: Lab, size: int, words: str) -> None:
    """Of a whole megabyte sshd itself cannot make a packet, and hangs up; 10.6 can, and no client takes that."""
    text = lab.top / "banner"
    text.write_bytes(b"Be good.\n" + b"\x1b\x9b[31m" * (size // 6))
    lab.server("h1", extra=f"Banner {text}")
    ran = lab.pyrelay("h1/127.0.0.1:1")
    assert ran.returncode == 1
    assert words in ran.stderr
    assert all(c.isprintable() for c in ran.stderr.replace("\n", ""))


def test_a_banner_of_a_megabyte_in_one_packet(target: Lab) -> None:
    """More than a packet may have: ssh ends the connection, too (PACKET_MAX_SIZE in packet.c)."""
    asking(target, "h1", passwords("secret"), banner(b"\x1b" * (1 << 20)))
    done = target.pyrelay("h1/h2")
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (h1): the connection was lost: a packet of 1")


def test_a_banner_of_four_thousand_lines(target: Lab) -> None:
    """What stands on the terminal is not to be scrolled away."""
    asking(target, "h1", lambda _: [SUCCESS], *[banner(b"x\n" * 2000)] * 2)
    assert target.ssh("h1/h2", "true").stderr.count("  x\n") == 60


def test_banners_are_silenced(target: Lab) -> None:
    asking(target, "h1", passwords("secret"), banner(b"Welcome.\n"))
    target.options = ["-q"]
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
        assert "Welcome" not in terminal.shown


def test_the_server_says_why_it_disconnects(target: Lab) -> None:
    asking(target, "h1", lambda _: [disconnect("the gate \x1b[1mis closed")])
    done = target.pyrelay("h1/h2")
    assert "the server ended the login as " in done.stderr
    assert "the gate [1mis closed" in done.stderr


def test_answers_to_nothing(target: Lab) -> None:
    """What nobody asked for is not kept for ever."""
    server = asking(target, "h1", lambda _: [failure("password")] * 100)
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("password: ")
        until(lambda: server.deserted, "the end of the connection", PATIENCE)  # else it could be an answer to that
        terminal.type("secret\n")
        terminal.expect("the connection was lost: the server answers what it was not asked; ")


@pytest.mark.parametrize(
    "answer", [b"\x33", b"\x33\x00\x00\xff\xffx", questions(*[("x", False)] * 65), change_request("")[:4], b"\x3c"]
)
def test_messages_that_cannot_be_read(target: Lab, answer: bytes) -> None:
    def script(request: Request) -> list[bytes]:
        return [failure("keyboard-interactive", "password")] if request.method == "none" else [answer]

    asking(target, "h1", script)
    target.write_config()
    done = target.run("pyrelay", "-F", target.config, "h1/h2", env=askpass(target, "echo x"))
    assert done.returncode == 1
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (h1): ")
    assert "internal error" not in done.stderr


def test_a_server_that_never_answers(target: Lab) -> None:
    asking(target, "h1", lambda _: [])
    done = target.pyrelay("-w", "1", "h1/h2")
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): no answer within 1 second (login)\n"


def test_no_secret_is_told_at_any_verbosity(target: Lab) -> None:
    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            return [questions(("Code: ", False))]
        if request.method == "password" and request.password() == ("hunter2",):
            return [SUCCESS]
        return [failure("keyboard-interactive", "password")]

    asking(target, "h1", script)
    target.options = ["-vvvv"]
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        for _ in range(3):
            terminal.answer("Code: ", "tr0ub4dor")
        terminal.answer("password: ", "hunter2")
        terminal.ends_well("h2\n")
        assert "hunter2" not in terminal.shown
        assert "tr0ub4dor" not in terminal.shown
