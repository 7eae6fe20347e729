"""Where relays find the process that holds the shared hops, and which one they trust."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from contract import SOON
from lab import Lab
from peers import missing, until
from shared import AGAIN, STOPPED, control, holder, holders, logins, program

from relay import __version__
from relay.share import call, place
from relay.share.wire import Wire, unpack


def test_where_the_socket_is(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    directory = shared.home / ".ssh" / "pyrelay"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / f"{__version__}.sock").stat().st_mode) == 0o600


def test_a_directory_that_others_may_enter_is_refused(shared: Lab) -> None:
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    done = shared.pyrelay("h1/h3")
    assert done.returncode == 1
    said = f"pyrelay: --share: {directory} must be a directory that is yours alone\nhint: chmod 700 {directory}\n"
    assert done.stderr == shared.run(shared.program, "-O", "list").stderr == said


def test_a_long_name_of_the_directory(shared: Lab) -> None:
    runtime = shared.top / ("x" * 90) / ("y" * 90)
    runtime.mkdir(parents=True)
    environment = shared.environment(XDG_RUNTIME_DIR=str(runtime))
    for _ in range(2):
        done = shared.run("ssh", "-F", shared.write_config(), "h1/h3", "echo $SERVER; pwd", env=environment)
        assert done.stdout.startswith("h3\n")
    assert logins(shared)[0] == 1
    assert (runtime / "pyrelay" / f"{__version__}.sock").is_socket()


def need_another_user() -> None:
    if os.geteuid() != 0:
        missing("only root can be somebody else")


def test_the_runtime_directory_of_another_user_is_not_used(shared: Lab) -> None:
    """`su` leaves XDG_RUNTIME_DIR of the other user in the environment."""
    need_another_user()
    runtime = shared.top / "runtime"
    runtime.mkdir(0o700)
    os.chown(runtime, 65534, -1)
    done = shared.run(
        "ssh", "-F", shared.write_config(), "h1/h3", "echo $SERVER", env={"XDG_RUNTIME_DIR": str(runtime)}
    )
    assert (done.stdout, done.stderr) == ("h3\n", "")
    assert (shared.home / ".ssh" / "pyrelay" / f"{__version__}.sock").is_socket()
    assert not list(runtime.iterdir())


def test_no_place_for_the_directory(shared: Lab) -> None:
    (shared.top / "file").touch()
    (shared.home / ".ssh").mkdir()
    (shared.home / ".ssh" / "pyrelay").touch()
    for home, why in (
        (shared.top / "file", "not a directory"),
        (shared.home, "not a directory"),
        (shared.top / "nowhere", "no such file or directory"),
    ):
        done = shared.pyrelay_in({"HOME": str(home)}, "--share", "1s", "h1/h3")
        assert (done.returncode, done.stderr) == (1, f"pyrelay: --share: {home}/.ssh/pyrelay: {why}\n")
    assert not (shared.top / "nowhere").exists()


def test_a_look_at_what_is_shared_makes_no_directory(shared: Lab) -> None:
    (shared.top / "file").touch()
    for home in (shared.home, shared.top / "file", shared.top / "nowhere"):
        for name in ("list", "check", "stop", "exit"):
            done = shared.run(shared.program, "-O", name, env={"HOME": str(home)})
            assert (done.returncode, done.stderr) == (1, "pyrelay: no hops are shared\n")
    assert not (shared.home / ".ssh" / "pyrelay").exists()


def test_no_directory_is_made_in_another_users_home(shared: Lab) -> None:
    """`sudo -E` leaves another's HOME, whose user could put a link to any file in our socket's place."""
    need_another_user()
    home = shared.top / "another"
    home.mkdir()
    os.chown(home, 65534, -1)
    done = shared.pyrelay_in({"HOME": str(home)}, "--share", "1s", "h1/h3")
    assert done.returncode == 1
    assert done.stderr == f"pyrelay: --share: {home}/.ssh/pyrelay: it is another user's\nhint: `sudo -H` sets HOME\n"
    assert shared.pyrelay_in({"HOME": str(home)}, "-O", "list").stderr == "pyrelay: no hops are shared\n"
    assert list(home.iterdir()) == []


def test_a_holder_of_another_version_is_named(shared: Lab) -> None:
    """It speaks otherwise, and keeps its hops."""
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "0.0.1.sock"))
        done = shared.run(shared.program, "-O", "list")
        assert (done.returncode, done.stderr) == (1, "pyrelay: no hops are shared\n")
        other.listen()
        # macOS and the BSDs say whose process is at the other end, and not which.
        kill = "" if shared.elsewhere else f", and so does `kill {os.getpid()}`"
        for command in ("list", "exit"):
            done = shared.run(shared.program, "-O", command)
            assert done.returncode == 1
            assert done.stderr == (
                "pyrelay: this version shares no hops, and pyrelay 0.0.1 still does\n"
                f"hint: `pyrelay -O exit` of that version ends them{kill}\n"
            )


def test_a_holder_on_another_machine_with_the_same_home(shared: Lab) -> None:
    """Nobody of this machine listens at its socket, and the lock stays taken: the relay goes by itself."""
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / f"{__version__}.sock"))
    with (directory / f"{__version__}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("elsewhere\n")
        lock.flush()
        done = shared.pyrelay("-v", "h1/h3")
        assert done.returncode == 0
        assert f"not shared: elsewhere, which has the same {directory}, holds hops there\n" in done.stderr
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert (directory / f"{__version__}.lock").read_text() == os.uname().nodename
    assert "h1" in control(shared, "list")


def test_another_user_is_refused(shared: Lab) -> None:
    need_another_user()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    directory = shared.home / ".ssh" / "pyrelay"
    for each in (directory, directory.parent, shared.home):
        each.chmod(0o755)
    (directory / f"{__version__}.sock").chmod(0o666)
    script = (
        "import socket, sys, os; os.setuid(65534); s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); print(s.recv(100))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory / f"{__version__}.sock")],
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "b''\n"


def test_a_holder_of_another_user_is_refused(shared: Lab) -> None:
    need_another_user()
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True, mode=0o700)
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
        "os.seteuid(65534); s.listen(); print('listens', flush=True); sys.stdin.read()"
    )
    other = shared.start(*(sys.executable, "-c", script, str(directory / f"{__version__}.sock")), stdin=subprocess.PIPE)
    assert other.stdout
    assert other.stdout.readline() == b"listens\n"
    done = shared.pyrelay("h1/h3")
    assert (done.returncode, done.stderr) == (1, f"pyrelay: --share: another user listens in {directory}\n")
    assert logins(shared) == [0, 0, 0]


def test_a_holder_that_is_stopped_is_not_waited_for_for_ever(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    program(shared, "from relay.share import place", "place.SILENCE = 0.5")
    os.kill(holder(shared), signal.SIGSTOP)
    for arguments in (("h1/h3",), ("-O", "check")):
        done = shared.pyrelay(*arguments)
        assert done.returncode == 1
        assert done.stderr == STOPPED


def test_a_holder_that_is_stopped_is_not_waited_for_after_the_deadline(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    os.kill(holder(shared), signal.SIGSTOP)
    shared.head = 'Match host h1 exec "sleep 100"'
    done = shared.pyrelay("-w", "1", "h1/h3", stdin=None)
    assert (done.returncode, done.stderr) == (1, STOPPED)
    until(lambda: len(shared.processes()) == 1, "only the holder to be left")


def test_nor_is_one_that_is_about_to_end(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    (shared.home / ".ssh" / "pyrelay" / f"{__version__}.sock").unlink()
    program(shared, "from relay.share import place", "place.PATIENCE = 600.0")
    assert shared.pyrelay("-w", "1", "h1/h3").stderr == STOPPED


def test_nor_when_ssh_has_gone(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    (stopped,) = shared.processes()
    os.kill(stopped, signal.SIGSTOP)
    ssh = shared.start("ssh", "-F", shared.write_config(), "h1/h2", "true")
    until(lambda: len(shared.processes()) == 3, "ssh, its relay, and the holder")
    ssh.kill()
    ssh.wait()
    until(lambda: list(shared.processes()) == [stopped], "the relay to end")


def test_the_first_word_is_said_before_all_else(shared: Lab) -> None:
    """A relay calls the holder before it has read its options; if nobody answers, it starts over."""
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True, mode=0o700)
    name = directory / f"{__version__}.sock"
    program(shared, "import sys", "sys.modules['relay.spec.options'] = None")
    with socket.socket(socket.AF_UNIX) as ending:
        ending.bind(str(name))
        ending.listen()
        config = shared.write_config()
        argv = ["-F", str(config), *AGAIN, "h1/h3"]
        run = shared.start(shared.program, *argv, cwd=shared.top)
        ending.settimeout(SOON)
        caller, _ = ending.accept()
    with caller:
        kind, fields = Wire(caller).receive()
    assert (kind, unpack(fields[0])) == ("call", [word.encode() for word in argv])
    assert f"HOME={shared.home}".encode() in unpack(fields[1])
    assert fields[2] == bytes(shared.top)
    assert b"relay.spec.options" in run.communicate(timeout=SOON)[1]

    program(shared)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"


def test_who_only_calls_closes_no_hop(shared: Lab) -> None:
    """The request held what was opened ahead for it, and ended before it said how long hops shall stay."""
    for _ in range(2):
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    program(shared, "import sys", "sys.modules['relay.dial'] = None")
    assert shared.ssh("h1/h3", "echo $SERVER").returncode == 255
    until(lambda: ", 0 relays, " in control(shared, "list"), "end of what was called for")
    program(shared)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 1


def test_a_directory_that_was_removed(shared: Lab, tmp_path: Path) -> None:
    """ssh works in a directory that is gone; so do we."""
    here = tmp_path / "here"
    here.mkdir()
    config = shared.write_config()
    script = 'rmdir "$PWD" && exec ssh -F "$1" h1/h3 "echo \\$SERVER"'
    for _ in range(2):
        here.mkdir(exist_ok=True)
        done = shared.start("sh", "-c", script, "sh", config, cwd=here)
        assert done.communicate(timeout=SOON)[0] == b"h3\n"


def test_a_directory_that_the_holder_cannot_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `sudo -u` in a directory of one's own. (root may enter any, so the system's answer is made up.)"""
    near, far = socket.socketpair()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with near, far:
        call.say(Wire(near), ["h1/h3"], {})
        assert Wire(far).receive()[1][-1] == b"/"


