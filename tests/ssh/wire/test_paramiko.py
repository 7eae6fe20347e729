"""The methods of paramiko that are overridden, or leant on, are those that were read.

Its minor version is pinned; when this fails after an update, read the methods
it names again, mend what overrides them, and write down their new sums.
"""

from __future__ import annotations

import hashlib
import inspect
import socket
import threading
from typing import Any

import pytest
from paramiko.buffered_pipe import BufferedPipe
from paramiko.channel import Channel
from paramiko.packet import Packetizer
from paramiko.transport import Transport

from relay.ssh.wire import negotiation, packets, transport

SUMS = {
    "BufferedPipe.close": "d2bc7354879a18f2",
    "BufferedPipe.empty": "dabbe9575cc6f1f1",
    "BufferedPipe.feed": "a3022a6ddafee97d",
    "BufferedPipe.read": "6ff7002208285c2f",
    "Channel.__init__": "2a6b30b3ff295e05",
    "Channel._check_add_window": "47546c4b47ca1612",
    "Channel._feed": "abae941985d903ec",
    "Channel._handle_close": "88adce72f8046906",
    "Channel._handle_eof": "cceabf8e50eeb4e9",
    "Channel._send": "ac9c66d850501700",
    "Channel._set_remote_channel": "3c90f17d182e854d",
    "Channel._set_window": "6401e45cceb7594c",
    "Channel._unlink": "ef720e55c78f3d17",
    "Channel.close": "34c8ae894f7efea9",
    "Channel.recv": "c588dedeafd55548",
    "Channel.recv_stderr": "de743db409402fca",
    "Packetizer.__init__": "4cd0771c14e11f39",
    "Packetizer._check_keepalive": "3b0c2f57931ff10c",
    "Packetizer._trigger_rekey": "56ab325de06e2a51",
    "Packetizer.close": "8e3d62e3c6841ad2",
    "Packetizer.closed": "3fe818ec59685b9a",
    "Packetizer.complete_handshake": "7535964d1f740d47",
    "Packetizer.need_rekey": "d777da4ebfe80426",
    "Packetizer.read_message": "d5d2c6765cab09ef",
    "Packetizer.readline": "73b49b97a87a7991",
    "Packetizer.reset_seqno_in": "21a181ca8d031d96",
    "Packetizer.reset_seqno_out": "3979d50498351bcb",
    "Packetizer.send_message": "34dee385d300fb4d",
    "Packetizer.set_inbound_cipher": "6f797a65419ca6fa",
    "Packetizer.set_keepalive": "de57d05e729bfaba",
    "Packetizer.set_outbound_cipher": "927599b56046f711",
    "Packetizer.start_handshake": "5bdee6bcd762a668",
    "Packetizer.write_all": "83e66cd7deaaf087",
    "Transport.__init__": "32526bf5422926b6",
    "Transport._activate_inbound": "8b9b2e254a9fbab2",
    "Transport._activate_outbound": "2879dc34cb6ccf31",
    "Transport._check_banner": "b6aebd659ce8ff58",
    "Transport._get_engine": "8c64b12052e3302b",
    "Transport._negotiate_keys": "a300d8c5ab7b2448",
    "Transport._next_channel": "67f7b4b616fbed89",
    "Transport._parse_channel_open_failure": "ae1a6d56eac04cb5",
    "Transport._parse_channel_open_success": "812dcbef708a29e1",
    "Transport._parse_disconnect": "b96366ac7bf428b4",
    "Transport._parse_ext_info": "17c6f75bfd4b74c1",
    "Transport._parse_global_request": "d25c3e12b50cfd26",
    "Transport._parse_kex_init": "bbcf0a37f113a8d7",
    "Transport._parse_newkeys": "0510151c03b937fd",
    "Transport._parse_request_failure": "bceae877e3e29af4",
    "Transport._parse_request_success": "c9d83256aa7aed74",
    "Transport._really_parse_kex_init": "bacd878572172b28",
    "Transport._send_kex_init": "2df1e57bcdb16a04",
    "Transport._send_user_message": "3faeba789bc6c033",
    "Transport._verify_key": "076fc711c3454003",
    "Transport.close": "122a86eda9458044",
    "Transport.get_exception": "5f89c40589868213",
    "Transport.open_channel": "e89cdf34ea0f20b1",
    "Transport.run": "d658434778e57b94",
    "Transport.stop_thread": "dcaa209f8934dcb8",
}


# Whose inner working the overrides, and what moves the data once a transport is parked, count on.
LEANT_ON = [
    *(Transport.run, Transport.close, Transport.stop_thread, Transport._negotiate_keys, Transport._parse_kex_init),
    *(Transport._parse_newkeys, Transport._activate_inbound, Transport._activate_outbound),
    *(Transport._send_user_message, Transport.open_channel, Transport._next_channel),
    *(Packetizer._check_keepalive, Packetizer.need_rekey, Packetizer.write_all, Packetizer.complete_handshake),
    *(Packetizer.closed.fget,),
    *(Channel.__init__, Channel.recv, Channel.recv_stderr, Channel.close, Channel._check_add_window, Channel._unlink),
    *(Channel._set_window, Channel._set_remote_channel, Channel._handle_eof, Channel._handle_close, Channel._send),
    *(Channel._feed, BufferedPipe.feed, BufferedPipe.read, BufferedPipe.empty, BufferedPipe.close),
]


def overridden(ours: type, theirs: type) -> list[Any]:
    """The functions of theirs that ours replaces."""
    names = {name for name, value in vars(ours).items() if callable(value) and hasattr(theirs, name)}
    return [inspect.unwrap(getattr(theirs, name)) for name in names if name != "__doc__"]


def counted_on() -> dict[str, Any]:
    """By its name, each function of paramiko that must be as it was."""
    functions = overridden(transport.Transport, Transport) + overridden(negotiation.Negotiation, Transport)
    functions += overridden(packets.Packetizer, Packetizer) + LEANT_ON
    return {function.__qualname__: function for function in functions}


@pytest.mark.parametrize("name", sorted(counted_on()))
def test_as_it_was_read(name: str) -> None:
    source = inspect.getsource(counted_on()[name])
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == SUMS.get(name)


def test_every_sum_is_of_something() -> None:
    assert set(SUMS) == set(counted_on())


def test_no_thread_counts_the_time_of_a_key_exchange() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        packetizer = packets.Packetizer(ours)
        packetizer.start_handshake(15)
        assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        packetizer.complete_handshake()  # as paramiko calls it
        packetizer.close()
