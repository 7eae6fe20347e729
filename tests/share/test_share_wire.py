"""The messages between a relay and the process that holds the shared hops."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.share.wire import FDS_MOST, BadMessage, Ended, Wire, pack, unpack


@pytest.mark.parametrize("fields", [[], [b""], [b"a", b"", b"\xff" * 70_000]])
def test_fields_come_back(fields: list[bytes]) -> None:
    assert unpack(pack(fields)) == fields


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\1", b"\0\0\0\0\xff\xff\xff\xff"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_none(data: bytes) -> None:
    try:
        fields = unpack(data)
    except BadMessage:
        return
    assert pack(fields) == data


def test_a_message_that_is_too_long() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"\x7f\xff\xff\xff")
        with pytest.raises(BadMessage):
            Wire(near).receive()


def test_descriptors_that_nobody_expects() -> None:
    near, far = socket.socketpair()
    with near, far:
        wire = Wire(near)
        for _ in range(FDS_MOST):
            socket.send_fds(far, [b"\0"], [far.fileno(), far.fileno()])
        with pytest.raises(BadMessage, match="nobody expects"):
            wire.receive()
        wire.close()


def test_the_end_of_the_socket() -> None:
    near, far = socket.socketpair()
    with near:
        far.sendall(b"\0\0\0\x08\0\0")
        far.close()
        with pytest.raises(Ended):
            Wire(near).receive()


def test_who_is_told_all_may_leave_at_once() -> None:
    """A relay hands its stdin over, and a quick target ends all before sendmsg has returned."""

    class Quick(socket.socket):
        def sendmsg(self, *message: Any) -> int:
            sent = super().sendmsg(*message)
            far.close()
            return sent

    near, far = socket.socketpair()
    with Quick(fileno=near.detach()) as quick:
        Wire(quick).send("serve", fds=(0, 1))
