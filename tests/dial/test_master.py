"""A ControlMaster that is running is used for the first hop; what only looks like a master is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from contract import SOON, Command, Meanwhile, StreamContract
from hypothesis import given
from hypothesis import strategies as st
from lab import LACKS, Lab
from masters import start_master
from peers import LOOPBACK, Listener, missing, need, until

from relay.config.settings import HopSettings
from relay.dial import master
from relay.dial.master import Garbled, MasterHop, Message, find, meet, parse
from relay.errors import TimedOut, printable
from relay.run.progress import Progress

REFUSED = (
    "hint: a master does not pass on why: the port may be closed, or the hop may not forward "
    "(AllowTcpForwarding, PermitOpen); -o ControlPath=none shows it\n"
)
USER = 65534  # nobody
OPENED = b"\0\0\0\x0c\x80\0\0\x06\0\0\0\x01\0\0\0\x02"
HELLO = b"\0\0\0\x08\0\0\0\x01\0\0\0\x04"


@pytest.fixture
def path(lab: Lab) -> Path:
    """What the ControlPath of h1 says."""
    found = lab.top / "master"
    lab.host("h1", ControlPath=found)
    return found


@pytest.fixture
def chain(lab: Lab, path: Path) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


def others(lab: Lab, *masters: subprocess.Popen[bytes]) -> dict[int, str]:
    """The lab's processes, without these."""
    mine = {process.pid for process in masters}
    return {pid: command for pid, command in lab.processes().items() if pid not in mine}


def assert_none_left(lab: Lab, *masters: subprocess.Popen[bytes]) -> None:
    until(lambda: not others(lab, *masters), "end of what was started")


# Used


@pytest.mark.parametrize("route", ["h1/h3", "h1/h2/h3"])
def test_it_saves_the_login_to_the_first_hop(chain: Lab, path: Path, route: str) -> None:
    ours = start_master(chain, "h1", path)
    for _ in range(2):
        done = chain.ssh(route, "echo $SERVER")
        assert (done.stdout, done.stderr) == ("h3\n", "")
    assert len(chain["h1"].connections) == 1
    assert chain["h1"].logins() == [chain.user]
    assert len(chain["h2"].logins()) == (2 if "h2" in route else 0)
    assert_none_left(chain, ours)


def test_v_says_so(chain: Lab, path: Path) -> None:
    start_master(chain, "h1", path)
    done = chain.pyrelay("-v", "h1/h3")
    assert f"pyrelay: hop 1 of 1 (h1): by a ControlMaster: {path}\n" in done.stderr
    assert done.stdout.startswith("SSH-2.0-")


@pytest.mark.parametrize("tokens", ["%C", "%r@%h:%p", "%n-%L"])
def test_its_path_is_what_ssh_makes_of_it(chain: Lab, tokens: str) -> None:
    """With the user and the port that the route spells."""
    chain.host("h1", ControlPath=chain.top / f"at-{tokens}", User="wrong", Port=1)
    port = chain["h1"].port
    spelled = ("-l", chain.user, "-p", str(port))
    chain.write_config()
    asked = chain.run("ssh", "-G", "-F", chain.config, *spelled, "h1").stdout
    path = next(line.split(None, 1)[1] for line in asked.splitlines() if line.startswith("controlpath "))
    # As a user makes one: by ControlPath, not by -S.
    chain.start("ssh", "-F", chain.config, "-M", "-N", *spelled, "h1")
    until(Path(path).exists, "master")
    assert chain.ssh(f"{chain.user}%h1:{port}+h3", "echo $SERVER").stdout == "h3\n"
    assert len(chain["h1"].connections) == 1


def test_with_fdpass(chain: Lab, path: Path) -> None:
    ours = start_master(chain, "h1", path)
    chain.options = ["--fdpass"]
    chain.head = "Host */*\n    ProxyUseFdpass yes"
    for route in ("h1/h3", "h1/h2/h3"):
        assert chain.ssh(route, "echo $SERVER").stdout == "h3\n"
    assert len(chain["h1"].connections) == 1
    assert_none_left(chain, ours)


