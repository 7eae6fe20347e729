"""Key exchanges on a link that one thread moves: either side begins one, or never ends it."""

from __future__ import annotations

import contextlib
import functools
import struct
import threading
from collections.abc import Callable

import paramiko
import pytest
from contract import SOON, Meanwhile, digest, noise
from flow_ends import MIB, data_message, give, read_all, receive, take, wait_for
from pair import WINDOW, Pair
from paramiko import common
from peers import until

from relay.errors import RelayError
from relay.ssh.wire import transport
from relay.ssh.wire.channel import ChannelStream
from relay.ssh.wire.flow import LOOK
from relay.ssh.wire.packet import Sealer


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


def error_of_a_rekey(pair: Pair, near: paramiko.Channel) -> str:
    """How the link ends by the server's rekey."""
    flow = pair.attach(near)
    pair.server._send_kex_init()
    pair.drive(lambda: flow.error)
    return str(flow.error)


def test_a_rekey_to_another_kind_of_cipher(pair: Pair) -> None:
    """Its packets would not fit where they are sealed: how much larger than the data they are was computed before."""
    near, _ = pair.open()
    pair.client._preferred_ciphers = ("aes128-gcm@openssh.com", "aes128-ctr")
    pair.server._preferred_ciphers = ("aes128-ctr",)
    assert error_of_a_rekey(pair, near) == "the server rekeyed to another kind of cipher"


def test_another_host_key_with_new_keys(pair: Pair) -> None:
    """Nobody has checked that one."""
    near, _ = pair.open()
    pair.server.add_server_key(paramiko.ECDSAKey.generate())
    assert error_of_a_rekey(pair, near) == "the server showed another host key when it rekeyed"


def test_a_wrong_guess_with_new_keys(pair: Pair) -> None:
    """It is passed over (RFC 4253 section 7), when one thread moves the data, too."""
    near, far = pair.open()
    flow = pair.attach(near)
    real, packets = pair.server._send_message, pair.server.packetizer

    def send(message: paramiko.Message) -> None:
        data = message.asbytes()
        if data[0] == common.MSG_KEXINIT:
            data = pair.server.local_kex_init = pair.server._latest_kex_init = data[:-5] + b"\1" + bytes(4)
            packets.holds = True  # in one piece, before the server's other thread can answer our KEXINIT
            real(paramiko.Message(data))
            data, packets.holds = b"\x1fanything", False
        real(paramiko.Message(data))

    pair.server._send_message = send
    keys = {pair.client.packetizer.sealer, pair.client.packetizer.opener}
    with Meanwhile(pair.server.renegotiate_keys):
        pair.drive(lambda: flow.error or changed(pair, keys))
    assert flow.error is None
    far.sendall(b"data")
    assert receive(pair, flow, 4) == b"data"


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


@pytest.mark.parametrize(
    "limits",
    [
        {"REKEY_BYTES": 8 * MIB, "REKEY_BYTES_OVERFLOW_MAX": 4 * MIB},
        {"REKEY_PACKETS": 400, "REKEY_PACKETS_OVERFLOW_MAX": 200},
    ],
    ids=["bytes", "packets"],
)
def test_a_key_is_replaced_when_enough_has_come(pair: Pair, limits: dict[str, int]) -> None:
    """What still comes before the server has heard of it, at most a window, is counted from when it was asked."""
    near, far = pair.open()
    flow = pair.attach(near)
    vars(pair.client.packetizer).update(limits)
    opener = pair.client.packetizer.opener
    data = noise(20 * MIB)
    with Meanwhile(lambda: far.sendall(data)):
        assert digest(receive(pair, flow, len(data))) == digest(data)
    assert pair.client.packetizer.opener is not opener


def test_small_packets_count_though_nothing_comes_back(pair: Pair) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    packetizer = pair.client.packetizer
    packetizer.REKEY_PACKETS = packetizer.sealer.packets + LOOK

    def one(views: list[memoryview]) -> int:
        views[0][0] = 0
        return 1

    while flow.read_from(one) > 0:
        pass
    assert not flow.link.clear
    assert packetizer.sealer.packets <= packetizer.REKEY_PACKETS + LOOK


@pytest.mark.parametrize("what", ["PACKETS", "BYTES"])
def test_a_server_that_does_not_heed_a_request_for_new_keys(pair: Pair, what: str) -> None:
    near, _ = pair.open()
    flow = pair.attach(near)
    pair.server._handler_table[common.MSG_KEXINIT] = lambda message: None
    most = 20 if what == "PACKETS" else 1000
    vars(pair.client.packetizer).update({f"REKEY_{what}": most, f"REKEY_{what}_OVERFLOW_MAX": most})

    def send() -> None:
        with contextlib.suppress(OSError, EOFError):  # the link ends meanwhile
            while True:
                pair.say(data_message(flow, b"x"))

    with Meanwhile(send):
        pair.drive(lambda: flow.error)
    assert "ignores our requests" in str(flow.error)


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
        stream = ChannelStream(near, lambda error: RelayError(str(error)))
        with pytest.raises(RelayError, match="the server does not finish a key exchange"):
            stream.sendall(b"data")
