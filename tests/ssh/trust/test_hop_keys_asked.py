"""A person on a terminal is asked about hops' host keys, under the real ssh."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from terminal import Terminal

if TYPE_CHECKING:
    from lab import Lab

SURE = "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
AGAIN = "pyrelay: Please type 'yes', 'no' or the fingerprint: "


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """h1, h2 and h3, the hops not known and to be asked about."""
    lab.servers("h1", "h2", "h3")
    lab.known_hosts.write_text(f"*/h3 {lab['h3'].host_keys[0]}\n")
    for name in ("h1", "h2"):
        lab.host(name, StrictHostKeyChecking="ask", BatchMode="no")
    return lab


def fingerprint(lab: Lab, name: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", lab.top / name / "ed25519.pub"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]


def test_yes_and_the_fingerprint_are_both_a_yes(chain: Lab) -> None:
    with Terminal(chain, "ssh", "-F", chain.config, "h1/h2/h3", "echo $SERVER") as terminal:
        asked = terminal.expect(SURE)
        assert "pyrelay: hop 1 of 2 (h1): The authenticity of host " in asked
        assert f"\nED25519 key fingerprint is {fingerprint(chain, 'h1')}.\n" in asked
        assert terminal.echo
        terminal.type("y\n")
        terminal.expect(AGAIN)
        terminal.type("yes\n")
        assert "pyrelay: hop 2 of 2 (h2): The authenticity of host " in terminal.expect(SURE)
        terminal.type(f"{fingerprint(chain, 'h2')}\n")
        terminal.expect("h3\n")
        assert terminal.wait() == 0
    assert len(chain.known_hosts.read_text().splitlines()) == 3
    with Terminal(chain, "ssh", "-F", chain.config, "h1/h2/h3", "echo $SERVER") as terminal:
        assert terminal.wait() == 0
        assert terminal.shown == "h3\n"


@pytest.mark.parametrize("answer", ["no\n", "\n", "\x04"])
def test_everything_else_is_a_no(chain: Lab, answer: str) -> None:
    before = chain.known_hosts.read_bytes()
    with Terminal(chain, "ssh", "-F", chain.config, "h1/h2/h3", "echo $SERVER") as terminal:
        terminal.expect(SURE)
        terminal.type(answer)
        refused = answer != "\x04"  # a deliberate no has no hint; a question without an answer has one
        terminal.expect(f"(h1): {'you did not accept the ED25519 key of' if refused else 'no host key is known for'} ")
        assert terminal.wait() == 255
        assert ("hint:" in terminal.shown) is not refused
    assert chain.known_hosts.read_bytes() == before
    assert chain["h1"].logins() == []


def test_a_key_that_has_changed_meanwhile_is_not_asked_about(chain: Lab) -> None:
    host = f"[127.0.0.1]:{chain['h1'].port}"
    with chain.known_hosts.open("a") as file:
        file.write(f"{host} {chain['h2'].host_keys[0]}\n")
    with Terminal(chain, "ssh", "-F", chain.config, "h1/h2/h3", "echo $SERVER") as terminal:
        terminal.expect(f"pyrelay: hop 1 of 2 (h1): REMOTE HOST IDENTIFICATION HAS CHANGED: the host key of {host} is ")
        assert terminal.wait() == 255
        assert SURE not in terminal.shown
