"""The relay over each kind of stream, with each kind of stdin and stdout, and under a real ssh."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract import MIB, SOON, Command, Ends, Meanwhile, StreamContract, noise, read_exactly
from lab import ROOT, Lab
from peers import LOOPBACK

from relay.pump import rules, way

FROM_HERE = f'import sys; sys.path.insert(0, "{ROOT}")\n'
# How bytes get moved: by splice, by read and write where Python has none, and where the system refuses.
NO_SPLICE = "import os; del os.splice"
NO_SPLICE_NOR_PROC = """
import os
del os.splice
def readlink(path):
    raise FileNotFoundError(2, "No such file or directory")
os.readlink = readlink
"""
REFUSING_SPLICE = """
import errno, os
def splice(*args, **options):
    raise OSError(errno.EINVAL, "Invalid argument")
os.splice = splice
"""
# Refused at the second step only: bytes are in our pipe by then.
HALF_REFUSING_SPLICE = """
import errno, os, stat
real = os.splice
def splice(source, sink, *args, **options):
    if not stat.S_ISFIFO(os.fstat(sink).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")
    return real(source, sink, *args, **options)
os.splice = splice
"""


# The link is lost on the way out, and what comes back does not show it.
LOSING_SPLICE = """
import errno, os, stat
real = os.splice
sent = 0
def splice(source, sink, *args, **options):
    global sent
    sent += stat.S_ISSOCK(os.fstat(sink).st_mode)
    if sent > {} and stat.S_ISSOCK(os.fstat(sink).st_mode):
        raise OSError(errno.EHOSTUNREACH, "No route to host")
    return real(source, sink, *args, **options)
os.splice = splice
"""


# Writes down how many bytes each splice was asked to move.
COUNTING_SPLICE = """
import os
real = os.splice
counts = open("{}", "w", buffering=1)
def splice(source, sink, most, **options):
    print(most, file=counts)
    return real(source, sink, most, **options)
os.splice = splice
"""


def tcp(port: int, prelude: str = "") -> list[str]:
    """A relay to a port of loopback; prelude: Python that runs first."""
    program = f"{prelude}\nfrom relay.cli import main\nmain()"
    return [sys.executable, "-c", program, LOOPBACK, str(port)]


class TestTcp(StreamContract):
    @pytest.fixture
    def command(self) -> Command:
        return tcp


@pytest.mark.skipif(not hasattr(os, "splice"), reason="this is what TestTcp has tried here")
class TestWithoutSplice(StreamContract):
    @pytest.fixture
    def command(self) -> Command:
        return lambda port: tcp(port, NO_SPLICE)


class TestWhereSpliceIsRefused(StreamContract):
    @pytest.fixture
    def command(self) -> Command:
        return lambda port: tcp(port, HALF_REFUSING_SPLICE)


class TestHop(StreamContract):
    tells_reset = False  # sshd closes the channel, and says no more

    @pytest.fixture
    def command(self, lab: Lab) -> Command:
        lab.server("h1")
        lab.write_config()
        return lambda port: [sys.executable, "-m", "relay", "-F", str(lab.config), f"h1/127.0.0.1:{port}"]


# stdin and stdout of every kind


@pytest.fixture
def start() -> Iterator[Callable[..., Ends]]:
    """Start a relay over TCP with the given stdin and stdout."""
    started: list[Ends] = []

    def start(prelude: str = "", **options: object) -> Ends:
        started.append(Ends(lambda port: tcp(port, prelude), **options))
        return started[-1]

    yield start
    for ends in started:
        ends.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(SOON)
    with ours, theirs:
        yield ours, theirs


def receive(sock: socket.socket, size: int = -1) -> bytes:
    return read_exactly(sock.fileno(), size)


def test_one_socket_as_stdin_and_stdout(start: Callable[..., Ends], pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ends = start(stdin=theirs, stdout=theirs)
    theirs.close()
    data = noise(MIB)
    with Meanwhile(lambda: ours.sendall(data)):
        assert ends.far_receive(len(data)) == data
    ours.shutdown(socket.SHUT_WR)
    assert ends.far_receive() == b""
    with Meanwhile(lambda: ends.far.sendall(data)):
        assert receive(ours, len(data)) == data
    ends.far_end()
    assert receive(ours) == b""
    assert ends.status() == 0


def test_one_socket_whose_far_end_ends_first(
    start: Callable[..., Ends], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    ends = start(stdin=theirs, stdout=theirs)
    ends.far.sendall(b"greeting")
    ends.far_end()
    assert receive(ours) == b"greeting"
    ours.sendall(b"still here")
    ours.shutdown(socket.SHUT_WR)
    assert ends.far_receive() == b"still here"
    assert ends.status() == 0


def test_one_socket_that_is_closed_after_the_last_words(
    start: Callable[..., Ends], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    ends = start(stdin=theirs, stdout=theirs)
    theirs.close()
    ends.far.sendall(b"hello")
    assert receive(ours, 5) == b"hello"
    ours.sendall(b"goodbye")
    ours.close()
    assert ends.far_receive() == b"goodbye"
    assert ends.status() == 0


def test_a_socket_each(start: Callable[..., Ends], pair: tuple[socket.socket, socket.socket]) -> None:
    """A socket pair for stdin, as node gives its children: its close means the end of data, and nothing else."""
    ours, theirs = pair
    ends = start(stdin=theirs)
    theirs.close()
    ends.far.sendall(b"banner")
    assert ends.receive(6) == b"banner"
    ours.sendall(b"question")
    ours.close()
    assert ends.far_receive() == b"question"
    ends.far.sendall(b"answer")
    ends.far.close()
    assert ends.receive() == b"answer"
    assert ends.status() == 0


def test_regular_files(start: Callable[..., Ends], tmp_path: Path) -> None:
    data = noise(MIB)
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "out").write_bytes(b"before ")
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("ab") as stdout:
        ends = start(stdin=stdin, stdout=stdout)
    assert ends.far_receive() == data
    ends.far.sendall(data)
    ends.far.close()
    assert ends.status() == 0
    assert (tmp_path / "out").read_bytes() == b"before " + data


def test_dev_null(start: Callable[..., Ends]) -> None:
    ends = start(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert ends.far_receive() == b""
    ends.far.sendall(noise(MIB))
    ends.far.close()
    assert ends.status() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk (macOS)")
def test_stdout_without_room(start: Callable[..., Ends]) -> None:
    with Path("/dev/full").open("wb") as full:
        ends = start(stdout=full)
    ends.far.sendall(b"greeting")
    assert ends.status() == 1
    assert ends.said() == "pyrelay: cannot write to stdout: no space left on device\n"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the person's side, and the programs' side."""
    person, program = pty.openpty()
    mode = termios.tcgetattr(program)
    mode[3] &= ~termios.ECHO
    mode[1] &= ~termios.OPOST
    termios.tcsetattr(program, termios.TCSANOW, mode)
    yield person, program
    for fd in (person, program):
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def test_terminal(start: Callable[..., Ends], terminal: tuple[int, int]) -> None:
    person, program = terminal
    ends = start(stdin=program, stdout=program)
    os.write(person, b"a line\n")
    assert ends.far_receive(7) == b"a line\n"
    greeting = noise(20_000).hex().encode()  # more than a terminal takes at once
    with Meanwhile(lambda: ends.far.sendall(greeting)):
        assert read_exactly(person, len(greeting)) == greeting
    os.write(person, b"\x04")  # end of file, as a person types it
    assert ends.far_receive() == b""
    ends.far.close()
    assert ends.status() == 0


def test_terminal_hangs_up(start: Callable[..., Ends], terminal: tuple[int, int]) -> None:
    person, program = terminal
    ends = start(stdin=program)
    os.close(program)
    ends.far.sendall(b"greeting")
    assert ends.receive(8) == b"greeting"
    os.close(person)
    assert ends.far_receive() == b""
    assert ends.status() == 0


# A socket's own send, which other systems use, cannot be replaced.
@pytest.mark.skipif(not hasattr(os, "splice"), reason="the loss is made in splice, which only Linux has")
@pytest.mark.parametrize("messages", [0, 3])
def test_bytes_that_could_not_be_sent_are_no_good_end(start: Callable[..., Ends], messages: int) -> None:
    """Though the target ends in good order: what has come is delivered before the loss is told."""
    ends = start(LOSING_SPLICE.format(messages))
    ends.converse(messages)
    ends.send(b"question")
    ends.far.sendall(b"answer")
    assert ends.receive(6) == b"answer"
    ends.far_end()
    assert ends.status() == 1
    assert ends.said() == "pyrelay: the link was lost: no route to host\n"


# Elsewhere a message is read and written, as TestTcp then tries, and there is no splice to count.
@pytest.mark.skipif(not hasattr(os, "splice"), reason="the splices are counted, which only Linux has")
def test_a_small_message_is_moved_by_one_splice(start: Callable[..., Ends], tmp_path: Path) -> None:
    """And more is not: the splice would hold the pipe's lock for as long as TCP takes."""
    counts = tmp_path / "counts"
    ends = start(COUNTING_SPLICE.format(counts))
    ends.converse(4)
    asked = [int(line) for line in counts.read_text().split()]
    assert asked == [way.PIPE_SIZE, 1, way.PIPE_SIZE, 1, *[way.LITTLE] * 6]  # the first of each way goes by our pipe
    body = noise(16 * MIB)
    with Meanwhile(lambda: ends.send(body)):
        assert ends.far_receive(len(body)) == body
    with Meanwhile(lambda: ends.far.sendall(body)):
        assert ends.receive(len(body)) == body
    asked = [int(line) for line in counts.read_text().split()][len(asked) :]
    # Only a move of little is followed by one of these: if each were, they would be a third.
    assert asked.count(way.LITTLE) < len(asked) / 4


@pytest.mark.parametrize(
    "prelude",
    ["", NO_SPLICE, REFUSING_SPLICE, NO_SPLICE_NOR_PROC],
    ids=["splice", "no splice", "refused", "no splice, no proc"],
)
def test_shared_files_stay_as_they_were(
    start: Callable[..., Ends],
    terminal: tuple[int, int],
    pair: tuple[socket.socket, socket.socket],
    prelude: str,
) -> None:
    """stdin and stdout are shared with whoever made them, a terminal with the shell: O_NONBLOCK must not stay there."""
    ours, theirs = pair[0].fileno(), pair[1].fileno()
    (pipe_read, pipe_write), other = os.pipe(), os.pipe()
    cases: list[tuple[int, int, int]] = [
        (pipe_read, other[1], pipe_write),
        (terminal[1], terminal[1], terminal[0]),
        (theirs, theirs, ours),
    ]
    for stdin, stdout, near in cases:
        ends = start(prelude, stdin=stdin, stdout=stdout)
        os.write(near, b"line\n")
        assert ends.far_receive(5) == b"line\n"
        if prelude is not NO_SPLICE_NOR_PROC or stdin is not pipe_read:
            assert are_blocking(stdin, stdout)
        # A reset, so that neither side has to end.
        ends.far_reset()
        assert ends.status() == 1
        assert are_blocking(stdin, stdout)
    for fd in (pipe_read, pipe_write, *other):
        os.close(fd)


def test_a_shared_pipe_stays_as_it_was_where_the_target_ends(start: Callable[..., Ends]) -> None:
    """stdout has become /dev/null by the end of the relay."""
    (pipe_read, pipe_write), other = os.pipe(), os.pipe()
    ends = start(NO_SPLICE_NOR_PROC, stdin=other[0], stdout=pipe_write)
    ends.far.sendall(b"line\n")
    assert read_exactly(pipe_read, 5) == b"line\n"
    assert not are_blocking(pipe_write)
    ends.far.close()
    assert ends.status() == 0
    assert are_blocking(pipe_write)
    for fd in (pipe_read, pipe_write, *other):
        os.close(fd)


def are_blocking(*files: int) -> bool:
    return not any(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_NONBLOCK for file in files)


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes have one size here")
def test_pipes_are_widened_and_never_narrowed(start: Callable[..., Ends]) -> None:
    narrow, wide = os.pipe(), os.pipe()
    fcntl.fcntl(wide[0], fcntl.F_SETPIPE_SZ, MIB)
    ends = start(stdin=narrow[0], stdout=wide[1])
    ends.far.sendall(b"greeting")
    assert read_exactly(wide[0], 8) == b"greeting"
    sizes = [fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in (narrow[0], wide[0])]
    for fd in (*narrow, *wide):
        os.close(fd)
    assert sizes[0] in {64 * 1024, way.PIPE_SIZE}  # an ordinary user may have used up what pipes may hold
    assert sizes[1] == MIB


# The parent leaves

# Starts a relay with its own stdin and stdout, says its process id on stderr, and leaves when it is told to.
PARENT = """
import os, subprocess, sys
relay = subprocess.Popen(sys.argv[2:])
os.write(2, b"%d\\n" % relay.pid)
os.read(int(sys.argv[1]), 1)
"""


class Family:
    """A relay whose parent can be made to leave it."""

    def __init__(self) -> None:
        self.to_parent = os.pipe()
        parent = [sys.executable, "-c", PARENT, str(self.to_parent[0])]
        self.ends = Ends(lambda port: [*parent, *tcp(port)], pass_fds=[self.to_parent[0]])
        assert self.ends.process.stderr
        self.relay = int(self.ends.process.stderr.readline())

    def parent_leaves(self) -> None:
        os.write(self.to_parent[1], b"x")
        assert self.ends.status() == 0

    def close(self) -> None:
        self.ends.close()
        for fd in self.to_parent:
            os.close(fd)


@pytest.fixture
def family() -> Iterator[Family]:
    made = Family()
    yield made
    made.close()


def test_parent_leaves_before_the_first_byte(family: Family) -> None:
    family.parent_leaves()
    assert family.ends.far_receive() == b""


def test_parent_leaves_later(family: Family) -> None:
    """`ssh -f` and a persisted master: the session lives on."""
    ends = family.ends
    ends.far.sendall(b"banner")
    assert ends.receive(6) == b"banner"
    family.parent_leaves()
    # Nothing may happen for twice the time between two looks at the parent.
    ends.far.settimeout(2 * rules.PATIENCE[rules.STARTING])
    with pytest.raises(TimeoutError):
        ends.far.recv(1)
    ends.far.settimeout(SOON)
    ends.send(b"still there?")
    assert ends.far_receive(12) == b"still there?"
    ends.far.close()
    ends.end()
    assert ends.receive() == b""


def test_it_leaves_the_terminal_once_the_link_is_up(family: Family) -> None:
    """Closing the terminal must not end a persisted master's link."""
    ends = family.ends
    ends.send(b"client's banner")
    assert ends.far_receive(15) == b"client's banner"
    assert os.getsid(family.relay) == os.getsid(0)
    ends.far.sendall(b"banner")
    assert ends.receive(6) == b"banner"
    ends.far.sendall(b"more")  # the second delivery comes after whatever the first one led to
    assert ends.receive(4) == b"more"
    assert os.getsid(family.relay) == family.relay


def test_a_relay_on_a_terminal_stays_there(start: Callable[..., Ends], terminal: tuple[int, int]) -> None:
    ends = start(stdin=terminal[1])
    for _ in range(2):
        ends.far.sendall(b"banner")
        assert ends.receive(6) == b"banner"
    assert os.getsid(ends.process.pid) == os.getsid(0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(start: Callable[..., Ends], number: int) -> None:
    ends = start()
    ends.far.sendall(b"banner")
    assert ends.receive(6) == b"banner"
    ends.process.send_signal(number)
    assert ends.far_receive() == b""
    assert ends.status() != 0


# Under a real ssh


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """300 MB, no two blocks alike."""
    path = tmp_path / "big"
    block = noise(MIB)
    with path.open("wb") as file:
        for number in range(300):
            file.write(number.to_bytes(4, "big"))
            file.write(block[4:])
    return path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prelude", ["", NO_SPLICE], ids=["splice", "no splice"])
def test_300_mb_under_ssh(lab: Lab, big_file: Path, prelude: str) -> None:
    """To a real sshd, from it, and both at once: a splice that waits sticks here, and in no benchmark."""
    lab.server("h1")
    wrapper = lab.top / "wrapper"
    wrapper.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c '{FROM_HERE}{prelude}\nfrom relay.cli import main\nmain()' \"$@\"\n"
    )
    wrapper.chmod(0o755)
    lab.host("h1", ProxyCommand=f"{wrapper} %h %p")
    for remote in (f"cat >{lab.top}/there", f"cat {big_file}", "cat"):
        here = lab.top / "here"
        with big_file.open("rb") as stdin, here.open("wb") as stdout:
            ssh = lab.start("ssh", "-F", lab.config, "h1", remote, stdin=stdin, stdout=stdout)
            assert (ssh.communicate(timeout=100)[1], ssh.returncode) == (b"", 0)
        for copy in {"cat": [here], f"cat {big_file}": [here]}.get(remote, [lab.top / "there"]):
            subprocess.run(["cmp", big_file, copy], check=True)
            copy.unlink()


@pytest.mark.parametrize(
    ("closed", "delivered"), [("<&-", b"answer"), (">&-", b""), ("<&- >&-", b""), ("2>&-", b"answer")]
)
def test_a_standard_stream_that_is_closed_is_as_empty_as_dev_null(closed: str, delivered: bytes) -> None:
    """A closed descriptor's number would go to the connection."""
    script = f'exec "$@" {closed}'
    ends = Ends(lambda port: ["sh", "-c", script, "sh", *tcp(port)])
    if "<" not in closed:
        ends.end()
    assert ends.far_receive() == b""
    ends.far.sendall(b"answer")
    ends.far.close()
    assert ends.receive() == delivered
    assert ends.status() == 0
    ends.close()
