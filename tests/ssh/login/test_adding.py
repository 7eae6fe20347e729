"""AddKeysToAgent: what a hop's login gives to the agent, beside what ssh gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import FAILURE, LIST, SUCCESS, RealAgent, ScriptedAgent, listing
from terminal import askpass, ssh

if TYPE_CHECKING:
    from lab import Lab

ADDS = (17, 25)  # RFC 9987 section 3.2
ANSWER = """
case $1 in
Enter*) echo opens ;;
Add*) echo "$SSH_ASKPASS_PROMPT" >>"$0.hints"; {answer} ;;
esac
"""


@pytest.fixture
def hops(lab: Lab) -> Lab:
    lab.server("h2")
    return lab


def locked(lab: Lab, kind: str = "ed25519", **settings: object) -> Path:
    """h1 takes only this key, which has a passphrase."""
    key = lab.keygen("key", kind, "-N", "opens", *(["-b", "2048"] if kind == "rsa" else []))
    lab.server("h1", authorized_keys=Path(f"{key}.pub").read_text())
    lab.host("h1", BatchMode="no", IdentityFile=key, **settings)
    return key


def asked(lab: Lab) -> list[str]:
    return (lab.top / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("ecdsa", "confirm"), ("rsa", "5m"), ("ed25519", "confirm 1h"), ("ed25519", "no")],
)
def test_what_the_agent_is_given(hops: Lab, kind: str, setting: str) -> None:
    given: list[bytes] = []

    def script(message: bytes) -> bytes:
        if message[0] in ADDS:
            given.append(message)
        return listing() if message[0] == LIST else SUCCESS

    agent = ScriptedAgent(hops.top / "agent", script)
    hops.at_end(agent.stop)
    locked(hops, kind, IdentityAgent=agent.path, AddKeysToAgent=setting)
    env = askpass(hops, ANSWER)
    assert hops.pyrelay_in(env, "h1/h2").returncode == 0
    assert hops.run("ssh", "-F", hops.config, "h1", "true", env=env).returncode == 0
    if setting == "no":
        assert given == []
    else:
        ours, its = given
        assert ours == its


def test_three_runs_ask_once(hops: Lab) -> None:
    agent = RealAgent(hops)
    locked(hops, IdentityAgent=agent.path, AddKeysToAgent="yes")
    env = askpass(hops, ANSWER)
    for _ in range(3):
        assert hops.pyrelay_in(env, "h1/h2").stdout.startswith("SSH-2.0-")
    assert len(asked(hops)) == 1


@pytest.mark.parametrize(("answer", "added"), [("echo", True), ("echo no", False), ("exit 1", False)])
def test_a_person_is_asked(hops: Lab, answer: str, added: bool) -> None:
    """In ssh's words, with the hint that makes askpass programs show a yes and a no."""
    agent = RealAgent(hops)
    locked(hops, IdentityAgent=agent.path, AddKeysToAgent="ask")
    env = askpass(hops, ANSWER.format(answer=answer))

    def held() -> bool:
        return hops.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(agent.path)}).returncode == 0

    assert hops.pyrelay_in(env, "h1/h2").stdout.startswith("SSH-2.0-")
    ours = asked(hops)
    assert held() == added
    hops.run("ssh-add", "-D", env={"SSH_AUTH_SOCK": str(agent.path)})
    hops.run("ssh", "-F", hops.config, "h1", "true", env=env)
    assert asked(hops) == ours + ours
    assert held() == added
    assert (hops.top / "askpass.hints").read_text() == "confirm\n" * 2


def test_a_person_is_asked_on_the_terminal(hops: Lab) -> None:
    agent = RealAgent(hops)
    key = locked(hops, IdentityAgent=agent.path, AddKeysToAgent="ask")
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("passphrase for key", "opens")
        terminal.expect(f"Add key {key} (key) to agent? (yes/no) ")
        terminal.type("yes\n")
        terminal.ends_well("h2\n")
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        terminal.ends_well("h2\n")
        assert terminal.shown == "h2\n"


def test_an_agent_that_takes_none(hops: Lab) -> None:
    """The login stands; -v says what happened."""
    agent = ScriptedAgent(hops.top / "agent", lambda message: listing() if message[0] == LIST else FAILURE)
    hops.at_end(agent.stop)
    key = locked(hops, IdentityAgent=agent.path, AddKeysToAgent="yes")
    env = askpass(hops, ANSWER)
    done = hops.pyrelay_in(env, "-v", "h1/h2")
    assert done.stdout.startswith("SSH-2.0-")
    assert f"{key}: not added to the agent: it refuses the key" in done.stderr


def test_the_holder_of_shared_hops_adds_to_the_relays_agent(hops: Lab) -> None:
    agent = RealAgent(hops)
    locked(hops, IdentityAgent=agent.path, AddKeysToAgent="yes")
    env = askpass(hops, ANSWER)
    done = hops.pyrelay_in(env, "--share", "1", "h1/h2")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert hops.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(agent.path)}).returncode == 0
