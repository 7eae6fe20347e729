"""A relay by shared hops: the contract of streams; one that stops does not hold up another one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from contract import MIB, SOON, Ends, Meanwhile, StreamContract, digest, fill, noise, read_exactly, repeated
from lab import Lab
from shared import AGAIN, command, logins, program, relay


class TestShared(StreamContract):
    """By AES-GCM, in the holder's one thread."""

    tells_reset = False  # sshd closes the channel, and says no more
    held_up = 32 * MIB

    @pytest.fixture
    def ends(self, lab: Lab) -> Iterator[Ends]:
        lab.servers("h1", "h2")
        made = relay(lab, "h1/h2")
        yield made
        made.close()


class TestSharedWithoutGcm(StreamContract):
    """The holder's loop moves the bytes of every cipher."""

    tells_reset = False
    memory = 32 * MIB

    @pytest.fixture
    def ends(self, lab: Lab) -> Iterator[Ends]:
        lab.server("h1", Ciphers="aes128-ctr")
        lab.server("h2")
        made = relay(lab, "h1/h2")
        yield made
        made.close()


def test_a_reader_that_stops_holds_up_nobody_else(shared: Lab) -> None:
    with ExitStack() as stack:
        stopped, other = (relay(shared, "h1/h2") for _ in range(2))
        for each in (stopped, other):
            stack.callback(each.close)
        fill(stopped.far.fileno(), noise(MIB))
        fill(stopped.process.stdin.fileno(), noise(MIB))  # type: ignore[union-attr]
        data = noise(20 * MIB)
        with Meanwhile(lambda: other.far.sendall(data)):
            assert digest(other.receive(len(data))) == digest(data)
        with Meanwhile(lambda: other.send(data)):
            assert digest(other.far_receive(len(data))) == digest(data)
    assert logins(shared)[:2] == [1, 1]


def test_relays_with_one_stdout(shared: Lab) -> None:
    """The shell's pipe for all of a loop, as to `less`: when one has ended, one that is held up holds up nobody."""
    if shared.elsewhere:  # there the pipe's own flag is set, which the first relay takes back (Stdio.do_not_wait)
        pytest.skip("without /proc no pipe is opened anew")
    read, write = os.pipe()
    with ExitStack() as stack:
        for fd in (read, write):
            stack.callback(os.close, fd)
        first, second = (Ends(command(shared), env=shared.environment(), stdout=write) for _ in range(2))
        other = relay(shared)
        for each in (first, second, other):
            stack.callback(each.close)
        for each in (first, second):
            each.far.sendall(b"x")
            assert read_exactly(read, 1) == b"x"
        first.end()
        first.far.close()
        assert first.status() == 0
        fill(second.far.fileno(), noise(MIB))
        other.converse(3)
        assert os.get_blocking(write)


def test_who_was_held_up_was_not_silent(shared: Lab) -> None:
    """The target has said its last, and takes no more for a while: stdin still has bytes, so ssh has not gone."""
    program(shared, "from relay.pump import rules", "rules.PATIENCE[rules.LINGERING] = 0.0")
    ends = relay(shared, "h1/h2")
    data = noise(MIB)
    sent = fill(ends.process.stdin.fileno(), data)  # type: ignore[union-attr]
    ends.end()
    ends.far_end()
    assert ends.receive() == b""
    assert digest(ends.far_receive()) == digest(repeated(data, sent))
    assert ends.status() == 0
    ends.close()


def test_files_and_devices_for_stdin_and_stdout(shared: Lab) -> None:
    """Files and devices are always ready: no loop can wait for them."""
    words, heard = shared.top / "words", shared.top / "heard"
    data = noise(5 * MIB)
    words.write_bytes(data)
    with words.open() as stdin, heard.open("wb") as stdout:
        ends = Ends(command(shared, "h1/h2"), env=shared.environment(), stdin=stdin, stdout=stdout)
    assert digest(ends.far_receive()) == digest(data)
    ends.far.sendall(data)
    ends.far_end()
    assert ends.status() == 0
    assert digest(heard.read_bytes()) == digest(data)
    ends.close()
    with open(os.devnull, "r+b") as null:
        ends = Ends(command(shared, "h1/h2"), env=shared.environment(), stdin=null, stdout=null)
    assert ends.far_receive() == b""
    ends.far.sendall(data)
    ends.far_end()
    assert ends.status() == 0
    ends.close()


def test_a_netcat_that_dies_is_told_and_holds_up_nobody(lab: Lab) -> None:
    """Nothing waits for its exit status, which never comes: the waiting thread would be the one that serves all."""
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.server("h2")
    program(lab, "from relay.ssh import netcat", "netcat._LAST_WORDS = 600.0")
    killed = lab.start(
        *(lab.program, "-F", lab.write_config(), *AGAIN, "--netcat-command", "echo why >&2; kill -9 $$", "h1/h2")
    )
    assert killed.communicate(timeout=SOON) == (
        b"",
        b"pyrelay: shared hop (h1): why\n"
        b"pyrelay: the netcat on shared hop (h1) ended; "
        b"nothing came from 127.0.0.1 port %d\n" % lab["h2"].port,
    )
