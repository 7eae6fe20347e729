"""The channel that is asked for along with the login: to whom, and what becomes of it when the login is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from login_server import SUCCESS, LoginServer, Request, Script, disconnect, failure

if TYPE_CHECKING:
    from lab import Lab
    from sshd import Server

OPENSSH = "SSH-2.0-OpenSSH_9.2p1"
EARLY = "dispatch_protocol_error: type 90 "  # what sshd logs of a CHANNEL_OPEN before it lets somebody in


@pytest.fixture
def hops(lab: Lab) -> Lab:
    """A lab with a target, h2; the hop h1 is each test's own."""
    lab.server("h2")
    return lab


def scripted(lab: Lab, script: Script, ident: str = OPENSSH, **settings: object) -> LoginServer:
    """The hop h1, whose login follows a script."""
    server = LoginServer(lab.keygen("h1-host"), script, ident=ident)
    lab.at_end(server.stop)
    lab.host("h1", Port=server.port, **settings)
    lab.know("h1", server.port, [server.host_key])
    return server


def arrives(lab: Lab, *options: str) -> bool:
    """Whether ssh arrives at h2 through h1; what it says on stderr must be nothing then."""
    lab.options = list(options)
    done = lab.ssh("h1/h2", "echo $SERVER", timeout=20)
    return (done.stdout, done.stderr) == ("h2\n", "")


def log_of(server: Server) -> str:
    """What a server has logged, once its clients have left."""
    for connection in server.connections:
        connection.process.wait()
    return server.log()


def in_two(lab: Lab) -> str:
    """Two key files for h1, and the public keys of both."""
    keys = [lab.keygen(name) for name in ("first", "second")]
    lab.host("h1", IdentityFile=f"{keys[0]}\n    IdentityFile {keys[1]}")
    return "".join(Path(f"{key}.pub").read_text() for key in keys)


def test_it_travels_with_the_signature(hops: Lab) -> None:
    """A server that lets nobody in before it has got both would else be waited for in vain."""

    def script(request: Request) -> list[bytes]:
        return [SUCCESS] if request.method == "channel" else []

    server = scripted(hops, script)
    assert arrives(hops, "-w", "20")
    assert server.requests[1:] == ["channel"]
    assert server.requests[0].startswith("publickey")


@pytest.mark.parametrize("ident", ["SSH-2.0-dropbear_2022.83", "SSH-2.0-Go", "SSH-2.0-NotOpenSSH_9.2", ""])
def test_not_to_a_server_that_may_end_the_login_at_it(hops: Lab, ident: str) -> None:
    """RFC 4252 section 6 has it do so."""
    both = iter([[failure("publickey")], [SUCCESS]])
    in_two(hops)

    def script(request: Request) -> list[bytes]:
        return [disconnect("too early")] if request.method == "channel" else next(both)

    server = scripted(hops, script, ident)
    assert arrives(hops)
    assert server.requests == ["publickey", "publickey"]


def test_not_where_compression_begins_with_the_login(hops: Lab) -> None:
    server = hops.server("h1", Compression="yes")
    assert arrives(hops)
    assert EARLY not in log_of(server)


def test_a_refused_key_before_one_that_is_taken(hops: Lab) -> None:
    """sshd takes no notice of what came too early, and the channel is asked for again."""
    second = in_two(hops).splitlines()[1]
    server = hops.server("h1", authorized_keys=second)
    assert arrives(hops)
    assert log_of(server).count(EARLY) == 1
    assert server.logins() == [hops.user]


def test_a_key_that_is_not_enough(hops: Lab) -> None:
    server = hops.server("h1", authorized_keys=in_two(hops), extra="AuthenticationMethods publickey,publickey")
    assert arrives(hops)
    assert log_of(server).count(EARLY) == 1


def test_once_in_a_login(hops: Lab) -> None:
    server = hops.server("h1", authorized_keys="")
    in_two(hops)
    assert "refused" in hops.pyrelay("h1/h2").stderr
    assert log_of(server).count(EARLY) == 1


def test_an_answer_that_comes_after_all(hops: Lab) -> None:
    """Of a server that has kept it for after the login: that channel is not used, and does no harm."""
    answers = iter([[], [failure("publickey")], [SUCCESS]])
    in_two(hops)
    server = scripted(hops, lambda _: next(answers))
    assert arrives(hops)
    assert [name.partition("-")[0] for name in server.requests] == ["publickey", "channel", "publickey"]
