"""The channel that is asked for along with the login: to whom, and what becomes of it when the login is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import proxies
import pytest
from agents import RealAgent
from login_server import OPEN_FAILURE, SUCCESS, UNIMPLEMENTED, Request, disconnect, failure, scripted
from sshd import PASSWORD
from terminal import ssh

from relay.ssh.pubkey import string

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab import Lab

OPENSSH = "SSH-2.0-OpenSSH_9.2p1"
SECOND = 3  # the number of the request by which the second login begins: `none`, publickey, publickey
EARLY = "dispatch_protocol_error: type 90 "  # what sshd logs of a CHANNEL_OPEN before it lets somebody in


@pytest.fixture
def hops(lab: Lab) -> Lab:
    """A lab with a target, h2; the hop h1 is each test's own."""
    lab.server("h2")
    return lab


def arrives(lab: Lab, *options: str) -> None:
    """ssh arrives at h2 through h1, and says nothing on stderr."""
    lab.options = list(options)
    done = lab.ssh("h1/h2", "echo $SERVER", timeout=20)
    assert (done.stdout, done.stderr) == ("h2\n", "")


def test_not_to_a_server_that_is_not_known_yet(hops: Lab) -> None:
    server = hops.server("h1")
    arrives(hops)
    assert EARLY not in server.whole_log()
    assert server.logins() == [hops.user]


def test_it_travels_with_the_signature(hops: Lab) -> None:
    """A server that lets nobody in before it has got both would else be waited for in vain."""
    known: list[str] = []

    def script(request: Request) -> list[bytes]:
        if not known:
            return [SUCCESS] if request.method.startswith("publickey") else [failure("publickey")]
        return [SUCCESS] if request.method == "channel" else []

    server = scripted(hops, "h1", script, ident=OPENSSH)
    arrives(hops, "-w", "20")
    known += server.requests
    arrives(hops, "-w", "20")
    assert [name.partition("-")[0] for name in server.requests] == ["none", "publickey", "publickey", "channel"]


@pytest.mark.parametrize("ident", ["SSH-2.0-dropbear_2022.83", "SSH-2.0-Go", "SSH-2.0-NotOpenSSH_9.2", ""])
def test_not_to_a_server_that_may_end_the_login_at_it(hops: Lab, ident: str) -> None:
    """RFC 4252 section 6 has it do so."""
    answers = {"none": failure("publickey"), "publickey": SUCCESS, "channel": disconnect("too early")}
    server = scripted(hops, "h1", lambda request: [answers[request.method]], ident=ident)
    for _ in range(2):
        arrives(hops)
    assert server.requests == ["none", "publickey", "publickey"]


def test_a_server_that_is_not_what_it_says_it_is_costs_one_connection(hops: Lab) -> None:
    """Its ident is OpenSSH's, and it ends the login at what comes too early: that is remembered, and nobody notices."""
    early: list[str] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "channel":
            early.append(request.method)
            return [disconnect("Invalid request before authentication was complete")]
        if request.method == "none":
            return [failure("publickey")]
        return [] if len(server.requests) == SECOND else [SUCCESS]

    server = scripted(hops, "h1", script, ident=OPENSSH)
    for _ in range(3):
        arrives(hops, "-w", "20")
    assert early == ["channel"]
    assert server.requests == ["none", "publickey", "publickey", "channel", "none", "publickey", "publickey"]


def test_with_the_key_that_has_got_in_before(hops: Lab) -> None:
    """Though there are others to try, before it and after it."""
    first, second = (hops.keygen(name) for name in ("first", "second"))
    hops.host("h1", IdentityFile=f"{first}\n    IdentityFile {second}")
    server = hops.server("h1", authorized_keys=Path(f"{second}.pub").read_text())
    for _ in range(2):
        arrives(hops)
    log = server.whole_log()
    assert log.count("Failed publickey") == 1  # the first key, when it was not known yet which one gets in
    assert server.logins() == [hops.user] * 2


def test_with_a_key_that_the_server_would_take(hops: Lab) -> None:
    """An agent may ask its person: the key is offered first, and signs once the server has said that it takes it."""
    first, second = (hops.keygen(name) for name in ("first", "second"))
    agent = RealAgent(hops)
    agent.add(first, second)
    hops.host("h1", IdentityAgent=agent.path, IdentitiesOnly="no")
    server = hops.server("h1", authorized_keys=Path(f"{second}.pub").read_text())
    for _ in range(2):
        arrives(hops)
    log = server.whole_log()
    assert log.count("Postponed publickey") == 2
    assert server.logins() == [hops.user] * 2


