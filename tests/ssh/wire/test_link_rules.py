"""What a server may say on a link, what it may not, and messages that are neither."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import paramiko
import pytest
from contract import SOON, Meanwhile
from flow_ends import data_message, read_all, receive, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pair import WINDOW, Pair
from paramiko import SSHException, common
from peers import until
from sealing import plain_packet

from relay.ssh.wire import link
from relay.ssh.wire.busy import Busy
from relay.ssh.wire.flow import STDERR_MOST
from relay.ssh.wire.packet import BadPacket
from relay.ssh.wire.packets import LINES_MOST, Packetizer
from relay.ssh.wire.takeover import attach

# What no server may do


def corrupt(pair: Pair, payload: bytes = b"\x02abc", at: int = -1) -> bytes:
    packet = bytearray(pair.server.packetizer.sealer.packet(payload))
    packet[at] ^= 1
    return bytes(packet)


def sealed(pair: Pair, plain: bytes) -> bytes:
    return plain_packet(pair.server.packetizer.sealer, plain)


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
        (lambda flow: data_message(flow, bytes(WINDOW + 1))[:200_000], "data whose length is not the one stated"),
        (lambda flow: data_message(flow, b"abc") + b"d", "data whose length is not the one stated"),
        (lambda flow: data_message(flow, b"abc")[:-1], "data whose length is not the one stated"),
        (lambda flow: struct.pack(">BI", 94, flow.number), "data whose length is not the one stated"),
        (lambda flow: struct.pack(">BI", 93, flow.number), "a message that is cut short"),
        (lambda flow: struct.pack(">BII", 93, flow.number, 2**32 - 1), "a window of more than 2^32 - 1 bytes"),
        (lambda flow: struct.pack(">BII", 98, flow.number, 2**31), "a message that is cut short"),
        (lambda flow: b"\x61", "a message that is cut short"),
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


def test_the_widest_window(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.say(struct.pack(">BII", 93, flow.number, 2**32 - 1 - flow.window))
    pair.drive(lambda: flow.error or flow.window == 2**32 - 1)
    assert flow.error is None


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


@pytest.mark.parametrize("kind", [8, 120, 250])
def test_a_message_that_nobody_knows(pair: Pair, kind: int) -> None:
    """RFC 4253 section 11.4: it is answered, whatever its number, and what follows is read."""
    answered = threading.Event()
    parse = pair.server.packetizer.message

    def message(payload: bytes) -> object:
        if payload[0] == common.MSG_UNIMPLEMENTED:
            answered.set()
        return parse(payload)

    pair.server.packetizer.message = message
    pair.say(bytes([kind]) + b"something")
    pair.open()
    assert answered.wait(SOON)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"\x5a\0\0\0\1\xff" + bytes(12), "the server's message cannot be read"),
        (b"\x5b\0\0\0\0", "the server's message cannot be read"),
        (b"\x5e\0\0\0\x4d\0\0\0\1x", "the server speaks of channel 77, which nobody has opened"),
        (b"\x14" + bytes(16 + 10 * 4 + 5), "Incompatible ssh peer (no acceptable kex algorithm)"),
        (b"\x14" + bytes(16 + 10 * 4 + 4), "a KEXINIT that cannot be read"),
        (b"\x14" + bytes(16 + 10 * 4 + 6), "a KEXINIT that goes on behind its end"),
        (b"\x01\0\0\0\2", "it does not say why"),
    ],
    ids=["open", "confirmation", "data", "kexinit", "short kexinit", "long kexinit", "disconnect"],
)
def test_bad_messages_while_a_channel_is_asked_for(pair: Pair, payload: bytes, complaint: str) -> None:
    """Whatever the library makes of them, whoever waits for the channel has an error that can be told."""
    pair.server._handler_table = {**pair.server._handler_table, common.MSG_CHANNEL_OPEN: lambda _: pair.say(payload)}
    opening = pair.client.ask("direct-tcpip", "there", 22)
    with pytest.raises(SSHException) as caught:
        opening.wait(SOON)
    assert str(caught.value) == complaint


def test_fewer_extensions_than_it_says(pair: Pair) -> None:
    pair.say(b"\x07\xff\xff\xff\xff\x00\x00\x00\x01n\x00\x00\x00\x01v")
    until(lambda: not pair.client.is_active(), "end of the link", SOON)
    assert str(pair.client.saved_exception) == "an EXT_INFO that cannot be read"
    assert list(pair.client.server_extensions) == ["server-sig-algs"]


def test_extensions_that_a_second_message_replaces(pair: Pair) -> None:
    pair.say(b"\x07\x00\x00\x00\x01\x00\x00\x00\x01n\x00\x00\x00\x01v")
    pair.say(b"\x02\x00\x00\x00\x00")
    until(lambda: "n" in pair.client.server_extensions, "extension", SOON)
    assert list(pair.client.server_extensions) == ["server-sig-algs", "n"]


# What every server may do


def test_lines_before_the_ident() -> None:
    """In any encoding, and at any time before that of the first one is up."""
    near, far = socket.socketpair()
    with near, far:
        packetizer = Packetizer(near)
        far.sendall(b"\r\n" * (LINES_MOST - 2) + b"Zugriff nur f\xfcr Befugte\r\n")
        later = threading.Timer(0.3, far.sendall, [b"SSH-2.0-\xfc\r\n"])
        later.start()
        ident = packetizer.readline(SOON)
        assert ident.encode(errors="surrogateescape") == b"SSH-2.0-\xfc"  # as it goes into the exchange hash
        assert packetizer.said == "Zugriff nur f\ufffdr Befugte"
        later.join()
        far.sendall(b"\r\n" * LINES_MOST + b"SSH-2.0-x\r\n")
        with pytest.raises(paramiko.SSHException, match=f"more than {LINES_MOST} lines before its ident"):
            packetizer.readline(SOON)


@pytest.mark.parametrize("packet", [b"\0\0\1\x0c\n\x14", b"\0\0\1\x0c"])
def test_a_packet_before_the_ident_is_no_line(packet: bytes) -> None:
    """Though there may be an end of line in it; what was said before it is what a person wants to know."""
    near, far = socket.socketpair()
    with near, far:
        packetizer = Packetizer(near)
        far.sendall(b"WelcomeSSH-2.0-x\r\n" + packet)
        with pytest.raises(UnicodeError):
            packetizer.readline(SOON)
        assert packetizer.said == "WelcomeSSH-2.0-x"


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
            # Not only until the error: the first link outlives the second, and must be read, or `ask` would block.
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
    opening = pair.client.ask("direct-tcpip", "there", 22)
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
    opening = pair.client.ask("direct-tcpip", "there", 22)
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
    assert pair.client._openings == {}


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


@pytest.mark.parametrize("depth", [0, 1])
def test_no_flood_takes_more_than_its_turn(pair: Pair, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of a byte, some thousands in one read: a call sees to so many, over all links together."""
    near, far = pair.open()
    with ExitStack() as stack:
        end = pair
        if depth:
            end = stack.enter_context(Pair(stream=near, far=far))
            near, far = end.open()
        flow = end.attach(near)
        connection = end.connection
        connection.turn = 50
        heard = 0

        def accept(data: memoryview) -> bool:
            nonlocal heard
            heard += 1
            return real(data)

        real = flow.accept
        monkeypatch.setattr(flow, "accept", accept)

        def flood() -> None:
            for _ in range(2000):
                far.sendall(b"x")

        with Meanwhile(flood):
            deadline = time.monotonic() + SOON
            most = 0
            while len(flow.received) < 2000 and time.monotonic() < deadline:
                before = heard
                connection.receive()
                most = max(most, heard - before)
                connection.flush()
        assert len(flow.received) == 2000
        assert 0 < most <= 50
        end.drive(lambda: not connection.behind)


