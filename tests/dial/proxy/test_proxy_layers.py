"""Streams inside a layer keep the contract of every stream; and what the layers do with what no real proxy says."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from authority import Authority, in_tls
from contract import MIB, Command, StreamContract
from kerberos import Realm
from peers import LOOPBACK, Listener
from proxies import RealProxy
from scripted_proxy import Line, Peer

from relay.dial.proxy import gss
from relay.dial.proxy.layer import SIZE, WAITING, LayerStream
from relay.dial.proxy.layer import Line as LayerLine
from relay.dial.proxy.records import MOST, Records, agree, message
from relay.dial.proxy.tls import Tls
from relay.dial.proxy.wire import Wire
from relay.errors import RelayError
from relay.run import fdpass
from relay.run.progress import Progress
from relay.spec.proxy import SOCKS5, Proxy

PYRELAY = [sys.executable, "-c", "from relay.cli import main; main()"]


class Gate:
    """A proxy for CONNECT that knows half-closes, as few real ones do."""

    def __init__(self) -> None:
        self._listener = Listener(self._serve)
        self.port = self._listener.port
        self.stop = self._listener.stop

    def _serve(self, near: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += near.recv(1)
        host, _, port = request.split()[1].decode().rpartition(":")
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=_both_ways, args=(near, far), daemon=True).start()


def _both_ways(near: socket.socket, far: socket.socket) -> None:
    with near, far:
        back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
        back.start()
        _pass_on(near, far)
        back.join()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
        return
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pyrelay-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def secure(top: Path) -> Iterator[list[str]]:
    """The options for a proxy inside TLS, which socat speaks."""
    authority, gate = Authority(top), Gate()
    front = in_tls(gate.port, authority.issue("localhost"))
    yield [*front.options, "--proxy-cacert", str(authority.cacert)]
    front.stop()
    gate.stop()


class TestTls(StreamContract):
    held_up = 48 * MIB  # three TCP connections are on the way, by socat and the proxy, each with buffers that grow
    tells_reset = False  # it reaches socat only

    @pytest.fixture
    def command(self, secure: list[str]) -> Command:
        return lambda port: [*PYRELAY, *secure, LOOPBACK, str(port)]


@pytest.fixture(scope="module")
def realm(top: Path) -> Iterator[Realm]:
    (top / "realm").mkdir(mode=0o755)
    made = Realm(top / "realm")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def dante(realm: Realm) -> RealProxy:
    return realm.dante()


class TestRecords(StreamContract):
    tells_reset = False  # dante ends the connection, and says no more

    @pytest.fixture
    def command(self, realm: Realm, dante: RealProxy, monkeypatch: pytest.MonkeyPatch) -> Command:
        for name, value in realm.environment.items():
            monkeypatch.setenv(name, value)
        return lambda port: [*PYRELAY, *dante.options, "--proxy-auth", "gssapi", LOOPBACK, str(port)]


# What no real proxy says


class Transparent:
    """A security context that seals nothing: what a message says is seen."""

    complete = True
    got = gss.MUTUAL
    service = "rcmd@proxy"

    def step(self, token: bytes = b"") -> bytes:
        return token

    def wrap(self, data: bytes, *, secret: bool) -> bytes:
        return (b"secret " if secret else b"open ") + data

    def unwrap(self, data: bytes) -> tuple[bytes, bool]:
        kind, _, plain = data.partition(b" ")
        return plain, kind == b"secret"

    def wrap_limit(self, size: int, *, secret: bool) -> int:
        return size - len("secret ")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "wanted", "cause"),
    [
        (message(2, b"open \1"), "confidentiality", "grants integrity where confidentiality was asked for"),
        (message(2, b"open \0"), "integrity", "grants none where integrity was asked for"),
        (message(2, b"open \3"), "integrity", "wants to choose the protection of each message (selective)"),
        (message(2, b"open \7"), "none", "grants no protection that is known: 07"),
        (message(2, b"open "), "none", "grants no protection that is known: "),
        (b"\1\xff", "integrity", "does not grant the protection that it was asked for"),
        (b"", "integrity", "does not grant the protection that it was asked for"),
        (message(3, b"x"), "integrity", "sent something other than a GSS-API message: 01 03"),
        (message(2, b"open \1"), "integrity", ""),
        (message(2, b"open \2"), "integrity", ""),
        (message(2, b"open \0"), "none", ""),
    ],
)
def test_the_answer_to_the_protection_that_is_asked_for(answer: bytes, wanted: str, cause: str) -> None:
    def script(line: Line) -> None:
        line.hear(4 + len("open ") + 1)
        line.say(answer)
        line.last()

    peer = Peer(script)
    try:
        proxy = Proxy(SOCKS5, LOOPBACK, peer.port)
        with Wire(socket.create_connection((LOOPBACK, peer.port)), proxy, "target", Progress(30)) as wire:
            wire.answered()
            if not cause:
                agree(wire, Transparent(), b"", wanted)  # type: ignore[arg-type]
                assert (wire.socket is wire.tcp) == (answer[-1] == 0)
                return
            with pytest.raises(RelayError) as caught:
                agree(wire, Transparent(), b"", wanted)  # type: ignore[arg-type]
            assert caught.value.cause == f"{proxy} {cause}"
    finally:
        peer.stop()


def test_a_proxy_that_does_not_prove_who_it_is() -> None:
    context = Transparent()
    context.got = 0
    ours, theirs = socket.socketpair()
    with (
        theirs,
        Wire(ours, Proxy(SOCKS5, "proxy", 1080), "target", Progress(30)) as wire,
        pytest.raises(RelayError, match=r"does not prove that it is rcmd@proxy"),
    ):
        agree(wire, context, b"", "none")  # type: ignore[arg-type]


def test_what_is_inside_a_layer_is_not_handed_over() -> None:
    """--proxy-protection none hands the connection over, unless the proxy grants more than that."""
    ours, theirs = socket.socketpair()
    ssh, stdout = socket.socketpair()
    with theirs, ssh, stdout:
        stream = LayerStream(ours, records())
        with pytest.raises(RelayError, match="cannot be handed over"):
            fdpass.hand_over(stream, stdout.fileno())
        stream.close()


def records(*, secret: bool = True) -> Records:
    return Records(Transparent(), secret=secret)  # type: ignore[arg-type]


def test_a_record_is_no_longer_than_its_length_can_say() -> None:
    data = bytes(200_000)
    sealed = records().seal(data)
    tokens = []
    while sealed:
        size = int.from_bytes(sealed[2:4])
        tokens.append(sealed[4 : 4 + size])
        sealed = sealed[4 + size :]
    assert [len(token) for token in tokens[:-1]] == [MOST] * (len(tokens) - 1)
    assert b"".join(token.removeprefix(b"secret ") for token in tokens) == data


def test_records_come_in_any_pieces() -> None:
    sealed = message(3, b"secret one") + message(3, b"secret ") + message(3, b"secret two")
    layer = records()
    assert b"".join(part for byte in sealed for part in layer.open(bytes((byte,)))) == b"onetwo"
    layer.cut()
    assert list(layer.open(sealed[:7])) == []
    with pytest.raises(RelayError, match="middle of a GSS-API record"):
        layer.cut()


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"\1\xff", None),
        (b"\1\xff\0\0", "the proxy has given up the connection"),
        (b"SSH-2.0-x", "the proxy sent something other than a GSS-API record: 53 53 48 2d 32 2e 30 2d"),
        (message(3, b"open x"), "the proxy sent a record without the encryption that it had agreed to"),
    ],
)
def test_what_is_no_record(said: bytes, cause: str | None) -> None:
    if cause is None:
        assert list(records().open(said)) == []  # not yet
        return
    with pytest.raises(RelayError) as caught:
        list(records().open(said))
    assert caught.value.cause == cause


@pytest.mark.parametrize("bad", [b"\1\xff\0\0", b"SSH-2.0-x", message(3, b"open x")])
def test_what_comes_before_a_bad_record_is_not_lost(bad: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = LayerStream(ours, records())
        theirs.send(message(3, b"secret last ") + message(3, b"secret words") + bad)
        assert stream.recv(SIZE) == b"last words"
        with pytest.raises(RelayError, match="the proxy"):
            stream.recv(SIZE)


def test_a_message_that_drips_does_not_stretch_a_wait() -> None:
    ours, theirs = socket.socketpair()
    stream, over = LayerStream(ours, records()), threading.Event()
    sealed = records().seal(bytes(60_000))

    def drip() -> None:
        for byte in sealed:
            if over.wait(0.02):
                break
            theirs.send(bytes((byte,)))

    thread = threading.Thread(target=drip)
    thread.start()
    stream.settimeout(0.1)
    with ours, theirs:
        with pytest.raises(TimeoutError):
            stream.recv(1)
        over.set()
        thread.join()


def test_answers_of_tls_wait_for_our_data_and_not_without_end() -> None:
    """OpenSSL puts its answer to each wish for new keys there."""
    codec = Tls(b"localhost", None)
    codec.greet(b"")
    codec.said()
    codec._out.write(bytes(WAITING))
    assert list(codec.open(b"")) == []
    codec._out.write(b"x")
    with pytest.raises(RelayError, match="the proxy asks for new keys without end"):
        list(codec.open(b""))


def test_a_layer_holds_up_both_sides() -> None:
    """It reads no more than a little ahead of stdout, and takes no more than the socket will."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        line = LayerLine(ours, records(secret=False))
        record = message(3, b"open " + bytes(60_000))
        while line.reading:
            with suppress(BlockingIOError):
                theirs.send(record)
            line.receive()
        assert len(line.received) <= WAITING + SIZE
        line.received.drop(len(line.received))
        assert line.reading
        while line.room:
            line.send(bytes(SIZE))
        assert line.sending
