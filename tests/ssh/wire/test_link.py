"""What one thread moves: data, windows, ends and signs of life."""

from __future__ import annotations

import functools
import gc
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import paramiko
import pytest
from contract import SOON, Meanwhile, digest, noise
from flow_ends import MIB, fill, give, read_all, receive, take, wait_for
from pair import GCM, WINDOW, Pair
from paramiko import common
from peers import until

from relay.ssh.wire import transport
from relay.ssh.wire.connection import TALK
from relay.ssh.wire.flow import Flow
from relay.ssh.wire.packet import PLAIN, SLOTS
from relay.ssh.wire.takeover import attach

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
            assert third.connection.links == [each.client.packetizer.link for each in (pair, second, third)]
            assert receive(third, flow, 5) == b"early"
            up, down = noise(4 * WINDOW + 1, 1), noise(4 * WINDOW + 1, 2)
            got: list[bytes] = []
            with Meanwhile(lambda: far.sendall(down)):
                assert digest(receive(third, flow, len(down))) == digest(down)
            with Meanwhile(lambda: got.append(read_all(far, len(up)))):
                give(third, flow, up)
            assert digest(got[0]) == digest(up)


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


def test_a_server_that_takes_small_packets_only(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """paramiko would send 4096 bytes (RFC 4254 section 5.2)."""
    monkeypatch.setattr("paramiko.transport.MIN_PACKET_SIZE", 0)  # of the server; the client's is not asked
    pair.server.default_max_packet_size = 1000
    near, far = pair.open()
    flow = pair.attach(near)
    assert flow.max_data == 1000
    data = noise(10_000)
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


@pytest.mark.parametrize("waits_for_empty", [False, True])
def test_the_rest_of_a_window(pair: Pair, waits_for_empty: bool) -> None:
    """It is not sent by itself where the server is sure to refill it, as dropbear is: each packet would have a twin."""
    window = pair.server.default_window_size = 24_576
    near, _ = pair.open()
    flow = pair.attach(near)

    def send(size: int) -> None:
        assert flow.read_from(lambda _: size) == size

    def refill(size: int) -> None:
        flow.message(common.MSG_CHANNEL_WINDOW_ADJUST, struct.pack(">BII", 93, flow.number, size))

    send(window - 82)
    assert flow.room() == 82  # nothing is known of this server yet
    if waits_for_empty:
        send(82)
    refill(window - flow.window)
    assert flow.room() == window
    send(window - 82)
    assert flow.room() == (82 if waits_for_empty else 0)
    refill(8192)
    assert flow.room() == 82 + 8192
    # A wider window: what is missing of it says nothing about the server.
    refill(3 * window)
    send(flow.window - 82)
    assert flow.room() == 82


@contextmanager
def inside(pair: Pair) -> Iterator[tuple[Pair, Flow, paramiko.Channel, Flow]]:
    """A hop behind pair's: its Pair, a flow through both with the server's end, and the flow that carries it."""
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        outside = flow.link.carrier
        assert outside is not None
        yield second, flow, far, outside


def test_inner_packets_fit_in_the_window_outside(pair: Pair) -> None:
    with inside(pair) as (_, flow, _, outside):
        outside.window = 1000
        assert 0 < flow.room() < 1000
        flow.read_from(lambda views: sum(map(len, views)))
        assert 0 <= outside.window < 100
        assert flow.room() == 0


def test_inner_packets_fit_in_those_outside(pair: Pair) -> None:
    """OpenSSH drops the data of a packet that is larger than it has allowed (channels.c, channel_input_data)."""
    with inside(pair) as (_, flow, _, outside):
        shape = flow.link.packetizer.sealer.shape
        message = PLAIN.size - 1  # bytes of a message besides its data
        assert shape.wire(message + flow.max_data) <= outside.max_data < shape.wire(message + flow.max_data + 1)


def test_the_narrowest_window_counts(pair: Pair) -> None:
    with inside(pair) as (_, flow, _, outside):
        for inner, outer, packets in ((2, 6, 2), (6, 2, 2), (1, 1, 1)):
            flow.window, outside.window = inner * flow.max_data, outer * outside.max_data
            assert flow.room() == packets * flow.max_data


def test_what_has_waited_for_the_link_outside(pair: Pair) -> None:
    """For its window, of which no more is used than there is, or for the end of its key exchange."""
    with inside(pair) as (second, flow, far, outside):
        other_near, other_far = second.open()
        other = second.attach(other_near)
        window, outside.window = outside.window, 0
        flow.end()
        for size in (10, window):
            assert outside._backlog
            assert outside.window == 0
            rest = len(outside._backlog) - size
            pair.say(struct.pack(">BII", common.MSG_CHANNEL_WINDOW_ADJUST, outside.number, size))
            second.drive(lambda rest=rest: len(outside._backlog) == max(rest, 0))  # type: ignore[misc]
        far.settimeout(SOON)
        assert far.recv(1) == b""
        pair.client._send_kex_init()
        other.end()
        assert outside._backlog
        second.drive(lambda: outside.link.clear)
        assert not outside._backlog
        other_far.settimeout(SOON)
        assert other_far.recv(1) == b""


def test_what_is_sent_acknowledges_what_has_come(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where nothing is sent is the system told to acknowledge at once: it is a call and a packet for each."""
    near, far = pair.open()
    flow = pair.attach(near)
    said: list[str] = []
    monkeypatch.setattr(pair.connection._reader, "acknowledge", lambda: said.append("now"))
    far.sendall(b"question")
    pair.drive(lambda: len(flow.received))
    flow.read_from(lambda _: 6)
    pair.connection.rest()
    assert not said
    far.sendall(b"question")
    pair.drive(lambda: len(flow.received) > 8)
    pair.connection.rest()
    pair.connection.rest()
    assert said == ["now"]


def test_in_a_conversation_the_next_question_acknowledges(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a moment for that. A second answer in a row ends the conversation: the server may be holding back more."""
    near, far = pair.open()
    flow = pair.attach(near)
    said: list[str] = []
    monkeypatch.setattr(pair.connection._reader, "acknowledge", lambda: said.append("now"))

    def answer() -> None:
        far.sendall(b"answer")
        pair.drive(lambda: len(flow.received))
        take(flow)

    for count in range(1, TALK + 2):
        flow.read_from(lambda _: 6)
        assert not pair.connection.patient  # the question carries the acknowledgement
        answer()
        assert pair.connection.patient == (count >= TALK)
    pair.connection.rest()  # the moment is over
    assert said == ["now"]
    answer()
    assert not pair.connection.patient


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
    # Without our answer the server would keep the channel (RFC 4254 section 5.3).
    until(lambda: pair.server._channels.get(far.chanid) is None, "end of the channel at the server", SOON)


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
    [
        lambda outer: outer.say(struct.pack(">BIII", 1, 11, 0, 0)),
        lambda outer: outer.raw(bytes(99)),
        lambda outer: outer.say(struct.pack(">BI", common.MSG_CHANNEL_CLOSE, 0)),
        lambda outer: outer.far.shutdown(socket.SHUT_WR),
    ],
    ids=["disconnect", "bad packet", "channel", "connection"],
)
@pytest.mark.parametrize("turn", [0, 3])
def test_what_comes_with_the_end_of_the_link_outside(pair: Pair, end: Callable[[Pair], None], turn: int) -> None:
    """Its packets are seen to, however few of them a turn has room for."""
    near, far = pair.open()
    with Pair(stream=near, far=far) as second:
        near, far = second.open()
        flow = second.attach(near)
        second.connection.turn = turn
        last = noise(20)
        for byte in last:
            far.sendall(bytes([byte]))
        end(pair)
        second.drive(lambda: flow.error)
        assert take(flow) == last


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


def test_the_cipher_is_the_one_that_was_asked_for(pair: Pair) -> None:
    assert pair.client.local_cipher == pair.client.remote_cipher == GCM
