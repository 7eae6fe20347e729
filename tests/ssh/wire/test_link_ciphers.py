"""One thread moves the data under every cipher, and in every mixture of them; what is not in order ends the link."""

from __future__ import annotations

import functools
import struct

import pytest
from contract import Meanwhile, digest, noise
from flow_ends import MIB, data_message, give, read_all, receive
from pair import WINDOW, Pair
from sealing import KINDS

from relay.ssh.wire.packet import BadPacket

each_kind = pytest.mark.parametrize("kind", KINDS)
SORTS = ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr hmac-sha2-512"]


@each_kind
def test_both_ways(kind: str) -> None:
    with Pair(kind) as pair:
        near, far = pair.open()
        flow = pair.attach(near)
        up, down = noise(3 * WINDOW + 1, 1), noise(3 * WINDOW + 1, 2)
        got: list[bytes] = []
        with Meanwhile(lambda: far.sendall(down)):
            assert digest(receive(pair, flow, len(down))) == digest(down)
        with Meanwhile(lambda: got.append(read_all(far, len(up)))):
            give(pair, flow, up)
        assert digest(got[0]) == digest(up)


@pytest.mark.parametrize("outer", SORTS)
@pytest.mark.parametrize("inner", SORTS)
def test_a_channel_within_a_channel(outer: str, inner: str) -> None:
    """A packet of the inner link is one of the outer link's, whatever both are larger than the data in them."""
    with Pair(outer) as pair:
        near, far = pair.open()
        with Pair(inner, stream=near, far=far) as second:
            near, far = second.open()
            flow = second.attach(near)
            up, down = noise(2 * WINDOW + 1, 1), noise(2 * WINDOW + 1, 2)
            got: list[bytes] = []
            with Meanwhile(lambda: far.sendall(down)):
                assert digest(receive(second, flow, len(down))) == digest(down)
            before = pair.client.packetizer.sealer.packets, second.client.packetizer.sealer.packets
            with Meanwhile(lambda: got.append(read_all(far, len(up)))):
                give(second, flow, up)
            assert digest(got[0]) == digest(up)
            outside = pair.client.packetizer.sealer.packets - before[0]
            assert outside - (second.client.packetizer.sealer.packets - before[1]) < 20  # window adjusts


@pytest.mark.parametrize("kind", SORTS)
@pytest.mark.parametrize("strict", [True, False])
def test_rekeys_by_either_side(kind: str, strict: bool) -> None:
    """Numbers go on, or begin anew at each NEWKEYS (strict key exchange); where they are signed they must be right."""
    with Pair(kind, strict=strict) as pair:
        assert pair.client.agreed_on_strict_kex == strict
        near, far = pair.open()
        packetizer = pair.client.packetizer
        pair.client.renegotiate_keys()  # before it is taken over, too
        flow = pair.attach(near)
        data = noise(100_000)
        for side in (pair.client, pair.server, pair.client):
            keys = {packetizer.sealer, packetizer.opener}
            with Meanwhile(side.renegotiate_keys):
                pair.drive(functools.partial(changed, pair, keys))
            assert (packetizer.sealer.first, packetizer.opener.first) == (0, 0) or not strict
            with Meanwhile(functools.partial(far.sendall, data)):
                assert receive(pair, flow, len(data)) == data
            give(pair, flow, data)
            assert read_all(far, len(data)) == data


def changed(pair: Pair, keys: set[object]) -> bool:
    """Whether a key exchange that began with these keys is over for the client."""
    packetizer = pair.client.packetizer
    return pair.client.clear_to_send.is_set() and keys.isdisjoint({packetizer.sealer, packetizer.opener})


@pytest.mark.parametrize("kind", SORTS)
def test_a_key_is_replaced_when_it_has_done_enough(kind: str) -> None:
    with Pair(kind) as pair:
        near, far = pair.open()
        flow = pair.attach(near)
        pair.client.packetizer.REKEY_BYTES = MIB
        sealers: set[object] = set()
        data = noise(6 * MIB)
        got: list[bytes] = []
        with Meanwhile(lambda: got.append(read_all(far, len(data)))):
            for at in range(0, len(data), MIB):
                give(pair, flow, data[at : at + MIB])
                sealers.add(pair.client.packetizer.sealer)
            pair.drive(lambda: got)
        assert digest(got[0]) == digest(data)
        assert len(sealers) >= 4


def test_how_much_one_key_may_do() -> None:
    """As OpenSSH's ssh_set_newkeys: 2^32 blocks of 16 bytes, 1 GB where blocks are smaller."""
    with Pair("chacha20-poly1305@openssh.com") as pair:
        assert pair.client.packetizer.REKEY_BYTES == 2**30
    with Pair("aes128-ctr") as pair:
        assert (pair.client.packetizer.REKEY_BYTES, pair.client.packetizer.REKEY_PACKETS) == (2**36, 2**31)


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("kind", SORTS)
def test_data_that_claims_another_length(kind: str, attached: bool) -> None:
    """99,999 bytes that are 3: nothing of them is delivered, and the link ends."""
    with Pair(kind) as pair:
        near, _ = pair.open()
        if attached:
            flow = pair.attach(near)
            pair.say(struct.pack(">BII", 94, flow.number, 99_999) + b"abc")
            pair.drive(lambda: flow.error)
            assert str(flow.error) == "data whose length is not the one stated"
            assert not len(flow.received)
        else:
            pair.say(struct.pack(">BII", 94, near.chanid, 99_999) + b"abc")
            near.settimeout(5.0)
            assert near.recv(100) == b""
            assert str(pair.client.saved_exception) == "data whose length is not the one stated"


@pytest.mark.parametrize("kind", SORTS)
def test_a_packet_that_was_changed(kind: str) -> None:
    with Pair(kind) as pair:
        near, far = pair.open()
        flow = pair.attach(near)
        far.sendall(b"good")
        assert receive(pair, flow, 4) == b"good"
        packet = bytearray(pair.server.packetizer.sealer.packet(data_message(flow, b"evil")))
        packet[9] ^= 1
        pair.raw(bytes(packet))
        pair.drive(lambda: flow.error)
        assert isinstance(flow.error, BadPacket)
        assert not len(flow.received)
