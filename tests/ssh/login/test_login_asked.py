"""Logins that a person answers for, typed on a terminal: passphrases, passwords, questions in rounds."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from login_server import (
    MORE,
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
from peers import need, until
from terminal import PATIENCE, Terminal, ssh

from relay.ssh.pubkey import string

if TYPE_CHECKING:
    from lab import Lab


@pytest.fixture
def target(lab: Lab) -> Lab:
    """A lab with a target h2."""
    lab.server("h2")
    return lab


def test_password(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer(f"pyrelay: {target.user}@h1's password: ", "secret")
        terminal.ends_well("h2\n")
        assert "secret" not in terminal.shown
        assert terminal.echo
    assert server.requests == ["none", "password"]


# Passwords


def test_every_hop_asks_by_its_name(target: Lab) -> None:
    first = asking(target, "ha", passwords("one"))
    second = asking(target, "hb", passwords("two"))
    with ssh(target, "alice%ha/bob%hb/h2", "echo $SERVER") as terminal:
        terminal.answer("pyrelay: alice@ha's password: ", "one")
        terminal.answer("pyrelay: bob@hb's password: ", "two")
        terminal.ends_well("h2\n")
    assert first.requests == second.requests == ["none", "password"]


def test_a_wrong_password_is_asked_for_again(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "wrong")
        terminal.expect("pyrelay: hop 1 of 1 (h1): permission denied, please try again\n")
        terminal.answer("@h1's password: ", "secret")
        terminal.ends_well("h2\n")
    assert server.requests == ["none", "password", "password"]


def test_number_of_password_prompts(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.host("h1", NumberOfPasswordPrompts=2)
    with ssh(target, "-l", "u", "h1/h2") as terminal:
        terminal.answer("@h1's password: ", "wrong")
        terminal.answer("@h1's password: ", "wrong")
        terminal.expect(f"login as {target.user} refused; the server takes password; offered: password (2 times)\n")
        assert terminal.wait() == 255
        assert "wrong" not in terminal.shown
    assert server.requests == ["none", "password", "password"]


def test_a_password_is_any_bytes(target: Lab) -> None:
    asking(target, "h1", passwords("pässwörd ☃ \\ '\""))
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "pässwörd ☃ \\ '\"")
        terminal.ends_well("h2\n")


def test_a_new_password_is_wanted(target: Lab) -> None:
    sent = []

    def script(request: Request) -> list[bytes]:
        if request.method != "password":
            return [failure("password")]
        sent.append(request.password())
        return [SUCCESS] if len(sent) == 2 else [change_request("Your password \x1b[31mhas expired.")]

    asking(target, "h1", script)
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "old")
        terminal.expect("@h1: the server wants a new password: Your password  [31mhas expired.\n")
        terminal.answer("@h1's old password: ", "old")
        terminal.answer("@h1's new password: ", "new")
        terminal.answer("@h1's new password, again: ", "newer")
        terminal.expect("the two are not the same; try again\n")
        terminal.answer("@h1's new password: ", "new")
        terminal.answer("@h1's new password, again: ", "new")
        terminal.ends_well("h2\n")
    assert sent == [("old",), ("old", "new")]


# Keyboard-interactive


def test_questions_in_rounds(target: Lab) -> None:
    rounds = [
        questions(("Password: ", False), title="Gate", instruction="Two factors.\n"),
        questions(),
        questions(("Code \x1b]0;x\x07: ", True), ("PIN: ", False)),
    ]
    answers: list[list[str]] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "answers":
            answers.append(request.answers())
        elif request.method != "keyboard-interactive":
            return [failure("keyboard-interactive")]
        return [rounds[len(answers)] if len(answers) < len(rounds) else SUCCESS]

    asking(target, "h1", script)
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        me = f"({target.user}@h1)"
        terminal.expect(f"{me} Gate\n")
        terminal.expect(f"{me} Two factors.\n")
        terminal.answer(f"pyrelay: {me} Password: ", "secret")
        terminal.expect(f"pyrelay: {me} Code  ]0;x : ")
        assert terminal.echo
        terminal.type("123\n")
        terminal.answer(f"pyrelay: {me} PIN: ", "0000")
        terminal.ends_well("h2\n")
    assert answers == [["secret"], [], ["123", "0000"]]


def test_questions_are_asked_again_and_then_the_next_method(target: Lab) -> None:
    def script(request: Request) -> list[bytes]:
        if request.method == "keyboard-interactive":
            return [questions(("Code: ", False))]
        if request.method == "password":
            return [SUCCESS]
        return [failure("password", "keyboard-interactive")]

    server = asking(target, "h1", script)
    target.host("h1", NumberOfPasswordPrompts=2)
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        for _ in range(2):
            terminal.answer("Code: ", "wrong")
        terminal.answer("password: ", "right")
        terminal.ends_well("h2\n")
    assert server.requests == ["none", *["keyboard-interactive", "answers"] * 2, "password"]


def test_questions_that_are_never_put(target: Lab) -> None:
    """As with ssh: a method that fails before it asks anything is not tried again."""
    server = asking(target, "h1", lambda _: [failure("keyboard-interactive")])
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("offered: keyboard-interactive (1 time)\n")
    assert server.requests == ["none", "keyboard-interactive"]


def test_a_key_and_then_questions(target: Lab) -> None:
    """AuthenticationMethods publickey,keyboard-interactive: a partial success is no login."""

    def script(request: Request) -> list[bytes]:
        if request.method.startswith("publickey"):
            return [failure("keyboard-interactive", partial=True)]
        if request.method == "keyboard-interactive":
            return [questions(("Code: ", False))]
        if request.method == "answers":
            return [SUCCESS if request.answers() == ["123"] else failure("keyboard-interactive")]
        return [failure("publickey")]

    server = asking(target, "h1", script, keys="yes")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("Code: ", "wrong")
        terminal.answer("Code: ", "123")
        terminal.ends_well("h2\n")
    assert server.requests[0].startswith("publickey")
    assert server.requests[1:] == ["keyboard-interactive", "answers"] * 2


def test_a_password_and_then_a_key(target: Lab) -> None:
    """AuthenticationMethods password,publickey: a key that was refused too early is offered again when it is due."""
    granted: list[str] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "password":
            granted.append("password")
            return [failure("publickey", partial=True)]
        return [SUCCESS if granted and request.method != "none" else failure("password")]

    server = asking(target, "h1", script, keys="yes")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
    assert [name.removesuffix("-hostbound-v00@openssh.com") for name in server.requests] == [
        "publickey",
        "password",
        "publickey",
    ]


def test_preferred_authentications(target: Lab) -> None:
    methods = ("publickey", "keyboard-interactive", "password")
    server = asking(target, "h1", passwords("secret", methods), keys="yes")
    target.host("h1", PreferredAuthentications="password,publickey")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
    assert server.requests == ["none", "password"]


@pytest.mark.parametrize("fault", ["permissions", "cipher"])
def test_who_is_asked_in_the_place_of_a_key_is_told_why(target: Lab, fault: str) -> None:
    """And not for the passphrase of one that it would not open."""
    if fault == "cipher":
        key = target.keygen("key", "ed25519", "-N", "opened", "-Z", "aes128-cbc")
        why = "it is encrypted with aes128-cbc; `ssh-keygen -p -f` on it would change that"
    else:
        key = target.keygen("key")
        key.chmod(0o644)
        why = "permissions 0644 are too open: others can read it (chmod 600)"

    def script(request: Request) -> list[bytes]:
        if request.method == "publickey" and not request.fields.number(1):  # it would do
            return [MORE + string(request.fields.string()) + string(request.fields.string())]
        return [SUCCESS if request.method == "password" else failure("publickey", "password")]

    asking(target, "hb", script, keys="yes")
    target.host("hb", IdentityFile=key)
    with ssh(target, "hb/h2", "echo $SERVER") as terminal:
        assert f"{why}\n" in terminal.expect("password: ")
        assert "passphrase for" not in terminal.shown
        terminal.type("secret\n")
        terminal.ends_well("h2\n")


@pytest.mark.parametrize("keys", [True, False])
def test_where_no_key_is_wanted_nothing_is_said_of_those_that_were_ignored(target: Lab, keys: bool) -> None:
    """By who takes none, or has had one that would do."""
    key = target.keygen("key")
    key.chmod(0o644)
    answers = {"publickey": failure("password", partial=True), "password": SUCCESS}
    asking(target, "hb", lambda request: [answers.get(request.method, failure("password"))], keys="yes")
    target.host("hb", IdentityFile=f"{target.identity if keys else key}\n    IdentityFile {key}")
    with ssh(target, "hb/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
        assert "0644" not in terminal.shown


def test_a_key_that_was_ignored_is_told_of_once(target: Lab) -> None:
    key = target.keygen("key")
    key.chmod(0o644)
    asking(target, "hb", lambda _: [failure("publickey", "password")], keys="yes")
    target.host("hb", IdentityFile=key)
    done = target.pyrelay("hb/h2", stdin=None)
    assert done.stderr.count("permissions 0644") == 1


@pytest.mark.parametrize("level", ["QUIET", "ERROR"])
def test_a_banner_that_is_not_wanted(target: Lab, level: str) -> None:
    asking(target, "h1", lambda _: [SUCCESS], banner(b"welcome\n"))
    target.host("h1", LogLevel=level)
    assert target.ssh("h1/h2", "true").stderr == ""


# Passphrases


@pytest.fixture
def locked(target: Lab) -> Path:
    """A key with the passphrase "open", the only one for h1; h1 does not know it yet."""
    key = target.keygen("locked", "ed25519", "-N", "open")
    target.server("h1", authorized_keys="", BatchMode="no", extra="AuthenticationMethods publickey")
    target.identity = key
    return key


def test_passphrase(target: Lab, locked: Path) -> None:
    target["h1"].authorize(Path(f"{locked}.pub").read_text())
    Path(f"{locked}.pub").unlink()  # the private file says its public half
    with ssh(target, "-o", "IdentityFile=none", "h1/h2", "true") as terminal:
        question = f"pyrelay: passphrase for key '{locked}' ({target.user}@h1): "
        terminal.answer(question, "wrong")
        terminal.expect(f"wrong passphrase for key '{locked}'\n")
        terminal.answer(question, "open")
        terminal.wait()
    assert target["h1"].logins() == [target.user]


def test_nobody_types_a_passphrase_for_a_key_that_the_server_refuses(target: Lab, locked: Path) -> None:
    with ssh(target, "h1/h2") as terminal:
        terminal.expect(f"login as {target.user} refused; ")
        terminal.wait()
        assert "passphrase" not in terminal.shown
        assert "offered: ED25519 SHA256:" in terminal.shown


def test_a_passphrase_is_asked_for_once_for_all_hops(target: Lab, locked: Path) -> None:
    for name in ("hb", "hc"):
        target.server(name, BatchMode="no")
    with ssh(target, "hb/hc/h2", "true") as terminal:
        terminal.answer(f"passphrase for key '{locked}' ({target.user}@hb): ", "open")
        terminal.wait()
        assert terminal.shown.count("passphrase for key") <= 2  # the other one is ssh's own, for the target
    assert target["hc"].logins() == [target.user]


def test_a_locked_key_that_does_not_show_its_public_half(target: Lab) -> None:
    """PEM says nothing without the passphrase: it is asked for first, but only where the server takes keys."""
    key = target.keygen("locked", "rsa", "-m", "PEM", "-N", "opened")
    public = Path(f"{key}.pub")
    target.server("h1", authorized_keys=public.read_text(), BatchMode="no", IdentityFile=key)
    public.unlink()
    target.identity = Path("none")
    server = asking(target, "hb", passwords("secret"), keys="yes")
    target.host("hb", IdentityFile=key)
    with ssh(target, "hb/h1/h2", "true") as terminal:
        terminal.answer(f"pyrelay: {target.user}@hb's password: ", "secret")
        terminal.answer(f"pyrelay: passphrase for key '{key}' ({target.user}@h1): ", "opened")
        terminal.wait()
    assert server.requests == ["none", "password"]
    assert target["h1"].logins() == [target.user]


@pytest.mark.parametrize("same", [True, False])
def test_what_a_server_names_when_it_takes_a_key(target: Lab, same: bool) -> None:
    """The key that was offered, though the algorithm may be the type of the key, as with old servers."""
    key = target.keygen("locked", "rsa", "-N", "opened")

    def script(request: Request) -> list[bytes]:
        if request.method != "publickey":
            return [failure("publickey")]
        signed, _, blob = request.fields.number(1), request.fields.string(), request.fields.string()
        return [SUCCESS] if signed else [MORE + string(b"ssh-rsa") + string(blob if same else blob[:-1] + b"x")]

    asking(target, "h1", script, keys="yes")
    target.host("h1", IdentityFile=key)
    target.write_config()
    done = target.run("ssh", "-F", target.config, "h1/h2", "echo $SERVER", env=askpass(target, "echo opened"))
    assert done.stdout == ("h2\n" if same else "")
    assert ("it takes another key than was offered" in done.stderr) != same


def test_no_passphrase_is_given(target: Lab, locked: Path) -> None:
    target["h1"].authorize(Path(f"{locked}.pub").read_text())
    with ssh(target, "h1/h2") as terminal:
        terminal.answer("@h1): ", "")
        terminal.expect("hint: ED25519 SHA256:")
        terminal.expect(f"{locked}: no passphrase: none was given\n")


# Ends


@pytest.mark.parametrize(
    ("key", "number"), [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)], ids=["Ctrl-C", "Ctrl-\\"]
)
def test_a_key_that_ends_all_at_a_prompt(target: Lab, key: str, number: signal.Signals) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        assert not terminal.echo
        terminal.type(f"sec{key}")
        assert terminal.wait() in {255, -number}
        terminal.wait_for_all()
        assert terminal.echo
    assert server.requests == ["none"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_at_a_prompt(target: Lab, number: signal.Signals) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.signal_all(number)
        terminal.wait()
        terminal.wait_for_all()
        assert terminal.echo


def test_ssh_is_killed_at_a_prompt(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait_for_all()
        assert terminal.echo


def test_end_of_file_at_a_prompt(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.type("\x04")
        terminal.expect("pyrelay: hop 1 of 1 (h1): the question was not answered\n")
        terminal.wait()
        assert terminal.echo
    assert server.requests == ["none"]


def test_the_terminal_is_closed_at_a_prompt(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.hang_up()
        terminal.wait_for_all()


def test_ctrl_z_at_a_prompt(target: Lab) -> None:
    """The shell gets a terminal with echo on; `bg` asks nothing, `fg` puts the question again, with echo off."""
    asking(target, "h1", passwords("secret"))
    target.write_config()
    # With -b the shell says at once what it learns of its job, which alone tells that it knows.
    with Terminal(target, need("bash"), "--norc", "--noediting", "-i", "-b", env={"PS1": "$ "}) as terminal:
        terminal.type(f"ssh -F {target.config} h1/h2 'echo $SERVER'\n")
        terminal.expect("@h1's password: ")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("$ ")
        terminal.wait_for_stop()  # a read that is about to be stopped may still take a line, were it typed that fast
        assert terminal.echo
        terminal.type("bg\n")
        # The read goes on, from the background now, and SIGTTIN stops the job again.
        # A shell that does not know it yet gives a running job the terminal, and no SIGCONT.
        terminal.expect("Stopped")
        terminal.wait_for_stop()
        assert terminal.shown.count("password: ") == 1
        assert terminal.echo
        terminal.type("fg\n")
        terminal.expect("pyrelay: ")
        terminal.answer("@h1's password: ", "secret")
        terminal.expect("h2\n")
        terminal.expect("$ ")
        terminal.type("exit\n")
        terminal.wait()
        assert "secret" not in terminal.shown


def test_nobody_is_asked_from_the_background(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    with Terminal(target, need("bash"), "--norc", "--noediting", "-i", env={"PS1": "$ "}) as terminal:
        terminal.type(f"ssh -F {target.config} h1/h2 & wait\n")
        terminal.expect("nobody was asked for a password: nobody can be asked from the background of a terminal\n")
    assert server.requests == ["none"]


def test_a_master_outlives_the_terminal_that_it_was_started_on(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    path = target.top / "master"
    master = ("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-o", f"ControlPath={path}")
    with ssh(target, *master, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
    assert target.ssh("-o", f"ControlPath={path}", "h1/h2", "echo again").stdout == "again\n"
    target.ssh("-o", f"ControlPath={path}", "-O", "exit", "h1/h2")


# Nobody to ask, and askpass


def test_batch_mode(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret", ("password", "keyboard-interactive")))
    target.host("h1", BatchMode="yes")
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("the server takes password,keyboard-interactive; offered: nothing; ")
        terminal.expect("nobody was asked for a password: BatchMode\n")
        terminal.wait()
        assert "password: \n" not in terminal.shown
    assert server.requests == ["none"]


def test_no_terminal(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    done = target.pyrelay("h1/h2")
    assert "nobody was asked for a password: there is no terminal to ask on" in done.stderr
    assert "hint: askpass needs SSH_ASKPASS" in done.stderr
    assert server.requests == ["none"]


def askpass(lab: Lab, body: str) -> dict[str, str]:
    """An askpass program that notes its question; the environment that names it."""
    program = lab.top / "askpass"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >>{lab.top}/asked\n{body}\n')
    program.chmod(0o755)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}


def test_askpass(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    done = target.run(
        "ssh", "-F", target.config, "h1/h2", "echo $SERVER", env=askpass(target, "echo secret; echo more")
    )
    assert (done.stdout, done.stderr) == ("h2\n", "")
    assert (target.top / "asked").read_text() == f"pyrelay: {target.user}@h1's password: \n"
    assert server.requests == ["none", "password"]


def test_askpass_goes_before_the_terminal_where_it_shall(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    env = {**askpass(target, "echo secret"), "SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}
    with ssh(target, "h1/h2", "echo $SERVER", env=env) as terminal:
        terminal.ends_well("h2\n")
        assert "password" not in terminal.shown


def test_askpass_is_cancelled(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    done = target.run("pyrelay", "-F", target.config, "h1/h2", env=askpass(target, "exit 1"))
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): the question was cancelled\n"
    assert server.requests == ["none"]


def test_askpass_cannot_be_run(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    target.write_config()
    env = {"SSH_ASKPASS": "/nowhere/askpass", "SSH_ASKPASS_REQUIRE": "force"}
    done = target.run("pyrelay", "-F", target.config, "h1/h2", env=env)
    assert "the askpass program /nowhere/askpass cannot be run: No such file or directory" in done.stderr


def test_askpass_does_not_outlive_ssh(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    target.write_config()
    started = target.top / "started"
    os.mkfifo(started)
    client = target.start("ssh", "-F", target.config, "h1/h2", env=askpass(target, f"echo >{started}; exec sleep 100"))
    started.read_text()
    client.kill()
    client.wait()
    until(lambda: not target.processes(), "the end of all", PATIENCE)


# What the server says


def test_a_banner_of_a_megabyte_of_control_characters(target: Lab) -> None:
    noise = bytes(range(1, 32)) + b"\x7f\x9b\xc2\x9b"
    text = b"Welcome.\n  Be \x1b[31mgood.\n" + noise * (1 << 20 >> 5)
    pieces = [text[at : at + 200_000] for at in range(0, len(text), 200_000)]  # a packet holds 256 KiB at most
    asking(target, "h1", passwords("secret"), *map(banner, pieces))
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
        head = "pyrelay: hop 1 of 1 (h1): "
        assert f"{head}the server says:\n{head}  Welcome.\n{head}    Be [31mgood.\n" in terminal.shown
        assert all(c.isprintable() for c in terminal.shown.replace("\n", "").replace("\r", ""))
        assert len(terminal.shown) < 20_000


@pytest.mark.parametrize(("size", "words"), [(200_000, "the server says:"), (1_000_000, "closed the connection")])
def test_a_banner_of_a_real_server(lab: Lab, size: int, words: str) -> None:
    """Of a whole megabyte sshd itself cannot make a packet, and hangs up."""
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
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): no answer within 1 seconds (login)\n"


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