def test_a_key_that_is_not_enough_any_more(hops: Lab) -> None:
    """sshd takes no notice of what came too early, and the channel is asked for again."""
    server = hops.password_server("h1", "publickey")
    arrives(hops)
    server.configure("AuthenticationMethods publickey,password\n")
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", PASSWORD)
        terminal.ends_well("h2\n")
    assert server.whole_log().count(EARLY) == 1
    assert server.logins() == [hops.user] * 2


def not_understood(_: Request) -> bytes:
    return UNIMPLEMENTED + bytes(4)


def not_opened(request: Request) -> bytes:
    return OPEN_FAILURE + request.number.to_bytes(4, "big") + bytes([0, 0, 0, 1]) + string(b"not yet") + string(b"")


@pytest.mark.parametrize("answer", [not_understood, not_opened])
def test_a_server_that_reads_it_before_it_has_decided(hops: Lab, answer: Callable[[Request], bytes]) -> None:
    """sshd reads nothing then. Another has not understood it, or has refused the channel of whoever is not let in yet.

    Then it lets us in: the channel is asked for again, and is not sent ahead again.
    """

    def script(request: Request) -> list[bytes]:
        if request.method == "none":
            return [failure("publickey")]
        if request.method == "channel":
            return [answer(request), SUCCESS]
        if len(server.requests) > SECOND:  # there is time for what would come too early
            threading.Timer(0.3, server.transports[-1].auth_handler._send, [[SUCCESS]]).start()
        return [] if len(server.requests) >= SECOND else [SUCCESS]

    server = scripted(hops, "h1", script, ident=OPENSSH)
    for _ in range(3):
        arrives(hops, "-w", "20")
    assert server.requests == ["none", "publickey", "publickey", "channel", "publickey"]


def test_another_signature_is_wanted(hops: Lab) -> None:
    """The key is the right one: only its algorithm is that of before, and the login begins anew."""
    wants = "rsa-sha2-512"

    def script(request: Request) -> list[bytes]:
        if request.method != "publickey":
            return [failure("publickey")]
        request.fields.number(1)
        return [SUCCESS] if request.fields.text() == wants else [failure("publickey")]

    server = scripted(hops, "h1", script, ident=OPENSSH, IdentityFile=hops.keygen("rsa", "rsa"))
    for wants in ("rsa-sha2-512", "rsa-sha2-256"):
        server.signatures = (wants,)
        arrives(hops)
        before = len(server.requests)
        arrives(hops)
        assert server.requests[before:] == ["publickey"]  # it is remembered how


def test_ssh_config_chooses_another_signature(hops: Lab) -> None:
    key = hops.keygen("rsa", "rsa")
    hops.server("h1", authorized_keys=Path(f"{key}.pub").read_text(), IdentityFile=key)
    for algorithms in ("rsa-sha2-512", "rsa-sha2-256"):
        hops.host("h1", PubkeyAcceptedAlgorithms=algorithms)
        arrives(hops)


def test_the_key_is_withdrawn(hops: Lab) -> None:
    """The refusal is told, and the memory goes: the next login is as careful as the first."""
    server = hops.server("h1")
    arrives(hops)
    server.authorize("")
    for _ in range(2):
        assert "login as" in hops.pyrelay("h1/h2").stderr
    assert server.whole_log().count(EARLY) == 1


@pytest.mark.parametrize(("way", "count"), [("none", 0), ("nc 127.0.0.1 {port}", 3), ("proxy", 3)])
def test_what_holds_back_the_servers_next_word_is_acknowledged(hops: Lab, way: str, count: int) -> None:
    """SERVICE_ACCEPT, SUCCESS and the channel's: by bytes, where the connection at the server is not ours to hasten."""
    server = scripted(hops, "h1", lambda _: [SUCCESS], ident=OPENSSH)
    options: list[str] = []
    if way == "proxy":
        proxy = proxies.start("microsocks", hops)
        hops.at_end(proxy.stop)
        options = proxy.options
    else:
        hops.host("h1", ProxyCommand=way.format(port=server.port))
    arrives(hops, *options)
    assert server.ignored == count
