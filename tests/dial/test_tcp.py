"""Connecting: every address of a name, in turn and in time, and nothing left open."""

from __future__ import annotations

import _socket
import os
import socket
from collections.abc import Callable, Iterator
from errno import EAFNOSUPPORT, ECONNREFUSED, EINPROGRESS
from pathlib import Path
from typing import Any

import pytest
from peers import LOOPBACK, closed_port, need_ipv6

from relay.dial import tcp
from relay.errors import RelayError, TimedOut
from relay.run.progress import Progress

Address = tuple[str, int]
Name = Callable[..., str]  # makes a host name of addresses
NEVER = 1000.0  # seconds


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) <= before  # (what a test before has left to be collected may go meanwhile)


@pytest.fixture
def progress() -> Progress:
    return Progress(20)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK, 0)) as made:
        made.settimeout(10)
        yield made


@pytest.fixture
def good(listener: socket.socket) -> Address:
    """An address that accepts."""
    host, port = listener.getsockname()
    return host, port


@pytest.fixture
def closed() -> Iterator[Address]:
    """An address that refuses."""
    with closed_port() as port:
        yield LOOPBACK, port


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that never answers: its queue of connections is full, so Linux drops what comes."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind((LOOPBACK, 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Name:
    """Make a host name with the given addresses."""

    real = _socket.getaddrinfo

    def name(*addresses: tuple[Any, ...]) -> str:
        found = [
            (socket.AF_INET6 if ":" in where[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", where)
            for where in addresses
        ]
        monkeypatch.setattr(
            "_socket.getaddrinfo", lambda host, *rest: found if host == b"name.example" else real(host, *rest)
        )
        return "name.example"

    return name


def test_a_socket_as_it_is_handed_over(listener: socket.socket, progress: Progress) -> None:
    sock = tcp.connect("localhost", listener.getsockname()[1], progress, tcp.Terms(family=socket.AF_INET))
    try:
        assert sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not os.get_inheritable(sock.fileno())
        assert sock.getpeername() == listener.getsockname()
    finally:
        sock.close()


def test_without_keepalive(good: Address, progress: Progress) -> None:
    sock = tcp.connect(*good, progress, tcp.Terms(keepalive=False))
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    sock.close()


def test_ipv6(progress: Progress) -> None:
    need_ipv6()
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        tcp.connect("::1", listener.getsockname()[1], progress).close()


# Happy Eyeballs


@pytest.mark.parametrize(
    ("resolved", "tried"),
    [
        ("4a", "4a"),
        ("6a 6b 4a 4b", "6a 4a 6b 4b"),
        ("4a 6a 6b 6c", "4a 6a 6b 6c"),
        ("6a 6b 6c 4a", "6a 4a 6b 6c"),
        ("4a 4b", "4a 4b"),
    ],
)
def test_families_in_turn(resolved: str, tried: str) -> None:
    def addresses(text: str) -> list[tcp.Address]:
        return [(int(word[0]), (word, 22)) for word in text.split()]

    assert tcp._in_turn(addresses(resolved)) == addresses(tried)


def test_a_silent_address_costs_a_moment(name: Name, silent: Address, good: Address) -> None:
    sock = tcp.connect(name(silent, good), 0, Progress(2.0))
    assert sock.getpeername() == good
    sock.close()


def test_the_first_address_is_given_that_moment(
    monkeypatch: pytest.MonkeyPatch, name: Name, silent: Address, good: Address
) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", NEVER)
    with pytest.raises(TimedOut):
        tcp.connect(name(silent, good), 0, Progress(0.2))


def test_after_a_refusal_the_next_address_is_tried_at_once(
    monkeypatch: pytest.MonkeyPatch, name: Name, closed: Address, good: Address, progress: Progress
) -> None:
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", NEVER)
    refusing = [(f"127.0.0.{last}", closed[1]) for last in range(1, 20)]
    sock = tcp.connect(name(*refusing, good), 0, progress)
    assert sock.getpeername() == good
    sock.close()


class Distant(_socket.socket):
    """A socket that hears later that it is refused, as over a network; on this machine it would be told at once."""

    refused = 0

    def connect_ex(self, where: Address) -> int:  # type: ignore[override]
        code = super().connect_ex(where)
        self.refused = code if code == ECONNREFUSED else 0
        return EINPROGRESS if self.refused else code

    def getsockopt(self, level: int, option: int) -> int:  # type: ignore[override]
        return self.refused or super().getsockopt(level, option)


def test_a_refusal_that_comes_later(
    monkeypatch: pytest.MonkeyPatch, name: Name, silent: Address, closed: Address, good: Address, progress: Progress
) -> None:
    monkeypatch.setattr("_socket.socket", Distant)
    with pytest.raises(
        RelayError, match=rf"^pyrelay: cannot connect to {LOOPBACK} port {closed[1]}: connection refused$"
    ):
        tcp.connect(*closed, progress)
    sock = tcp.connect(name(closed, good), 0, progress)
    assert sock.getpeername() == good
    sock.close()
    monkeypatch.setattr(tcp, "ATTEMPT_DELAY", 0.01)
    with pytest.raises(TimedOut) as caught:
        tcp.connect(name(silent, closed), 0, progress, tcp.Terms(timeout=0.2))
    assert caught.value.cause == (
        "no answer within 0.2 seconds (ConnectTimeout; "
        f"127.0.0.1 port {closed[1]}: connection refused; 127.0.0.1 port {silent[1]}: no answer)"
    )


def test_a_family_that_this_machine_cannot_reach(name: Name, good: Address, progress: Progress) -> None:
    # An address of the documentation (RFC 3849): no route, or no answer.
    sock = tcp.connect(name(("2001:db8::1", good[1], 0, 0), good), 0, progress)
    assert sock.getpeername() == good
    sock.close()


def test_a_family_that_this_kernel_has_not(
    monkeypatch: pytest.MonkeyPatch, name: Name, good: Address, progress: Progress
) -> None:
    real = _socket.socket

    def make(family: int, *rest: int) -> _socket.socket:
        if family == socket.AF_INET6:
            raise OSError(EAFNOSUPPORT, os.strerror(EAFNOSUPPORT))
        return real(family, *rest)

    monkeypatch.setattr("_socket.socket", make)
    tcp.connect(name(("::1", good[1], 0, 0), good), 0, progress).close()
    with pytest.raises(RelayError, match="address family not supported"):
        tcp.connect(name(("::1", good[1], 0, 0)), 0, progress)


def test_the_same_address_twice_is_one(name: Name, closed: Address, progress: Progress) -> None:
    with pytest.raises(
        RelayError, match=rf"^pyrelay: cannot connect to {LOOPBACK} port {closed[1]}: connection refused$"
    ):
        tcp.connect(name(closed, closed), 0, progress)


def test_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second, or what the deadline leaves of one: whoever refuses now may listen then."""
    slept: list[float] = []
    with socket.socket() as late:
        late.bind((LOOPBACK, 0))
        host, port = late.getsockname()

        def listen(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                late.listen()

        monkeypatch.setattr(tcp, "sleep", listen)
        with pytest.raises(RelayError, match=rf"^pyrelay: cannot connect to {host} port {port}: connection refused$"):
            tcp.connect(host, port, Progress(20), tcp.Terms(attempts=2))
        tcp.connect(host, port, Progress(0.9), tcp.Terms(attempts=9)).close()
    assert slept[0] == 1.0
    assert len(slept) == 3
    assert max(slept[1:]) <= 0.9


# Messages


def test_refused(closed: Address, progress: Progress) -> None:
    with pytest.raises(
        RelayError, match=rf"^pyrelay: cannot connect to {LOOPBACK} port {closed[1]}: connection refused$"
    ):
        tcp.connect(*closed, progress)


def test_several_addresses_failed(name: Name, closed: Address, progress: Progress) -> None:
    broadcast = ("255.255.255.255", 1)
    with pytest.raises(RelayError) as caught:
        tcp.connect(name(closed, broadcast), 0, progress)
    assert caught.value.cause == (
        f"cannot connect to 127.0.0.1 port {closed[1]}: connection refused; "
        "255.255.255.255 port 1: network is unreachable"
    )


@pytest.mark.parametrize(("count", "rest"), [(4, []), (7, ["and 3 more"])])
def test_many_addresses_failed(name: Name, closed: Address, progress: Progress, count: int, rest: list[str]) -> None:
    with pytest.raises(RelayError) as caught:
        tcp.connect(name(*[(f"127.0.0.{last}", closed[1]) for last in range(1, count + 1)]), 0, progress)
    told = [f"127.0.0.{last} port {closed[1]}: connection refused" for last in range(1, 5)]
    assert caught.value.cause == f"cannot connect to {'; '.join(told + rest)}"


def test_connect_timeout(name: Name, silent: Address, closed: Address, progress: Progress) -> None:
    with pytest.raises(TimedOut) as caught:
        tcp.connect(*silent, progress, tcp.Terms(timeout=0.2))
    assert caught.value.cause == (
        f"no answer within 0.2 seconds (ConnectTimeout; connecting to {LOOPBACK} port {silent[1]})"
    )
    with pytest.raises(TimedOut) as caught:
        tcp.connect(name(closed, silent), 0, progress, tcp.Terms(timeout=0.2))
    assert caught.value.cause == (
        "no answer within 0.2 seconds (ConnectTimeout; "
        f"127.0.0.1 port {closed[1]}: connection refused; 127.0.0.1 port {silent[1]}: no answer)"
    )


def test_deadline(silent: Address) -> None:
    progress = Progress(0.2)
    progress.at("hop 1 of 2 (h1)")
    with pytest.raises(TimedOut) as caught:
        tcp.connect(*silent, progress, tcp.Terms(timeout=NEVER))
    assert str(caught.value) == (
        f"pyrelay: hop 1 of 2 (h1): no answer within 0.2 seconds (connecting to {LOOPBACK} port {silent[1]})"
    )


@pytest.mark.parametrize("host", ["nosuch.invalid", "a..b", "x" * 64, "x" * 300, "256.256.256.256"])
def test_no_such_host(monkeypatch: pytest.MonkeyPatch, host: str, progress: Progress) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    with pytest.raises(RelayError) as caught:
        tcp.connect(host, 22, progress)
    assert caught.value.cause.startswith((f"no such host: {host[:150]}", f"{host}: temporary failure"))


def test_an_international_name(monkeypatch: pytest.MonkeyPatch, progress: Progress) -> None:
    def refuse(host: bytes, *_: object) -> None:
        assert host == "bücher.example".encode()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("_socket.getaddrinfo", refuse)
    with pytest.raises(RelayError) as caught:
        tcp.connect("bücher.example", 22, progress)
    assert caught.value.cause == "no such host: bücher.example"
    assert "xn--" in caught.value.hint


@pytest.mark.parametrize("host", ["abc.onion", "ABC.Onion", "abc.onion."])
def test_onion_never_reaches_a_resolver(monkeypatch: pytest.MonkeyPatch, host: str, progress: Progress) -> None:
    monkeypatch.setattr("_socket.getaddrinfo", lambda *_: pytest.fail("looked up"))
    with pytest.raises(RelayError, match=r"RFC 7686"):
        tcp.connect(host, 22, progress)


def test_nor_does_an_onion_name_to_connect_from(
    good: Address, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = _socket.getaddrinfo

    def look_up(host: bytes, *more: Any) -> object:
        asked.append(host)
        return real(host, *more)

    monkeypatch.setattr("_socket.getaddrinfo", look_up)
    with pytest.raises(RelayError, match=r"it cannot be connected to from abc\.onion: .*RFC 7686"):
        tcp.connect(LOOPBACK, good[1], progress, tcp.Terms(local=tcp.Local("abc.onion")))
    assert asked == [LOOPBACK.encode()]


# Family and source


def test_family(good: Address, progress: Progress) -> None:
    sock = tcp.connect("localhost", good[1], progress, tcp.Terms(family=socket.AF_INET))
    assert sock.family == socket.AF_INET
    sock.close()
    with pytest.raises(RelayError, match="no such host: ::1, or it has no IPv4 address"):
        tcp.connect("::1", good[1], progress, tcp.Terms(family=socket.AF_INET))


def test_source(listener: socket.socket, progress: Progress) -> None:
    sock = tcp.connect(LOOPBACK, listener.getsockname()[1], progress, tcp.Terms(local=tcp.Local("127.0.0.1")))
    accepted, address = listener.accept()
    assert address == sock.getsockname()
    sock.close()
    accepted.close()


def test_source_chooses_the_family(name: Name, good: Address, progress: Progress) -> None:
    sock = tcp.connect(name(("::1", good[1], 0, 0), good), 0, progress, tcp.Terms(local=tcp.Local(LOOPBACK)))
    assert sock.getpeername() == good
    sock.close()


def test_the_first_address_of_a_source_counts(name: Name, good: Address, progress: Progress) -> None:
    sock = tcp.connect(*good, progress, tcp.Terms(local=tcp.Local(name(("127.0.0.5", 0), ("127.0.0.6", 0)))))
    assert sock.getsockname()[0] == "127.0.0.5"
    sock.close()


def test_source_of_another_family(good: Address, progress: Progress) -> None:
    with pytest.raises(RelayError) as caught:
        tcp.connect(*good, progress, tcp.Terms(local=tcp.Local("::1")))
    assert caught.value.cause == "127.0.0.1 has no IPv6 address to reach from ::1"


def test_source_of_another_machine(good: Address, progress: Progress) -> None:
    with pytest.raises(RelayError) as caught:
        tcp.connect(
            *good, progress, tcp.Terms(local=tcp.Local("192.0.2.77"))
        )  # an address of the documentation (RFC 5737): no host has it
    local = f"cannot connect to {LOOPBACK} port {good[1]}: the local address 192.0.2.77: cannot assign"
    assert caught.value.cause.lower().startswith(local)


def test_another_family_may_do(monkeypatch: pytest.MonkeyPatch, name: Name, good: Address, progress: Progress) -> None:
    """As with ssh, where no source of one family can be used: BindAddress is a name, or an interface has one family."""
    host = name(("::1", good[1], 0, 0), ("::2", good[1], 0, 0), good)
    theirs = {socket.AF_INET6: ("2001:db8::77", 0, 0, 0), socket.AF_INET: (LOOPBACK, 0)}
    monkeypatch.setattr(tcp, "_sources", lambda *_: theirs)
    tcp.connect(host, 0, progress, tcp.Terms(local=tcp.Local("me"))).close()
    theirs[socket.AF_INET] = ("192.0.2.77", 0)
    with pytest.raises(RelayError) as caught:
        tcp.connect(host, 0, progress, tcp.Terms(local=tcp.Local("me")))
    assert caught.value.cause == (
        f"cannot connect to ::1 port {good[1]}: the local address 2001:db8::77: cannot assign requested address; "
        f"127.0.0.1 port {good[1]}: the local address 192.0.2.77: cannot assign requested address"
    )

    monkeypatch.setattr("relay.dial.interface._ipv6", lambda _: "")
    tcp.connect(host, 0, progress, tcp.Terms(local=tcp.Local(interface="lo"))).close()
    monkeypatch.setattr("relay.dial.interface._ipv4", lambda _: "")
    with pytest.raises(RelayError, match=r"the interface lo \(BindInterface\) has no IPv"):
        tcp.connect(host, 0, progress, tcp.Terms(local=tcp.Local(interface="lo")))


def test_zone() -> None:
    """A link-local address: its zone reaches the kernel, and stands in messages."""
    number, name = socket.if_nameindex()[0]
    [(_, where)] = tcp._look_up(f"fe80::1%{name}", 22, 0)
    assert where[3:] == (number,)
    assert tcp._text(where) == f"fe80::1%{number}"


# Unix sockets


def test_unix_socket(tmp_path: Path, progress: Progress) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(RelayError, match="no such file or directory"):
        tcp.connect_unix(path, progress)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(RelayError, match="connection refused"):
            tcp.connect_unix(path, progress)
        listener.listen()
        sock = tcp.connect_unix(path, progress)
        assert sock.gettimeout() is None
        sock.close()
    with pytest.raises(RelayError, match="too long"):
        tcp.connect_unix("x" * 200, progress)


def test_unix_socket_whose_queue_is_full(tmp_path: Path, progress: Progress) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        slept: list[float] = []

        def make_room(seconds: float) -> None:
            slept.append(seconds)
            listener.accept()[0].close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("relay.run.unix.sleep", make_room)
            tcp.connect_unix(path, progress).close()
        assert len(slept) == 1


def test_unix_socket_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(TimedOut):
            tcp.connect_unix(path, Progress(0.2))
