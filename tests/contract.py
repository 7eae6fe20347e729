"""What every stream and every hop must do, whatever kind it is (relay/contract.py): one suite for all of them.

A kind is a subclass, whose name begins with Test:

StreamContract   a relay of such a stream. `command`, a fixture: the argv of a pyrelay that relays to a port of
                 loopback. The near end is that process's stdin and stdout, as ssh would hold them.
BytesContract    the stream itself. `make`, a fixture: makes one to a port of loopback; `cut`: breaks what carries it.
HopContract      `hop`, a fixture: one that has been entered; `cut`: ends it.

The far end is a socket of the test.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from peers import LOOPBACK, closed_port, until

from relay.contract import Flow, Hop, Stream
from relay.errors import RelayError
from relay.pump.rules import CLOSING
from relay.run.progress import Progress

SOON = 30.0  # seconds; nothing here takes one, but the machine may be busy
QUIET_MS = 400  # milliseconds without room to write, after which a sender counts as held up
MIB = 1024 * 1024

Command = Callable[[int], Sequence[str]]  # the argv of a relay to that port of loopback


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that repeat nowhere: a lost, doubled or swapped block shows."""
    return random.Random(seed).randbytes(size)


class Ends:
    """A relay that runs, and both its ends.

    process: the relay. write, read: file descriptors of its stdin and stdout;
    far: the target's socket.
    """

    def __init__(self, command: Command, **options: Any) -> None:
        self.listener = socket.create_server((LOOPBACK, 0))
        self.listener.settimeout(SOON)
        self.process = subprocess.Popen(
            command(self.listener.getsockname()[1]),
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0, **options},
        )
        self.far, _ = self.listener.accept()
        self.far.settimeout(SOON)

    # Near

    def send(self, data: bytes) -> None:
        """Write all of data to the relay's stdin."""
        assert self.process.stdin
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def end(self) -> None:
        """Close the relay's stdin."""
        assert self.process.stdin
        self.process.stdin.close()

    def receive(self, size: int = -1) -> bytes:
        """Read size bytes from the relay's stdout, or all until its end."""
        assert self.process.stdout
        return read_exactly(self.process.stdout.fileno(), size)

    def leave(self) -> None:
        """Close the relay's stdout."""
        assert self.process.stdout
        self.process.stdout.close()

    # Far

    def far_receive(self, size: int = -1) -> bytes:
        """Read size bytes at the target, or all until the end."""
        parts = []
        while size and (part := self.far.recv(MIB if size < 0 else min(size, MIB))):
            parts.append(part)
            size -= len(part) if size > 0 else 0
        return b"".join(parts)

    def far_end(self) -> None:
        """The target sends no more; it still listens."""
        self.far.shutdown(socket.SHUT_WR)

    def far_reset(self) -> None:
        """The target's system answers with a reset from now on."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()

    def converse(self, messages: int) -> None:
        """So many small messages there and back, each after the one before."""
        for message in map(bytes, zip(noise(messages), strict=True)):
            self.send(message)
            assert self.far_receive(1) == message
            self.far.sendall(message)
            assert self.receive(1) == message

    def overfill(self) -> tuple[bytes, bytes]:
        """The target ends its side while most of what stdin was given is still on the way.

        Returns all that stdin was given, and what the target has read of it.

        Nothing of it is unread at stdin, whose end the relay then sees at once.
        """
        assert self.process.stdin
        stdin = self.process.stdin.fileno()
        data = noise(MIB)
        sent = repeated(data, fill(stdin, data))
        self.far_end()
        assert self.receive() == b""
        begin = b""
        while unread(stdin):
            begin += self.far_receive(64 * 1024)
            select.select([], [], [], 0.01)  # windows are refilled through the hops, and no event here says when
        return sent, begin

    # The relay

    def status(self) -> int:
        """The relay's exit status, once it has ended; it has to."""
        return self.process.wait(SOON)

    def said(self) -> str:
        """What the relay has said on stderr; waits for its end."""
        assert self.process.stderr
        return read_exactly(self.process.stderr.fileno()).decode()

    def peak_memory(self) -> int:
        """The most memory that the relay has had so far, in bytes; what it has now where the system is not Linux."""
        if sys.platform != "linux":
            return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.process.pid)])) * 1024
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

    def close(self) -> None:
        """End the relay, and close everything."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr, self.far, self.listener):
            if stream is not None:
                stream.close()


def read_exactly(fd: int, size: int = -1) -> bytes:
    """Read size bytes, or all until the end of file, which may come before them; not for ever."""
    parts = []
    while size:
        assert select.select([fd], [], [], SOON)[0], "nothing arrives"
        part = os.read(fd, MIB if size < 0 else min(size, MIB))
        if not part:
            break
        parts.append(part)
        size -= len(part) if size > 0 else 0
    return b"".join(parts)


def fill(fd: int, data: bytes) -> int:
    """Write data over and over until there is no more room for a while; return how many bytes that took."""
    os.set_blocking(fd, False)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    written = 0
    while poll.poll(QUIET_MS):
        try:
            # On from where the last write ended: the reader knows what comes next.
            at = written % len(data)
            written += os.write(fd, data[at : at + 64 * 1024])
        except BlockingIOError:
            pass
    os.set_blocking(fd, True)
    return written


def unread(pipe: int) -> int:
    """Bytes that the reader of a pipe has not read yet."""
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0]


class Meanwhile:
    """Work done in a thread while the test does something else; `with` waits for it and raises its error."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "still at work"
        if self._error:
            raise self._error


