"""Asking a proxy for a connection, by ourselves and in this process; what a client says to a SOCKS5 proxy."""

from __future__ import annotations

from contextlib import closing

import pytest

from relay.dial.proxy.leg import connect
from relay.errors import RelayError
from relay.run import Run
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.run.secret import take
from relay.spec.options import Options
from relay.spec.proxy import Proxy

ONION = "a" * 56 + ".onion"
SECONDS = 30.0  # more than any machine needs for what succeeds


def around(prompt: Prompt, progress: Progress) -> Run:
    return Run(Options(), progress, prompt, Children(secret=take()))


def nobody(progress: Progress) -> Run:
    return around(Prompt(progress, Children(), batch=True), progress)


def ask(proxy: Proxy, host: str = "target.example", port: int = 22, seconds: float = SECONDS) -> bytes:
    """Connect and return all that the far side then says."""
    progress = Progress(seconds)
    with closing(connect(proxy, host, port, nobody(progress))) as sock:
        assert sock.descriptor is not None
        assert sock.descriptor.gettimeout() is None
        said = b""
        while data := sock.recv(1000):
            said += data
        return said


def fails(proxy: Proxy, host: str = "target.example", port: int = 22, seconds: float = SECONDS) -> RelayError:
    with pytest.raises(RelayError) as caught:
        ask(proxy, host, port, seconds)
    return caught.value


def request(host: bytes, port: int = 22) -> bytes:
    return b"\x05\x01\x00\x03" + bytes((len(host),)) + host + port.to_bytes(2)


def said_of(user: bytes, password: bytes, host: bytes, port: int = 22) -> bytes:
    """All that a client with a user and a password says to a SOCKS5 proxy."""
    fields = b"".join(bytes((len(text),)) + text for text in (user, password))
    return b"\x05\x02\x00\x02\x01" + fields + request(host, port)
