"""How programs that pyrelay has started are ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from contract import SOON

from relay.errors import RelayError
from relay.run import family
from relay.run.children import PATIENCE, Children
from relay.run.program import Program

# It only notes the signals, as ssh does at a question when they come just before it waits for what is typed; and says
# how many it has noted when it is told to once more.
DEAF = """
import os, signal
noted = []
def note(number, frame):
    if len(noted) == 2:
        os._exit(7)
    noted.append(number)
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, note)
os.write(1, b"ready")
while True:
    signal.pause()
"""
STUBBORN = """
import os, signal
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
os.write(1, b"ready")
while True:
    signal.pause()
"""


def ended(*programs: str) -> tuple[list[int | None], float]:
    """The exit statuses of programs that were ended, and how long that took."""
    children = Children()
    running = []
    for program in programs:
        near, far = socket.socketpair()
        with near, far:
            running.append(children.connect([sys.executable, "-c", program], far))
            assert near.recv(5) == b"ready"
    began = time.monotonic()
    children.end()
    return [child.wait() for child in running], time.monotonic() - began


def test_what_has_not_noticed_is_told_again() -> None:
    assert ended(DEAF)[0] == [7]


def _never() -> Program:
    pytest.fail("started")


def test_nothing_is_started_once_the_end_has_begun() -> None:
    """It would outlive us."""
    children = Children()
    children.end()
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(RelayError, match="the program is about to end"):
            children.connect(["true"], far)
        with pytest.raises(RelayError, match="the program is about to end"):
            children.ask(["true"])
        with pytest.raises(RelayError, match="the program is about to end"):
            children.add(_never)


def test_what_a_program_says_is_safe_to_print() -> None:
    told: list[str] = []
    children = Children(tell=told.append)
    near, far = socket.socketpair()
    with near, far:
        children.connect(["sh", "-c", r"printf 'a\033[31mb\377\n \n\233c' >&2"], far).wait()
    began = time.monotonic()
    children.hear_out(SOON)
    assert time.monotonic() - began < SOON  # not longer than it takes
    assert told == ["a [31mb\ufffd", "\ufffdc"]


def test_what_does_not_end_is_killed() -> None:
    statuses, took = ended(STUBBORN)
    assert statuses == [-9]
    assert took >= PATIENCE


def test_one_that_has_no_terminal_to_restore_is_killed_at_once() -> None:
    children = Children()
    near, far = socket.socketpair()
    with near, far:
        child = children.connect([sys.executable, "-c", DEAF], far)
        assert near.recv(5) == b"ready"
        children.hush(child)
        children.end()
    assert child.wait() == -9


def test_one_that_is_stopped_heeds_it_nevertheless() -> None:
    children = Children()
    near, far = socket.socketpair()
    with near, far:
        child = children.connect(["sh", "-c", "kill -STOP $$"], far)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        children.end()
    assert child.wait() == -signal.SIGHUP


@pytest.mark.parametrize("lists_children", [True, False])
def test_what_a_program_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, lists_children: bool) -> None:
    """However far down: the last of them has its stdout open until then."""
    real = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: real(path) and (lists_children or path != "/proc/self/task"))
    children = Children()
    near, far = socket.socketpair()
    with near:
        with far:
            children.connect(["sh", "-c", """sh -c 'sh -c "echo ready; read never"; :'; :"""], far)
        near.settimeout(SOON)
        assert near.recv(100) == b"ready\n"
        children.end()
        assert near.recv(1) == b""


def test_the_last_one_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream may go through the others."""
    real, told = family.signal_family, []

    def signal_family(pid: int, signals: Sequence[int], *, hushed: bool) -> None:
        told.append(pid)
        real(pid, signals, hushed=hushed)

    monkeypatch.setattr(family, "signal_family", signal_family)
    children = Children()
    near, far = socket.socketpair()
    with near, far:
        started = [children.connect(["cat"], far).pid for _ in range(3)]
        children.end()
    assert told[:3] == started[::-1]


def test_a_program_runs_in_the_directory_that_it_is_for(tmp_path: Path) -> None:
    """A relay's, in the process that holds the shared hops."""
    near, far = socket.socketpair()
    with near, far:
        Children(directory=str(tmp_path)).connect(["pwd", "-P"], far).wait()
        assert near.recv(4096) == os.fsencode(tmp_path.resolve()) + b"\n"


def test_a_program_gets_no_descriptor_and_no_ignored_signal_of_ours() -> None:
    """Somebody may have started us with a descriptor more; Python ignores SIGPIPE and SIGXFSZ."""
    mine, others = os.pipe()
    os.set_inheritable(others, True)
    said, told = os.pipe()
    script = f"test -e /dev/fd/{others} && echo inherited; sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status"
    Program(["sh", "-c", script], os.environ, {0: mine, 1: told}).wait()
    assert int(os.read(said, 4096), 16) & 0x7FFFFFFF == 0  # (signals 32 and 33 are the C library's own)
    for fd in (mine, others, said, told):
        os.close(fd)


@pytest.mark.parametrize("level", [None, "0", "1"])
def test_a_shell_does_not_take_our_socket_for_a_login_from_afar(tmp_path: Path, level: str | None) -> None:
    """It would read ~/.bashrc, as where ssh is started by no shell: by an editor or cron."""
    (tmp_path / ".bashrc").write_text("echo noise\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **({"SHLVL": level} if level else {})}
    near, far = socket.socketpair()
    with near:
        with far:
            Children(environ).connect(["bash", "-c", "echo said"], far).wait()
        assert near.recv(100) == b"said\n"


def test_a_program_is_waited_for_no_longer_than_it_may_take() -> None:
    near, far = socket.socketpair()
    with near, far:
        child = Children().connect(["sh", "-c", "read _; exit 3"], far)
        assert (child.wait(0.01), child.returncode) == (None, None)
        near.sendall(b"\n")
        assert (child.wait(SOON), child.poll(), child.returncode) == (3, 3, 3)


@pytest.mark.parametrize("tell", [None, lambda _: None])
def test_what_cannot_be_run_leaves_no_descriptor_behind(tell: Callable[[str], None] | None) -> None:
    children = Children(tell=tell)
    near, far = socket.socketpair()
    before = os.listdir("/dev/fd")
    with near, far:
        with pytest.raises(FileNotFoundError):
            children.connect(["/nowhere/at/all"], far)
        with pytest.raises(FileNotFoundError):
            children.ask(["/nowhere/at/all"])
        assert os.listdir("/dev/fd") == before
        children.end()


def test_one_that_does_not_end_keeps_no_other_from_being_told_again() -> None:
    assert ended(DEAF, STUBBORN)[0] == [7, -9]