class StreamContract:
    """The suite; see the head of this file."""

    held_up = 24 * MIB  # bytes that system buffers and windows on the way may take in for a reader that does not read
    memory = 16 * MIB  # bytes that the relay's memory may grow by meanwhile
    tells_reset = True  # whether a reset by the target reaches this side as one
    outlasts_far_end = True  # whether a target that has said its last can still be told something

    @pytest.fixture
    def ends(self, command: Command) -> Iterator[Ends]:
        made = Ends(command)
        yield made
        made.close()

    @pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65535, 65536, 65537, 262143, 262144, 262145, 3 * MIB + 1])
    def test_sizes(self, ends: Ends, size: int) -> None:
        data = noise(size)
        with Meanwhile(lambda: ends.send(data)):
            assert ends.far_receive(size) == data
        with Meanwhile(lambda: ends.far.sendall(data)):
            assert ends.receive(size) == data

    def test_a_conversation_and_much_both_ways_at_once(self, ends: Ends) -> None:
        ends.converse(200)
        up, down = noise(16 * MIB, 1), noise(16 * MIB, 2)
        received: list[bytes] = []
        with (
            Meanwhile(lambda: ends.send(up)),
            Meanwhile(lambda: ends.far.sendall(down)),
            Meanwhile(lambda: received.append(ends.far_receive(len(up)))),
        ):
            assert ends.receive(len(down)) == down
        assert received == [up]
        ends.converse(3)

    def test_near_ends_first(self, ends: Ends) -> None:
        ends.send(b"question")
        ends.end()
        assert ends.far_receive() == b"question"
        # The far end has seen the end of file: whatever it says now is late.
        answer = noise(MIB)
        with Meanwhile(lambda: ends.far.sendall(answer)):
            assert ends.receive(len(answer)) == answer
        ends.far_end()
        assert ends.receive() == b""
        assert ends.status() == 0

    def test_far_ends_first(self, ends: Ends) -> None:
        ends.far.sendall(b"greeting")
        ends.far_end()
        assert ends.receive() == b"greeting"
        if not self.outlasts_far_end:
            assert ends.status() == 0
            return
        data = noise(MIB)

        def send() -> None:
            ends.send(data)
            ends.end()

        with Meanwhile(send):
            assert ends.far_receive() == data
        assert ends.status() == 0

    def test_the_last_bytes_may_take_their_time(self, ends: Ends) -> None:
        """The target has said its last, and looks away for a while."""
        if not self.outlasts_far_end:
            return
        sent, begin = ends.overfill()
        ends.end()
        with suppress(subprocess.TimeoutExpired):
            ends.process.wait(1.5 * CLOSING)
        assert digest(begin + ends.far_receive()) == digest(sent)
        assert ends.status() == 0

    def test_far_closes_while_stdin_stays_open(self, ends: Ends) -> None:
        ends.far.sendall(b"goodbye")
        ends.far.close()
        assert ends.receive() == b"goodbye"
        assert ends.status() == 0

    def test_empty_from_far(self, ends: Ends) -> None:
        ends.far.close()
        assert ends.receive() == b""
        assert ends.status() == 0

    def test_empty_from_near(self, ends: Ends) -> None:
        ends.end()
        assert ends.far_receive() == b""
        ends.far.close()
        assert ends.status() == 0

    def test_near_reads_late(self, ends: Ends) -> None:
        data = noise(MIB)
        before = ends.peak_memory()
        sent = fill(ends.far.fileno(), data)
        assert sent < self.held_up
        assert ends.peak_memory() - before < self.memory
        # The other direction is not held up.
        ends.send(b"still there?")
        assert ends.far_receive(12) == b"still there?"
        ends.far_end()
        assert digest(ends.receive()) == digest(repeated(data, sent))

    def test_far_reads_late(self, ends: Ends) -> None:
        data = noise(MIB)
        assert ends.process.stdin
        before = ends.peak_memory()
        sent = fill(ends.process.stdin.fileno(), data)
        assert sent < self.held_up
        assert ends.peak_memory() - before < self.memory
        ends.far.sendall(b"still there?")
        assert ends.receive(12) == b"still there?"
        ends.end()
        assert digest(ends.far_receive()) == digest(repeated(data, sent))

    @pytest.mark.parametrize("messages", [0, 20])
    def test_reset(self, ends: Ends, messages: int) -> None:
        data = noise(100_000)
        ends.far.sendall(data)
        assert ends.receive(len(data)) == data
        ends.converse(messages)
        ends.far_reset()
        assert ends.receive() == b""
        lost = (1, "pyrelay: the link was lost: connection reset by peer\n")
        assert (ends.status(), ends.said()) == (lost if self.tells_reset else (0, ""))

    def test_reader_leaves(self, ends: Ends) -> None:
        ends.converse(20)
        ends.leave()
        assert ends.far_receive() == b""
        assert (ends.status(), ends.said()) == (0, "")

    def test_reader_leaves_amid_data(self, ends: Ends) -> None:
        fill(ends.far.fileno(), noise(MIB))
        ends.leave()
        assert ends.status() == 0

    def test_both_leave(self, ends: Ends) -> None:
        """The end of ssh by kill -9, before it got a byte."""
        ends.leave()
        ends.end()
        assert ends.far_receive() == b""
        assert ends.status() in {0, 1}  # 1 when the set-up was not quite over; nobody is left to see it

    def test_both_leave_amid_data(self, ends: Ends) -> None:
        """ssh has gone, and the target does not take what it has said."""
        ends.far.sendall(b"hello")
        assert ends.receive(5) == b"hello"
        assert ends.process.stdin
        fill(ends.process.stdin.fileno(), noise(MIB))
        ends.leave()
        ends.end()
        assert ends.status() == 0

    def test_last_words(self, ends: Ends) -> None:
        """ssh says goodbye to the server and exits."""
        ends.far.sendall(b"hello")
        assert ends.receive(5) == b"hello"
        # Both in one go: the relay sleeps until ssh has left.
        ends.process.send_signal(signal.SIGSTOP)
        ends.send(b"goodbye")
        ends.leave()
        ends.end()
        ends.process.send_signal(signal.SIGCONT)
        assert ends.far_receive() == b"goodbye"
        assert ends.status() == 0


