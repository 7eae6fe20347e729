"""Where Tor is looked for, and what it is told; by a scripted one. A real one is in test_tor.py."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from asked_proxy import ONION, ask, fails, request, said_of
from peers import LOOPBACK, closed_port
from scripted_proxy import BANNER, BOUND, Line, Peer, socks5

from relay.dial.proxy import tor
from relay.spec.proxy import TOR, Proxy


@pytest.fixture
def tor_ports(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[[int, int], None], int, int]]:
    """Set the two ports where Tor is looked for; and two that refuse."""
    monkeypatch.delenv(tor.HOST_VARIABLE, raising=False)
    monkeypatch.delenv(tor.PORT_VARIABLE, raising=False)
    monkeypatch.delenv(tor.PATH_VARIABLE, raising=False)
    with closed_port() as first, closed_port() as second:
        yield lambda *ports: monkeypatch.setattr(tor, "PORTS", ports), first, second


def test_each_target_has_its_user_and_password_for_a_circuit_of_its_own(peer: Callable[..., Peer]) -> None:
    scripted = peer(socks5)
    proxy = Proxy(TOR, LOOPBACK, scripted.port)
    uid = f"uid{os.getuid()}".encode()
    longest = ".".join(["x" * 62] * 4)
    foreign = ".".join(["ü" * 50] * 4)  # above 255 bytes, unless in its xn-- form
    targets = ((ONION, 22), (ONION, 23), (ONION.upper(), 22), ("other.example", 22), (longest, 65535), (foreign, 22))
    for host, port in targets:
        assert ask(proxy, host, port) == BANNER
    assert [bytes(heard) for heard in scripted.heard] == [
        said_of(uid, f"{ONION}:22".encode(), ONION.encode()),
        said_of(uid, f"{ONION}:23".encode(), ONION.encode(), 23),
        said_of(uid, f"{ONION}:22".encode(), ONION.upper().encode()),
        said_of(uid, b"other.example:22", b"other.example"),
        said_of(uid, f"{longest}:65535"[-255:].encode(), longest.encode(), 65535),
        said_of(uid, foreign.encode("idna") + b":22", foreign.encode("idna")),
    ]


def test_tor_is_found_at_the_first_port_or_at_the_second(
    peer: Callable[..., Peer], tor_ports: tuple[Callable[[int, int], None], int, int]
) -> None:
    set_ports, closed, _ = tor_ports
    port = peer(socks5).port
    for ports in ((port, closed), (closed, port)):
        set_ports(*ports)
        assert ask(Proxy(TOR), ONION) == BANNER


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", BANNER, b""])
def test_what_does_not_answer_as_socks_is_not_tor(
    peer: Callable[..., Peer], tor_ports: tuple[Callable[[int, int], None], int, int], answer: bytes
) -> None:
    def script(line: Line) -> None:
        line.hear(4)
        line.say(answer)
        line.last()

    set_ports, closed, _ = tor_ports
    stranger = peer(script).port
    set_ports(stranger, peer(socks5).port)
    assert ask(Proxy(TOR), ONION) == BANNER
    set_ports(stranger, closed)
    error = fails(Proxy(TOR), ONION)
    assert error.cause.startswith(f"no Tor: Tor at 127.0.0.1:{stranger} ")
    assert error.cause.endswith(
        f"; Tor at 127.0.0.1:{closed}: cannot connect to 127.0.0.1 port {closed}: connection refused"
    )
    assert "TOR_SOCKS_HOST" in error.hint


def test_nor_is_what_does_not_answer_at_all(
    peer: Callable[..., Peer],
    tor_ports: tuple[Callable[[int, int], None], int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.dial.proxy.leg.TOR_ANSWER", 0.2)
    tor_ports[0](peer(lambda line: line.hear(1000)).port, peer(socks5).port)
    assert ask(Proxy(TOR), ONION) == BANNER


def test_a_tor_that_has_answered_may_take_its_time_for_the_circuit(
    peer: Callable[..., Peer],
    tor_ports: tuple[Callable[[int, int], None], int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(line: Line) -> None:
        line.hear(1)
        line.hear_field()
        line.say(b"\x05\x00")
        line.hear(len(request(ONION.encode())))
        threading.Event().wait(0.5)  # the slowness itself: longer than TOR_ANSWER, and nothing is awaited
        line.say(b"\x05\0\0" + BOUND + BANNER)
        line.last()

    monkeypatch.setattr("relay.dial.proxy.leg.TOR_ANSWER", 0.2)
    set_ports, closed, _ = tor_ports
    set_ports(peer(slow).port, closed)
    assert ask(Proxy(TOR), ONION) == BANNER


def test_a_tor_that_refuses_is_not_looked_for_elsewhere(
    peer: Callable[..., Peer], tor_ports: tuple[Callable[[int, int], None], int, int]
) -> None:
    other = peer(socks5)
    tor_ports[0](peer(lambda line: socks5(line, 0xF0)).port, other.port)
    assert "onion service not found" in fails(Proxy(TOR), ONION).cause
    assert other.heard == []


def test_the_environment_says_where_tor_is(
    peer: Callable[..., Peer],
    tor_ports: tuple[Callable[[int, int], None], int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_ports, *closed = tor_ports
    port = peer(socks5).port
    set_ports(*closed)
    monkeypatch.setenv(tor.PORT_VARIABLE, str(port))
    assert ask(Proxy(TOR), ONION) == BANNER
    monkeypatch.setenv(tor.HOST_VARIABLE, "::1")  # where nobody listens
    assert f"no Tor: Tor at [::1]:{port}: " in fails(Proxy(TOR), ONION).cause
    monkeypatch.delenv(tor.PORT_VARIABLE)
    set_ports(port, closed[0])
    monkeypatch.setenv(tor.HOST_VARIABLE, LOOPBACK)
    assert ask(Proxy(TOR), ONION) == BANNER
    monkeypatch.setenv(tor.PATH_VARIABLE, "/nonexistent/tor")  # which goes before the two
    assert "no Tor: Tor at /nonexistent/tor: no such file" in fails(Proxy(TOR), ONION).cause
    monkeypatch.delenv(tor.PATH_VARIABLE)
    monkeypatch.setenv(tor.HOST_VARIABLE, "a b")
    error = fails(Proxy(TOR), ONION)
    assert (error.place, error.cause) == ("$TOR_SOCKS_HOST and $TOR_SOCKS_PORT", "a host cannot hold a space")
