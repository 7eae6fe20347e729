"""https:// proxies under a real ssh: tinyproxy behind socat's TLS."""

from __future__ import annotations

import _socket
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asked_proxy import fails as fails_here
from authority import Authority, in_tls
from blocks import MEBIBYTE, echo_blocks
from lab import Lab
from peers import LOOPBACK, Scripted, free_ports, need
from proxies import PASSWORD, USER, RealProxy, tinyproxy
from scripted_proxy import Line, Peer
from traced import RESOLVER, traced

from relay.spec.proxy import SECURE, Manner, Proxy


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pyrelay-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def authority(top: Path) -> Authority:
    return Authority(top)


@pytest.fixture(scope="module")
def plain(top: Path) -> Iterator[RealProxy]:
    """The proxy behind all of them, which wants a password."""
    started = tinyproxy(next(free_ports()), top, USER)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def secure(plain: RealProxy, authority: Authority) -> Iterator[RealProxy]:
    started = in_tls(plain.port, authority.issue("localhost"))
    started.options = ["--proxy", f"https://{USER}@localhost:{started.port}", "--proxy-cacert", str(authority.cacert)]
    yield started
    started.stop()


@pytest.fixture
def h3(h3: Lab, secure: RealProxy) -> Lab:
    """The ProxyCommand of h3 and of chains goes by the proxy."""
    h3.options = secure.options
    h3.host("h3", ProxyCommand=f"pyrelay {' '.join(secure.options)} %h %p")
    return h3


ENVIRONMENT = {"PYRELAY_PROXY_PASSWORD": PASSWORD}


def test_100_mb_both_ways_at_once(h3: Lab) -> None:
    echo_blocks(h3.start("ssh", "-F", h3.config, "h3", "cat", stdin=subprocess.PIPE, env=ENVIRONMENT))


@pytest.mark.parametrize("more", [(), ("--engine", "ssh"), ("--share", "1s")], ids=["ours", "ssh", "shared"])
def test_a_hop_behind_the_proxy(h3: Lab, more: tuple[str, ...]) -> None:
    h3.server("h1")
    h3.options = [*h3.options, *more]
    ran = h3.run("ssh", "-F", h3.config, "h1/h3", "echo $SERVER", env=ENVIRONMENT)
    assert (ran.stdout, ran.stderr) == ("h3\n", "")
    assert h3["h1"].forwards() == [("localhost", h3["h3"].port)]


def test_fdpass_goes_by_a_helper(h3: Lab) -> None:
    h3.host("h3", ProxyCommand=f"pyrelay --fdpass {' '.join(h3.options)} %h %p", ProxyUseFdpass="yes")
    client = h3.start("ssh", "-F", h3.config, "h3", "echo up; cat", stdin=subprocess.PIPE, env=ENVIRONMENT)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    assert len([command for command in h3.processes().values() if "ssh -F" not in command]) == 1
    data = bytes(MEBIBYTE)
    assert client.communicate(data, 60) == (data, b"")
    assert h3.remaining(2) == {}


def test_no_look_up_and_no_packet_but_to_the_proxy(h3: Lab, plain: RealProxy, authority: Authority) -> None:
    front = in_tls(plain.port, authority.issue(LOOPBACK))
    h3.at_end(front.stop)
    words = ["--proxy", f"https://{USER}@{LOOPBACK}:{front.port}", "--proxy-cacert", str(authority.cacert)]
    found, text = traced(h3, *words, "localhost", str(h3["h3"].port), env=ENVIRONMENT)
    assert found == {f"{front.port} {LOOPBACK}"}
    assert not RESOLVER.search(text)


# What goes wrong


def fails(lab: Lab, *arguments: str, **more: str) -> tuple[str, str]:
    """Run pyrelay, which is to fail; its cause and its hint."""
    ran = lab.pyrelay_in({**ENVIRONMENT, **more}, *arguments, "h3.example")
    assert (ran.returncode, ran.stdout) == (1, "")
    line, hint = [*ran.stderr.splitlines(), ""][:2]
    return line.removeprefix("pyrelay: h3.example: "), hint.removeprefix("hint: ")


def test_an_authority_that_is_not_known(lab: Lab, secure: RealProxy) -> None:
    cause, hint = fails(lab, "--proxy", f"https://localhost:{secure.port}")
    reason = "its certificate is not trusted: unable to get local issuer certificate"
    assert cause == f"the HTTPS proxy localhost:{secure.port}: {reason}"
    assert "--proxy-cacert" in hint


