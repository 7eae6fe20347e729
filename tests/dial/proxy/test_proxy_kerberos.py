"""Kerberos at real proxies under a real ssh: dante by GSS-API (RFC 1961), squid by Negotiate; and squid by the rest."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import pytest
from blocks import MEBIBYTE, echo_blocks
from kerberos import REALM, Realm
from lab import Lab
from peers import LOOPBACK, free_ports
from proxies import PASSWORD, USER, RealProxy, microsocks
from traced import RESOLVER, traced

GSSAPI = ("--proxy-auth", "gssapi")
BEGUN = re.compile(rf"connecting to {LOOPBACK} port \d+$", re.MULTILINE)  # what -v says when it connects
# How each proxy is logged in to, by the name of a fixture.
WAYS = {
    "none": ("dante", (*GSSAPI, "--proxy-protection", "none")),
    "integrity": ("dante", (*GSSAPI, "--proxy-protection", "integrity")),
    "confidentiality": ("dante", GSSAPI),
    "negotiate": ("squid", ("--proxy-auth", "negotiate")),
    "digest": ("squid", ("--proxy-auth", "digest", "-P", USER)),
    "basic": ("squid", ("--proxy-auth", "basic", "-P", USER)),
}


@pytest.fixture(scope="module")
def dante(realm: Realm) -> RealProxy:
    return realm.dante()


@pytest.fixture(scope="module")
def squid(realm: Realm) -> RealProxy:
    return realm.squid()


@pytest.fixture
def options(h3: Lab, request: pytest.FixtureRequest) -> list[str]:
    """The options for the way that the test is parametrized with; the ProxyCommand of h3 and of chains has them."""
    name, more = WAYS[request.param]
    proxy: RealProxy = request.getfixturevalue(name)
    h3.options = [*proxy.options, *more]
    h3.host("h3", ProxyCommand=f"pyrelay {' '.join(h3.options)} %h %p")
    return h3.options


def environment(realm: Realm, **more: str) -> dict[str, str]:
    return {**realm.environment, "PYRELAY_PROXY_PASSWORD": PASSWORD, **more}


every = pytest.mark.parametrize("options", WAYS, indirect=True)


@every
@pytest.mark.usefixtures("options")
def test_100_mb_both_ways_at_once(h3: Lab, realm: Realm) -> None:
    echo_blocks(h3.start("ssh", "-F", h3.config, "h3", "cat", stdin=subprocess.PIPE, env=environment(realm)))


@pytest.mark.parametrize("options", ["integrity", "confidentiality", "negotiate"], indirect=True)
@pytest.mark.usefixtures("options")
@pytest.mark.parametrize("more", [(), ("--engine", "ssh"), ("--share", "1s")], ids=["ours", "ssh", "shared"])
def test_a_hop_behind_the_proxy(h3: Lab, realm: Realm, more: tuple[str, ...]) -> None:
    h3.server("h1")
    h3.options += more
    ran = h3.run("ssh", "-F", h3.config, "h1/h3", "echo $SERVER", env=environment(realm))
    assert (ran.stdout, ran.stderr) == ("h3\n", "")
    assert h3["h1"].forwards() == [("localhost", h3["h3"].port)]


@pytest.mark.parametrize("options", ["none", "confidentiality", "negotiate"], indirect=True)
@pytest.mark.usefixtures("options")
def test_fdpass(h3: Lab, realm: Realm, request: pytest.FixtureRequest) -> None:
    """ssh has the connection for itself, but where it is not the stream: there a helper serves."""
    h3.host("h3", ProxyCommand=f"pyrelay --fdpass {' '.join(h3.options)} %h %p", ProxyUseFdpass="yes")
    client = h3.start("ssh", "-F", h3.config, "h3", "echo up; cat", stdin=subprocess.PIPE, env=environment(realm))
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    relays = [command for command in h3.processes().values() if "ssh -F" not in command]
    layered = request.node.callspec.id in {"integrity", "confidentiality"}
    assert len(relays) == int(layered)
    data = bytes(MEBIBYTE)
    assert client.communicate(data, 60) == (data, b"")
    assert h3.remaining(2) == {}


@pytest.mark.parametrize("way", WAYS)
def test_no_look_up_and_no_packet_but_to_the_proxy_and_the_kdc(
    h3: Lab, realm: Realm, way: str, request: pytest.FixtureRequest
) -> None:
    name, more = WAYS[way]
    proxy: RealProxy = request.getfixturevalue(name)
    words = [*proxy.options[:2], "-x", f"{LOOPBACK}:{proxy.port}", *more]
    if name == "dante" or way == "negotiate":
        words += ["--proxy-service", f"{'rcmd' if name == 'dante' else 'HTTP'}@localhost"]
    found, text = traced(h3, *words, "localhost", str(h3["h3"].port), env=environment(realm))
    assert found - {f"{realm.port} {LOOPBACK}"} == {f"{proxy.port} {LOOPBACK}"}
    assert not RESOLVER.search(text)


# Which way is taken where none is named


def note(lab: Lab, realm: Realm, *words: str, env: dict[str, str] | None = None) -> str:
    """What a run with -v says, which is to reach h3."""
    argv: list[str | Path] = [lab.program, "-v", *words, "localhost", str(lab["h3"].port)]
    process = lab.start(*argv, env=env or environment(realm), stdin=subprocess.PIPE)  # squid knows no half-close
    assert process.stdin
    assert process.stdout
    said = process.stdout.readline()
    process.stdin.close()
    assert process.stderr
    told = process.stderr.read().decode()
    assert said.startswith(b"SSH-2.0-"), told
    return told


def test_squid_gets_a_ticket_where_there_is_one(h3: Lab, realm: Realm, squid: RealProxy) -> None:
    told = note(h3, realm, *squid.options)
    assert "ticket of HTTP@localhost" in told
    assert len(BEGUN.findall(told)) == 2  # the first one learns that it wants one


def test_and_at_once_where_that_is_chosen(h3: Lab, realm: Realm, squid: RealProxy) -> None:
    told = note(h3, realm, *squid.options, "--proxy-auth", "negotiate")
    assert len(BEGUN.findall(told)) == 1


def test_and_else_a_password_that_is_not_said(h3: Lab, realm: Realm, squid: RealProxy) -> None:
    env = environment(realm, KRB5CCNAME="FILE:/nonexistent")
    assert "no login by negotiate: Kerberos: " in note(h3, realm, *squid.options, "-P", USER, env=env)


# What goes wrong


def fails(lab: Lab, env: dict[str, str], *arguments: str) -> tuple[str, str]:
    """Run pyrelay, which is to fail; its cause and its hint."""
    ran = lab.pyrelay_in(env, *arguments, "localhost", str(lab["h3"].port))
    assert (ran.returncode, ran.stdout) == (1, "")
    line, hint = [*ran.stderr.splitlines(), ""][:2]
    return line.removeprefix(f"pyrelay: localhost:{lab['h3'].port}: "), hint.removeprefix("hint: ")


@pytest.fixture(params=["dante", "squid"])
def wanting(request: pytest.FixtureRequest) -> list[str]:
    """The options for a proxy that is to be logged in to by Kerberos."""
    proxy: RealProxy = request.getfixturevalue(request.param)
    return [*proxy.options, "--proxy-auth", "gssapi" if request.param == "dante" else "negotiate"]


def test_no_ticket(h3: Lab, realm: Realm, wanting: list[str]) -> None:
    cause, hint = fails(h3, environment(realm, KRB5CCNAME="FILE:/nonexistent/tickets"), *wanting)
    assert cause == "Kerberos: No Kerberos credentials available (default cache: FILE:/nonexistent/tickets)"
    assert hint == "kinit gets a ticket, klist shows them"


def test_an_expired_ticket(h3: Lab, realm: Realm, wanting: list[str]) -> None:
    env = environment(realm, **realm.log_in("-l", "1s", cache=h3.top / "tickets"))
    expired = threading.Event()
    expired.wait(2)  # a ticket lives for a whole second
    cause, hint = fails(h3, env, *wanting)
    assert cause == "Kerberos: Ticket expired"
    assert hint == "kinit gets a ticket, klist shows them"


def test_a_service_that_the_kdc_does_not_know(h3: Lab, realm: Realm, wanting: list[str]) -> None:
    cause, hint = fails(h3, environment(realm), *wanting, "--proxy-service", "no-such")
    assert cause == f"Kerberos: Server no-such/localhost@{REALM} not found in Kerberos database"
    assert hint == "--proxy-service names the proxy as its Kerberos does"


def test_a_service_that_the_proxy_is_not(h3: Lab, realm: Realm, wanting: list[str]) -> None:
    """There is a ticket for that name, but the proxy has no key for it."""
    cause, hint = fails(h3, environment(realm), *wanting, "--proxy-service", "nobody")
    assert "does not accept the login by " in cause
    assert "--proxy-service" in hint


def test_no_kdc(h3: Lab, realm: Realm, wanting: list[str]) -> None:
    config = h3.top / "krb5.conf"
    config.write_text(
        Path(realm.environment["KRB5_CONFIG"]).read_text().replace(f":{realm.port}", f":{h3.closed('kdc')}")
    )
    cause, hint = fails(h3, environment(realm, KRB5_CONFIG=str(config)), *wanting, "--proxy-service", "other")
    assert cause == f"Kerberos: Cannot contact any KDC for realm '{REALM}'"
    assert "krb5.conf" in hint


@pytest.mark.parametrize("way", ["digest", "basic"])
def test_a_wrong_password(h3: Lab, realm: Realm, squid: RealProxy, way: str) -> None:
    words = [*squid.options, "--proxy-auth", way, "-P", USER]
    cause, hint = fails(h3, environment(realm, PYRELAY_PROXY_PASSWORD="wrong"), *words)
    assert cause.endswith(f" refuses: 407 Proxy Authentication Required: it does not accept the login by {way}")
    assert hint == "the password is taken from $PYRELAY_PROXY_PASSWORD, else it is asked for"


def test_neither_ticket_nor_user(h3: Lab, realm: Realm, squid: RealProxy) -> None:
    cause, hint = fails(h3, environment(realm, KRB5CCNAME="FILE:/nonexistent/tickets"), *squid.options)
    assert cause.endswith(" refuses: 407 Proxy Authentication Required")
    assert "kinit gets a ticket" in hint and "give the user by -P" in hint


def test_why_squid_does_not_connect(h3: Lab, realm: Realm, squid: RealProxy) -> None:
    ran = h3.pyrelay_in(environment(realm), *squid.options, "localhost", str(h3.closed("shut")))
    assert "503 Service Unavailable: it cannot connect: connection refused (ERR_CONNECT_FAIL 111)" in ran.stderr


def test_dante_by_anything_else(h3: Lab, realm: Realm, dante: RealProxy) -> None:
    cause, hint = fails(h3, environment(realm), *dante.options)
    assert cause == f"the SOCKS5 proxy localhost:{dante.port} wants GSS-API (Kerberos)"
    assert hint == "--proxy-auth gssapi"


def test_gssapi_where_it_is_not_known(h3: Lab, realm: Realm) -> None:
    proxy = microsocks(next(free_ports()), h3.top)
    h3.at_end(proxy.stop)
    words = ["-x", f"localhost:{proxy.port}", *GSSAPI]
    assert fails(h3, environment(realm), *words)[0].endswith("takes no login by GSS-API")


@pytest.mark.parametrize("levels", ["integrity", "clear"])
def test_a_protection_that_the_proxy_does_not_grant(h3: Lab, realm: Realm, levels: str) -> None:
    proxy = realm.dante(levels)
    cause, hint = fails(h3, environment(realm), *proxy.options, *GSSAPI)
    proxy.stop()
    assert cause.endswith(" does not grant the protection that it was asked for")
    assert hint == "it may grant another one: --proxy-protection integrity, or none"


@pytest.mark.parametrize("options", ["integrity"], indirect=True)
@pytest.mark.usefixtures("options")
def test_a_holder_takes_the_tickets_of_the_relay_that_asks(h3: Lab, realm: Realm) -> None:
    h3.server("h1")
    h3.options += ["--share", "10s"]
    argv = ("ssh", "-F", h3.config, "h1/h3", "echo $SERVER")
    ran = h3.run(*argv, env=environment(realm, KRB5CCNAME="FILE:/nonexistent/tickets"))
    assert "No credentials cache found" in ran.stderr
    assert h3.run(*argv, env=environment(realm)).stdout == "h3\n"
    ran = h3.run(*argv, env=environment(realm, KRB5CCNAME="FILE:/nonexistent/others"))
    assert "No credentials cache found" in ran.stderr
