"""Proxies that no real program plays: every reply code, faults, and bytes that drip or come glued together.

A scripted proxy on a real socket; real proxies are in test_proxy_peers.py, Tor in test_tor.py
and test_tor_scripted.py.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from asked_proxy import ONION, SECONDS, around, ask, fails, nobody, request, said_of
from peers import LOOPBACK, closed_port, need_ipv6
from scripted_proxy import BANNER, BOUND, Line, Peer, socks5

from relay.dial.proxy.handshake import SOCKS4_REPLIES, SOCKS5_REPLIES, TOR_REPLIES, VAGUE_REPLIES
from relay.dial.proxy.leg import connect
from relay.dial.tcp import Terms
from relay.errors import RelayError, TimedOut
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.spec.proxy import CONNECT, SOCKS4, SOCKS5, TOR, Proxy, parse_address, parse_url

# What is sent; no byte after the handshake is lost

SOCKS4_NAME = b"\x04\x01\x00\x16\0\0\0\x01\0target.example\0"
GREETING = b"\x05\x01\x00"
HTTP = b"CONNECT target.example:22 HTTP/1.1\r\nHost: target.example:22\r\n\r\n"
EXCHANGES = {
    "socks4a": (SOCKS4, [(SOCKS4_NAME, b"\0\x5a\0\0\0\0\0\0")]),
    "socks4a that says 4": (SOCKS4, [(SOCKS4_NAME, b"\4\x5a\0\0\0\0\0\0")]),
    "socks5": (SOCKS5, [(GREETING, b"\x05\x00"), (request(b"target.example"), b"\x05\0\0" + BOUND)]),
    "socks5 bound to a name": (
        SOCKS5,
        [(GREETING, b"\x05\x00"), (request(b"target.example"), b"\x05\0\0\x03\x04here\0\0")],
    ),
    "socks5 bound to IPv6": (
        SOCKS5,
        [(GREETING, b"\x05\x00"), (request(b"target.example"), b"\x05\0\0\x04" + bytes(18))],
    ),
    "connect": (CONNECT, [(HTTP, b"HTTP/1.1 200 Connection established\r\n\r\n")]),
    "connect with headers": (CONNECT, [(HTTP, b"HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 7\r\n\r\n")]),
    "connect without reason": (CONNECT, [(HTTP, b"HTTP/1.1 204\r\n\r\n")]),
    "connect with bare new-lines": (CONNECT, [(HTTP, b"HTTP/1.1 299 OK\nVia: x\n\n")]),
    "connect after interim responses": (
        CONNECT,
        [(HTTP, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")],
    ),
}


@pytest.mark.parametrize("manner", ["glued", "dripping"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_the_bytes_of_an_exchange(peer: Callable[..., Peer], tmp_path: Path, name: str, manner: str) -> None:
    kind, exchange = EXCHANGES[name]

    def script(line: Line) -> None:
        for number, (asked, answer) in enumerate(exchange, 1):
            line.hear(len(asked))
            said = answer + BANNER if number == len(exchange) else answer
            (line.say if manner == "glued" else line.dribble)(said)
        line.last()

    path = tmp_path / "proxy"
    proxy = peer(script, path)
    assert ask(Proxy(kind, path=str(path))) == BANNER
    assert bytes(proxy.heard[0]) == b"".join(asked for asked, _ in exchange)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("10.1.2.3", b"\x05\x01\0\x01\x0a\x01\x02\x03\0\x16"),
        ("2001:db8::1", b"\x05\x01\0\x04" + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\0\x16"),
        ("b\u00fccher.example", request(b"xn--bcher-kva.example")),
        *((name, request(name.encode())) for name in (".".join(["x" * 63] * 2), ".".join(["y" * 62] * 4) + "y")),
        (f"{ONION}", request(ONION.encode())),
    ],
    ids=["IPv4", "IPv6", "international", "127 bytes", "252 bytes", "onion"],
)
def test_socks5_sends_addresses_as_addresses_and_names_as_names(
    peer: Callable[..., Peer], host: str, wanted: bytes
) -> None:
    proxy = peer(socks5)
    assert ask(Proxy(SOCKS5, LOOPBACK, proxy.port), host) == BANNER
    assert bytes(proxy.heard[0]) == GREETING + wanted


@pytest.mark.parametrize("size", [1, 127, 128, 255])
def test_socks5_sends_users_passwords_and_names_of_any_length(peer: Callable[..., Peer], size: int) -> None:
    user, password = "\u00fc" * (size // 2) + "u" * (size % 2), "p" * size
    host = ".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 63])[:size].rstrip(".")
    credentials = b"\x01" + b"".join(bytes((size,)) + text.encode() for text in (user, password))

    proxy = peer(socks5)
    assert ask(Proxy(SOCKS5, LOOPBACK, proxy.port, user=user, password=password), host) == BANNER
    assert bytes(proxy.heard[0]) == b"\x05\x02\x00\x02" + credentials + request(host.encode())


def test_a_user_in_which_a_long_password_stands(peer: Callable[..., Peer]) -> None:
    """Its length, too, as it is wrong: what is mended is the password itself."""
    password = "p" * 128
    user = f"u\x80{password}"
    proxy = peer(socks5)
    assert ask(Proxy(SOCKS5, LOOPBACK, proxy.port, user=user, password=password)) == BANNER
    assert bytes(proxy.heard[0]) == said_of(user.encode(), password.encode(), b"target.example")


@pytest.mark.parametrize(
    ("user", "host", "wanted"),
    [
        ("alice", "10.1.2.3", b"\x04\x01\0\x16\x0a\x01\x02\x03alice\0"),
        ("alice", "target.example", b"\x04\x01\0\x16\0\0\0\x01alice\0target.example\0"),
        ("u" * 128, "10.0.194.128", b"\x04\x01\0\x16\x0a\0\xc2\x80" + b"u" * 128 + b"\0"),
    ],
)
def test_socks4_sends_the_user_and_a_name_as_4a(peer: Callable[..., Peer], user: str, host: str, wanted: bytes) -> None:
    def script(line: Line) -> None:
        line.hear(len(wanted))
        line.say(b"\0\x5a\0\0\0\0\0\0" + BANNER)
        line.last()

    proxy = peer(script)
    assert ask(Proxy(SOCKS4, LOOPBACK, proxy.port, user=user), host) == BANNER
    assert bytes(proxy.heard[0]) == wanted


@pytest.mark.parametrize(
    ("host", "authority"), [("2001:db8::1", "[2001:db8::1]:22"), ("b\u00fccher.example", "xn--bcher-kva.example:22")]
)
def test_connect_sends_the_authority(peer: Callable[..., Peer], host: str, authority: str) -> None:
    def script(line: Line) -> None:
        line.hear_headers()
        line.say(b"HTTP/1.1 200 OK\r\n\r\n" + BANNER)
        line.last()

    proxy = peer(script)
    assert ask(Proxy(CONNECT, LOOPBACK, proxy.port), host) == BANNER
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", "", ""]
    assert bytes(proxy.heard[0]).decode() == "\r\n".join(lines)


# What Python's codec makes another name of: fass.de, a:443, a/b, "xn-- -ccb", x.onion.
OTHERS = ("fa\u00df.de", "a\uff1a443", "a\uff0fb", "\u00a8.de", "x\u3002onion", "\u00fc..b")


@pytest.mark.parametrize(
    ("kind", "host", "cause"),
    [
        (SOCKS4, "2001:db8::1", "SOCKS4 cannot carry an IPv6 address"),
        *(
            (kind, host, "a part of it is empty")
            for kind in (SOCKS4, SOCKS5)
            for host in ("a..b", "x" * 64 + ".example")
        ),
        *((kind, host, "the name cannot be sent as it") for kind in (CONNECT, SOCKS4, SOCKS5) for host in OTHERS),
        (SOCKS5, ".".join(["\u00e9"] * 60), "the name has 479 bytes, and SOCKS5 takes 255 at most"),
        (SOCKS5, "fe80::1%lo", "an address with a zone means nothing"),
    ],
)
def test_what_cannot_be_asked_is_refused(peer: Callable[..., Peer], kind: str, host: str, cause: str) -> None:
    proxy = peer(lambda line: line.hear(1000))
    assert cause in fails(Proxy(kind, LOOPBACK, proxy.port), host).cause


# Refusals

CODES = [
    *((SOCKS5, code, "target.example", *words) for code, words in SOCKS5_REPLIES.items()),
    *((TOR, code, ONION, *words) for code, words in (SOCKS5_REPLIES | TOR_REPLIES | VAGUE_REPLIES).items()),
    *((SOCKS4, code, "target.example", *words) for code, words in SOCKS4_REPLIES.items()),
    (SOCKS5, 0x63, "target.example", "unknown reply code 0x63", ""),
    (SOCKS4, 0x63, "target.example", "unknown reply code 0x63", ""),
]


@pytest.mark.parametrize(("kind", "code", "host", "words", "hint"), CODES, ids=lambda value: str(value)[:6])
def test_a_reply_code_has_its_words(
    peer: Callable[..., Peer], kind: str, code: int, host: str, words: str, hint: str
) -> None:
    def script(line: Line) -> None:
        if kind == SOCKS4:
            line.hear(len(SOCKS4_NAME))
            line.say(bytes((0, code)) + bytes(6))
            line.last()
        else:
            socks5(line, code)

    proxy = Proxy(kind, LOOPBACK, peer(script).port)
    error = fails(proxy, host)
    assert (error.cause, error.hint) == (f"{words}, says {proxy}", hint)


def test_every_code_has_words_of_its_own() -> None:
    words = [words for words, _ in (*SOCKS5_REPLIES.values(), *SOCKS4_REPLIES.values())]
    assert len(set(words)) == len(words)
    assert set(SOCKS5_REPLIES) == {*range(1, 9), *range(0xF0, 0xF8)}


@pytest.mark.parametrize(
    ("user", "answer", "cause"),
    [
        (None, b"\x05\xff", "wants an authentication that pyrelay does not have"),
        ("alice", b"\x05\xff", "wants an authentication that pyrelay does not have"),
        (None, b"\x05\x01", "wants GSS-API (Kerberos)"),
        (None, b"\x05\x02", "wants a user and a password"),
        ("alice", b"\x05\x02\x01\x01", "does not accept the password of alice"),
        ("alice", b"\x05\x02\x05\x01", "does not accept the password of alice"),
        (None, b"\x05\x03", "sends what is not SOCKS5: 05 03"),
        (None, b"\x05\x00\x04\x00\x00", "sends what is not SOCKS5: 04 00 00"),
        (None, b"\x05\x00\x05\x00\x00\x07", "sends what is not SOCKS5: 07"),
        (None, b"", "closed the connection"),
        (None, b"\x05", "closed the connection"),
        (None, b"\x05\x00\x05\x00\x00\x01\x00", "closed the connection"),
        (None, b"\x07\x00", "does not speak SOCKS5: its answer begins with 07 00"),
        (None, b"HTTP/1.0 400 Bad Request\r\n\r\n", "answers as an HTTP proxy does"),
        (None, BANNER, "answers as an SSH server does"),
        (None, b"\0\x5b\0\0\0\0\0\0", "answers as a SOCKS4 proxy does"),
        (None, b"\x04\x5b\0\0\0\0\0\0", "answers as a SOCKS4 proxy does"),
    ],
)
def test_what_socks5_does_not_say(peer: Callable[..., Peer], user: str | None, answer: bytes, cause: str) -> None:
    def script(line: Line) -> None:
        line.hear(3)
        line.say(answer)
        line.last()

    proxy = Proxy(SOCKS5, LOOPBACK, peer(script).port, user=user, password="x" if user else None)
    assert fails(proxy).cause.startswith(f"{proxy} {cause}")


@pytest.mark.parametrize(
    ("answer", "cause", "hint"),
    [
        (b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: basic realm=x\r\n\r\n", "refuses: 407 Who?", "give the user by -P"),
        (b"HTTP/1.1 407 \r\nProxy-Authenticate: NTLM\r\nproxy-authenticate:Negotiate x\r\n\r\n", "refuses: 407",
         "it wants ntlm, negotiate; pyrelay has no NTLM; cntlm and px"),
        (b"HTTP/1.1 403 Not\x1b[31m \xc3\xbcber\xff here\r\n\r\n", "refuses: 403 Not [31m \u00fcber\ufffd here", "443"),
        (b"HTTP/1.0 501 Tor is not an HTTP Proxy\r\n\r\n", "refuses: 501 Tor is not an HTTP Proxy", "not a proxy"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", "refuses: 302 Found: it points to http://x/", "browser"),
        (b"HTTP/1.1 504 " + b"x" * 500 + b"\r\n\r\n", "refuses: 504 xxxx", ""),
        (b"", "closed the connection", "-X 5"),
        (b"HTTP/1.1 200 OK\r\nVia", "closed the connection", ""),
        (b"\x15\3\1\0\2\2\x46", "answers in TLS", "--proxy https://..."),
        (b"HTTP/1.1 20 OK\r\n\r\n", "does not speak HTTP", "-X 5"),
        (BANNER, "does not speak HTTP: it answers SSH-2.0-target", "a proxy's port is meant; ssh hops"),
        (b"\x05\xff\n", "does not speak HTTP: it answers \\x05\\xff", "-X 5"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", "sends headers without an end", ""),
        (b"HTTP/1.1 407 No\r\n" + (b"X: " + b"a=b," * 2000 + b"\r\n") * 9, "sends headers without an end", ""),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20000, "sends a line without an end", ""),
    ],
)  # fmt: skip
def test_what_a_proxy_says_to_connect(peer: Callable[..., Peer], answer: bytes, cause: str, hint: str) -> None:
    def script(line: Line) -> None:
        line.hear_headers()
        line.say(answer)
        line.last()

    proxy = Proxy(CONNECT, LOOPBACK, peer(script).port)
    error = fails(proxy)
    assert error.cause.startswith(f"{proxy} {cause}")
    assert hint in error.hint and bool(hint) == bool(error.hint)
    assert len(error.cause) < 250


def test_a_reset_is_told() -> None:
    def script(line: Line) -> None:
        line.hear(1)
        # Without lingering a close is a reset.
        line.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    peer = Peer(script)
    try:
        assert "broke off: connection reset" in fails(Proxy(SOCKS5, LOOPBACK, peer.port)).cause
    finally:
        peer.stop()


def test_nobody_there(tmp_path: Path) -> None:
    with closed_port() as port:
        assert fails(Proxy(SOCKS5, LOOPBACK, port)).cause == (
            f"the SOCKS5 proxy 127.0.0.1:{port}: cannot connect to 127.0.0.1 port {port}: connection refused"
        )
    path = tmp_path / "nothing"
    assert "no such file" in fails(Proxy(SOCKS5, path=str(path))).cause


def test_a_proxy_at_an_ipv6_address() -> None:
    need_ipv6()
    peer = Peer(socks5, host="::1")
    try:
        assert ask(parse_address(f"[::1]:{peer.port}")) == BANNER
    finally:
        peer.stop()


# Time

# What the proxy says at first, and what it then repeats for ever; b"" for silence.
FOREVER = {
    "silence": (SOCKS5, b"", b""),
    "a silent SOCKS4": (SOCKS4, b"", b""),
    "silence after the first answer": (SOCKS5, b"\x05\x00", b""),
    "headers that never end": (CONNECT, b"HTTP/1.1 200 OK\r\n", b"X"),
    "a bound name that never ends": (SOCKS5, b"\x05\0\x05\0\0\x03\xff", b"x"),
}


@pytest.mark.parametrize("limit", ["the deadline", "ConnectTimeout"])
@pytest.mark.parametrize("name", FOREVER)
def test_the_deadline_is_for_the_whole_handshake(peer: Callable[..., Peer], name: str, limit: str) -> None:
    kind, first, drop = FOREVER[name]

    def script(line: Line) -> None:
        line.say(first)
        if not drop:
            line.hear(10_000)
        clock = threading.Event()
        for _ in range(200):  # each read succeeds soon, all of them only after twenty seconds
            line.say(drop)
            clock.wait(0.1)

    proxy = Proxy(kind, LOOPBACK, peer(script).port)
    seconds, timeout = (0.5, None) if limit == "the deadline" else (SECONDS, 0.5)
    progress = Progress(seconds)
    with pytest.raises(TimedOut) as caught:
        connect(proxy, "target.example", 22, nobody(progress), Terms(timeout=timeout))
    assert "within 0.5 seconds" in caught.value.cause
    assert str(proxy) in caught.value.cause
    assert limit != "the deadline" or progress.remaining() > -5  # and not twenty seconds later


# Passwords


class Person(Prompt):
    """Gives one answer to all questions."""

    answer = "typed"

    def __init__(self, progress: Progress, children: Children) -> None:
        super().__init__(progress, children)
        self.questions: list[str] = []

    def ask(
        self, question: str, *, mark: str = "", echo: bool = False, askpass: str = "", confirm: bool = False
    ) -> str:
        self.questions.append(question)
        return self.answer


def test_the_status_of_a_password_is_its_second_byte(peer: Callable[..., Peer]) -> None:
    """Some say the version of SOCKS5 before it, not that of the login."""

    def script(line: Line) -> None:
        line.hear(4)
        line.say(b"\x05\x02")
        line.hear(1)
        line.hear_field()
        line.hear_field()
        line.say(b"\x05\x00")
        line.hear(len(request(b"target.example")))
        line.say(b"\x05\0\0" + BOUND + BANNER)
        line.last()

    assert ask(Proxy(SOCKS5, LOOPBACK, peer(script).port, user="alice", password="x")) == BANNER


@pytest.mark.parametrize(
    ("user", "method", "cause", "hint"),
    [
        (None, 1, "wants GSS-API (Kerberos)", "--proxy-auth gssapi"),
        ("alice", 1, "wants GSS-API (Kerberos)", "--proxy-auth gssapi"),
        (None, 2, "wants a user and a password", "-P"),
        ("alice", 0xFF, "wants an authentication that pyrelay does not have", ""),
        (None, None, "wants a login", "-P"),
    ],
)
def test_a_proxy_that_takes_no_method_is_asked_which_it_would_take(
    peer: Callable[..., Peer], user: str | None, method: int | None, cause: str, hint: str
) -> None:
    """The answer FF says nothing of that. Another connection offers GSS-API, too, and goes no further."""

    def script(line: Line) -> None:
        line.hear(1)
        methods = line.hear_field()
        if 1 not in methods:
            line.say(b"\x05\xff")
        elif method is not None:
            line.say(bytes((5, method)))
        line.last()

    scripted = peer(script)
    proxy = Proxy(SOCKS5, LOOPBACK, scripted.port, user=user, password=None if user is None else "x")
    error = fails(proxy)
    assert error.cause == f"{proxy} {cause}"
    assert hint in error.hint and bool(hint) == bool(error.hint)
    assert bytes(scripted.heard[1]) == b"\x05\x02\x01\x02"


def test_the_password_comes_from_the_environment(peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRELAY_PROXY_PASSWORD", "from here")
    proxy = peer(socks5)
    assert ask(Proxy(SOCKS5, LOOPBACK, proxy.port, user="alice")) == BANNER
    assert bytes(proxy.heard[0]) == said_of(b"alice", b"from here", b"target.example")


def test_else_it_is_asked_for(peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRELAY_PROXY_PASSWORD", raising=False)
    scripted = peer(socks5)
    proxy = Proxy(SOCKS5, LOOPBACK, scripted.port, user="ali\x1bce")
    progress = Progress(SECONDS)
    person = Person(progress, Children())
    connect(proxy, "target.example", 22, around(person, progress)).close()
    assert person.questions == [f"Password of ali ce for {proxy}: "]
    assert bytes(scripted.heard[0]) == said_of(b"ali\x1bce", b"typed", b"target.example")
    error = fails(proxy)  # with nobody to ask
    assert error.cause == f"the password of ali ce for {proxy} is not known: nobody may be asked (BatchMode)"
    assert error.hint == "set $PYRELAY_PROXY_PASSWORD"
    person.answer = ""
    with pytest.raises(RelayError, match="password is empty"):
        connect(proxy, "target.example", 22, around(person, progress))


def test_a_password_on_the_command_line_is_taken_with_a_warning(
    peer: Callable[..., Peer], capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = peer(socks5)
    url = parse_url(f"socks5h://alice:s%20cret@{LOOPBACK}:{proxy.port}")
    assert ask(url) == BANNER
    assert bytes(proxy.heard[0]) == said_of(b"alice", b"s cret", b"target.example")
    said = capsys.readouterr().err
    assert "can be read by everyone" in said and "cret" not in said


def test_no_error_and_no_verbosity_tells_the_password(
    peer: Callable[..., Peer], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(line: Line) -> None:
        line.hear(4)
        line.say(b"\x05\x02\x01\x01")
        line.last()

    url = parse_url(f"socks5h://alice:hunter2@{LOOPBACK}:{peer(script).port}")
    progress = Progress(SECONDS, verbosity=2)
    with pytest.raises(RelayError) as caught:
        connect(url, "target.example", 22, nobody(progress))
    assert "hunter2" not in str(caught.value) + capsys.readouterr().err
