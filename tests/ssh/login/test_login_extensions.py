"""RSA where a Match block of sshd_config allows it: what the server says of signatures once it knows who logs in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import ROOT
from login_server import SUCCESS, Request, failure, scripted, taken
from sshd import Server

if TYPE_CHECKING:
    from lab import Lab


def hop(lab: Lab, messages: int, *, speaks: bool = True) -> tuple[list[str], list[dict[str, bytes]]]:
    """A hop h1 that takes rsa-sha2-256 only; it says so after the first request, and before that it takes all.

    messages: of extensions, that it sends in all. speaks: whether it takes a client's. It returns how clients have
    signed, and what they have said of extensions before each request.
    """
    signed: list[str] = []
    said: list[dict[str, bytes]] = []

    def script(request: Request) -> list[bytes]:
        said.append(dict(server.transports[-1].server_extensions))
        if request.method == "none":
            return [*[taken("ssh-ed25519", "rsa-sha2-256")] * (messages - 1), failure("publickey")]
        request.fields.number(1)
        signed.append(request.fields.string().decode())
        return [SUCCESS if signed[-1] == "rsa-sha2-256" else failure("publickey")]

    server = scripted(lab, "h1", script, IdentityFile=lab.keygen("key", "rsa"))
    server.kex = ("ext-info-s",) if speaks else ()
    lab.server("h2")
    return signed, said


def test_the_second_message_says_which_signatures_are_taken(lab: Lab) -> None:
    signed, said = hop(lab, 2)
    for _ in range(2):
        assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert signed == ["rsa-sha2-256"] * 2
    assert said[0] == {"ext-info-in-auth@openssh.com": b"0"}


def test_a_server_that_takes_no_extensions_is_told_of_none(lab: Lab) -> None:
    _, said = hop(lab, 2, speaks=False)
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert said[0] == {}


@pytest.mark.parametrize(
    ("ident", "how"), [("SSH-2.0-OpenSSH_7.4", "rsa-sha2-512"), ("SSH-2.0-OpenSSH_7.5", "ssh-ed25519")]
)
def test_a_server_that_forgets_to_say_that_it_takes_sha_2(lab: Lab, ident: str, how: str) -> None:
    """Another one is believed, and gets the next key."""
    signed: list[str] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "none":
            return [failure("publickey")]
        request.fields.number(1)
        signed.append(request.fields.string().decode())
        return [SUCCESS]

    server = scripted(lab, "h1", script, ident=ident, IdentityFile=lab.keygen("key", "rsa"))
    server.signatures = ("ssh-ed25519", "ssh-rsa")
    lab.server("h2")
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert signed == [how]


def test_a_third_message_is_an_error(lab: Lab) -> None:
    hop(lab, 3)
    assert "a server sends 2 messages of extensions at most" in lab.pyrelay("h1/h2").stderr


def newer() -> Path:
    """The newest OpenSSH that `make regress` has built, or that OPENSSH=DIR names; the test is skipped without one."""
    built = [Path(os.environ["OPENSSH"])] if "OPENSSH" in os.environ else []
    built += sorted(ROOT.glob("build/regress/*/openssh-1*"))
    if not built:
        # The scripted servers above say it twice in every run; this one shows that a real sshd does, too.
        pytest.skip("the installed sshd says it once only; `make regress` builds a newer one")
    return built[-1]


def test_a_match_block_of_sshd(lab: Lab) -> None:
    """As with ssh of that version."""
    top = newer()
    key = lab.keygen("key", "rsa")
    h1 = lab.server("h1", authorized_keys=Path(f"{key}.pub").read_text(), IdentityFile=key)
    lab.server("h2")
    lab.identity = Path("none")
    run_by(h1, top, f"Match User {lab.user}\nPubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-256\nMatch all\n")
    done = lab.pyrelay("h1/h2")
    assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr
    assert lab.run(str(top / "ssh"), "-F", lab.config, "h1", "true").returncode == 0
    assert h1.logins() == [lab.user] * 2


def run_by(server: Server, top: Path, more: str) -> None:
    """Have a server run by the sshd in a directory, which takes ed25519 only unless more says else."""
    server._command[-1] = str(top / "sshd")
    paths = f"SshdSessionPath {top}/sshd-session\nSshdAuthPath {top}/sshd-auth\n"
    server.configure(f"{paths}PubkeyAcceptedAlgorithms ssh-ed25519\n")
    server._config.write_text(server._config.read_text() + more)
