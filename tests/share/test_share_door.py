"""Who comes in to the holder where descriptors or threads run out, and who leaves before he is served."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest.mock import Mock

import pytest
from contract import SOON

from relay.share.door import AGAIN, SPARE, Door
from relay.share.holder import Holder
from relay.share.holder_wire import HolderWire
from relay.share.wire import Ended, Wire, has_come

CALL, LIST = ("call", "a route"), ("list",)


class Loop:
    """What a door asks of its loop; the test says when anything happens."""

    def __init__(self) -> None:
        self.accept: Callable[[], None] | None = None
        self.later: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, _fd: int, accept: Callable[[], None]) -> None:
        self.accept = accept

    def remove_reader(self, _fd: int) -> None:
        self.accept = None

    def remove_writer(self, _fd: int) -> None:
        pass

    def call_soon(self, work: Callable[[], None]) -> None:
        work()

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        self.later.append((seconds, work))


class Hall:
    """A door and what comes of those who knock. served, turned: how many."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()  # of a client
        self.client = Wire(self.far)
        self.loop = Loop()
        self.refused: list[OSError] = []  # what the next calls of accept raise
        self.served = threading.Event()
        self.turned = 0
        listener, loop = cast("Any", self), cast("Any", self.loop)
        self.door = Door(listener, loop, lambda _: self.served.set(), self.turn)
        self.door.open()

    def accept(self) -> tuple[socket.socket, None]:
        if self.refused:
            raise self.refused.pop()
        return self.near, None

    def turn(self) -> None:
        self.turned += 1

    def setblocking(self, _: bool) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass

    def told(self) -> str:
        """What a client that was turned away is told."""
        assert (self.turned, self.served.is_set(), self.door.requests) == (1, False, set())
        kind, (why,) = self.client.receive()
        assert kind == "full"
        return why.decode()


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall()
    yield made
    made.near.close()
    made.far.close()
    if made.door._spare >= 0:
        os.close(made.door._spare)


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))


def test_a_command_is_answered_where_no_relay_has_room(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may say a moment later what it is."""
    limit(monkeypatch, 0)

    def speaks(fd: int, seconds: float) -> bool:
        if seconds:
            hall.client.send(*LIST)
        return has_come(fd, seconds)

    monkeypatch.setattr("relay.share.door.has_come", speaks)
    hall.door._accept()
    assert hall.served.wait(SOON)
    assert Wire(hall.near).receive() == ("list", [])


@pytest.mark.parametrize("message", [CALL, None], ids=["call", "nothing"])
def test_a_relay_has_no_room(hall: Hall, monkeypatch: pytest.MonkeyPatch, message: tuple[str, ...] | None) -> None:
    limit(monkeypatch, 0)
    if message is not None:
        hall.client.send(*message)
    hall.door._accept()
    assert hall.told().endswith("has no descriptors left")


@pytest.mark.parametrize("under_way", [0, 1])
def test_each_relay_that_has_come_in_will_need_two_more(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, under_way: int
) -> None:
    limit(monkeypatch, hall.near.fileno() + SPARE + 2)
    hall.client.send(*CALL)
    other = HolderWire(hall.far, cast("Any", hall.loop))
    hall.door.requests.update([other][:under_way])
    hall.door._accept()
    hall.door.requests.discard(other)
    if under_way:
        assert hall.told().endswith("has no descriptors left")
    else:
        assert hall.served.wait(SOON)


def test_the_last_descriptor_is_for_saying_so(hall: Hall) -> None:
    """And is kept again for the next one."""
    hall.refused = [OSError(errno.EMFILE, "")]
    hall.client.send(*CALL)
    hall.door._accept()
    assert hall.told().endswith("has no descriptors left")
    assert hall.door._spare >= 0


def test_without_any_descriptor_it_looks_again_later(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at once, again and again."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        hall.refused = [OSError(errno.EMFILE, "")] * 2
        hall.door._accept()
    [(seconds, look)] = hall.loop.later
    assert (seconds, hall.loop.accept) == (AGAIN, None)
    look()
    assert hall.loop.accept is not None
    hall.door.close()
    look()
    assert hall.loop.accept is None


def test_a_thread_that_cannot_be_started(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    hall.client.send(*CALL)
    hall.door._accept()
    assert hall.told().endswith("can start no thread")


class Inside:
    """A holder in this process, whose loop does not run, and a relay that has come in."""

    def __init__(self, directory: Path) -> None:
        self.near, self.far = socket.socketpair()
        self.listener = socket.socket(socket.AF_UNIX)
        self.holder = Holder(self.listener, -1, str(directory))
        self.wire = HolderWire(self.near, self.holder.loop)
        self.holder._door.requests.add(self.wire)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    made = Inside(tmp_path)
    yield made
    os.close(made.holder._door._spare)
    made.holder.loop.close()
    for each in (made.near, made.far, made.listener):
        each.close()


def test_a_holder_does_not_end_while_a_relay_has_not_said_what_it_wants(inside: Inside) -> None:
    inside.holder._look_round()
    assert inside.holder._listening


def test_a_relay_that_has_gone_when_its_channel_is_open(inside: Inside) -> None:
    """The channel is closed; the target would wait for ever."""
    job = Mock(leads_to=1, unserved="")
    inside.far.shutdown(socket.SHUT_WR)
    with pytest.raises(Ended):
        inside.holder._do(job, inside.wire)
    job.open.return_value.close.assert_called_once_with()
