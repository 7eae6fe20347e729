"""sshd that has come to refuse what is remembered of it, and counts tries: nobody loses a login by it that ssh gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from agents import RealAgent
from lab import Lab
from login_server import SUCCESS, Request, failure, scripted
from sshd import PASSWORD, Server
from terminal import ssh

from relay.ssh.memory import today


@pytest.fixture
def hops(lab: Lab) -> Lab:
    """A lab with a target, h2; the hop h1 is each test's own."""
    lab.server("h2")
    return lab


def arrives(lab: Lab, *answers: str) -> None:
    """ssh arrives at h2 through h1, where that asks for these passwords in turn."""
    with ssh(lab, "h1/h2", "echo $SERVER") as terminal:
        for answer in answers:
            terminal.answer("@h1's password: ", answer)
        terminal.ends_well("h2\n")


def asked_after(lab: Lab, methods: str = "publickey") -> Server:
    """h1, which is remembered by what got in, and has a password too."""
    h1 = lab.password_server("h1", methods)
    arrives(lab, *([PASSWORD] if "password" in methods else []))
    return h1


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("withdrawn", ["PubkeyAuthentication no", "AuthenticationMethods password"])
def test_keys_are_not_taken_any_more(hops: Lab, withdrawn: str, tries: int) -> None:
    """The key that was sent ahead has cost a try: the login begins anew, and that is remembered."""
    h1 = asked_after(hops, "publickey")
    methods = "" if "Methods" in withdrawn else "AuthenticationMethods password\n"
    h1.configure(f"{withdrawn}\n{methods}MaxAuthTries {tries}\n")
    arrives(hops, *["mistyped"] * (tries - 1), PASSWORD)
    assert len(h1.connections) == 3
    arrives(hops, PASSWORD)
    assert len(h1.connections) == 4
    assert h1.logins() == [hops.user] * 3


def test_the_key_is_withdrawn_where_every_try_counts(hops: Lab) -> None:
    """It is told once, in words, and the key is offered once in each run."""
    h1 = asked_after(hops)
    h1.authorize("")
    h1.configure("AuthenticationMethods publickey\nMaxAuthTries 1\n")
    first, second = (hops.pyrelay("h1/h2").stderr for _ in range(2))
    assert "the server takes publickey; offered: " in first
    assert "Permission denied" in first
    assert h1.whole_log().count("Failed publickey") == 2
    told = hops.ssh("h1", "true").stderr  # sshd 10.6 is only asked about the key, and does not count that
    assert ("Too many authentication failures" in second) == ("Too many authentication failures" in told)
    h1.authorize(Path(f"{hops.identity}.pub").read_text())
    arrives(hops)


def test_another_key_that_comes_before_it(hops: Lab) -> None:
    """ssh would not have come to the remembered one."""
    first, second = (hops.keygen(name) for name in ("first", "second"))
    hops.host("h1", IdentityFile=f"{first}\n    IdentityFile {second}")
    h1 = hops.server("h1", authorized_keys=Path(f"{second}.pub").read_text())
    arrives(hops)
    h1.authorize(Path(f"{first}.pub").read_text())
    h1.configure("MaxAuthTries 1\n")
    for _ in range(2):
        arrives(hops)
    assert h1.logins() == [hops.user] * 3


def may_go_to(lab: Lab, name: str, key: Path) -> str:
    """The line of authorized_keys for a key that may be used to go to one server only."""
    return f'restrict,port-forwarding,permitopen="127.0.0.1:{lab[name].port}" {Path(f"{key}.pub").read_text()}'


def test_one_account_by_two_names_with_a_key_for_each(hops: Lab) -> None:
    """Both keys are in the agent; each name has ssh begin with its own."""
    keys = {name: hops.keygen(f"to-{name}") for name in ("h2", "h3")}
    agent = RealAgent(hops)
    agent.add(*keys.values())
    hops.server("h3")
    h1 = hops.server("h1", authorized_keys="".join(may_go_to(hops, name, key) for name, key in keys.items()))
    for name, key in keys.items():
        hops.host(f"to-{name}", Port=h1.port, IdentityFile=f"{key}.pub", IdentitiesOnly="no", IdentityAgent=agent.path)
    for name in ("h2", "h3", "h3", "h2"):
        assert hops.ssh(f"to-{name}/{name}", "echo $SERVER").stdout == f"{name}\n"
    assert "Failed publickey" not in h1.whole_log()