def test_no_room_for_the_holder(shared: Lab) -> None:
    """ulimit -u. The relay does without."""
    program(shared, "import os", "def fork():", "    raise BlockingIOError(11, 'x')", "os.fork = fork")
    done = shared.ssh("-v", "h1/h3", "echo $SERVER")
    assert done.stdout == "h3\n"
    assert logins(shared)[0] == 1
    assert holders(shared) == []


@pytest.mark.parametrize("before", ["a stale socket", "a file", "nothing"])
def test_what_is_left_over_is_replaced(shared: Lab, before: str) -> None:
    directory = shared.home / ".ssh" / "pyrelay"
    directory.mkdir(parents=True, mode=0o700)
    name = directory / f"{__version__}.sock"
    if before == "a stale socket":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(name))
    elif before == "a file":
        name.touch()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(holders(shared)) == 1


def test_a_long_name_from_where_one_may_not_list(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may enter a directory, but not read it, as with another's home. A name that fits is used as it is."""
    need_another_user()
    (lab.top / "closed").mkdir(mode=0o711)
    monkeypatch.chdir(lab.top / "closed")
    lab.top.chmod(0o755)
    fits, long = (str(lab.top / "r").ljust(length, "r") for length in (place.SHORT, place.SHORT + 1))
    os.mkdir(long)
    seen: list[str] = []
    os.seteuid(2)
    try:
        place._near(fits, seen.append)
        place._near(long, lambda base: seen.append(base + os.getcwd()))
    finally:
        os.seteuid(0)
    assert seen == [fits, f".{long}"]
    assert os.path.samefile(".", lab.top / "closed")
