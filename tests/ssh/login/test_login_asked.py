"""Logins that a person answers for, typed on a terminal: passphrases, passwords, questions in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from login_server import (
    MORE,
    SUCCESS,
    Request,
    asking,
    change_request,
    failure,
    passwords,
    questions,
)
from terminal import ssh

from relay.ssh.pubkey import string

if TYPE_CHECKING:
    from lab import Lab
from terminal import askpass


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
        terminal.expect(f"login as {target.user} refused: Permission denied; the server takes password; ")
        terminal.expect("offered: password (2 times)\n")
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
    """AuthenticationMethods publickey,keyboard-interactive: a partial success is not a login."""

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
    assert server.requests[0] == "none"
    assert server.requests[1].startswith("publickey")
    assert server.requests[2:] == ["keyboard-interactive", "answers"] * 2


def test_a_password_and_then_a_key(target: Lab) -> None:
    """AuthenticationMethods password,publickey: the key is offered when it is due, and not before."""
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
        "none",
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
    """The server takes no keys, or has taken one already."""
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
        terminal.expect(f"login as {target.user} refused: Permission denied; ")
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


@pytest.mark.parametrize("share", [(), ("--share", "1s")])
@pytest.mark.parametrize("name", ["locked", "l" * 120])
def test_an_askpass_program_is_asked_in_ssh_s_own_sentence(target: Lab, share: tuple[str, ...], name: str) -> None:
    """Such programs look a passphrase up by the sentence."""
    key = target.keygen(name, "ed25519", "-N", "open")
    target.server("h1", authorized_keys=Path(f"{key}.pub").read_text(), BatchMode="no", IdentityFile=key)
    target.identity = Path("none")
    env = askpass(target, "echo open")
    asked = target.top / "asked"
    assert target.run("ssh", "-F", target.write_config(), "h1", "true", env=env).returncode == 0
    question = asked.read_text()
    assert question.startswith("Enter passphrase for key '")
    asked.unlink()
    done = target.pyrelay_in(env, *share, "h1/h2")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert asked.read_text() == question


def test_no_passphrase_is_given(target: Lab, locked: Path) -> None:
    target["h1"].authorize(Path(f"{locked}.pub").read_text())
    with ssh(target, "h1/h2") as terminal:
        terminal.answer("@h1): ", "")
        terminal.expect("hint: ED25519 SHA256:")
        terminal.expect(f"{locked}: no passphrase: none was given\n")