def test_the_next_hop_is_carried_by_ssh(lab: Lab, path: Path) -> None:
    lab.servers("h1", "h3")
    lab.server("h2", extra=LACKS)
    ours = start_master(lab, "h1", path)
    data = os.urandom(1 << 20)
    process = lab.start("ssh", "-F", lab.config, "h1/h2/h3", "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data, SOON)
    assert (process.returncode, err.decode()) == (0, "")
    assert out == data
    assert len(lab["h1"].connections) == 1
    assert_none_left(lab, ours)


def test_before_its_proxyjump_and_that_ones_own(chain: Lab, path: Path) -> None:
    """As with ssh, which asks the master of a host before it connects to anything."""
    chain.server("gate")
    chain.host("h1", ProxyJump="gate")
    gate = chain.top / "gate-master"
    chain.host("gate", ControlPath=gate)
    start_master(chain, "gate", gate)
    assert chain.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert [len(chain[name].connections) for name in ("gate", "h1")] == [1, 1]
    ours = start_master(chain, "h1", path)  # by the gate's
    before = [len(chain[name].forwards()) for name in ("gate", "h1")]
    assert chain.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert [len(chain[name].forwards()) for name in ("gate", "h1")] == [before[0], before[1] + 1]
    assert ours.poll() is None


def test_nothing_is_left_in_the_master(chain: Lab, path: Path) -> None:
    ours = start_master(chain, "h1", path)
    table = Path(f"/proc/{ours.pid}/fd")
    if not table.exists():
        missing("no /proc/PID/fd")
    before = len(list(table.iterdir()))
    for _ in range(5):
        assert chain.pyrelay("h1/h3").returncode == 0
        assert chain.pyrelay("h1/h3:1").returncode == 1
    until(lambda: len(list(table.iterdir())) == before, "end of what the master had opened")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_the_stream_ends_with_pyrelay(chain: Lab, path: Path, number: signal.Signals) -> None:
    ours = start_master(chain, "h1", path)
    with socket.create_server((LOOPBACK, 0)) as target:
        target.settimeout(SOON)
        program = chain.start(chain.program, "-F", chain.config, f"h1/{LOOPBACK}:{target.getsockname()[1]}", stdin=-1)
        far, _ = target.accept()
        with far:
            far.settimeout(SOON)
            far.sendall(b"hello")
            assert program.stdout
            assert program.stdout.read(5) == b"hello"
            program.send_signal(number)
            assert far.recv(1) == b""
    program.wait(SOON)
    assert ours.poll() is None
    assert_none_left(chain, ours)


def test_no_descriptor_is_left_over(chain: Lab, path: Path) -> None:
    """The stream, and the connection to the control socket, which it lives by."""
    start_master(chain, "h1", path)
    program = chain.start(chain.program, "-F", chain.config, "h1/h3", stdin=subprocess.PIPE)
    table = Path(f"/proc/{program.pid}/fd")
    if not table.exists():
        missing("no /proc/PID/fd")
    assert program.stdout
    assert program.stdout.read(4) == b"SSH-"
    assert [str(fd.readlink()).partition(":")[0] for fd in table.iterdir()].count("socket") == 2


# Not used


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "ControlPath=none"],
        ["--engine", "paramiko"],
        ["--engine", "ssh"],
        ["--netcat"],
        ["--netcat=h1"],
    ],
    ids=" ".join,
)
def test_what_turns_it_off(chain: Lab, path: Path, options: list[str]) -> None:
    start_master(chain, "h1", path)
    chain.options = options
    assert chain.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(chain["h1"].connections) == 2


def test_a_proxy_that_was_named_is_the_way(chain: Lab, path: Path) -> None:
    start_master(chain, "h1", path)
    done = chain.pyrelay("-x", f"{LOOPBACK}:{chain.closed('proxy')}", "h1/h3")
    assert done.returncode == 1
    assert "connection refused" in done.stderr
    assert len(chain["h1"].connections) == 1


def test_a_later_hops_own_is_not_used(chain: Lab, path: Path) -> None:
    start_master(chain, "h1", path)
    assert chain.ssh("h2/h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(chain["h1"].connections) == 2


def speaker(lab: Lab, path: Path, say: bytes, then: Callable[[socket.socket], object] = lambda _: None) -> None:
    """Something that listens at path: it says this to whoever comes, does `then`, and holds the connection."""
    held = ExitStack()

    def serve(connection: socket.socket) -> None:
        held.enter_context(connection)
        connection.sendall(say)
        then(connection)

    lab.at_end(held.close)
    lab.at_end(Listener(serve, path=path).stop)


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def assert_own_login(lab: Lab, why: str) -> None:
    """pyrelay logs in by itself, and -v says why."""
    done = lab.pyrelay("-v", "h1/h3")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert f"pyrelay: no master at {lab.top}/master: {why}\n" in done.stderr
    assert lab["h1"].logins() == [lab.user]


def test_there_is_none(chain: Lab) -> None:
    assert_own_login(chain, "no such file or directory")


def test_it_has_died_and_left_its_socket(chain: Lab, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert_own_login(chain, "connection refused")


def test_a_file_that_is_no_socket(chain: Lab, path: Path) -> None:
    path.write_text("no socket")
    assert_own_login(chain, "connection refused")


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (b"", "it hung up"),
        (HELLO[:7], "it hung up"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "what answers there speaks no multiplexing protocol"),
        (b"\0\0\0\x06\0\0\0\x01\0\0", "the message is cut short"),
        (HELLO[:-1] + b"\x05", "version 4 of the multiplexing protocol is not spoken there"),
        (b"\0\0\0\x08\x80\0\0\x06\0\0\0\x04", "version 4 of the multiplexing protocol is not spoken there"),
    ],
)
def test_what_listens_is_no_master(chain: Lab, path: Path, say: bytes, why: str) -> None:
    speaker(chain, path, say, hang_up)
    assert_own_login(chain, why)


