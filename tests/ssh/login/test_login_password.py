"""Real sshds that want passwords, typed on a terminal. What no sshd asks by itself is in test_login_asked.py."""

from __future__ import annotations

import getpass
import re
from typing import TYPE_CHECKING

import pytest
from sshd import PASSWORD
from terminal import NO_STATUS, PATIENCE, ssh

if TYPE_CHECKING:
    from lab import Lab


def requests(log: str) -> list[str]:
    """The methods that clients asked for; a key is one, however it is bound to the host."""
    return re.findall(r"^debug1: userauth-request for .* method ([a-z]+(?:-interactive)?)", log, re.MULTILINE)


def test_a_password_on_the_hop_and_a_key_on_the_target(target: Lab) -> None:
    h1 = target.password_server("h1")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer(f"pyrelay: {target.user}@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
        assert PASSWORD not in terminal.shown
        assert terminal.echo
    assert f"Accepted password for {target.user} from " in h1.log()
    assert f"Accepted publickey for {target.user} from " in target["h2"].log()


def test_passwords_on_every_hop_and_on_the_target(lab: Lab) -> None:
    servers = [lab.password_server(name) for name in ("h1", "h2", "h3")]
    with ssh(lab, "-o", "BatchMode=no", "h1/h2/h3", "echo $SERVER") as terminal:
        terminal.answer(f"pyrelay: {lab.user}@h1's password: ", PASSWORD)
        terminal.answer(f"pyrelay: {lab.user}@h2's password: ", PASSWORD)
        terminal.answer(f"\r{lab.user}@h1/h2/h3's password: ", PASSWORD)  # which ssh itself asks for
        terminal.ends_well("h3\n")
        assert terminal.echo
    assert [server.logins() for server in servers] == [[lab.user]] * 3


def test_a_wrong_password_and_then_the_right_one(target: Lab) -> None:
    h1 = target.password_server("h1", PubkeyAuthentication="no")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "wrong")
        terminal.expect("pyrelay: hop 1 of 1 (h1): permission denied, please try again\n")
        terminal.answer("@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
    assert requests(h1.whole_log()) == ["none", "password", "password"]
    assert h1.logins() == [target.user]


@pytest.mark.parametrize(("prompts", "times"), [(1, "1 time"), (2, "2 times")])
def test_wrong_passwords_to_the_end(target: Lab, prompts: int, times: str) -> None:
    h1 = target.password_server("h1", PubkeyAuthentication="no", NumberOfPasswordPrompts=prompts)
    with ssh(target, "h1/h2") as terminal:
        for _ in range(prompts):
            terminal.answer("@h1's password: ", "wrong")
        terminal.expect(
            f"pyrelay: hop 1 of 1 (h1): login as {target.user} refused: Permission denied; the server takes password; "
            f"offered: password ({times})\n"
        )
        hint = f"hint: {target.user} is your user here; write another as user%h1, or as User in ssh_config\n"
        assert terminal.wait() == 255
        assert (hint in terminal.shown) == (target.user == getpass.getuser())
        assert terminal.shown.count("password: ") == prompts
        assert "wrong" not in terminal.shown
        assert "ssh-add" not in terminal.shown  # no key would have been offered
        assert terminal.echo
    assert h1.whole_log().count("Failed password for ") == prompts
    assert h1.logins() == target["h2"].logins() == []


def test_more_wrong_passwords_than_the_server_takes(target: Lab) -> None:
    h1 = target.password_server("h1", extra="MaxAuthTries 2", PubkeyAuthentication="no")
    with ssh(target, "h1/h2") as terminal:
        for _ in range(2):
            terminal.answer("@h1's password: ", "wrong")
        terminal.expect(
            f"pyrelay: hop 1 of 1 (h1): the server ended the login as {target.user}: Too many authentication failures; "
            "the server takes password; offered: password (2 times)\n"
        )
        assert terminal.wait() == 255
        assert terminal.echo
    assert h1.logins() == []


def test_a_server_without_keys_is_offered_none(target: Lab) -> None:
    """One that is refused would count (MaxAuthTries)."""
    h1 = target.password_server("h1", extra="MaxAuthTries 1")
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
    assert requests(h1.whole_log()) == ["none", "password"]


def test_all_that_a_server_offers_by_itself(target: Lab) -> None:
    """A key that it does not know, questions that it never puts, a password."""
    h1 = target.password_server("h1", "any")
    h1.authorize("")
    with ssh(target, "h1/h2", "echo $SERVER", env=NO_STATUS) as terminal:
        terminal.answer("@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
        assert terminal.shown.count("pyrelay") == 1  # and nothing is said of what did not work
    assert requests(h1.whole_log()) == ["none", "publickey", "keyboard-interactive", "password"]


@pytest.mark.parametrize("methods", [["publickey", "password"], ["password", "publickey"]])
def test_a_key_and_a_password(target: Lab, methods: list[str]) -> None:
    h1 = target.password_server("h1", ",".join(methods))
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "wrong")
        terminal.answer("@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
    log = h1.whole_log()
    assert re.findall(r"^(?:Partial|Accepted) (\w+) for ", log, re.MULTILINE) == methods
    assert log.count("Failed password for ") == 1
    assert h1.logins() == [target.user]


def test_a_key_without_the_password(target: Lab) -> None:
    h1 = target.password_server("h1", "publickey,password", NumberOfPasswordPrompts=1)
    with ssh(target, "h1/h2") as terminal:
        terminal.answer("@h1's password: ", "wrong")
        terminal.expect(
            f"pyrelay: hop 1 of 1 (h1): login as {target.user} refused: Permission denied; the server takes password; "
            "publickey granted, which is not enough; offered: ED25519 "
        )
        assert terminal.wait() == 255
    assert h1.logins() == []


# While a question is open


def test_the_clock_stands_still_while_a_person_is_waited_for(target: Lab) -> None:
    target.password_server("h1")
    target.options = ["-w", "6"]
    with ssh(target, "h1/h2", "echo $SERVER") as terminal:
        terminal.expect("@h1's password: ")
        terminal.stays_as_it_is(7)
        terminal.type(f"{PASSWORD}\n")
        terminal.ends_well("h2\n")
        assert terminal.echo


def test_ssh_gives_up_at_a_prompt(target: Lab) -> None:
    """ssh's ConnectTimeout counts a person's time, too."""
    h1 = target.password_server("h1")
    with ssh(target, "-o", "ConnectTimeout=5", "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        assert not terminal.echo
        terminal.expect("Connection timed out during banner exchange")
        assert terminal.wait() == 255
        terminal.wait_for_all()
        assert terminal.echo
    assert requests(h1.whole_log()) == ["none"]


def test_the_server_gives_up_at_a_prompt(target: Lab) -> None:
    """As it does when LoginGraceTime is over."""
    h1 = target.password_server("h1")
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        h1.connections[0].process.terminate()
        h1.connections[0].process.wait(PATIENCE)
        terminal.type(f"{PASSWORD}\n")
        terminal.expect("pyrelay: hop 1 of 1 (h1): the server closed the connection; ")
        assert terminal.wait() == 255
        assert terminal.echo