class BytesContract:
    """A stream in this process; see the head of this file."""

    moves = "descriptor"  # how its bytes are moved; or "attach", "serve", or "threads": none of the three
    outlasts_far_end = True  # as for StreamContract

    @pytest.fixture
    def ends(self, make: Callable[[int], Stream]) -> Iterator[tuple[Stream, socket.socket]]:
        with socket.create_server((LOOPBACK, 0)) as listener:
            listener.settimeout(SOON)
            stream = make(listener.getsockname()[1])
            far, _ = listener.accept()
        far.settimeout(SOON)
        with far:
            yield stream, far
            stream.close()

    def test_bytes_and_ends(self, ends: tuple[Stream, socket.socket]) -> None:
        stream, far = ends
        data = noise(300_000)
        with Meanwhile(lambda: stream.sendall(data)):
            assert far_exactly(far, len(data)) == data
        with Meanwhile(lambda: far.sendall(data)):
            assert near_exactly(stream, len(data)) == data
        stream.shutdown_write()
        assert far.recv(1) == b""
        far.sendall(b"answer")
        assert near_exactly(stream, 6) == b"answer"
        far.close()
        assert stream.recv(1) == b""
        stream.check()

    def test_the_far_end_is_the_first(self, ends: tuple[Stream, socket.socket]) -> None:
        stream, far = ends
        far.sendall(b"last")
        far.shutdown(socket.SHUT_WR)
        assert near_exactly(stream, 5) == b"last"
        if self.outlasts_far_end:
            stream.sendall(b"answer")
            stream.shutdown_write()
            assert far_exactly(far, 7) == b"answer"
        stream.check()

    def test_how_its_bytes_are_moved(self, ends: tuple[Stream, socket.socket]) -> None:
        """In one way, which it knows; and what moves them finds all of them there."""
        stream, far = ends
        far.sendall(b"one")
        assert near_exactly(stream, 3) == b"one"
        assert (stream.descriptor is not None) == (self.moves == "descriptor")
        if self.moves != "serve":
            assert stream.serve(0, 1, parent=os.getppid(), alarm=-1) is None
        flow = stream.attach()
        assert (flow is not None) == (self.moves == "attach")
        far.sendall(b"two")
        if stream.descriptor is not None:
            assert read_exactly(stream.descriptor.fileno(), 3) == b"two"
        elif flow is not None:
            self.drive(stream, flow, far)
        else:
            assert near_exactly(stream, 3) == b"two"

    def drive(self, stream: Stream, flow: Flow, far: socket.socket) -> None:
        """Move what has come and what goes, as the relay does."""
        from pair import drive  # which knows this module

        def read(views: list[memoryview]) -> int:
            views[0][:5] = b"three"
            return 5

        drive(flow.connection, lambda: len(flow.received) == 3)
        assert bytes(flow.received.waiting()) == b"two"
        flow.received.drop(3)
        flow.delivered(3)
        assert flow.room() >= 5
        assert flow.read_from(read) == 5
        flow.end()
        drive(flow.connection, lambda: not flow.connection.sending)
        assert far_exactly(far, 6) == b"three"
        far.close()
        drive(flow.connection, lambda: flow.over)
        assert (flow.error, stream.loss(flow)) == (None, None)
        flow.close()

    def test_given_up_while_another_thread_reads(self, ends: tuple[Stream, socket.socket]) -> None:
        stream, far = ends
        reading = threading.Event()

        def read() -> None:
            with suppress(RelayError, OSError):
                while stream.recv(1):
                    reading.set()

        far.sendall(b"x")
        with Meanwhile(read):
            assert reading.wait(SOON)
            stream.close()
        with suppress(ConnectionError):
            assert far.recv(1) == b""

    def test_the_loss_of_what_carries_it(
        self, ends: tuple[Stream, socket.socket], cut: Callable[[socket.socket], None]
    ) -> None:
        """It is an error, by recv or by check; the end of a stream that nothing has broken is none."""
        stream, far = ends
        far.sendall(b"x")
        assert stream.recv(1) == b"x"
        cut(far)
        with pytest.raises((RelayError, OSError)):
            assert stream.recv(1) == b""
            stream.check()