@pytest.mark.parametrize(
    ("name", "days", "reason", "hint"),
    [
        ("other.example", 2, "hostname mismatch, certificate is not valid for 'localhost'", "name the proxy as"),
        (LOOPBACK, 2, "hostname mismatch, certificate is not valid for 'localhost'", "name the proxy as"),
        ("localhost", 0, "certificate has expired", "the proxy needs a new one"),
    ],
)
def test_a_certificate_that_does_not_do(
    lab: Lab, plain: RealProxy, authority: Authority, name: str, days: int, reason: str, hint: str
) -> None:
    front = in_tls(plain.port, authority.issue(name, days=days))
    lab.at_end(front.stop)
    cause, said = fails(lab, *front.options, "--proxy-cacert", str(authority.cacert))
    assert cause == f"the HTTPS proxy localhost:{front.port}: its certificate is not trusted: {reason}"
    assert said.startswith(hint)


@pytest.mark.parametrize(
    ("name", "issued", "cause"),
    [
        ("faß.example", "fass.example", ": the name cannot be sent as it stands"),  # not the "ss" of Python's codec
        ("bücher.example", "xn--bcher-kva.example", " closed the connection"),  # after TLS
        ("proxy.example.", "proxy.example", " closed the connection"),
    ],
)
def test_the_name_that_the_certificate_must_have(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str, issued: str, cause: str
) -> None:
    real = _socket.getaddrinfo

    def look_up(host: bytes, *more: Any) -> object:
        return real(LOOPBACK if host == name.encode() else host, *more)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue(issued))

    def script(line: Line) -> None:
        with context.wrap_socket(line.connection, server_side=True) as connection:
            connection.recv(4096)  # what is unread at the end would be a reset

    monkeypatch.setattr("_socket.getaddrinfo", look_up)
    peer = Peer(script)
    try:
        proxy = Proxy(SECURE, name, peer.port).asked(Manner(cacert=str(authority.cacert)))
        assert fails_here(proxy).cause == f"{proxy}{cause}"
    finally:
        peer.stop()


def test_a_certificate_that_is_trusted_need_not_be_a_root(lab: Lab, plain: RealProxy, authority: Authority) -> None:
    """As with curl: the file may have the proxy's own. The secrets of the connection go to no file."""
    own = authority.issue("localhost", days=3)
    front = in_tls(plain.port, own)
    lab.at_end(front.stop)
    secrets = lab.top / "secrets"
    cause, _ = fails(lab, *front.options, "--proxy-cacert", str(own), SSLKEYLOGFILE=str(secrets))
    assert re.search(" refuses: (401|407) ", cause)  # it is asked
    assert not secrets.exists()


def test_an_abbreviation_stays_one(lab: Lab, secure: RealProxy, authority: Authority) -> None:
    cause, _ = fails(lab, "--proxy", f"https://{LOOPBACK}:{secure.port}", "--proxy-cacert", str(authority.cacert))
    assert cause.endswith(f"not trusted: IP address mismatch, certificate is not valid for '{LOOPBACK}'")


def test_a_proxy_that_wants_a_certificate_of_ours(lab: Lab, authority: Authority) -> None:
    """Under TLS 1.3 it says so when the handshake is over for us. (socat would close at once, and a reset may win.)"""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cacert))
    context.load_cert_chain(authority.issue("localhost"))
    context.verify_mode = ssl.CERT_REQUIRED

    def script(line: Line) -> None:
        with context.wrap_socket(line.connection, server_side=True, do_handshake_on_connect=False) as inside:
            with pytest.raises(ssl.SSLError):
                inside.do_handshake()
            while os.read(inside.fileno(), 1000):
                pass

    peer = Peer(script)
    lab.at_end(peer.stop)
    cause, hint = fails(lab, "--proxy", f"https://localhost:{peer.port}", "--proxy-cacert", str(authority.cacert))
    broke = f"the HTTPS proxy localhost:{peer.port} broke off"
    assert cause.startswith(f"{broke}: the link was lost: TLS: tlsv13 alert cert")
    assert hint == "the proxy wants a certificate of its clients, and pyrelay has none"


