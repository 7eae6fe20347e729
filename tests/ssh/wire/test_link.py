"""What one thread moves: windows, keys and ends, with a server that keeps the rules and one that does not."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import paramiko
import pytest
from contract import SOON, Meanwhile, digest, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair import GCM, WINDOW, Pair
from paramiko import common
from peers import until

from relay.errors import RelayError
from relay.ssh.wire import link, transport
from relay.ssh.wire.channel import ChannelStream
from relay.ssh.wire.connection import attach
from relay.ssh.wire.flow import SLOTS, STDERR_MOST, Flow
from relay.ssh.wire.gcm import BadPacket, Sealer
from relay.ssh.wire.opening import Opening
from relay.ssh.wire.packets import Packetizer

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


def take(flow: Flow, size: int = -1) -> bytes:
    """Deliver so many bytes of what waits, or all."""
    size = len(flow.received) if size < 0 else size
    data = flow.received.take(size)
    flow.delivered(len(data))
    return data


def give(pair: Pair, flow: Flow, data: bytes) -> None:
    """Send all of data."""
    left = memoryview(data)

    def read(views: list[memoryview]) -> int:
        nonlocal left
        count = 0
        for view in views:
            size = min(len(view), len(left))
            view[:size] = left[:size]
            left = left[size:]
            count += size
        return count

    while left:
        pair.drive(flow.room)
        flow.read_from(read)
    pair.drive(lambda: not pair.connection.sending)


def receive(pair: Pair, flow: Flow, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        pair.drive(lambda: len(flow.received) or flow.over)
        assert len(flow.received), flow.error
        parts.append(take(flow))
        size -= len(parts[-1])
    return b"".join(parts)


def read_all(channel: paramiko.Channel, size: int) -> bytes:
    channel.settimeout(SOON)
    parts: list[bytes] = []
    while size:
        parts.append(channel.recv(min(size, MIB)))
        assert parts[-1], "the channel ended"
        size -= len(parts[-1])
    return b"".join(parts)


def wait_for(pair: Pair, flow: Flow, size: int) -> None:
    """Until so many bytes wait to be delivered."""
    pair.drive(lambda: len(flow.received) == size)


def data_message(flow: Flow, data: bytes) -> bytes:
    return struct.pack(">BII", common.MSG_CHANNEL_DATA, flow.number, len(data)) + data


# Data


@pytest.mark.parametrize("size", [1, 32767, 32768, 32769, 262_144, 5 * MIB + 1])
def test_both_ways(pair: Pair, size: int) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    up, down = noise(size, 1), noise(size, 2)
    got: list[bytes] = []
    with Meanwhile(lambda: far.sendall(down)):
        assert receive(pair, flow, size) == down
    with Meanwhile(lambda: got.append(read_all(far, size))):
        give(pair, flow, up)
    assert got == [up]


def test_what_came_before_is_not_lost(pair: Pair) -> None:
    near, far = pair.open()
    early = noise(300_000, 1)
    far.sendall(early[:200_000])
    assert read_all(near, 100) == early[:100]
    far.sendall(early[200_000:])
    flow = pair.attach(near)
    assert receive(pair, flow, len(early) - 100) == early[100:]
    # And its window is whole again: nothing was counted twice or not at all.
    data = noise(3 * WINDOW, 2)
    with Meanwhile(lambda: far.sendall(data)):
        assert digest(receive(pair, flow, len(data))) == digest(data)
    assert far.out_window_size <= WINDOW


class TestEarly:
    """What comes to an outer channel while the inner one's transport is parked, and the outer one's is not yet."""

    @pytest.fixture
    def outer(self, pair: Pair) -> tuple[paramiko.Channel, paramiko.Channel]:
        return pair.open()

    @pytest.fixture
    def inner(self, outer: tuple[paramiko.Channel, paramiko.Channel]) -> Iterator[Pair]:
        with Pair(stream=outer[0], far=outer[1]) as made:
            yield made

    def test_a_whole_window(self, outer: tuple[paramiko.Channel, paramiko.Channel], inner: Pair) -> None:
        carrier, _ = outer
        near, far = inner.open()
        data = noise(3 * WINDOW, 1)
        inner.client.packetizer.park()
        with Meanwhile(lambda: far.sendall(data)):
            until(lambda: carrier.in_window_sofar + len(carrier.in_buffer) == WINDOW, "full window")
            flow = inner.attach(near)
            assert digest(receive(inner, flow, len(data))) == digest(data)

    def test_its_end(self, outer: tuple[paramiko.Channel, paramiko.Channel], inner: Pair) -> None:
        carrier, far = outer
        near, _ = inner.open()
        inner.client.packetizer.park()
        far.close()
        until(lambda: carrier.closed, "end of the channel")
        assert attach(near) is None
        assert not inner.client.is_active()

    def test_the_loss_of_what_carries_it(
        self, pair: Pair, outer: tuple[paramiko.Channel, paramiko.Channel], inner: Pair
    ) -> None:
        """The inner transport reads no more by itself, and nobody else is going to: it must not be waited for."""
        near, _ = inner.open()
        inner.client.packetizer.park()
        pair.far.shutdown(socket.SHUT_RDWR)
        until(lambda: pair.client.packetizer.closed, "end of the connection")
        assert attach(near) is None
        until(lambda: not inner.client.is_active(), "end of what it carried", SOON)
        assert near.recv(1) == b""


def test_a_channel_within_a_channel_within_a_channel(pair: Pair) -> None:
    """Three hops, whose servers are all here; what is in the middle of something goes on."""
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        with Pair(stream=near, far=far) as third:
            near, far = third.open()
            far.sendall(b"early")
            flow = third.attach(near)
            assert [link.transport for link in third.connection.links] == [pair.client, second.client, third.client]
            assert receive(third, flow, 5) == b"early"
            up, down = noise(4 * WINDOW + 1, 1), noise(4 * WINDOW + 1, 2)
            got: list[bytes] = []
            with Meanwhile(lambda: far.sendall(down)):
                assert digest(receive(third, flow, len(down))) == digest(down)
            with Meanwhile(lambda: got.append(read_all(far, len(up)))):
                give(third, flow, up)
            assert digest(got[0]) == digest(up)


def test_attaching_is_for_gcm_only() -> None:
    with Pair("aes128-ctr") as pair:
        near, far = pair.open()
        assert attach(near) is None
        far.sendall(b"as ever")
        assert read_all(near, 7) == b"as ever"


def test_attaching_is_not_for_what_is_compressed() -> None:
    with Pair() as pair:
        pair.client.packetizer.set_outbound_compressor(lambda data: data)
        near, _ = pair.open()
        assert attach(near) is None


# Windows


def fill(pair: Pair, far: paramiko.Channel) -> int:
    """Send until the window has no more room; return how many bytes that took."""
    sent: list[int] = []
    done: list[bool] = []

    def send() -> None:
        far.settimeout(0.0)
        with contextlib.suppress(TimeoutError):
            while True:
                sent.append(far.send(bytes(100_000)))
        far.settimeout(SOON)
        done.append(True)

    with Meanwhile(send):
        pair.drive(lambda: done)
    return sum(sent)


def test_who_does_not_read_holds_no_more_than_a_window(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    assert fill(pair, far) == WINDOW
    wait_for(pair, flow, WINDOW)
    # The window follows what is delivered, neither more nor less.
    for size in (700_000, WINDOW):
        take(flow, size)
        with Meanwhile(functools.partial(far.sendall, bytes(size))):
            wait_for(pair, flow, WINDOW)
        assert fill(pair, far) == 0


def test_a_reader_that_stops_holds_up_nobody_else(pair: Pair) -> None:
    near, far = pair.open()
    stopped = pair.attach(near)
    fill(pair, far)
    wait_for(pair, stopped, WINDOW)
    near, far = pair.open()
    other = pair.attach(near)
    assert stopped.link is other.link
    data = noise(3 * WINDOW)
    with Meanwhile(lambda: far.sendall(data)):
        assert digest(receive(pair, other, len(data))) == digest(data)
    assert len(stopped.received) == WINDOW


def test_a_server_that_takes_packets_of_any_size(pair: Pair) -> None:
    """It does not say how much memory we need."""
    pair.server.default_max_packet_size = 2**25
    near, far = pair.open()
    flow = pair.attach(near)
    assert sum(map(len, flow.link.connection.slots(flow.max_data).views(flow.room()))) <= SLOTS * 32768
    data = noise(WINDOW // 2)
    give(pair, flow, data)
    assert read_all(far, len(data)) == data


def test_a_server_that_gives_each_channel_another_size(pair: Pair) -> None:
    """What is held for packets of a size ends with the channels that have them."""
    for size in range(4096, 4196):
        pair.server.default_max_packet_size = size
        near, far = pair.open()
        link = pair.attach(near).link
        far.close()
        pair.drive(lambda link=link: not link.flows)  # type: ignore[misc]
    pair.flows.clear()
    gc.collect()
    assert len(link.connection._slots) <= 1


def test_no_more_is_sent_than_the_window_allows(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    sent = 0
    while room := flow.room():
        assert room <= WINDOW - sent
        sent += flow.read_from(lambda views: sum(map(len, views)))
        pair.drive(lambda: not pair.connection.sending)
    assert sent == WINDOW
    assert read_all(far, WINDOW) == bytes(WINDOW)
    pair.drive(flow.room)


def test_inner_packets_fit_in_the_window_outside(pair: Pair) -> None:
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        outside = flow.link.carrier
        assert outside is not None
        outside.window = 1000
        assert 0 < flow.room() < 1000
        flow.read_from(lambda views: sum(map(len, views)))
        assert 0 <= outside.window < 100
        assert flow.room() == 0


# Keys


def changed(pair: Pair, keys: set[object]) -> bool:
    """Whether a key exchange that began with these keys is over for the client."""
    packetizer = pair.client.packetizer
    return pair.client.clear_to_send.is_set() and keys.isdisjoint({packetizer.sealer, packetizer.opener})


def test_a_rekey_by_either_side(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    packetizer = pair.client.packetizer
    data = noise(100_000)
    for side in (pair.client, pair.server, pair.client):
        keys = {packetizer.sealer, packetizer.opener}
        with Meanwhile(side.renegotiate_keys):
            pair.drive(functools.partial(changed, pair, keys))
        with Meanwhile(functools.partial(far.sendall, data)):
            assert receive(pair, flow, len(data)) == data
        give(pair, flow, data)
        assert read_all(far, len(data)) == data


def test_nothing_is_sent_while_keys_change(pair: Pair) -> None:
    """RFC 4253 section 7.1; what was to be sent about a channel goes out afterwards."""
    near, far = pair.open()
    flow = pair.attach(near)
    with Meanwhile(lambda: far.sendall(bytes(WINDOW // 2))):
        wait_for(pair, flow, WINDOW // 2)
    pair.client._send_kex_init()
    sealer = pair.client.packetizer.sealer
    packets = sealer.packets
    assert flow.room() == 0
    take(flow)
    flow.end()
    assert sealer.packets == packets
    pair.drive(lambda: flow.link.clear)
    assert pair.client.packetizer.sealer.packets == 2
    assert far.recv(1) == b""


def test_a_key_is_replaced_when_it_has_done_enough(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    pair.client.packetizer.REKEY_BYTES = 4 * MIB
    sealers: list[Sealer] = []
    data = noise(20 * MIB)
    got: list[bytes] = []
    with Meanwhile(lambda: got.append(read_all(far, len(data)))):
        for at in range(0, len(data), MIB):
            give(pair, flow, data[at : at + MIB])
            if pair.client.packetizer.sealer not in sealers:
                sealers.append(pair.client.packetizer.sealer)
        pair.drive(lambda: got)
    assert digest(got[0]) == digest(data)
    assert len(sealers) >= 4
    assert all(sealer.bytes < 4.5 * MIB for sealer in sealers)


def test_a_server_that_does_not_heed_a_request_for_new_keys(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.server._handler_table[common.MSG_KEXINIT] = lambda message: None
    packetizer = pair.client.packetizer
    packetizer.REKEY_PACKETS = packetizer.REKEY_PACKETS_OVERFLOW_MAX = 20

    def send() -> None:
        with contextlib.suppress(OSError, EOFError):  # the link ends meanwhile
            for _ in range(100):
                pair.say(data_message(flow, b"x"))

    with Meanwhile(send):
        pair.drive(lambda: flow.error)
    assert "does not heed" in str(flow.error)


def slow_to_change_keys(pair: Pair, before: Callable[[], object]) -> list[int]:
    """Have the server do something before it answers our KEXINIT; return the list of what it hears from then on."""
    heard: list[int] = []
    packetizer = pair.server.packetizer
    read, answer = packetizer.read_message, pair.server._handler_table[common.MSG_KEXINIT]

    def listen() -> tuple[int, paramiko.Message]:
        kind, message = read()
        heard.append(kind)
        return kind, message

    def late(message: paramiko.Message) -> None:
        before()
        answer(message)

    packetizer.read_message = listen
    pair.server._handler_table[common.MSG_KEXINIT] = late
    return heard


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda number: struct.pack(">BI", common.MSG_CHANNEL_CLOSE, number), common.MSG_CHANNEL_CLOSE),
        (lambda number: struct.pack(">BII", 98, number, 9) + b"something\x01", common.MSG_CHANNEL_FAILURE),
        (lambda number: struct.pack(">BI", 80, 9) + b"something\x01", common.MSG_REQUEST_FAILURE),
    ],
    ids=["close", "request", "global request"],
)
def test_what_the_server_asks_before_it_hears_of_a_key_exchange(pair: Pair, question, answer, linked: bool) -> None:  # type: ignore[no-untyped-def]
    """It is answered once that is over, and holds up neither that nor what moves the data."""
    if linked:
        pair.attach(pair.open()[0])
    near, _ = pair.open()
    heard = slow_to_change_keys(pair, lambda: pair.say(question(near.chanid)))
    pair.client.packetizer._trigger_rekey()
    if linked:
        pair.drive(lambda: answer in heard)
    else:
        until(lambda: answer in heard, "answer", SOON)
    assert common.MSG_NEWKEYS in heard[: heard.index(answer)]


def test_a_key_exchange_that_takes_long() -> None:
    """Longer than paramiko lets any message wait for it."""
    with Pair("aes128-ctr") as pair:
        near, far = pair.open()
        pair.client.clear_to_send_timeout = 0.0
        goes_on = threading.Event()
        slow_to_change_keys(pair, lambda: goes_on.wait(SOON))
        down = noise(WINDOW)
        far.sendall(down)
        pair.client.packetizer._trigger_rekey()
        until(lambda: not pair.client.clear_to_send.is_set(), "key exchange", SOON)
        assert read_all(near, len(down)) == down
        with Meanwhile(lambda: near.sendall(b"up")):
            goes_on.set()
            assert read_all(far, 2) == b"up"
        far.sendall(down)  # for which the window has been refilled
        assert read_all(near, len(down)) == down


def test_a_key_exchange_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HELD_MOST", 0)
    with Pair("aes128-ctr") as pair:
        near, _ = pair.open()
        pair.server._handler_table[common.MSG_KEXINIT] = lambda message: None
        pair.client._send_kex_init()
        session = SimpleNamespace(transport=pair.client, lost=lambda error: RelayError(str(error)))
        stream = ChannelStream(near, session)  # type: ignore[arg-type]
        with pytest.raises(RelayError, match="the server does not finish a key exchange"):
            stream.sendall(b"data")


# Ends


def test_half_close_by_us(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    give(pair, flow, b"question")
    flow.end()
    assert read_all(far, 8) == b"question"
    assert far.recv(1) == b""
    far.sendall(b"answer")
    assert receive(pair, flow, 6) == b"answer"
    assert flow.room() == 0
    far.close()
    pair.drive(lambda: flow.closed)
    assert flow.error is None
    assert not flow.link.flows


def test_half_close_by_the_server(pair: Pair) -> None:
    near, far = pair.open()
    flow = pair.attach(near)
    far.sendall(b"last")
    far.shutdown_write()
    pair.drive(lambda: flow.eof)
    assert not flow.closed
    assert take(flow) == b"last"
    give(pair, flow, b"reply")
    assert read_all(far, 5) == b"reply"
    flow.close()
    pair.drive(lambda: flow.closed)
    assert far.closed


def test_closed_before_it_was_attached(pair: Pair) -> None:
    near, far = pair.open()
    far.sendall(b"goodbye")
    far.close()
    assert near.status_event.wait(SOON)
    flow = pair.attach(near)
    assert (flow.over, take(flow), flow.room(), flow.error) == (True, b"goodbye", 0, None)


@pytest.mark.parametrize("depth", [0, 1])
def test_the_servers_last_word(pair: Pair, depth: int) -> None:
    """The text of a DISCONNECT, of whichever hop, after what came before it."""
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        far.sendall(b"before")
        text = b"too many of you"
        receive(second, flow, 6)
        (pair, second)[depth].say(struct.pack(">BII", 1, 12, len(text)) + text + struct.pack(">I", 0))
        second.drive(lambda: flow.error)
        assert flow.closed
        assert not second.client.is_active()
        assert pair.client.is_active() == (depth == 1)


@pytest.mark.parametrize(
    "end",
    [lambda outer: outer.say(struct.pack(">BIII", 1, 11, 0, 0)), lambda outer: outer.raw(bytes(99))],
    ids=["disconnect", "bad packet"],
)
def test_what_comes_with_the_end_of_the_link_outside(pair: Pair, end: Callable[[Pair], None]) -> None:
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        far.sendall(b"last")
        end(pair)
        second.drive(lambda: flow.error)
        assert take(flow) == b"last"


def test_a_lost_connection(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.server.close()
    pair.drive(lambda: flow.error)
    assert isinstance(flow.error, (EOFError, ConnectionResetError))  # the latter where it has not read all
    pair.client.join(SOON)
    assert not pair.client.is_alive()


def test_a_transport_that_gives_up(pair: Pair) -> None:
    """Such as for keepalives that go unanswered; the thread that polls is told."""
    near, _ = pair.open()
    flow = pair.attach(near)
    threading.Thread(target=pair.client.close).start()
    pair.drive(lambda: flow.error)
    assert pair.connection.fd == -1


# Signs of life


@pytest.mark.parametrize("linked", [False, True])
def test_a_server_that_dies_in_a_key_exchange(pair: Pair, linked: bool) -> None:
    near, _far = pair.open()
    pair.client.keep_alive(0.1, 2)
    if linked:
        pair.attach(near)
    pair.server._handler_table[common.MSG_KEXINIT] = lambda message: None
    pair.client.packetizer._trigger_rekey()
    if linked:
        pair.drive(lambda: pair.flows[0].error)
    until(lambda: not pair.client.is_active(), "end of the link", SOON)
    assert isinstance(pair.client.saved_exception, transport.DeadLink)


def test_a_server_that_dies_while_it_is_sent_to() -> None:
    """By the other thread, which waits for it to read."""
    with Pair("aes128-ctr") as pair:
        near, _far = pair.open()
        gate = threading.Event()
        pair.client.keep_alive(0.1, 2)

        def read_no_more(check_rekey: bool) -> None:
            gate.wait(SOON)
            raise EOFError

        pair.server.packetizer._fill = read_no_more

        def send() -> None:
            with pytest.raises(EOFError):
                near.sendall(bytes(WINDOW))

        with Meanwhile(send):
            until(lambda: not pair.client.is_active(), "end of the link", SOON)
        gate.set()
        assert isinstance(pair.client.saved_exception, transport.DeadLink)


@pytest.mark.parametrize("linked", [False, True])
def test_a_server_that_sends_is_alive_whether_it_answers_or_not(pair: Pair, linked: bool) -> None:
    near, far = pair.open()
    asked: list[None] = []

    def answer(_: paramiko.Message) -> None:
        asked.append(None)
        far.sendall(b"x")

    pair.server._handler_table[common.MSG_GLOBAL_REQUEST] = answer
    pair.client.keep_alive(0.1, 2)
    if linked:
        pair.attach(near)
        pair.drive(lambda: len(asked) > 2)
    else:
        until(lambda: len(asked) > 2, "questions", SOON)
    assert pair.client.is_active()


# What no server may do


def corrupt(pair: Pair, payload: bytes = b"\x02abc", at: int = -1) -> bytes:
    packet = bytearray(pair.server.packetizer.sealer.packet(payload))
    packet[at] ^= 1
    return bytes(packet)


def sealed(pair: Pair, plain: bytes) -> bytes:
    packet = bytearray(len(plain) + 20)
    pair.server.packetizer.sealer.seal(memoryview(plain), memoryview(packet))
    return bytes(packet)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(
    ("packet", "complaint"),
    [
        (lambda pair, flow: struct.pack(">I", 2**31), "a packet of 2147483648 bytes"),
        (lambda pair, flow: struct.pack(">I", 12), "a packet of 12 bytes"),
        (lambda pair, flow: corrupt(pair), "a packet was changed on its way"),
        (lambda pair, flow: corrupt(pair, data_message(flow, b"evil"), 8), "a packet was changed on its way"),
        (lambda pair, flow: sealed(pair, b"\x02" + bytes(15)), "a packet of 16 bytes with 2 bytes of padding"),
        (lambda pair, flow: sealed(pair, b"\xff" + bytes(31)), "a packet of 32 bytes with 255 bytes of padding"),
    ],
    ids=["oversize", "undersize", "tag", "data", "little padding", "much padding"],
)
def test_bad_packets(pair: Pair, packet, complaint: str, depth: int) -> None:  # type: ignore[no-untyped-def]
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        far.sendall(b"good")
        assert receive(second, flow, 4) == b"good"
        evil = (pair, second)[depth]
        evil.raw(packet(evil, evil.client.packetizer.link.flows[0]))
        second.drive(lambda: flow.error)
        assert isinstance(flow.error, BadPacket)
        assert str(flow.error) == complaint
        assert not len(flow.received)
        assert flow.closed


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (lambda flow: data_message(flow, bytes(WINDOW + 1))[:200_000], "data of another length than it says"),
        (lambda flow: data_message(flow, b"abc") + b"d", "data of another length than it says"),
        (lambda flow: data_message(flow, b"abc")[:-1], "data of another length than it says"),
        (lambda flow: struct.pack(">BI", 94, flow.number), "data of another length than it says"),
        (lambda flow: struct.pack(">BI", 93, flow.number), "a message that ends too soon"),
        (lambda flow: struct.pack(">BII", 93, flow.number, 2**32 - 1), "a window of more than 2^32 - 1 bytes"),
        (lambda flow: struct.pack(">BII", 98, flow.number, 2**31), "a message that ends too soon"),
        (lambda flow: b"\x61", "a message that ends too soon"),
    ],
    ids=["length", "more", "less", "data", "adjust", "window", "request", "close"],
)
def test_bad_messages(pair: Pair, payload, complaint: str) -> None:  # type: ignore[no-untyped-def]
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.say(payload(flow))
    pair.drive(lambda: flow.error)
    assert (type(flow.error), str(flow.error)) == (BadPacket, complaint)
    assert not len(flow.received)


def test_more_than_the_window(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)

    def send() -> None:
        for _ in range(WINDOW // 32768):
            pair.say(data_message(flow, bytes(32768)))
        pair.say(data_message(flow, b"x"))

    with Meanwhile(send):
        pair.drive(lambda: flow.error)
    assert str(flow.error) == "1 bytes of data where the window has room for 0"
    assert len(flow.received) == WINDOW


def test_more_stderr_than_the_window(pair: Pair) -> None:
    """As long as nobody has attached the channel, too."""
    near, _far = pair.open()
    for _ in range(WINDOW // 32768):
        pair.say(struct.pack(">BIII", 95, near.chanid, 1, 32768) + bytes(32768))
    pair.say(struct.pack(">BIII", 95, near.chanid, 1, 1) + b"x")
    until(lambda: not pair.client.is_active(), "end of the link", SOON)
    assert str(pair.client.saved_exception) == "1 bytes of data where the window has room for 0"
    assert len(near.in_stderr_buffer) == WINDOW


@pytest.mark.parametrize("status_due", [0.0, 1.0])
def test_stderr_that_nobody_reads(pair: Pair, status_due: float) -> None:
    """It holds up nothing, and is not kept, but for the beginning of a command's."""
    near, far = pair.open()
    far.sendall_stderr(b"early")
    until(lambda: len(near.in_stderr_buffer) == 5, "stderr", SOON)
    flow = pair.attach(near)
    flow.status_due = status_due

    def send() -> None:
        far.sendall_stderr(bytes(2 * WINDOW))
        far.sendall(b"data")

    with Meanwhile(send):
        assert receive(pair, flow, 4) == b"data"
    assert len(near.in_stderr_buffer) == (STDERR_MOST if status_due else 5)


