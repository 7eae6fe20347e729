"""A channel that has been asked for, when the transport ends around it."""

from __future__ import annotations

import socket

import paramiko
import pytest
from contract import SOON
from pair import Pair

from relay.run.progress import Progress
from relay.ssh.wire.opening import Opening, Refused
from relay.ssh.wire.transport import Transport


def ended(_: bytes) -> None:
    """What writing does when the server has left."""
    raise EOFError


def ask(pair: Pair) -> tuple[Opening, paramiko.Channel]:
    """A channel that has been opened, and the server's end of it."""
    opening = pair.client.ask("direct-tcpip", "there", 22)
    far = pair.server.accept(SOON)
    assert far is not None
    opening.wait(SOON)
    return opening, far


def test_what_was_opened_still_has_its_bytes(pair: Pair) -> None:
    opening, far = ask(pair)
    far.sendall(b"last words")
    far.close()
    pair.server.close()
    pair.client.join(SOON)
    assert not pair.client.is_active()
    channel = opening.wait()
    assert channel.recv(100) == b"last words"
    assert channel.eof_received


def test_what_was_opened_can_be_dropped_though_nothing_can_be_sent_any_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, _ = ask(pair)
    monkeypatch.setattr(pair.client.packetizer, "write_all", ended)
    opening.drop()  # it raises nothing
    assert opening.wait(SOON).closed


def test_what_was_not_opened_has_the_refusal_or_the_transports_error(pair: Pair) -> None:
    with pytest.raises(Refused):
        pair.client.ask("session").wait(SOON)
    pair.near.shutdown(socket.SHUT_RDWR)
    pair.client.join(SOON)
    with pytest.raises(EOFError):
        pair.client.ask("direct-tcpip", "there", 22).wait(SOON)


def test_an_acknowledgement_that_cannot_be_sent_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server said before it left is still to be read."""
    near, far = socket.socketpair()
    with near, far:
        transport = Transport(near, None, Progress(), direct=False)
        transport.clear_to_send.set()
        tried: list[bytes] = []

        def write_all(data: bytes) -> None:
            tried.append(data)
            ended(data)

        monkeypatch.setattr(transport.packetizer, "write_all", write_all)
        transport.carry_acknowledgements()  # it raises nothing
        assert len(tried) == 1