def test_what_comes_before_a_bad_record_is_not_lost(lab: Lab, authority: Authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.issue("localhost"))
    words = b"last words\n" * 1000

    def script(line: Line) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = context.wrap_bio(incoming, outgoing, server_side=True)
        for step in (inside.do_handshake, lambda: inside.read(1000)):
            while True:
                with suppress(ssl.SSLWantReadError):
                    step()
                    break
                line.say(outgoing.read())
                incoming.write(line.connection.recv(1000))
        inside.write(b"HTTP/1.1 200 OK\r\n\r\n")
        inside.write(words)
        line.say(outgoing.read() + b"\x17\x03\x03\0\x20" + bytes(32))  # at once, with a record that nobody sealed
        line.last()

    peer = Peer(script)
    lab.at_end(peer.stop)
    ran = lab.pyrelay_in(
        {}, "--proxy", f"https://localhost:{peer.port}", "--proxy-cacert", str(authority.cacert), "h3.example"
    )
    assert ran.stdout == words.decode()
    assert ran.returncode == 1 and ran.stderr.startswith("pyrelay: the link was lost: TLS: ")


def test_a_proxy_that_wants_another_handshake(lab: Lab, authority: Authority) -> None:
    port, certificate = next(free_ports()), authority.issue("localhost")
    listen = ["-accept", f"{LOOPBACK}:{port}", "-cert", str(certificate), "-tls1_2", "-naccept", "1"]
    server = lab.start(need("openssl"), "s_server", *listen, stdin=subprocess.PIPE)
    assert server.stdin and server.stdout
    while server.stdout.readline() != b"ACCEPT\n":
        pass
    words = ["--proxy", f"https://localhost:{port}", "--proxy-cacert", str(authority.cacert), "h3.example"]
    client = lab.start(lab.program, "-F", lab.config, *words, stdin=subprocess.PIPE)
    server.stdin.write(b"HTTP/1.1 200 OK\n\nup\n")
    server.stdin.flush()
    assert client.stdout and client.stdout.readline() == b"up\n"
    server.stdin.write(b"r\n")  # renegotiate
    server.stdin.flush()
    _, said = client.communicate(timeout=30)
    assert said.startswith(b"pyrelay: the link was lost: TLS: the proxy wants another handshake (renegotiation)\n")


def test_a_wrong_password(lab: Lab, secure: RealProxy) -> None:
    cause, hint = fails(lab, *secure.options, PYRELAY_PROXY_PASSWORD="wrong")
    assert re.search(" refuses: (401|407) ", cause)  # squid 5, 7
    assert hint == "the password is taken from $PYRELAY_PROXY_PASSWORD, else it is asked for"


def test_a_proxy_that_speaks_no_tls(lab: Lab) -> None:
    peer = Scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n", hang_up=True)
    lab.at_end(peer.stop)
    cause, hint = fails(lab, "--proxy", f"https://localhost:{peer.port}")
    assert cause == f"the HTTPS proxy localhost:{peer.port}: TLS: wrong version number"
    assert hint == "does it speak plain HTTP? --proxy http://..."


def test_a_proxy_that_hangs_up(lab: Lab) -> None:
    peer = Scripted(hang_up=True)
    lab.at_end(peer.stop)
    cause, hint = fails(lab, "--proxy", f"https://localhost:{peer.port}")
    assert "closed the connection" in cause and hint == ""  # -X chooses among other protocols


def test_a_proxy_that_is_silent(lab: Lab) -> None:
    """As is one that waits for the end of a line: a greeting of TLS may have none, and then again it may."""
    peer = Scripted(hang_up=False)
    lab.at_end(peer.stop)
    cause, hint = fails(lab, "-w", "1", "--proxy", f"https://localhost:{peer.port}")
    assert cause == f"no answer within 1 second (TLS with the HTTPS proxy localhost:{peer.port})"
    assert hint == "does it speak plain HTTP? --proxy http://..."


@pytest.mark.parametrize(("text", "cause"), [(None, "no such file"), ("x", "has no certificate that can be read")])
def test_a_file_of_certificates_that_cannot_be_used(lab: Lab, secure: RealProxy, text: str | None, cause: str) -> None:
    file = lab.top / "ca"
    if text is not None:
        file.write_text(text)
    ran = lab.pyrelay_in({}, "--proxy", f"https://localhost:{secure.port}", "--proxy-cacert", str(file), "h3.example")
    assert ran.stderr.startswith(f"pyrelay: --proxy-cacert: {file}") and cause in ran.stderr
