"""Every kind of stream and of hop, held to the contract (relay/contract.py, tests/contract.py)."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Callable

import pytest
from contract import BytesContract, HopContract
from dialled import Dialled
from lab import Lab
from masters import start_master
from shared import holder

from relay.contract import Hop, Stream

Make = Callable[[int], Stream]
Cut = Callable[[socket.socket], None]
ROUTE = "h1/h2"


def end_connections(lab: Lab, name: str) -> None:
    for connection in lab[name].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)


def end_programs(lab: Lab, words: str) -> None:
    for pid, line in lab.processes().items():
        if words in line:
            os.kill(pid, signal.SIGKILL)


# Streams that are their descriptors


class TestTcp(BytesContract):
    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        return Dialled(lab, "").stream

    @pytest.fixture
    def cut(self) -> Cut:
        def reset(far: socket.socket) -> None:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()

        return reset


class TestCommand(BytesContract):
    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        return Dialled(lab, "").command

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_programs(lab, "pyrelay")


class TestSsh(BytesContract):
    """The stdin and stdout of the ssh that carries the last hop."""

    outlasts_far_end = False

    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        lab.servers("h1", "h2")
        return Dialled(lab, "--engine=ssh", ROUTE).stream

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_programs(lab, "ssh ")


class TestMaster(BytesContract):
    outlasts_far_end = False

    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        lab.server("h1", ControlPath=lab.top / "master")
        start_master(lab, "h1", lab.top / "master")
        return Dialled(lab, "h1").stream

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_programs(lab, "ssh ")


class TestLent(BytesContract):
    """What the holder of shared hops lends to another program."""

    @pytest.fixture
    def make(self, shared: Lab) -> Make:
        return Dialled(shared, "--share", "10m", ROUTE).lent

    @pytest.fixture
    def cut(self, shared: Lab) -> Cut:
        return lambda _: os.kill(holder(shared), signal.SIGKILL)


# Streams whose bytes pass through this process


class TestChannel(BytesContract):
    moves = "attach"

    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        lab.servers("h1", "h2")
        return Dialled(lab, ROUTE).stream

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_connections(lab, "h2")


class TestChannelOfAnotherCipher(BytesContract):
    moves = "attach"

    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        lab.server("h1", Ciphers="aes128-ctr")
        return Dialled(lab, "h1").stream

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_connections(lab, "h1")


class TestNetcat(BytesContract):
    moves = "attach"
    outlasts_far_end = False

    @pytest.fixture
    def make(self, lab: Lab) -> Make:
        lab.server("h1", extra="AllowTcpForwarding no")
        return Dialled(lab, "--netcat", "h1").stream

    @pytest.fixture
    def cut(self, lab: Lab) -> Cut:
        return lambda _: end_connections(lab, "h1")


# Another process moves the bytes


class TestShared(BytesContract):
    moves = "serve"

    @pytest.fixture
    def make(self, shared: Lab) -> Make:
        return Dialled(shared, "--share", "10m", ROUTE).shared

    @pytest.fixture
    def cut(self, shared: Lab) -> Cut:
        return lambda _: os.kill(holder(shared), signal.SIGKILL)


# Hops


class TestSession(HopContract):
    @pytest.fixture
    def hop(self, lab: Lab) -> Hop:
        lab.servers("h1", "h2")
        return Dialled(lab, ROUTE).hop()

    @pytest.fixture
    def cut(self, lab: Lab) -> Callable[[], None]:
        return lambda: end_connections(lab, "h2")


class TestMasterHop(HopContract):
    is_ours = False

    @pytest.fixture
    def hop(self, lab: Lab) -> Hop:
        lab.server("h1", ControlPath=lab.top / "master")
        start_master(lab, "h1", lab.top / "master")
        return Dialled(lab, "h1").hop()

    @pytest.fixture
    def cut(self, lab: Lab) -> Callable[[], None]:
        return lambda: end_programs(lab, "ssh ")


class TestOpensshHop(HopContract):
    is_ours = False  # what it opens are programs, which end with the run
    refuses = False
    is_entered = False

    @pytest.fixture
    def hop(self, lab: Lab) -> Hop:
        lab.server("h1")
        return Dialled(lab, "--engine=ssh", "h1").hop()

    @pytest.fixture
    def cut(self, lab: Lab) -> Callable[[], None]:
        return lab["h1"].stop