@contextlib.contextmanager
def amid_a_key_exchange(
    pair: Pair, far: paramiko.Channel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """New keys, which our side's thread computes from the first event until the second is set; data follows them.

    Nothing may wait for that thread.
    """
    computing, go_on = threading.Event(), threading.Event()
    real = pair.client._parse_kex_init

    def slow(message: object) -> None:
        computing.set()
        assert go_on.wait(SOON)
        real(message)

    monkeypatch.setattr(pair.client, "_parse_kex_init", slow)
    monkeypatch.setattr(Packetizer, "settle", lambda _: pytest.fail("it waits"))

    def rekey() -> None:
        pair.server.renegotiate_keys()
        far.sendall(b"data")

    with Meanwhile(rekey):
        yield computing, go_on


def test_a_key_exchange_holds_up_only_its_own_hop(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that serves many hops does not wait for what one of them has to compute."""
    near, far = pair.open()
    flow = pair.attach(near)
    pair.connection.turn = 50
    with amid_a_key_exchange(pair, far, monkeypatch) as (computing, go_on):
        while not computing.is_set():
            pair.connection.receive()
        pair.connection.receive()
        assert not pair.connection.reading
        go_on.set()
        pair.drive(lambda: len(flow.received))
    assert flow.received.take(4) == b"data"
    assert pair.connection.reading


def test_no_channel_is_waited_for_amid_a_key_exchange(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken over while its hop computes keys: the thread that serves many hops is told to come back."""
    first, _ = pair.open()
    pair.attach(first)
    connection = pair.connection
    near, far = pair.open()
    connection.turn = 50
    with amid_a_key_exchange(pair, far, monkeypatch) as (computing, go_on):
        pair.drive(computing.is_set)
        with pytest.raises(Busy) as caught:
            attach(near)
        assert caught.value.connection is connection
        go_on.set()
        assert select.select([connection.wake_fd], [], [], SOON)[0]
        flow = pair.attach(near)
        pair.drive(lambda: len(flow.received))
    assert flow.received.take(4) == b"data"


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
    """Any messages with the right keys: the link goes on, or ends with an error; no other exception, no hang."""
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
