"""The guard leaves when ssh has gone or the deadline has passed, whatever the work is stuck in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from lab import ROOT

from relay.errors import RelayError, TimedOut
from relay.run import guard
from relay.run.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab import Lab

Pipe = tuple[int, int]


@pytest.fixture
def stdio() -> Iterator[tuple[Pipe, Pipe]]:
    pipes = os.pipe(), os.pipe()
    yield pipes
    for fd in (*pipes[0], *pipes[1]):
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def watch(work: Callable[[], object], stdio: tuple[Pipe, Pipe], parent: int = 0) -> object:
    return guard.watch(work, Progress(60), stdio[0][0], stdio[1][1], parent or os.getppid())


@pytest.fixture
def stuck() -> Iterator[Callable[[], object]]:
    release = threading.Event()
    yield release.wait
    release.set()


def test_what_work_returns_and_raises(stdio: tuple[Pipe, Pipe]) -> None:
    def fail() -> None:
        raise RelayError("connection refused")

    assert watch(lambda: "stream", stdio) == "stream"
    with pytest.raises(RelayError, match="connection refused"):
        watch(fail, stdio)


def test_deadline_names_place_and_stage(stdio: tuple[Pipe, Pipe], stuck: Callable[[], object]) -> None:
    progress = Progress(0.3)
    progress.at("hop 2 of 3 (h2)")
    progress.stage("key exchange")
    with pytest.raises(TimedOut) as caught:
        guard.watch(stuck, progress, stdio[0][0], stdio[1][1], os.getppid())
    assert str(caught.value) == "pyrelay: hop 2 of 3 (h2): no answer within 0.3 seconds (key exchange)"


def test_time_that_a_person_is_waited_for_does_not_count(stdio: tuple[Pipe, Pipe]) -> None:
    progress = Progress(0.5)
    answered = threading.Event()

    def ask() -> str:
        progress.pause()
        answered.wait(1.0)  # longer than the deadline
        progress.resume()
        return "answer"

    assert guard.watch(ask, progress, stdio[0][0], stdio[1][1], os.getppid()) == "answer"


def test_reader_of_stdout_gone(stdio: tuple[Pipe, Pipe], stuck: Callable[[], object]) -> None:
    os.close(stdio[1][0])
    with pytest.raises(guard.Gone):
        watch(stuck, stdio)


def test_end_of_a_fifo_stdin_is_not_the_end(stdio: tuple[Pipe, Pipe]) -> None:
    os.close(stdio[0][1])
    assert watch(lambda: "stream", stdio) == "stream"


def test_end_of_a_socket_stdin_is_not_the_end(stdio: tuple[Pipe, Pipe]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        assert guard.watch(lambda: "stream", Progress(), ours.fileno(), stdio[1][1], os.getppid()) == "stream"


def test_hang_up_of_a_socket_that_is_stdin_and_stdout(stuck: Callable[[], object]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(guard.Gone):
            guard.watch(stuck, Progress(), ours.fileno(), ours.fileno(), os.getppid())


def test_hang_up_of_a_terminal(stdio: tuple[Pipe, Pipe], stuck: Callable[[], object]) -> None:
    near, far = os.openpty()
    os.close(near)
    try:
        with pytest.raises(guard.Gone):
            guard.watch(stuck, Progress(), far, stdio[1][1], os.getppid())
    finally:
        os.close(far)


def test_parent_gone(stdio: tuple[Pipe, Pipe], stuck: Callable[[], object]) -> None:
    with pytest.raises(guard.Gone):
        watch(stuck, stdio, parent=os.getpid())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_signal_ends_the_program_and_what_it_started(lab: Lab, number: signal.Signals) -> None:
    alive = lab.top / "alive"  # open as long as the ProxyCommand lives
    os.mkfifo(alive)
    lab.host("h1", ProxyCommand=f"sh -c 'exec 3>{alive}; echo up >&3; exec sleep 1000'")
    with lab.start("pyrelay", "-F", lab.config, "h1+h3") as program, alive.open() as end:
        assert end.readline() == "up\n"
        program.send_signal(number)
        assert program.wait(10) == 128 + number
        assert end.read() == ""


@pytest.mark.parametrize("ends", ["end()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_signal_while_it_cleans_up(ends: str) -> None:
    """ssh sends one just as the program ends by itself: nothing is cleaned up in the midst of that, nor left undone.

    The handler is left in place: Python has "Signal 1 ignored due to race condition" for who comes as it goes.
    """
    script = (
        "import os, signal\n"
        "from relay.run import guard\n"
        "def clean_up():\n"
        "    print('begins', callable(signal.getsignal(signal.SIGHUP)), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('is done', flush=True)\n"
        f"end = guard.clean_up_on_signals(clean_up)\n{ends}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, text=True)
    assert (done.stdout, done.stderr) == ("begins True\nis done\n", "")
    assert done.returncode == (0 if ends == "end()" else 128 + signal.SIGTERM)


def test_a_signal_that_is_ignored_from_the_start_stays_so(lab: Lab) -> None:
    """Under nohup ssh lives on when its terminal goes, and so must we."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        lab.start(
            *("sh", "-c", 'trap "" HUP; exec pyrelay "$@"', "sh"),
            *map(str, listener.getsockname()),
            stdin=subprocess.PIPE,
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        connection, _ = listener.accept()
        with connection:
            for word in (b"before\n", b"after\n"):
                connection.sendall(word)
                assert program.stdout.readline() == word
                program.send_signal(signal.SIGHUP)
        program.stdin.close()
        assert program.wait(10) == 0


def test_sigchld_that_is_ignored_from_the_start(lab: Lab) -> None:
    """As by a daemon that runs paramiko with our ProxyCommand: ssh -G has to be waited for all the same."""
    lab.servers("h1", "h3")
    lab.write_config()
    for words in ((), ("--share", "1s"), ("--explain",)):
        done = lab.run("env", "--ignore-signal=CHLD", lab.program, *words, "-F", lab.config, "h1/h3")
        assert done.returncode == 0, done.stderr


def test_a_signal_is_not_slept_through() -> None:
    """One that comes when poll() is about to be called must not wait until that returns."""
    script = (
        "import os, select, signal; from relay.run import guard; alarm = guard.alarm();"
        "signal.signal(signal.SIGHUP, lambda *_: None); os.kill(os.getpid(), signal.SIGHUP);"
        "print(select.select([alarm], [], [], 60)[0] == [alarm])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True)
    assert done.stdout == "True\n"
