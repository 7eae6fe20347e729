"""Shared hops: one login per hop, however many relays, and what becomes of holder, hops and relays."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from contract import MIB, SOON, Command, Ends, Meanwhile, StreamContract, digest, fill, noise, repeated
from hypothesis import given
from hypothesis import strategies as st
from lab import LACKS, ROOT, SCRIPT, Lab, chain_with
from login_server import asking, passwords
from peers import LOOPBACK, Listener, missing, until
from terminal import Terminal

from relay import __version__
from relay.share.wire import BadMessage, Ended, Wire, pack, unpack
from relay.spec.options import parse

AGAIN = ("--share", "10m")
STOPPED = "pyrelay: --share: the process that holds the shared hops does not answer\n"


@pytest.fixture
def shared(lab: Lab) -> Lab:
    """Three servers, and relays that share their hops."""
    lab.servers("h1", "h2", "h3")
    lab.options += AGAIN
    return lab


def holders(lab: Lab) -> list[int]:
    """The processes that have the lock file open."""
    found = []
    for pid in lab.processes():
        with suppress(OSError):  # it has gone
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):  # it was just closed
                    if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(f"{__version__}.lock"):
                        found.append(pid)
    return found


def holder(lab: Lab) -> int:
    (pid,) = holders(lab)
    return pid


def logins(lab: Lab, *names: str) -> list[int]:
    """How often each of the three servers, or of those, has been logged in to."""
    return [len(lab[name].logins()) for name in names or ("h1", "h2", "h3")]


def command(lab: Lab, route: str = "h1", *options: str) -> Command:
    """A relay by shared hops to a port of loopback, in the lab's environment."""
    config = lab.write_config()
    return lambda port: [str(lab.program), "-F", str(config), *AGAIN, *options, f"{route}/{LOOPBACK}:{port}"]


def relay(lab: Lab, route: str = "h1", *options: str) -> Ends:
    return Ends(command(lab, route, *options), env=lab.environment())


def under_way(ends: Ends) -> Ends:
    """The same, once the holder moves its bytes."""
    ends.far.sendall(b"x")
    assert ends.receive(1) == b"x"
    return ends


def program(lab: Lab, *lines: str) -> None:
    """Have the lab run a pyrelay that has been changed by these lines of Python."""
    script = SCRIPT.format(python=sys.executable, root=str(ROOT))
    lab.program.unlink()
    lab.program.write_text(script.replace("from relay.cli", "\n".join([*lines, "from relay.cli"])))
    lab.program.chmod(0o755)


def control(lab: Lab, name: str) -> str:
    return lab.pyrelay("-O", name).stdout


# One login


def test_one_login_for_all_that_come_later(shared: Lab) -> None:
    for _ in range(2):
        assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared) == [1, 1, 2]
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared) == [1, 1, 3]


def test_twenty_at_once_make_one_login(shared: Lab) -> None:
    config = shared.write_config()
    running = [shared.start("ssh", "-F", config, "h1/h2/h3", "echo $SERVER", stdout=subprocess.PIPE) for _ in range(20)]
    assert [process.communicate(timeout=120)[0] for process in running] == [b"h3\n"] * 20
    assert logins(shared) == [1, 1, 20]
    assert len(holders(shared)) == 1