def test_what_listens_is_silent(chain: Lab, path: Path) -> None:
    speaker(chain, path, b"")
    assert_own_login(chain, "nobody answers there")


def test_it_is_another_users(chain: Lab, path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can start what belongs to another user")
    path = chain.top / "theirs"
    path.mkdir()
    os.chown(path, USER, USER)
    path = path / "socket"
    chain.host("h1", ControlPath=path)
    chain.start(need("nc"), "-lkU", path, user=USER)

    def is_open() -> bool:
        with socket.socket(socket.AF_UNIX) as knock:
            return knock.connect_ex(str(path)) == 0

    until(is_open, "listener")
    done = chain.pyrelay("-v", "h1/h3")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert "it belongs to another user\n" in done.stderr


@pytest.mark.parametrize("path", ["%C", "/tmp/%C", "~/master", "/tmp/${HOME}"])
def test_a_path_that_ssh_has_not_expanded(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find(HopSettings("h1", {"controlpath": [path]}), Progress(verbosity=1)) is None
    assert f"no master at {path}: ssh -G has not expanded it\n" in capsys.readouterr().err


def test_a_path_that_is_too_long(chain: Lab) -> None:
    chain.host("h1", ControlPath=f"{chain.top}/{'x' * 100}")
    assert ": the path is too long for a socket\n" in chain.pyrelay("-v", "h1/h3").stderr
    assert chain["h1"].logins() == [chain.user]


def test_a_full_queue_is_waited_for(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred relays that start at once do not make a hundred logins."""
    path = str(tmp_path_factory.getbasetemp() / "q")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = [socket.socket(socket.AF_UNIX)]
        waiting[0].connect(path)
        naps = []

        def nap(seconds: float) -> None:
            """In place of sleeping: the queue moves on."""
            naps.append(seconds)
            listener.accept()[0].close()

        def greet() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(HELLO)

        monkeypatch.setattr("relay.run.unix.sleep", nap)
        with Meanwhile(lambda: meet(path, SOON).close()):
            until(lambda: bool(naps), "knock at the door")
            greet()
        waiting[0].close()
    assert len(naps) == 1


# When it fails


@pytest.mark.parametrize("denied", ["AllowTcpForwarding no", "PermitOpen none", ""])
def test_the_hop_does_not_forward(lab: Lab, path: Path, denied: str) -> None:
    """A master does not say why a hop refuses a channel."""
    lab.server("h1", extra=denied)
    start_master(lab, "h1", path)
    port = lab.closed("h3")
    done = lab.pyrelay("h1/h3")
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: target (h3): the master of hop 1 of 1 (h1) cannot connect to "
        f"127.0.0.1 port {port}: session open refused by peer\n{REFUSED}"
    )


@pytest.mark.parametrize("route", ["h1/h3", "h1/h2/h3"])
@pytest.mark.parametrize("how", ["kill", "exit"])
def test_it_ends_under_a_relay(chain: Lab, path: Path, route: str, how: str) -> None:
    ours = start_master(chain, "h1", path)
    program = chain.start(chain.program, "-F", chain.config, route, stdin=subprocess.PIPE)
    assert program.stdout
    assert program.stderr
    assert program.stdout.read(4) == b"SSH-"
    if how == "kill":
        ours.kill()
    else:
        chain.run("ssh", "-F", chain.config, "-S", path, "-O", "exit", "h1")
    assert program.wait(SOON) == 1
    hops = route.count("/")
    assert program.stderr.read().decode() == f"pyrelay: hop 1 of {hops} (h1): its master at {path} is gone\n"
    ours.wait(SOON)
    assert_none_left(chain)


@pytest.mark.parametrize("allow", [True, False])
def test_it_asks_first(chain: Lab, path: Path, allow: bool) -> None:
    """ControlMaster ask."""
    asked, askpass = chain.top / "asked", chain.top / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$1" >{asked}\nexit {0 if allow else 1}\n')
    askpass.chmod(0o755)
    start_master(chain, "h1", path, "-M", SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    done = chain.pyrelay("h1/h3")
    assert "Allow forward to" in asked.read_text()
    if allow:
        assert done.stdout.startswith("SSH-")
        return
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: hop 1 of 1 (h1): its master refused to connect to "
        f"127.0.0.1 port {chain['h3'].port}: permission denied\n"
        "hint: -o ControlPath=none logs in without the master\n"
    )


def test_the_time_of_who_is_asked_does_not_count(lab: Lab, path: Path) -> None:
    told = threading.Event()

    def answer(connection: socket.socket) -> None:
        assert told.wait(SOON)
        connection.sendall(OPENED)

    speaker(lab, path, HELLO, answer)
    progress = Progress(1)
    hop = MasterHop(HopSettings("h1", {"controlmaster": ["autoask"]}), meet(str(path), SOON), progress)
    started = time.monotonic()
    with Meanwhile(lambda: hop.forward("h3", 22, progress).close()):
        until(lambda: time.monotonic() - started > 1.2, "second")
        assert progress.remaining() > 0
        told.set()
    assert progress.remaining() > 0


def test_its_own_connection_is_dead(lab: Lab, path: Path) -> None:
    """After a laptop has slept: the master greets us, and gets no answer from its server any more."""
    speaker(lab, path, HELLO)
    progress = Progress(0.2)
    hop = MasterHop(HopSettings("h1", {}), meet(str(path), SOON), progress)
    with pytest.raises(TimedOut) as failed:
        hop.forward("h3", 22, progress)
    assert failed.value.cause == "no answer within 0.2 seconds (waiting for the master of h1 to connect)"
    assert failed.value.hint == "the connection of a master may be dead: ssh -O exit h1 ends it"


@pytest.mark.parametrize(
    ("say", "what"),
    [
        (b"", "its master at {path} is gone"),
        (b"\0\0\0\x09", "its master at {path} is gone"),
        (b"\0\0\0\x05\x80\0\0\0\0", "its master: the message is cut short"),
        (b"\xff\xff\xff\xff", "its master: what answers there speaks no multiplexing protocol"),
        (b"\0\0\0\x0c\x80\0\0\x06\0\0\0\x09\0\0\0\x01", "its master answered another request"),
        (HELLO, "its master answered another request"),
    ],
)
def test_its_answer_makes_no_sense(chain: Lab, path: Path, say: bytes, what: str) -> None:
    speaker(chain, path, HELLO + say, hang_up)
    done = chain.pyrelay("h1/h3", stdin=None)
    assert (done.returncode, done.stderr) == (1, f"pyrelay: hop 1 of 1 (h1): {what.format(path=path)}\n")
    assert chain["h1"].connections == []


def test_what_it_says_is_safe_to_print(chain: Lab, path: Path) -> None:
    speaker(chain, path, HELLO + b"\0\0\0\x10\x80\0\0\x02\0\0\0\x01\0\0\0\x04\x1b[2J")
    done = chain.pyrelay("h1/h3", stdin=None)
    assert ": [2J\n" in done.stderr
    assert "\x1b" not in done.stderr


# Messages


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_garbled(packet: bytes) -> None:
    try:
        found = parse(packet)
    except Garbled:
        return
    assert found.kind.to_bytes(4, "big") == packet[:4]
    assert found.number.to_bytes(4, "big") == packet[4:8]
    assert found.reason.isprintable()


@given(st.sampled_from([master.FAILURE, master.PERMISSION_DENIED]), st.integers(0, 2**32 - 1), st.binary(max_size=40))
def test_a_refusal_has_its_reason(kind: int, number: int, reason: bytes) -> None:
    packet = b"".join(value.to_bytes(4, "big") for value in (kind, number, len(reason))) + reason
    expected = printable(reason.decode(errors="replace"))
    assert parse(packet) == Message(kind, number, expected)
    for size in range(len(packet)):
        with pytest.raises(Garbled):
            parse(packet[:size])


def test_what_we_say() -> None:
    assert master.hello() == HELLO
    assert master.forward("h3", 22) == b"\0\0\0\x16\x10\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0\x02h3\0\0\0\x16"


# Streams


def through(lab: Lab, *hops: str) -> Command:
    """A relay through hops of the lab, the first of which has a master, to a port of loopback."""
    path = lab.top / "master"
    lab.servers(*hops)
    lab.host(hops[0], ControlPath=path)
    start_master(lab, hops[0], path)
    route = "/".join((*hops, LOOPBACK))
    return lambda port: [sys.executable, "-m", "relay", "-F", str(lab.config), f"{route}:{port}"]


class TestMaster(StreamContract):
    tells_reset = False  # sshd closes the channel, and says no more
    outlasts_far_end = False

    @pytest.fixture
    def command(self, lab: Lab) -> Command:
        return through(lab, "h1")