@pytest.fixture
def second(hops: Lab) -> tuple[Server, Path, Path]:
    """h1, which has refused the first key, and let the second one go to h2; where that is remembered; the first key.

    From now on h1 takes both, and only the first one may go to h2.
    """
    first, other = (hops.keygen(name) for name in ("first", "second"))
    hops.server("h3")
    h1 = hops.server("h1", authorized_keys=may_go_to(hops, "h2", other))
    hops.host("h1", IdentityFile=f"{first}\n    IdentityFile {other}")
    arrives(hops)
    (memory,) = [path for path in (hops.home / ".local/state/pyrelay/hops").iterdir() if path.name != "salt"]
    h1.authorize(may_go_to(hops, "h2", first) + may_go_to(hops, "h3", other))
    return h1, memory, first


@pytest.mark.parametrize("refused", ["", "2026-11-28"])
def test_a_refusal_counts_for_its_day(hops: Lab, second: tuple[Server, Path, Path], refused: str) -> None:
    """And not where an older pyrelay has not written down what was refused."""
    h1, memory, first = second
    text, count = re.subn(rf"refused {today()} (.*)\n", refused and rf"refused {refused} \1\n", memory.read_text())
    assert count == 1
    memory.write_text(text)
    arrives(hops)
    assert hops.run("ssh-keygen", "-lf", first).stdout.split()[1] in h1.log()


def test_the_key_that_goes_on_is_looked_for_again(hops: Lab, second: tuple[Server, Path, Path]) -> None:
    assert "the server does not forward to" in hops.pyrelay("h1/h2").stderr
    for _ in range(2):
        arrives(hops)
    h1, _, _ = second
    assert h1.whole_log().count("Failed publickey") == 1  # before the first key was authorized


def test_a_key_that_ssh_config_rules_out_does_not_hold_back_the_one_behind_it(hops: Lab) -> None:
    rsa = hops.keygen("rsa", "rsa")

    def script(request: Request) -> list[bytes]:
        return [SUCCESS] if request.method.startswith("publickey") else [failure("publickey")]

    settings = {"IdentityFile": f"{rsa}\n    IdentityFile {hops.identity}", "PubkeyAcceptedAlgorithms": "ssh-ed25519"}
    h1 = scripted(hops, "h1", script, **settings)
    for _ in range(2):
        arrives(hops)
    assert h1.requests == ["none", "publickey", "publickey"]


@pytest.mark.parametrize("remembered", ["password", "publickey,password"])
def test_a_mistyped_password_is_the_one_try(hops: Lab, remembered: str) -> None:
    """It is not asked for on a second connection, nor is another login made there."""
    h1 = asked_after(hops, remembered)
    h1.configure("MaxAuthTries 1\n")
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "mistyped")
        terminal.expect("Too many authentication failures")
        assert terminal.wait() != 0
    assert h1.whole_log().count("Failed password") == 1
    arrives(hops, PASSWORD)


@pytest.mark.parametrize(("methods", "key"), [("password,publickey", False), ("publickey,password", True)])
def test_what_is_wanted_first_is_what_is_remembered(hops: Lab, methods: str, key: bool) -> None:
    """A key that is wanted after a password would cost a try each time, if it was sent ahead."""
    h1 = asked_after(hops, methods)
    (memory,) = [path for path in (hops.home / ".local/state/pyrelay/hops").iterdir() if path.name != "salt"]
    assert (b"\nkey SHA256:" in memory.read_bytes()) == key
    h1.configure("MaxAuthTries 2\n")
    arrives(hops, "mistyped", PASSWORD)
    assert h1.logins() == [hops.user] * 2