def test_other_settings_are_another_hop(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    shared.host("h1", ServerAliveInterval="7")
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


def test_without_share_nothing_is_shared(shared: Lab) -> None:
    shared.options.clear()
    for _ in range(2):
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2
    assert holders(shared) == []


def test_a_failure_is_told_as_without_sharing(shared: Lab) -> None:
    done = shared.pyrelay("h1/h2/127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == shared.pyrelay("h1/h2/127.0.0.1:1").stderr.replace("hop 2 of 2 (h2)", "shared hop (h2)")


def test_a_refused_login_is_told(shared: Lab) -> None:
    shared.host("h2", PubkeyAuthentication="no")
    done = shared.pyrelay("h1/h2/h3")
    assert done.returncode == 1
    assert done.stderr.startswith("pyrelay: hop 2 of 2 (h2): ")


def test_a_first_hop_that_ssh_must_carry_is_not_shared(shared: Lab) -> None:
    shared.host("h1", PKCS11Provider="/nonexistent")
    done = shared.pyrelay("-v", f"h1/h2/{LOOPBACK}:{shared['h3'].port}")
    assert "not shared: PKCS11Provider\n" in done.stderr


def lending(lab: Lab) -> Lab:
    """Servers of which the second is for ssh, as only the key exchange shows."""
    chain_with(lab, "h2").options += AGAIN
    return lab


@pytest.mark.parametrize("known", [True, False])
def test_those_before_a_hop_that_ssh_must_carry_are_shared(lab: Lab, known: bool) -> None:
    """Whether ssh_config says so, or only the key exchange shows it."""
    lending(lab)
    if known:
        keyword, cipher = LACKS.split()
        lab.host("h2", **{keyword: cipher})
    for _ in range(2):
        assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(lab) == [1, 2, 2]
    done = lab.pyrelay(*AGAIN, "-v", f"h1/h2/{LOOPBACK}:{lab['h3'].port}")
    assert "pyrelay: hop 2 of 2 (h2): carried by ssh (no" in done.stderr
    assert done.stdout.startswith("SSH-2.0-")


def test_a_hop_that_ssh_carries_is_none_of_the_shared_ones(lab: Lab) -> None:
    lending(lab)
    with lab.start("ssh", "-F", lab.write_config(), "h1/h2/h3", "echo up; cat", stdin=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"up\n"
        (line,) = control(lab, "list").splitlines()
        assert line.startswith("h1")
        assert ", 1 relay" in line
        os.kill(holder(lab), signal.SIGKILL)
        assert session.stderr is not None
        assert b"pyrelay: the process that holds the shared hops has ended\n" in session.stderr.read()


def test_what_reaches_a_hop_that_ssh_carries_says_why_it_has_failed(lab: Lab) -> None:
    lending(lab).server("h0", extra="AllowTcpForwarding no")
    # The first netcat is for our own key exchange, which finds that the hop is for ssh.
    line = "test -e $HOME/ran && { echo why >&2; exit 3; }; touch $HOME/ran; exec nc -N %h %p"
    said = lab.pyrelay(*AGAIN, "--netcat-command", line, "h0/h2/h3").stderr
    assert "pyrelay: shared hop (h0): why\n" in said
    assert "the netcat on shared hop (h0) ended with status 3" in said


# The stream


class TestShared(StreamContract):
    """A relay of shared hops is a stream like any other."""

    tells_reset = False  # sshd closes the channel, and says no more
    held_up = 32 * MIB

    @pytest.fixture
    def ends(self, lab: Lab) -> Iterator[Ends]:
        lab.servers("h1", "h2")
        made = relay(lab, "h1/h2")
        yield made
        made.close()


class TestSharedWithoutGcm(StreamContract):
    """paramiko's own way, by threads."""

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


def test_who_was_held_up_was_not_silent(shared: Lab) -> None:
    """The target has said its last, and takes no more for a while: what stdin still has is not taken for nothing."""
    program(shared, "from relay.share import served", "served.LINGER = 0.0")
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
    """What no loop can wait for: it is always ready."""
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
    """Nobody waits for a status that it does not have: the thread that would is the one that serves all."""
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


# Who ends what


def test_a_relay_that_is_killed_closes_its_channel(shared: Lab) -> None:
    ends, other = relay(shared), relay(shared)
    ends.process.kill()
    assert ends.far_receive() == b""
    other.send(b"still here")
    assert other.far_receive(10) == b"still here"
    ends.close()
    other.close()


def test_a_relay_that_is_killed_closes_its_channel_without_gcm(lab: Lab) -> None:
    """Its stdin and stdout are still open, in the holder and in the ssh that has started it."""
    lab.server("h1", Ciphers="aes128-ctr")
    ends = under_way(relay(lab))
    ends.process.kill()
    assert ends.far_receive() == b""
    ends.close()


def test_a_holder_that_is_killed_is_told_and_replaced(shared: Lab) -> None:
    ends = under_way(relay(shared))
    os.kill(holder(shared), signal.SIGKILL)
    assert ends.status() == 1
    assert ends.said() == "pyrelay: the process that holds the shared hops has ended\n"
    ends.close()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


def test_a_hop_that_dies_is_told_to_its_relays_and_made_anew(shared: Lab) -> None:
    all_ends = [under_way(relay(shared)) for _ in range(3)]
    for connection in shared["h1"].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)
    for ends in all_ends:
        assert ends.status() == 1
        assert "shared hop (h1): the connection was lost" in ends.said()
        ends.close()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


@pytest.mark.parametrize("quiet", ["0.0", "60.0"])  # asked for a sign of life each time, or when it does not answer
@pytest.mark.parametrize("dead", ["h1", "h2"])
def test_a_hop_that_is_dead_without_a_word_is_made_anew(shared: Lab, dead: str, quiet: str) -> None:
    """Who was on it gets the reason when ServerAlive notices; who comes next has a new one at the first try."""
    program(shared, "from relay.share import hops", f"hops.QUIET = {quiet}")
    shared.host(dead, ServerAliveInterval="1", ServerAliveCountMax="8")
    ends = under_way(relay(shared, "h1/h2"))
    (connection,) = shared[dead].connections
    os.killpg(connection.process.pid, signal.SIGSTOP)
    try:
        assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
        assert logins(shared) == ([2, 2, 1] if dead == "h1" else [1, 2, 1])
        assert ends.status() == 1
        assert ends.said() == (
            f"pyrelay: shared hop ({dead}): the connection was lost: no answer to 8 keepalives in 8 seconds\n"
        )
    finally:
        os.killpg(connection.process.pid, signal.SIGCONT)
        ends.close()


def test_a_hop_without_gcm_that_is_dead_without_a_word_is_made_anew(lab: Lab) -> None:
    lab.server("h1", Ciphers="aes128-ctr")
    lab.server("h3")
    lab.options += AGAIN
    program(lab, "from relay.share import hops", "hops.ANSWER = 0.5")
    assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    (connection,) = lab["h1"].connections
    os.killpg(connection.process.pid, signal.SIGSTOP)
    try:
        assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
        assert logins(lab, "h1") == [2]
    finally:
        os.killpg(connection.process.pid, signal.SIGCONT)


def test_the_holder_ends_with_its_last_hop(shared: Lab) -> None:
    shared.options[-1] = "1"
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    until(lambda: not holders(shared), "end of the holder")
    assert shared.remaining(SOON) == {}
    assert list((shared.home / ".ssh" / "pyrelay").glob("*.sock")) == []


def test_a_failed_login_leaves_no_holder(shared: Lab) -> None:
    shared.closed("gone")
    assert shared.pyrelay("gone/h3").returncode == 1
    until(lambda: not holders(shared), "end of the holder")


@pytest.mark.parametrize("stage", ["key exchange", "host key", "login"])
def test_a_failed_login_leaves_nothing_in_a_holder_that_lives_on(shared: Lab, stage: str) -> None:
    ends = under_way(relay(shared))
    shared.at_end(ends.close)
    pid = holder(shared)

    def has() -> tuple[int, int]:
        """Its threads, and its sockets."""
        files = [os.path.realpath(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
        return len(os.listdir(f"/proc/{pid}/task")), sum("socket:" in file for file in files)

    before = has()
    if stage == "key exchange":
        shared.dying("h2", b"SSH-2.0-x\r\n")
    elif stage == "host key":
        shared.known_hosts.write_text("".join(shared["h1"].host_keys))
    else:
        shared.host("h2", PubkeyAuthentication="no")
    for _ in range(3):
        assert shared.pyrelay("h2/h3").returncode == 1
    until(lambda: all(map(int.__le__, has(), before)), "end of what they had", 5)


def test_idle_ends_and_new_relays_at_the_same_time(shared: Lab) -> None:
    """A relay that meets a holder which is just about to end gets another one."""
    shared.options[-1] = "1"
    for _ in range(12):
        before = holders(shared)
        if before:
            until(lambda before=before: holders(shared) != before or random.random() < 0.2, "end, or nearly", SOON)  # type: ignore[misc]
        done = shared.ssh("h1/h3", "echo $SERVER")
        assert done.stdout == "h3\n", done.stderr


def test_fdpass_leaves_no_process(shared: Lab) -> None:
    """Ssh has a socket to the holder itself."""
    shared.options.append("--fdpass")
    shared.head = "ProxyUseFdpass yes\n"
    assert shared.ssh("h1/h2/h3", "echo $SERVER; cat", stdin="hello").stdout == "h3\nhello"
    assert logins(shared) == [1, 1, 1]
    until(lambda: "0 relays" in control(shared, "list"), "end of the relay")


# Prompts


def test_a_person_is_asked_where_the_relay_is(lab: Lab) -> None:
    """The second factor is typed once, on the terminal of who comes first, whoever started the holder."""
    lab.servers("h0", "h2")
    lab.options += AGAIN
    assert lab.ssh("h0/h2", "echo $SERVER").stdout == "h2\n"  # without a terminal: the holder is there before it
    server = asking(lab, "h1", passwords("secret"))
    with Terminal(lab, "ssh", "-F", lab.write_config(), "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("@h1's password: ", "secret")
        terminal.expect("h2\n")
        terminal.wait()
        assert "secret" not in terminal.shown
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert server.requests.count("password") == 1


def test_nobody_waits_for_a_person_who_has_left(lab: Lab) -> None:
    """The first of two is asked, and gives up; the other is asked then."""
    lab.server("h2")
    lab.options += AGAIN
    server = asking(lab, "h1", passwords("secret"))
    with Terminal(lab, "ssh", "-F", lab.write_config(), "h1/h2", "echo $SERVER") as first:
        first.expect("@h1's password: ")
        with Terminal(lab, "ssh", "-F", lab.write_config(), "-v", "h1/h2", "echo $SERVER") as second:
            until(lambda: "2 relays" in control(lab, "list"), "second relay")
            first.type("\x03")
            first.wait()
            second.answer("@h1's password: ", "secret")
            second.expect("h2\n")
            second.wait()
    assert server.requests.count("password") == 1


def test_nobody_waits_for_a_login_that_was_given_up(shared: Lab) -> None:
    """The server says nothing for ever; it is asked again by whoever comes, as if he were the first."""
    silent = shared.silent("mute")
    first = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "mute/h3")
    assert silent.reached.wait(SOON)
    second = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "mute/h3")
    until(lambda: "2 relays" in control(shared, "list"), "second relay")
    first.kill()
    until(lambda: silent.accepted == 2, "a login of its own", SOON)
    second.kill()
    until(lambda: not holders(shared), "end of the holder")


@pytest.mark.parametrize("route", ["mute/h3", "h1/mute/h3"])
def test_who_is_killed_while_it_waits_leaves_nothing(shared: Lab, route: str) -> None:
    """The hops that it held are given back, and closed in their time."""
    shared.options[-1] = "1"
    silent = shared.silent("mute")
    process = shared.start(shared.program, "-F", shared.write_config(), *shared.options, route)
    assert silent.reached.wait(SOON)
    process.kill()
    process.wait()
    until(lambda: not holders(shared), "end of the holder")


# Trust


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
    assert (
        done.stderr
        == f"pyrelay: --share: {directory} must be a directory that is yours alone\nhint: chmod 700 {directory}\n"
    )


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
    """`su` keeps the name of it in the environment."""
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
    done = shared.run(shared.program, "-O", "list", env={"HOME": str(shared.top / "file")})
    assert done.returncode == 1
    assert done.stderr == f"pyrelay: --share: {shared.top}/file/.ssh/pyrelay: not a directory\n"


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
    assert (done.returncode, done.stderr) == (1, f"pyrelay: --share: who listens in {directory} is another user\n")
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
    """A relay calls before it has read its options, and starts over where nobody welcomes it."""
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
    """It has held what was opened for it ahead, and has not come to say for how long."""
    for _ in range(2):
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    program(shared, "import sys", "sys.modules['relay.dial.dial'] = None")
    assert shared.ssh("h1/h3", "echo $SERVER").returncode == 255
    until(lambda: ", 0 relays, " in control(shared, "list"), "end of what was called for")
    program(shared)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 1


def test_a_directory_that_was_removed(shared: Lab, tmp_path: Path) -> None:
    """ssh does not mind where it is."""
    here = tmp_path / "here"
    here.mkdir()
    config = shared.write_config()
    script = 'rmdir "$PWD" && exec ssh -F "$1" h1/h3 "echo \\$SERVER"'
    for _ in range(2):
        here.mkdir(exist_ok=True)
        done = shared.start("sh", "-c", script, "sh", config, cwd=here)
        assert done.communicate(timeout=SOON)[0] == b"h3\n"


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


# -O

CLOSED = "the shared hops were closed (-O exit)\n"


def test_list_check_stop_and_exit(shared: Lab) -> None:
    for name in ("list", "check", "stop", "exit"):
        done = shared.pyrelay("-O", name)
        assert (done.returncode, done.stderr) == (1, "pyrelay: no hops are shared\n")
    ends = relay(shared, "h1/h2")
    ends.send(b"12345")
    assert ends.far_receive(5) == b"12345"
    first, second = control(shared, "list").splitlines()
    assert re.fullmatch(r"h1: since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1 relay, 5 bytes", first)
    assert re.fullmatch(r"h1/h2: since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1 relay, 5 bytes", second)
    assert control(shared, "check") == f"Master running (pid={holder(shared)})\n"
    assert control(shared, "stop") == "Stop listening request sent.\n"
    until(lambda: not holders(shared), "end of the listening")
    ends.send(b"on")
    assert ends.far_receive(2) == b"on"
    other = relay(shared, "h1/h2")
    assert logins(shared)[:2] == [2, 2]
    assert control(shared, "exit") == "Exit request sent.\n"
    assert other.status() == 1
    assert other.said() == f"pyrelay: {CLOSED}"
    ends.send(b"on")
    assert ends.far_receive(2) == b"on"
    ends.end()
    ends.far_end()
    assert ends.status() == 0
    ends.close()
    other.close()
    assert shared.remaining(SOON) == {}


def test_exit_is_told_to_who_waits_for_a_login(shared: Lab) -> None:
    silent = shared.silent("mute")
    waiting = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "mute/h3")
    assert silent.reached.wait(SOON)
    control(shared, "exit")
    assert waiting.communicate(timeout=SOON)[1].decode() == f"pyrelay: hop 1 of 1 (mute): {CLOSED}"
    assert waiting.returncode == 1
    assert shared.remaining(SOON) == {}


def test_exit_is_told_to_a_relay_without_gcm(lab: Lab) -> None:
    lab.server("h1", Ciphers="aes128-ctr")
    ends = under_way(relay(lab))
    control(lab, "exit")
    assert (ends.status(), ends.said()) == (1, f"pyrelay: {CLOSED}")
    ends.close()
    assert lab.remaining(SOON) == {}


# Long


def test_nothing_is_left_behind_by_many_relays(shared: Lab) -> None:
    """Descriptors and memory of the holder stay where they are."""

    def one() -> None:
        assert shared.pyrelay(f"h1/h2/{LOOPBACK}:{shared['h3'].port}", stdin="").stdout.startswith("SSH-2.0-")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{holder(shared)}/fd"))

    for _ in range(5):
        one()
    until(lambda: "0 relays" in control(shared, "list"), "end of the relays")
    before = descriptors()
    for _ in range(40):
        one()
    until(lambda: control(shared, "list").count(" 0 relays") == 2, "end of the relays")
    assert descriptors() <= before + 1
    threads = os.listdir(f"/proc/{holder(shared)}/task")
    assert len(threads) < 12


# What is opened ahead


def test_what_is_opened_ahead_is_what_is_used(shared: Lab) -> None:
    for _ in range(3):
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(shared["h1"].forwards()) == 3


def test_the_same_words_may_mean_another_place(shared: Lab) -> None:
    """Between two relays ssh_config has changed; what was opened ahead is closed again."""
    for name in ("h2", "h3"):
        shared.host("there", HostName=LOOPBACK, Port=shared[name].port, HostKeyAlias="x")
        assert shared.pyrelay("h1/there", stdin="").stdout.startswith("SSH-2.0-")
    assert [port for _, port in shared["h1"].forwards()] == [shared[name].port for name in ("h2", "h2", "h3")]
    assert logins(shared)[0] == 1
    until(lambda: " 0 relays" in control(shared, "list"), "end of the relays")


def test_a_refusal_ahead_is_told_as_any(shared: Lab) -> None:
    """The place was there before, and is not now."""

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"x")

    listener = Listener(serve)
    route = f"h1/{LOOPBACK}:{listener.port}"
    try:
        assert shared.pyrelay(route).stdout == "x"
    finally:
        listener.stop()
    done = shared.pyrelay(route)
    assert done.returncode == 1
    where = f"{LOOPBACK} port {listener.port}"
    words = f"target ({LOOPBACK}:{listener.port}): connection refused (says shared hop (h1) of {where})"
    assert done.stderr == f"pyrelay: {words}\n"


def test_a_hop_that_is_dead_ahead(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    for connection in shared["h1"].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


# Messages


@pytest.mark.parametrize("fields", [[], [b""], [b"a", b"", b"\xff" * 70_000]])
def test_fields_come_back(fields: list[bytes]) -> None:
    assert unpack(pack(fields)) == fields


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\1", b"\0\0\0\0\xff\xff\xff\xff"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(BadMessage):
        unpack(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_none(data: bytes) -> None:
    try:
        fields = unpack(data)
    except BadMessage:
        return
    assert pack(fields) == data


def test_a_message_that_is_too_long() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"\x7f\xff\xff\xff")
        with pytest.raises(BadMessage):
            Wire(near).receive()


def test_the_end_of_the_socket() -> None:
    near, far = socket.socketpair()
    with near:
        far.sendall(b"\0\0\0\x08\0\0")
        far.close()
        with pytest.raises(Ended):
            Wire(near).receive()


def test_who_is_told_all_may_leave_at_once() -> None:
    """A relay of a target that is quick hands its stdin over, and all is done before it knows."""

    class Quick(socket.socket):
        def sendmsg(self, *message: Any) -> int:
            sent = super().sendmsg(*message)
            far.close()
            return sent

    near, far = socket.socketpair()
    with Quick(fileno=near.detach()) as quick:
        Wire(quick).send("serve", fds=(0, 1))


def test_a_message_that_is_cut_off_is_the_last() -> None:
    """A relay that is stopped holds nobody up, and gets no half of a message with another one after it."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        wire = Wire(near)
        with pytest.raises(Ended):
            wire.send("say", bytes(4 * MIB))
        assert far.recv(MIB)
        with pytest.raises(Ended):
            wire.send("ended")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90", 90),
        ("1h30m", 5400),
        ("2W", 1_209_600),
        ("1h30", 3630),
        ("yes", float("inf")),
        ("0", float("inf")),
        ("no", None),
    ],
)
def test_the_time(text: str, seconds: float | None) -> None:
    assert parse(["--share", text, "h1/h2"]).share == seconds
