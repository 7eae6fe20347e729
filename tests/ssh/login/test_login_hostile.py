"""Logins at servers that mean harm: words that pass for another's, and rounds without end."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from login_server import KEXINIT, Request, asking, change_request, failure, questions, scripted
from peers import need
from terminal import NO_STATUS, askpass, ssh

from relay.ssh.pubkey import string

if TYPE_CHECKING:
    from lab import Lab


def proxy(lab: Lab, options: str) -> list[str]:
    """What makes ssh start pyrelay with these options."""
    return ["-o", f"ProxyCommand={lab.program} {options} -F {lab.config} %h %p"]


def test_every_line_of_a_server_has_the_mark_of_its_hop(target: Lab) -> None:
    """Else a hop could ask for the password of another one, and explain it."""
    fake = f"pyrelay: {target.user}@h2's password: "

    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            instruction = f"\n\nhint: type it again\r\n{fake}\rpyrelay: hop 2 of 2 (h2): permission denied"
            return [questions((f"\nNo.\n{fake}", False), title=f"Gate\n{fake}", instruction=instruction)]
        return [failure("keyboard-interactive")]

    asking(target, "h1", script)
    with ssh(target, "h1/h2", env=NO_STATUS) as terminal:
        terminal.answer(f"({target.user}@h1) No.\n({target.user}@h1) {fake}", "secret")
        lines = terminal.shown.replace("\r", "").split("\n")
    marks = ("(", "pyrelay: (", "pyrelay: hop 1 of 1 (h1): (")
    marked = tuple(f"{mark}{target.user}@h1) " for mark in marks)
    assert [line for line in lines if line and not line.startswith(marked)] == []
    assert sum(fake in line for line in lines) == 3


@pytest.mark.parametrize("columns", [80, 27, 19, 16])
@pytest.mark.parametrize("letter", [" ", "x", "字"])
@pytest.mark.parametrize("way", ["", "--share 1"])
def test_every_row_of_a_question_has_it_too(target: Lab, way: str, letter: str, columns: int) -> None:
    """A question may be just so long that the terminal itself puts the rest into a row of its own."""

    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            words = f"Gate {letter * 130}{target.user}@h2's password: "
            return [questions((f"{words}\nGo on?", False))]
        return [failure("keyboard-interactive")]

    asking(target, "h1", script)
    with ssh(target, *proxy(target, way), "h1/h2", env=NO_STATUS, columns=columns) as terminal:
        terminal.expect("?")  # the last letter of it all
        lines = terminal.shown.replace("\r", "").rstrip("\n").split("\n")
    marked = re.compile(rf"(pyrelay: )?{re.escape(f'({target.user}@h1) ')}(.*)")
    rows = [marked.fullmatch(line) for line in lines if line != "pyrelay:"]
    assert all(rows), lines
    assert max(len(line) + line.count("字") for line in lines) <= columns
    assert sum(row[2].count(letter) for row in rows if row is not None) >= 130


@pytest.mark.parametrize("columns", [60, 80])
def test_a_mark_as_long_as_a_row(target: Lab, columns: int) -> None:
    name = "ec2-203-0-113-25.compute-1.amazonaws.com"

    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            return [questions(("alice@h2's password: " * 20 + "?", False))]
        return [failure("keyboard-interactive")]

    asking(target, name, script)
    target.host(name, User="ec2-user")
    with ssh(target, f"{name}/h2", env=NO_STATUS, columns=columns) as terminal:
        terminal.expect("?")
        lines = terminal.shown.replace("\r", "").removeprefix("pyrelay:\n").split("\n")
    assert [
        line for line in lines if not re.match("(pyrelay: )?" + re.escape("(ec2-user@ec2-203-0-113-25"), line)
    ] == []
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize("way", ["", "--share 1"])
def test_more_words_than_anybody_reads(target: Lab, way: str) -> None:
    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            return [questions(("Code: ", False), instruction="a" + "\n" * 120_000 + "b")]
        return [failure("keyboard-interactive")]

    asking(target, "h1", script)
    with ssh(target, *proxy(target, way), "h1/h2", env=NO_STATUS) as terminal:
        terminal.expect("Code: ")
        assert len(terminal.shown) < 20_000


def test_every_line_that_wants_a_new_password_has_it_too(target: Lab) -> None:
    def script(request: Request) -> list[bytes]:
        return [change_request("It is old.\nhint: none") if request.method == "password" else failure("password")]

    asking(target, "h1", script)
    with ssh(target, "h1/h2") as terminal:
        terminal.answer("@h1's password: ", "old")
        terminal.expect(f"{target.user}@h1: the server wants a new password: It is old.\n")
        terminal.expect(f"{target.user}@h1: hint: none\n")


@pytest.mark.parametrize("ident", ["", "SSH-2.0-OpenSSH_9.9"])
def test_partial_success_without_end(target: Lab, ident: str) -> None:
    """The second is asked for the channel along with each login."""

    def script(request: Request) -> list[bytes]:
        return [] if request.method == "channel" else [failure("publickey", partial=True)]

    h1 = scripted(target, "h1", script, ident=ident)
    ran = target.pyrelay("h1/h2")
    assert (ran.returncode, ran.stdout) == (1, "")
    said = "pyrelay: hop 1 of 1 (h1): the server wants yet another login after 16 that it has granted\n"
    assert ran.stderr.startswith(said)
    assert h1.requests.count("publickey") <= 17
    assert h1.requests.count("channel") <= 3


def test_a_second_kexinit_does_not_hide_a_changed_host_key(target: Lab) -> None:
    """The key of the first exchange is looked at in one thread while the other begins a second exchange."""
    server = scripted(target, "h1", lambda _: [failure("password")])
    lists = ("curve25519-sha256", "foo", *("aes128-ctr",) * 2, *("hmac-sha2-256",) * 2, *("none",) * 2, "", "")
    server.behind_keys = KEXINIT + bytes(16) + b"".join(string(names.encode()) for names in lists) + bytes(5)
    other = Path(f"{target.keygen('other')}.pub").read_text()
    target.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}")
    revoked = target.top / "krl"
    subprocess.run([need("ssh-keygen"), "-q", "-k", "-f", revoked, f"{target.identity}.pub"], check=True)
    target.host("h1", RevokedHostKeys=revoked)  # it takes a moment to look there
    ran = target.pyrelay("h1/h2")
    assert (ran.returncode, "REMOTE HOST IDENTIFICATION HAS CHANGED" in ran.stderr) == (1, True), ran.stderr


def test_an_ident_with_more_digits_than_a_number_has(target: Lab) -> None:
    ident = f"SSH-2.0-OpenSSH_{'9' * 5000}.1"
    scripted(target, "h1", lambda _: [failure("publickey")], ident=ident, BatchMode="no")
    ran = target.pyrelay("h1/h2")
    assert (ran.returncode, "Permission denied" in ran.stderr) == (1, True), ran.stderr


def everything(request: Request, answer: bytes) -> list[bytes]:
    return [failure("keyboard-interactive", "password") if request.method == "none" else answer]


@pytest.mark.parametrize(("level", "most"), [("ERROR", 0), ("INFO", 64)])
def test_rounds_without_a_question(target: Lab, level: str, most: int) -> None:
    words = questions(title="Gate\n" * 1000, instruction="Wait.\n" * 1000)
    h1 = asking(target, "h1", lambda request: everything(request, words))
    target.host("h1", LogLevel=level)
    ran = target.pyrelay("h1/h2")
    assert (ran.returncode, ran.stdout) == (1, "")
    said = ran.stderr.splitlines()
    assert said[-1] == "pyrelay: hop 1 of 1 (h1): the server does not stop asking: 64 rounds of keyboard-interactive"
    assert len(said) - 1 == most
    assert h1.requests.count("answers") == 64


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (questions(("Code: ", False)), "does not stop asking: 64 rounds"),
        (change_request("Once more."), "does not stop asking for a new password"),
    ],
)
def test_questions_to_a_program_that_always_answers(target: Lab, answer: bytes, words: str) -> None:
    method = "password" if "new" in words else "keyboard-interactive"

    def script(request: Request) -> list[bytes]:
        return [failure(method) if request.method == "none" else answer]

    asking(target, "h1", script)
    ran = target.run(target.program, "-F", target.config, "h1/h2", env=askpass(target, "echo yes"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert words in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "message",
    [
        b"\x14",  # KEXINIT
        b"\x14" + bytes(16) + b"\xff" * 40,
        b"\x15",  # NEWKEYS
        b"\x1e\x00\x00\x00\x08",
        b"\x5b\x00\x00\x00\x08",  # channels that nobody has asked for
        b"\x5c\x00\x00\x00\x08",
        b"\x5e\x00\x00\x00\x08\x00\x00\x00\x01x",
        b"\x63\x00\x00\x00\x08",
        b"\x07\x00\x00\x00\x08",  # EXT_INFO
        b"\x01",  # DISCONNECT
        b"\x32",
        b"\xc0\x08",
    ],
    ids=bytes.hex,
)
def test_bytes_that_are_no_message_are_told_in_words(target: Lab, message: bytes) -> None:
    def script(request: Request) -> list[bytes]:
        return [] if request.method == "channel" else [message, failure("password")]

    scripted(target, "h1", script)
    ran = target.pyrelay("h1/h2")
    assert (ran.returncode, ran.stdout) == (1, "")
    said = ran.stderr.splitlines()[0]
    assert said.startswith("pyrelay: hop 1 of 1 (h1): ")
    bad = r"lost: (\d|'|[a-z]*error)|int\(\)|argument|unpack|object|negotiation failed|None|internal"
    assert not re.search(bad, said, re.IGNORECASE)