def test_data_after_the_end(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.say(struct.pack(">BI", common.MSG_CHANNEL_EOF, flow.number))
    pair.say(data_message(flow, b"more"))
    pair.drive(lambda: flow.error)
    assert not len(flow.received)


def test_fewer_extensions_than_it_says(pair: Pair) -> None:
    pair.say(b"\x07\x00\x00\x00\x01\x00\x00\x00\x01n\x00\x00\x00\x01v")
    pair.say(b"\x07\xff\xff\xff\xff")
    until(lambda: not pair.client.is_active(), "end of the link", SOON)
    assert str(pair.client.saved_exception) == "an EXT_INFO that cannot be read"
    assert pair.client.server_extensions == {"n": b"v"}


# What every server may do


def test_lines_before_the_ident() -> None:
    """In any encoding, and at any time before that of the first one is up."""
    near, far = socket.socketpair()
    with near, far:
        packetizer = Packetizer(near)
        far.sendall(b"Zugriff nur f\xfcr Befugte\r\n")
        assert packetizer.readline(SOON) == "Zugriff nur f\ufffdr Befugte"
        later = threading.Timer(0.3, far.sendall, [b"SSH-2.0-x\r\nSSH-2.0-\xfc\r\n"])
        later.start()
        assert packetizer.readline(0.0) == "SSH-2.0-x"
        with pytest.raises(UnicodeDecodeError):
            packetizer.readline(0.0)
        later.join()


def test_messages_between(pair: Pair) -> None:
    """Nothing of it disturbs the data, and what wants an answer gets one."""
    near, far = pair.open()
    flow = pair.attach(near)
    flow.status_due = 1.0
    asked = threading.Event()
    pair.server._channel_handler_table = {
        **pair.server._channel_handler_table,
        common.MSG_CHANNEL_FAILURE: lambda channel, message: asked.set(),
    }
    request = b"keepalive@openssh.com"
    for payload in (
        b"\x02" + bytes(4),  # IGNORE
        b"\x04\x00" + bytes(8),  # DEBUG
        struct.pack(">BI", common.MSG_GLOBAL_REQUEST, 9) + b"something\x00",
        struct.pack(">BII", 98, flow.number, len(request)) + request + b"\x01",
        struct.pack(">BIII", 95, flow.number, 1, 6) + b"stderr",
        struct.pack(">BI", 94, 77) + struct.pack(">I", 3) + b"dead",
    )[:-1]:
        pair.say(payload)
    far.sendall(b"data")
    assert receive(pair, flow, 4) == b"data"
    pair.drive(lambda: not pair.connection.sending)
    assert asked.wait(SOON)
    assert near.recv_stderr(100) == b"stderr"


def test_messages_out_of_place(pair: Pair) -> None:
    """Those of the set-up, and unknown ones: they change nothing, and are answered."""
    near, far = pair.open()
    flow = pair.attach(near)
    answered: list[int] = []
    unimplemented = 3
    pair.server._handler_table[unimplemented] = lambda message: answered.append(message.get_int())
    kinds = [5, 6, 8, 22, 50, 51, 52, 53, 60, 79, 83, 101, 192, 255]
    for kind in kinds:
        pair.say(bytes([kind]) + bytes(20))
    pair.say(b"\x07\xff\xff\xff\xff")  # EXT_INFO with 2^32 - 1 extensions
    far.sendall(b"data")
    assert receive(pair, flow, 4) == b"data"
    pair.drive(lambda: len(answered) == len(kinds))
    assert answered == list(range(answered[0], answered[0] + len(kinds)))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_server_that_asks_and_does_not_read(pair: Pair, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "OUTPUT_MOST", 200_000)
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        evil = (pair, second)[depth]
        evil.server.packetizer.park()
        question = b"?" * 200
        payload = struct.pack(">BI", common.MSG_GLOBAL_REQUEST, len(question)) + question + b"\x01"
        stopped = threading.Event()

        def ask() -> None:
            with contextlib.suppress(OSError, EOFError):  # the link ends meanwhile
                while True:
                    evil.say(payload)
            stopped.set()

        with Meanwhile(ask):
            # Not only until the error: the first link outlives the second, and is read, or it would hold up who asks.
            second.drive(stopped.is_set)
        assert str(flow.error) == "the server reads nothing"


def test_a_server_that_asks_and_does_not_finish_a_key_exchange(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HELD_MOST", 500)
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.server._handler_table[common.MSG_KEXINIT] = lambda message: None
    pair.client._send_kex_init()
    request = b"keepalive@openssh.com"
    payload = struct.pack(">BII", common.MSG_CHANNEL_REQUEST, flow.number, len(request)) + request + b"\x01"

    def ask() -> None:
        with contextlib.suppress(OSError, EOFError):  # the link ends meanwhile
            while True:
                pair.say(payload)

    with Meanwhile(ask):
        pair.drive(lambda: flow.error)
    assert str(flow.error) == "the server does not finish a key exchange"


def test_a_refusal_of_what_was_not_asked_for(pair: Pair) -> None:
    """It is not kept, and an open channel stays open."""
    near, far = pair.open()
    for number in (near.chanid, 77):
        pair.say(struct.pack(">BIIII", common.MSG_CHANNEL_OPEN_FAILURE, number, 1, 0, 0))
    far.sendall(b"data")
    assert read_all(near, 4) == b"data"


def test_a_refusal_after_all(pair: Pair) -> None:
    """The first answer counts."""
    opening = Opening(pair.client, "direct-tcpip", "there", 22)
    far = pair.server.accept(SOON)
    near = opening.wait(SOON)
    pair.say(struct.pack(">BIIII", common.MSG_CHANNEL_OPEN_FAILURE, near.chanid, 1, 0, 0))
    far.sendall(b"data")
    assert read_all(near, 4) == b"data"
    assert opening.wait(SOON) is near


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_channel_that_is_not_wanted_any_more(pair: Pair, when: str) -> None:
    """It is closed, when it opens after it was dropped, and when it was open by then."""
    let = threading.Event()
    if when == "after":
        let.set()
    pair.server.server_object.check_channel_direct_tcpip_request = lambda *_: int(not let.wait(SOON))
    opening = Opening(pair.client, "direct-tcpip", "there", 22)
    if when == "after":
        opening.wait(SOON)
    opening.drop()
    let.set()
    far = pair.server.accept(SOON)
    assert far.recv(1) == b""
    until(lambda: far.closed, "the far end's close", SOON)
    near, far = pair.open()  # and does no harm to others
    far.sendall(b"data")
    assert read_all(near, 4) == b"data"
    assert pair.client.openings == {}


def test_a_flood_for_the_transport(pair: Pair) -> None:
    """Messages that its thread sees to are not piled up for it."""
    near, far = pair.open()
    flow = pair.attach(near)
    payload = struct.pack(">BI", common.MSG_GLOBAL_REQUEST, 9) + b"something\x01"

    def send() -> None:
        for _ in range(2000):
            pair.say(payload)
        far.sendall(b"data")

    most = 0
    with Meanwhile(send):
        while not len(flow.received):
            pair.connection.receive()
            pair.connection.flush()
            most = max(most, len(pair.client.packetizer._inbox))
    assert most <= 65
    assert flow.error is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    payloads=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=60),
            st.tuples(st.integers(90, 100), st.integers(0, 2), st.binary(max_size=40)).map(
                lambda parts: struct.pack(">BI", *parts[:2]) + parts[2]
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_messages(payloads: list[bytes]) -> None:
    """Whatever who has the keys may say: the link goes on, or ends with an error; no other exception, no hang."""
    with Pair() as pair:
        near, _ = pair.open()
        flow = pair.attach(near)
        for payload in payloads:
            try:
                pair.say(payload)
            except OSError:
                break  # the link has ended by then
        end = os.urandom(16)
        try:
            pair.say(data_message(flow, end))
        except OSError:
            pass
        pair.drive(lambda: flow.error or flow.over or take(flow).endswith(end))


def test_the_cipher_is_the_one_that_was_asked_for(pair: Pair) -> None:
    assert pair.client.local_cipher == pair.client.remote_cipher == GCM