class HopContract:
    """A hop in this process; see the head of this file."""

    is_ours = True  # whether leaving it ends what was opened on it: a user's own master stays
    refuses = True  # whether `forward` raises where the hop cannot connect; else the stream says so
    is_entered = True  # whether it has been logged in to before it forwards, and so can be asked whether it lives

    def test_every_stream_is_another_one(self, hop: Hop) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener:
            listener.settimeout(SOON)
            to: tuple[str, int] = listener.getsockname()
            for number, ahead in ((b"1", False), (b"2", True)):
                stream = hop.forward(*to, Progress(SOON), asked=hop.ask(to) if ahead else None)
                far, _ = listener.accept()
                with far:
                    far.sendall(number)
                    assert stream.recv(1) == number
                    stream.sendall(number)
                    assert far.recv(1) == number
                stream.close()
        assert hop.alive

    def test_what_cannot_be_reached(self, hop: Hop) -> None:
        with closed_port() as port, pytest.raises(RelayError) as caught:
            stream = hop.forward(LOOPBACK, port, Progress(SOON))
            assert not self.refuses
            with closing(stream):
                assert stream.recv(1) == b""
                stream.check()
        assert caught.value.cause
        self.test_every_stream_is_another_one(hop)

    def test_signs_of_life(self, hop: Hop, cut: Callable[[], None]) -> None:
        assert hop.place
        assert re.fullmatch(r"(\S+@)?h1(:\d+)?(,(\S+@)?h2(:\d+)?)?" if self.is_entered else "", hop.jumps())
        assert hop.alive
        assert hop.quiet_for() >= 0
        assert hop.probe(SOON)
        cut()
        if self.is_entered:
            until(lambda: not hop.alive or not hop.probe(1.0), "death of the hop", SOON)
        with pytest.raises(RelayError):
            hop.forward(LOOPBACK, 1, Progress(SOON))

    def test_left(self, hop: Hop) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener:
            listener.settimeout(SOON)
            stream = hop.forward(LOOPBACK, listener.getsockname()[1], Progress(SOON))
            far, _ = listener.accept()
        with far:
            hop.close()
            if self.is_ours:
                assert far.recv(1) == b""
            else:
                far.sendall(b"x")
                assert stream.recv(1) == b"x"
        assert hop.alive != self.is_ours
        stream.close()

    def test_its_connection_may_be_driven_by_another(self, hop: Hop) -> None:
        hop.park()
        connection = hop.take_over()
        assert connection is None or connection.fd >= 0


def near_exactly(stream: Stream, size: int) -> bytes:
    """Read size bytes of a stream, or all until its end."""
    parts: list[bytes] = []
    while size and (part := stream.recv(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def far_exactly(far: socket.socket, size: int) -> bytes:
    """Read size bytes of a socket, or all until its end."""
    parts: list[bytes] = []
    while size and (part := far.recv(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def repeated(data: bytes, size: int) -> bytes:
    """What `fill` has written."""
    return (data * (size // len(data) + 1))[:size]


def digest(data: bytes) -> str:
    """For assertions whose failure would print megabytes."""
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()}"
