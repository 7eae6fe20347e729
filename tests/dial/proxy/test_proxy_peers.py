"""Real proxies under a real ssh: microsocks, Dante, ssh -D, tinyproxy and ncat."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import proxies
import pytest
from blocks import MEBIBYTE, echo_blocks
from lab import Lab
from peers import LOOPBACK, need
from proxies import RealProxy
from terminal import Terminal
from traced import RESOLVER, traced


@pytest.fixture
def proxy(h3: Lab, request: pytest.FixtureRequest) -> Iterator[RealProxy]:
    """The proxy that the test is parametrized with; the ProxyCommand of h3 and of chains goes by it."""
    started = proxies.start(request.param, h3)
    h3.options = started.options
    h3.host("h3", ProxyCommand=f"pyrelay {' '.join(started.options)} %h %p")
    yield started
    started.stop()


every = pytest.mark.parametrize("proxy", proxies.ALL, indirect=True)
one = pytest.mark.parametrize("proxy", ["microsocks"], indirect=True)


def run(lab: Lab, proxy: RealProxy, *arguments: str) -> subprocess.CompletedProcess[str]:
    return lab.run("ssh", "-F", lab.config, *arguments, env=proxy.environment)


@every
def test_a_command_runs(h3: Lab, proxy: RealProxy) -> None:
    ran = run(h3, proxy, "h3", "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h3\n", "")


@every
def test_a_hop_behind_the_proxy(h3: Lab, proxy: RealProxy) -> None:
    h3.server("h1")
    ran = run(h3, proxy, "h1/h3", "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h3\n", "")
    assert h3["h1"].forwards() == [("localhost", h3["h3"].port)]


@one
@pytest.mark.parametrize("own", ["ProxyCommand", "ProxyJump"])
def test_the_proxy_takes_the_place_of_what_the_first_hop_has_of_its_own(h3: Lab, proxy: RealProxy, own: str) -> None:
    h3.server("h1", **{own: "false"})
    assert h3.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(h3["h1"].connections) == 1


@pytest.mark.parametrize("proxy", ["microsocks", "dante", "ssh -D", "tinyproxy"], indirect=True)
def test_100_mb_both_ways_at_once(h3: Lab, proxy: RealProxy) -> None:
    echo_blocks(h3.start("ssh", "-F", h3.config, "h3", "cat", stdin=subprocess.PIPE))


# The name is looked up by the proxy, not here


@every
@pytest.mark.parametrize("words", ["localhost", "h1/localhost", "--engine=ssh h1/localhost"])
def test_no_look_up_and_no_packet_but_to_the_proxy(h3: Lab, proxy: RealProxy, words: str) -> None:
    """Settings of a hop do not apply to the proxy: with AddressFamily inet6 it would not be found.

    ssh's Kerberos looks a name up where the server takes it, ticket or none.
    """
    gssapi = "GSSAPIAuthentication yes"
    asks = {"VerifyHostKeyDNS": "yes", "GSSAPIAuthentication": "yes"}
    h3.server("h1", extra=gssapi, HostName="localhost", HostKeyAlias="h1", AddressFamily="inet6", **asks)
    with h3.known_hosts.open("a") as file:
        file.writelines(f"h1 {key}\n" for key in h3["h1"].host_keys)
    found, text = traced(h3, *proxy.options, *words.split(), str(h3["h3"].port), env=proxy.environment)
    assert found == {f"{proxy.port} {LOOPBACK}"}
    assert not RESOLVER.search(text)


def test_a_direct_connection_does_look_it_up(h3: Lab) -> None:
    """The strace of the test above would show a look-up."""
    found, text = traced(h3, "-4", "localhost", str(h3["h3"].port))
    assert f"{h3['h3'].port} {LOOPBACK}" in found
    assert RESOLVER.search(text)


# What goes wrong


def fails(lab: Lab, *arguments: str, env: dict[str, str] | None = None) -> list[str]:
    """Run pyrelay, which has to fail; return the lines that it says."""
    ran = lab.run(lab.program, "-F", lab.config, *arguments, env=env)
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr.splitlines()


@pytest.mark.parametrize(
    "proxy", ["microsocks with a password", "tinyproxy with a password", "ncat with a password"], indirect=True
)
def test_a_password_is_wanted_and_must_be_right(h3: Lab, proxy: RealProxy) -> None:
    address = proxy.options[:4]
    port = str(h3["h3"].port)
    without, hint = fails(h3, *address, "localhost", port)
    assert re.search(r" (wants a user and a password|refuses: 40[17] .*)$", without)
    assert hint == "hint: give the user by -P, the password by $PYRELAY_PROXY_PASSWORD"
    wrong, hint = fails(h3, *proxy.options, "localhost", port, env={"PYRELAY_PROXY_PASSWORD": "wrong"})
    assert re.search(r" (does not accept the password of alice|refuses: 40[17] .*)$", wrong)
    assert hint == "hint: the password is taken from $PYRELAY_PROXY_PASSWORD, else it is asked for"


@pytest.mark.parametrize("proxy", ["microsocks with a password"], indirect=True)
def test_a_password_is_asked_for(h3: Lab, proxy: RealProxy) -> None:
    with Terminal(h3, "ssh", "-F", h3.config, "h3", "echo $SERVER") as terminal:
        terminal.answer(f"Password of alice for the SOCKS5 proxy 127.0.0.1:{proxy.port}: ", proxies.PASSWORD)
        terminal.expect("h3\n")
        assert terminal.wait() == 0


@pytest.mark.parametrize("proxy", ["microsocks", "dante", "ssh -D", "tinyproxy"], indirect=True)
def test_what_the_proxy_cannot_reach(h3: Lab, proxy: RealProxy) -> None:
    port = str(h3.closed("shut"))
    line = fails(h3, *proxy.options, "localhost", port)[0]
    assert line.startswith(f"pyrelay: localhost:{port}: ")
    assert re.search(r"connection refused, says|closed the connection|refuses: 500 Unable to connect", line)


@one
def test_the_wrong_protocol_is_named(h3: Lab, proxy: RealProxy) -> None:
    lines = fails(h3, "-X", "4a", *proxy.options[2:], "localhost")
    assert lines == [
        f"pyrelay: localhost: the SOCKS4 proxy 127.0.0.1:{proxy.port} answers as a SOCKS5 proxy does",
        "hint: -X 5",
    ]


@one
def test_fdpass_hands_ssh_the_proxied_connection(h3: Lab, proxy: RealProxy) -> None:
    h3.host("h3", ProxyCommand=f"pyrelay --fdpass {' '.join(proxy.options)} %h %p", ProxyUseFdpass="yes")
    client = h3.start("ssh", "-F", h3.config, "h3", "echo up; cat", stdin=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    assert [command for command in h3.processes().values() if "ssh -F" not in command] == []
    data = os.urandom(10 * MEBIBYTE)
    assert client.communicate(data, 60) == (data, b"")


@one
def test_fdpass_with_a_hop_behind_the_proxy(h3: Lab, proxy: RealProxy) -> None:
    h3.server("h1")
    h3.options = ["--fdpass", *proxy.options]
    h3.head = "Host */*\n    ProxyUseFdpass yes"
    assert h3.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert h3.remaining(2) == {}


# Onion names, where nothing leads to Tor

ONION = f"{'a' * 56}.onion"


def test_a_hop_is_not_asked_for_an_onion_name(lab: Lab) -> None:
    lab.server("h1")
    (line, hint) = fails(lab, f"h1/{ONION}")
    assert line.startswith(f"pyrelay: target ({ONION}): a hop cannot be asked for a .onion name") and "RFC 7686" in line
    assert hint.startswith(f"hint: begin with it: {ONION}/")
    assert lab["h1"].connections == []


def test_nor_for_one_that_ssh_config_gives_a_name(lab: Lab) -> None:
    lab.server("h1")
    lab.host("hidden", HostName=ONION)
    lab.write_config()
    assert "RFC 7686" in fails(lab, "h1/hidden/h3")[0]
    assert lab["h1"].connections == []


def test_torsocks_around_ssh_is_told(lab: Lab) -> None:
    """It lets nothing connect to this machine, where Tor is."""
    lab.host("*.onion", HostName="%h", ProxyCommand="pyrelay %h %p")
    ran = lab.run(need("torsocks"), "ssh", "-F", lab.config, ONION)
    lines = [line for line in ran.stderr.splitlines() if line.startswith(("pyrelay: ", "hint: "))]
    assert re.search(r": no Tor: .*operation not permitted", lines[0])
    assert lines[1].startswith("hint: torsocks lets nothing connect to this machine: call ssh without it")


def test_a_proxy_at_an_onion_name_is_not_looked_up(lab: Lab) -> None:
    assert "RFC 7686" in fails(lab, "-x", f"{ONION}:1080", "h3")[0]


def test_a_proxy_that_was_named_is_asked_for_an_onion_name(lab: Lab) -> None:
    """Whoever names such a proxy knows why; one that cannot reach onions says so."""
    started = proxies.start("microsocks", lab)
    try:
        line = fails(lab, *started.options, ONION)[0]
    finally:
        started.stop()
    assert line.endswith(f", says the SOCKS5 proxy 127.0.0.1:{started.port}")
