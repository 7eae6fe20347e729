"""The relay of channels as a whole: the contract of streams, rekeying under load, servers that break the rules."""

from __future__ import annotations

import hashlib
import itertools
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import paramiko
import pytest
from contract import MIB, SOON, Command, Ends, Meanwhile, StreamContract, noise
from lab import Lab
from pair import KEY, FarTransport, Pair, Server
from peers import LOOPBACK
from sealing import plain_packet

from relay.errors import RelayError
from relay.pump import relay, rules
from relay.pump.channels import ENOUGH, FAST, GLANCE, ChannelRelay, Pace
from relay.pump.way import Stdio
from relay.ssh.wire.channel import ChannelStream


def through(lab: Lab, *hops: str, options: tuple[str, ...] = ()) -> Command:
    """A relay through hops of the lab to a port of loopback."""
    lab.write_config()
    route = "/".join((*hops, LOOPBACK))
    return lambda port: [sys.executable, "-m", "relay", "-F", str(lab.config), *options, f"{route}:{port}"]


class TestTwoHops(StreamContract):
    tells_reset = False  # sshd closes the channel, and says no more
    memory = 28 * MIB  # a window that is full before the transports are taken over is copied from one to the other

    @pytest.fixture
    def command(self, lab: Lab) -> Command:
        lab.servers("h1", "h2")
        return through(lab, "h1", "h2")


class TestWithoutGcm(StreamContract):
    """Encrypt-then-MAC: the length is not encrypted, and a MAC stands where GCM has a tag."""

    tells_reset = False

    @pytest.fixture
    def command(self, lab: Lab) -> Command:
        lab.server("h1", Ciphers="aes128-ctr")
        return through(lab, "h1")


class TestWithoutGcmInside(StreamContract):
    """Packets of one kind of cipher within those of another: no two of their sizes agree."""

    tells_reset = False

    @pytest.fixture
    def command(self, lab: Lab) -> Command:
        lab.server("h1")
        lab.server("h2", Ciphers="aes256-ctr")
        return through(lab, "h1", "h2")


def test_a_connection_that_is_lost_after_the_channel_has_ended() -> None:
    """The last bytes still wait for stdout: a closed socket in the poll would wake the relay again and again."""
    with Pair() as pair, open(os.devnull, "r+b") as null:
        near, far = pair.open()
        flow = pair.attach(near)
        relay = ChannelRelay(ChannelStream(near, None), flow, Stdio(null.fileno()), Stdio(null.fileno()), os.getppid())  # type: ignore[arg-type]
        far.sendall(b"last")
        far.close()
        pair.drive(lambda: flow.closed)
        assert set(relay.network()) == {relay.wake_fd, pair.connection.fd}
        pair.server.close()
        pair.drive(lambda: pair.connection.fd < 0)
        assert set(relay.network()) == {relay.wake_fd}
        assert bytes(flow.received.waiting()) == b"last"


def test_what_came_with_the_channel_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens: a relay that waits for something first would not write the target's first bytes."""
    monkeypatch.setitem(rules.PATIENCE, rules.STARTING, 1000.0)
    silent, says_nothing = socket.socketpair()
    with Pair() as pair, silent, says_nothing:
        near, far = pair.open()
        flow = pair.attach(near)
        far.sendall(b"SSH-2.0-target")
        pair.drive(lambda: len(flow.received) == len(b"SSH-2.0-target"))
        ours, theirs = os.pipe()
        with open(ours, "rb") as out, open(theirs, "wb") as into:
            stream = ChannelStream(near, None)  # type: ignore[arg-type]
            relay = ChannelRelay(stream, flow, Stdio(silent.fileno()), Stdio(into.fileno()), os.getppid())
            with Meanwhile(relay.run):
                assert select.select([out], [], [], SOON)[0]
                assert os.read(ours, 100) == b"SSH-2.0-target"
                far.close()
                pair.server.close()


# Rekeying, with real servers

BLOCK = 64 * 1024
AMOUNT = 100 * MIB
LIMIT = 16 * MIB


