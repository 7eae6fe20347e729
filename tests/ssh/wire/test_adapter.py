"""A hop that is reached through a stream that is neither a socket nor a channel."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
from contract import SOON, Meanwhile, digest, noise
from flow_ends import give, read_all, receive
from pair import WINDOW, Pair

from relay.errors import RelayError
from relay.ssh.wire.adapter import as_socket


class Masked:
    """A stream whose bytes on the wire are not its own, as those inside TLS are not."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = threading.Event()

    def recv(self, size: int) -> bytes:
        return self.sock.recv(size).translate(MASK)

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(data.translate(MASK))

    def close(self) -> None:
        self.closed.set()
        self.sock.shutdown(socket.SHUT_RDWR)


MASK = bytes(byte ^ 0x55 for byte in range(256))


def test_a_transport_over_it() -> None:
    """Set up, taken over, both ways; and its end closes the stream."""
    near, far = socket.socketpair()
    with near, far:
        ours, theirs = Masked(near), Masked(far)
        with Pair(stream=as_socket(ours), far=as_socket(theirs)) as pair:  # type: ignore[arg-type]
            channel, far_channel = pair.open()
            flow = pair.attach(channel)
            up, down = noise(2 * WINDOW, 1), noise(2 * WINDOW, 2)
            got: list[bytes] = []
            with Meanwhile(lambda: far_channel.sendall(down)):
                assert digest(receive(pair, flow, len(down))) == digest(down)
            with Meanwhile(lambda: got.append(read_all(far_channel, len(up)))):
                give(pair, flow, up)
            assert digest(got[0]) == digest(up)
            pair.client.close()
            pair.drive(lambda: flow.error)
        assert ours.closed.wait(SOON)
        assert theirs.closed.wait(SOON)


@pytest.mark.parametrize("error", [None, OSError("lost"), RelayError("TLS: bad record")])
def test_its_end(error: Exception | None) -> None:
    """Whatever that is, the socket ends; why, the stream's check says."""
    closed = threading.Event()

    def recv(_: int) -> bytes:
        if error is not None:
            raise error
        return b""

    stream = SimpleNamespace(recv=recv, sendall=lambda _: None, close=closed.set)
    with as_socket(stream) as sock:
        sock.settimeout(SOON)
        assert sock.recv(1) == b""
    assert closed.wait(SOON)
