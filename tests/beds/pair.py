"""An SSH client and a server in this process, joined by a socket pair, and a server that can break every rule.

The server is paramiko's Transport over our own packets. Its keys are at hand,
so it can send what no server would: `say` seals any payload, `raw` any bytes.
"""

from __future__ import annotations

import functools
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import paramiko
from contract import SOON, Meanwhile

from relay.contract import Connection as Driven
from relay.run.progress import Progress
from relay.ssh.wire.connection import Connection
from relay.ssh.wire.flow import Flow
from relay.ssh.wire.packets import Packetizer
from relay.ssh.wire.takeover import attach
from relay.ssh.wire.transport import Transport

GCM = "aes128-gcm@openssh.com"
KEY = paramiko.ECDSAKey.generate()
LOOK_MS = 20  # milliseconds between two looks at what another thread has done
WINDOW = 2**21  # bytes; what paramiko gives a channel


class Server(paramiko.ServerInterface):
    """Lets everybody in, and forwards everywhere."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: object) -> int:
        return paramiko.OPEN_SUCCEEDED


class FarTransport(paramiko.Transport):
    """The server's, with our packet ciphers."""

    _cipher_info = Transport._cipher_info
    _get_engine = Transport._get_engine

    def __init__(self, sock: Any, channel: paramiko.Channel | None = None) -> None:
        super().__init__(sock, packetizer_class=functools.partial(Packetizer, channel=channel))


class Pair:
    """client and server: the two transports. channels: open() makes another one; (client's, server's).

    kind: a cipher, and a MAC after it where it needs one that is not our first. strict: whether the server knows strict
    key exchange.
    """

    def __init__(self, kind: str = GCM, stream: Any = None, far: Any = None, *, strict: bool = True) -> None:
        if stream is None:
            stream, far = socket.socketpair()
        self.near, self.far = stream, far
        nested = isinstance(stream, paramiko.Channel)
        self.client = Transport(None if nested else stream, stream if nested else None, Progress())
        self.server = FarTransport(far, far if nested else None)
        for transport in (self.client, self.server):
            cipher, _, mac = kind.partition(" ")
            transport._preferred_ciphers = (cipher,)
            transport._preferred_macs = (mac,) if mac else Transport._preferred_macs
        self.server.advertise_strict_kex = strict
        self.server.add_server_key(KEY)
        self.server.start_server(event=threading.Event(), server=Server())
        self.client.start_client(timeout=SOON)
        self.client.auth_none("somebody")
        self.flows: list[Flow] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for transport in (self.client, self.server):
            with suppress(EOFError):  # what carries it may have ended before
                transport.close()
            transport.join(SOON)
        for sock in (self.near, self.far):
            sock.close()

    def open(self) -> tuple[paramiko.Channel, paramiko.Channel]:
        """A channel: the client's end and the server's."""
        opened: list[paramiko.Channel] = []

        def open_channel() -> None:
            opened.append(self.client.ask("direct-tcpip", "there", 22).wait(SOON))

        with Meanwhile(open_channel):
            if self.flows:
                self.drive(lambda: opened)
        far = self.server.accept(SOON)
        assert far is not None
        return opened[0], far

    def attach(self, near: paramiko.Channel) -> Flow:
        """Have this thread move the channel's data, by `drive`."""
        flow = attach(near)
        assert flow is not None
        self.flows.append(flow)
        return flow

    def say(self, payload: bytes) -> None:
        """The server sends a message with any payload."""
        self.server.packetizer.send_message(paramiko.Message(payload))

    def raw(self, data: bytes) -> None:
        """The server sends any bytes."""
        self.far.sendall(data)

    @property
    def connection(self) -> Connection:
        return self.flows[0].link.connection

    def drive(self, done: Callable[[], object]) -> None:
        """Move data until it is done, or nothing happens any more."""
        drive(self.connection, done)


def drive(connection: Driven, done: Callable[[], object]) -> None:
    """Move a connection's data until it is done, which may be another thread's doing; fails when that takes long."""
    deadline = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < deadline, "nothing happens any more"
        poll = select.poll()
        poll.register(connection.wake_fd, select.POLLIN)
        if connection.fd >= 0:
            reading = select.POLLIN if connection.reading else 0
            poll.register(connection.fd, reading | (select.POLLOUT if connection.sending else 0))
        behind = getattr(connection, "behind", False)
        ready = dict(poll.poll(0 if behind else LOOK_MS))
        if connection.wake_fd in ready:
            connection.look_round()
        if ready.get(connection.fd, 0) & select.POLLOUT:
            connection.flush()
        if behind or ready.get(connection.fd, 0) & ~select.POLLOUT:
            connection.receive()