def blocks(seed: int) -> Iterator[bytes]:
    """AMOUNT bytes, of which no two blocks are alike."""
    body = noise(BLOCK - 8, seed)
    for number in range(AMOUNT // BLOCK):
        yield number.to_bytes(8, "big") + body


def expected(seed: int) -> str:
    return hashlib.sha256(b"".join(blocks(seed))).hexdigest()


def received(read: Callable[[int], bytes]) -> str:
    digest, left = hashlib.sha256(), AMOUNT
    while left:
        data = read(min(left, MIB))
        assert data, "the end, too soon"
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


@pytest.mark.parametrize("ways", [("up",), ("down",), ("up", "down")], ids="+".join)
@pytest.mark.parametrize("hops", [("h1",), ("h1", "h2")], ids="+".join)
def test_rekeying_under_load(lab: Lab, hops: tuple[str, ...], ways: tuple[str, ...]) -> None:
    """By either side every 16 MiB; not a byte is lost, doubled or moved."""
    for hop in hops:
        lab.server(hop, extra=f"RekeyLimit {LIMIT}\n")
    ends = Ends(through(lab, *hops, options=("-o", f"RekeyLimit={LIMIT}")))
    assert ends.process.stdout
    near = ends.process.stdout.fileno()
    got: dict[str, str] = {}

    def up() -> None:
        for block in blocks(1):
            ends.send(block)

    def down() -> None:
        for block in blocks(2):
            ends.far.sendall(block)

    work: dict[str, list[Callable[[], None]]] = {
        "up": [up, lambda: got.update(up=received(ends.far.recv))],
        "down": [down, lambda: got.update(down=received(lambda size: os.read(near, size)))],
    }
    try:
        with ExitStack() as stack:
            for each in itertools.chain.from_iterable(work[way] for way in ways):
                stack.enter_context(Meanwhile(each))
    finally:
        ends.close()
    assert got == {way: expected(1 if way == "up" else 2) for way in ways}
    for hop in hops:
        assert lab[hop].log().count("SSH2_MSG_NEWKEYS received") > AMOUNT // LIMIT


# Speed


def gathered(pace: Pace, clock: float, moved: int, speed: float, steps: int = 100) -> tuple[list[bool], float, int]:
    """What `gathers` says at that speed (bytes a second), asked each millisecond; then the clock and the bytes."""
    said = []
    for _ in range(steps):
        clock += 0.001
        moved += int(speed / 1000)
        said.append(pace.gathers(moved, clock))
    return said, clock, moved


def test_a_fast_transfer_is_let_gather_and_nothing_else() -> None:
    pace = Pace()
    slow, clock, moved = gathered(pace, 1000.0, 0, FAST * 0.9)
    assert not any(slow)
    fast, clock, moved = gathered(pace, clock, moved, FAST * 1.2)
    assert fast[50:] == [True] * 50
    within = int(GLANCE * 1000) + 1
    after, clock, moved = gathered(pace, clock, moved, FAST * 0.1)
    assert not any(after[2 * within :])  # at most one more answer counts what was fast before
    faster, clock, moved = gathered(pace, clock, moved, ENOUGH * 1000)
    assert not any(faster)  # there is as much already
    idle = pace.gathers(moved, clock + 3600)
    assert not idle


# Servers that break the rules


class Evil:
    """A hop that lets everybody in, opens any channel, and then does what `act` does with the server's transport."""

    def __init__(self, act: Callable[[paramiko.Transport, paramiko.Channel], None]) -> None:
        self._act = act
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(SOON)
        self.port: int = self._listener.getsockname()[1]
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        transport = FarTransport(sock)
        transport._preferred_ciphers = ("aes128-gcm@openssh.com",)
        transport.add_server_key(KEY)
        try:
            transport.start_server(server=Server())
            channel = transport.accept(SOON)
            assert channel is not None
            self._act(transport, channel)
            transport.join(SOON)
        except BaseException as error:
            self.error = error
        finally:
            transport.close()
            sock.close()

    def stop(self) -> None:
        self._thread.join(SOON)
        self._listener.close()


def seal(transport: paramiko.Transport, plain: bytes) -> bytes:
    return plain_packet(transport.packetizer.sealer, plain)


def data(channel: paramiko.Channel, content: bytes) -> bytes:
    return struct.pack(">BII", 94, channel.remote_chanid, len(content)) + content


def changed(transport: paramiko.Transport, channel: paramiko.Channel) -> bytes:
    packet = bytearray(transport.packetizer.sealer.packet(data(channel, b"evil" * 1000)))
    packet[-17] ^= 1  # the last byte that is encrypted
    return bytes(packet)


DISCONNECT = struct.pack(">BII", 1, 11, 16) + b"closing \x1b[31mnow" + struct.pack(">I", 0)


@pytest.mark.parametrize(
    ("evil", "complaint"),
    [
        (lambda transport, channel: struct.pack(">I", 300_000), "a packet of 300000 bytes"),
        (changed, "a packet was changed on its way"),
        (
            lambda transport, channel: seal(transport, b"\xf0" + data(channel, b"evil" * 30) + bytes(14)),
            "a packet of 144 bytes with 240 bytes of padding",
        ),
        (lambda transport, channel: bytes(transport.packetizer.sealer.packet(DISCONNECT)), "closing [31mnow\n"),
    ],
    ids=["oversize", "tag", "padding", "disconnect"],
)
def test_a_server_that_breaks_the_rules(lab: Lab, evil, complaint: str) -> None:  # type: ignore[no-untyped-def]
    """What was good is delivered, nothing after it; the message says why."""

    def act(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        assert channel.recv(100) == b"hello"  # so that all is set up
        channel.sendall(b"good")
        transport.sock.sendall(evil(transport, channel))

    server = Evil(act)
    lab.host("evil", Port=server.port)
    lab.know("evil", server.port, [f"{KEY.get_name()} {KEY.get_base64()}"])
    try:
        done = lab.pyrelay("evil/target", stdin="hello")
    finally:
        server.stop()
    assert server.error is None, done.stderr
    assert (done.returncode, done.stdout) == (1, "good")
    assert complaint in done.stderr
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (evil): the ")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("error", [None, RelayError("the connection was lost")])
def test_a_stream_that_has_ended_before_it_is_relayed(error: RelayError | None) -> None:
    """What had come is delivered, and why it ended is said."""
    left = [b"last ", b"words"]

    def recv(_: int) -> bytes:
        if not left and error is not None:
            raise error
        return left.pop(0) if left else b""

    stream = SimpleNamespace(descriptor=None, serve=lambda *_, **__: None, attach=lambda: None, recv=recv)
    ours, theirs = os.pipe()
    with open(ours, "rb") as out, open(theirs, "wb") as into:
        with pytest.raises(RelayError) if error else nullcontext():
            assert relay(stream, 0, into.fileno(), parent=os.getppid()) == 0
        into.close()
        assert out.read() == b"last words"
