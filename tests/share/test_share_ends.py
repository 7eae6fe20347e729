"""Shared relays and hops that end or stop: what happens to one relay does not harm another one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from contract import MIB, SOON, Ends, Meanwhile, digest, fill, noise
from lab import Lab
from login_server import SUCCESS, asking, disconnect, failure, passwords, scripted
from peers import LOOPBACK, Listener, until
from shared import AGAIN, command, control, holder, holders, logins, program, relay, under_way
from terminal import Terminal


def echoes(ends: Ends) -> None:
    """A byte gets through both ways."""
    ends.send(b"?")
    assert ends.far_receive(1) == b"?"
    ends.far.sendall(b"!")
    assert ends.receive(1) == b"!"


class Line:
    """A forwarder to a port of loopback: at `rate` bytes a second towards it, or only once there is a file `gate`.

    came: is set when somebody has connected. The lab ends it.
    """

    def __init__(self, lab: Lab, to: int, *, rate: float = 0, gate: Path | None = None) -> None:
        self._to = to
        self._seconds = 1 / rate if rate else 0  # for a byte
        self._gate = gate
        self.came = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = Listener(self._serve)
        self.port = self._listener.port
        lab.at_end(self._stop)

    def _serve(self, near: socket.socket) -> None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        self._sockets.append(near)
        self.came.set()
        if self._gate is not None:
            until(self._gate.exists, "gate")
        far = socket.create_connection((LOOPBACK, self._to))
        self._sockets.append(far)
        for way in ((near, far, self._seconds), (far, near, 0.0)):
            self._threads.append(threading.Thread(target=self._copy, args=way))
            self._threads[-1].start()

    def _copy(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                time.sleep(len(data) * seconds)  # the slowness itself: nobody waits for it
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _stop(self) -> None:
        self._listener.stop()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def behind_a_gate(lab: Lab) -> Path:
    """Let nobody through to h1 before there is the file that is returned."""
    gate = lab.top / "gate"
    line = Line(lab, lab["h1"].port, gate=gate)
    lab.know("h1", line.port, lab["h1"].host_keys)
    lab.host("h1", Port=line.port)
    return gate


# Bytes


@pytest.mark.parametrize("how", ["orderly", "a short time", "stop"])
def test_the_last_bytes_for_a_slow_target_outlive_the_hop(shared: Lab, how: str) -> None:
    """The hop is closed when no relay is on it; a relay whose bytes the hop has not taken yet is on it."""
    ends = under_way(relay(shared, "h1", *(("--share", "1") if how == "a short time" else ())))
    sent, begin = ends.overfill()
    if how == "stop":
        control(shared, "stop")
    ends.end()
    with pytest.raises(subprocess.TimeoutExpired):  # it ends only when the target has all bytes
        ends.process.wait(2.5)
    assert digest(begin + ends.far_receive()) == digest(sent)
    assert ends.status() == 0
    ends.close()


def test_one_upload_on_a_slow_line_holds_up_nobody(shared: Lab) -> None:
    """Its bytes fill all buffers; the others still get their turns."""
    program(
        shared,
        "import socket, relay.ssh.wire.connection as connection",
        "begin = connection.Connection.__init__",
        "def init(self, reader):",
        "    begin(self, reader)",
        "    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # as a slow line has it",
        "connection.Connection.__init__ = init",
    )
    line = Line(shared, shared["h1"].port, rate=2e6)
    shared.know("h1", line.port, shared["h1"].host_keys)
    shared.host("h1", Port=line.port)
    bulk, *others = (under_way(relay(shared)) for _ in range(4))
    data = noise(MIB)

    def upload() -> None:
        try:
            while True:
                bulk.send(data)
        except BrokenPipeError:
            pass

    def drain() -> None:
        bulk.far_receive()

    with Meanwhile(upload):
        bulk.far_receive(MIB)
        with Meanwhile(drain):
            for other in others:
                echoes(other)
            bulk.process.kill()
            assert bulk.process.stdout
            bulk.process.wait()
    for other in others:
        other.close()
    bulk.close()


def test_a_link_that_is_lost_after_the_end_of_the_target_is_told(shared: Lab) -> None:
    ends = under_way(relay(shared))
    fill(ends.process.stdin.fileno(), noise(MIB))  # type: ignore[union-attr]
    ends.far_end()
    assert ends.receive() == b""
    os.killpg(shared["h1"].connections[0].process.pid, signal.SIGKILL)
    assert ends.status() == 1
    assert "shared hop (h1): the connection was lost" in ends.said()
    ends.close()


# Which relays go on


def test_a_terminal_is_not_lent(shared: Lab) -> None:
    """A holder would read the terminal while the relay is stopped, and take what is typed for the shell."""
    near, far = os.openpty()
    ends = under_way(Ends(command(shared), env=shared.environment(), stdin=far, start_new_session=True))
    os.write(near, b"hello\n")
    assert ends.far_receive(6) == b"hello\n"
    assert holders(shared) == []
    ends.close()
    os.close(near)
    os.close(far)


@pytest.mark.parametrize("before", ["its bytes are held up", "it says no more", "nothing"])
def test_an_ssh_that_is_killed_without_a_process_that_would_see_it(shared: Lab, before: str) -> None:
    """As under --fdpass. The target is silent."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        ours, theirs = socket.socketpair()
        with theirs:
            relayed = subprocess.Popen(
                command(shared, "h1", "--fdpass")(listener.getsockname()[1]),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                env=shared.environment(),
            )
        with ours:
            ssh = socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
        assert relayed.wait(SOON) == 0
        with listener.accept()[0] as far:
            far.sendall(b"x")
            assert ssh.recv(1) == b"x"
            if before == "its bytes are held up":
                fill(ssh.fileno(), noise(MIB))
            elif before == "it says no more":
                ssh.shutdown(socket.SHUT_WR)
                assert far.recv(1) == b""
            ssh.close()
            until(lambda: ", 0 relays" in control(shared, "list"), "end of the relay", SOON)


def test_a_relay_without_gcm_outlives_the_one_that_started_the_holder(lab: Lab) -> None:
    lab.server("h1", Ciphers="aes128-ctr")
    first, second = relay(lab), relay(lab)
    under_way(first)
    second.send(b"x")
    assert second.far_receive(1) == b"x"  # the target has still said nothing
    first.process.kill()
    assert first.far_receive() == b""
    with pytest.raises(subprocess.TimeoutExpired):
        second.process.wait(1.5)
    echoes(second)
    first.close()
    second.close()


def test_what_is_given_up_keeps_nobody_waiting(shared: Lab) -> None:
    """A relay is killed while it logs in over a connection that does not close."""
    closing = shared.top / "closing"
    program(
        shared,
        "import pathlib, threading",
        "from relay.ssh.wire import channel",
        "def close(stream):",
        f"    pathlib.Path({str(closing)!r}).touch()",
        "    threading.Event().wait()",
        "channel.ChannelStream.close = close",
    )
    other = under_way(relay(shared, "h2"))
    silent = shared.silent("mute")
    process = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "h1/mute/h3")
    assert silent.reached.wait(SOON)
    process.kill()
    until(closing.exists, "end of the login", SOON)
    echoes(other)
    other.close()


def test_a_directory_that_was_removed(shared: Lab) -> None:
    """A logout removes XDG_RUNTIME_DIR: when the old holder ends, it leaves the new one's files alone."""
    shared.options[-1] = "2"
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    (old,) = holders(shared)
    shutil.rmtree(shared.home / ".ssh" / "pyrelay")
    shared.options[-1] = "10m"
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    until(lambda: old not in shared.processes(), "end of the old holder", SOON)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


@pytest.mark.parametrize("route", ["h1/h3", "h1/h2/h3"])
def test_a_hop_that_dies_of_each_channel_is_not_logged_in_to_for_ever(shared: Lab, route: str) -> None:
    """A login is tried again only on a hop that was there before, and may have been dead. It is named in the end."""
    program(
        shared,
        "from relay.ssh.session import Session",
        "def forward(session, *_, **__):",
        "    session.transport.close()",
        "    raise session.lost()",
        "Session.forward = forward",
    )
    done = shared.pyrelay(route)
    assert (done.returncode, logins(shared)) == (1, [2, 0, 0])
    assert done.stderr == "pyrelay: shared hop (h1): the hop does not answer any more\n"


def test_a_stop_while_somebody_logs_in(shared: Lab) -> None:
    """All who came before it get there, by one login; the hops end with them."""
    gate = behind_a_gate(shared)
    other = under_way(relay(shared, "h2"))
    (pid,) = holders(shared)
    config = shared.write_config()
    late = [shared.start("ssh", "-F", config, "h1/h3/h2", "echo $SERVER; sleep 1") for _ in range(3)]
    until(lambda: "h1: logging in, 3 relays" in control(shared, "list"), "login", SOON)
    control(shared, "stop")
    gate.touch()
    assert [each.communicate(timeout=SOON)[0] for each in late] == [b"h2\n"] * 3
    assert logins(shared, "h1", "h3") == [1, 1]
    other.close()
    until(lambda: pid not in shared.processes(), "end of the holder", SOON)


def test_a_relay_that_is_stopped_in_its_login_holds_up_nobody(lab: Lab) -> None:
    """The hop has a banner, and whether somebody sees that is asked of the relay."""
    words = lab.top / "banner"
    words.write_text("Welcome.\n")
    lab.server("h1", extra=f"Banner {words}")
    lab.server("h3")
    gate = behind_a_gate(lab)
    first = lab.start(lab.program, "-F", lab.write_config(), *AGAIN, "h1/h3", stdin=subprocess.PIPE)
    until(lambda: "logging in" in control(lab, "list"), "login", SOON)
    os.kill(first.pid, signal.SIGSTOP)
    gate.touch()
    lab.options += ["--share", "10m"]
    assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    os.kill(first.pid, signal.SIGCONT)
    assert first.stdout is not None
    assert first.stdout.readline().startswith(b"SSH-2.0-")
    first.kill()
    first.wait()


def test_a_login_that_is_waited_for_in_vain(lab: Lab) -> None:
    lab.servers("h1", "h3")
    gate = behind_a_gate(lab)
    first = lab.start(lab.program, "-F", lab.write_config(), *AGAIN, "h1/h3", stdin=subprocess.PIPE)
    until(lambda: "logging in" in control(lab, "list"), "login", SOON)
    assert lab.pyrelay(*AGAIN, "-w", "1", "h1/h3").stderr == (
        "pyrelay: hop 1 of 1 (h1): no answer within 1 second (waiting for another relay's login)\n"
        "hint: a question of that relay may wait for its answer; `pyrelay -O exit` ends its login\n"
    )
    control(lab, "exit")
    assert first.wait(SOON) == 1
    until(lambda: not holders(lab), "end of the holder", SOON)
    gate.touch()


# What belongs to one relay


def test_a_failure_for_want_of_a_person_is_nobody_elses(lab: Lab) -> None:
    lab.servers("h0", "h2")
    lab.options += AGAIN
    gate = lab.top / "gate"
    server = asking(lab, "h1", passwords("secret"))
    line = Line(lab, server.port, gate=gate)
    lab.host("h1", Port=line.port)
    lab.know("h1", line.port, [server.host_key])
    first = lab.start("ssh", "-F", lab.write_config(), "h1/h2", "echo $SERVER")  # without a terminal
    until(lambda: "h1" in control(lab, "list"), "login", SOON)
    with Terminal(lab, "ssh", "-F", lab.write_config(), "h1/h2", "echo $SERVER") as second:
        until(lambda: ", 2 relays" in control(lab, "list"), "second relay", SOON)
        gate.touch()
        second.answer("@h1's password: ", "secret")
        second.expect("h2\n")
    assert b"there is no terminal to ask on" in first.communicate(timeout=SOON)[1]


def test_the_deadline_of_another(lab: Lab) -> None:
    lab.server("h3")
    gate = lab.top / "gate"
    server = lab.server("h1")
    line = Line(lab, server.port, gate=gate)
    lab.host("h1", Port=line.port)
    lab.know("h1", line.port, server.host_keys)
    lab.options += AGAIN
    config = lab.write_config()
    first = lab.start(lab.program, "-F", config, *AGAIN, "-w", "5", "h1/h3")
    assert line.came.wait(SOON)  # (to ask the holder might take as long as the first one has)
    second = lab.start("ssh", "-F", config, "h1/h3", "echo $SERVER")
    assert b"no answer within 5 seconds" in first.communicate(timeout=SOON)[1]
    gate.touch()
    assert second.communicate(timeout=SOON)[0] == b"h3\n"


def test_the_words_of_a_netcat_reach_the_relay_that_it_is_for(lab: Lab) -> None:
    """Also where the holder opened it ahead, before that relay had said where it goes."""
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.options += AGAIN
    works = lab.top / "works"
    works.touch()
    line = f"if [ -e {works} ]; then printf x; else echo why >&2; exit 3; fi"
    assert lab.pyrelay("--netcat-command", line, "h1/h2x", stdin=None).stdout == "x"
    works.unlink()
    assert "pyrelay: shared hop (h1): why\n" in lab.pyrelay("--netcat-command", line, "h1/h2x", stdin=None).stderr


@pytest.mark.parametrize("route", ["h1/h2", "h1/h2/h3"])
def test_a_netcat_says_as_much_as_the_relay_wants_to_hear(lab: Lab, route: str) -> None:
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.servers("h2", "h3")
    lab.options += AGAIN
    line = "echo why >&2; exit 3"
    assert ": why\n" not in lab.pyrelay("-q", "--netcat-command", line, route).stderr
    said = "pyrelay: shared hop (h1): it denies forwarding: crossing it by a netcat there\n"
    assert said in lab.pyrelay("-v", "--netcat", route).stderr


def test_the_words_of_a_proxycommand_reach_the_relay_that_logs_in(shared: Lab) -> None:
    shared.host("h1", ProxyCommand="sh -c 'echo log in to the cloud first >&2; exit 1'")
    assert shared.pyrelay("h1/h3").stderr == (
        "pyrelay: hop 1 of 1 (h1): log in to the cloud first\n"
        "pyrelay: hop 1 of 1 (h1): its ProxyCommand ended with status 1\n"
    )


def test_what_a_relay_lends_no_program_of_another_has(shared: Lab) -> None:
    """Its ssh sees the end of stdout when the relay ends, not when a KnownHostsCommand does."""
    ends = under_way(relay(shared))
    listed = shared.top / "listed"
    script = shared.top / "command"
    script.write_text(
        f"#!/bin/sh\nfor fd in /proc/self/fd/*; do readlink $fd; done >{listed}.new; mv {listed}.new {listed}\n"
    )
    script.chmod(0o755)
    shared.host("h2", KnownHostsCommand=str(script))
    assert shared.ssh("h2/h3", "echo $SERVER").stdout == "h3\n"
    lent = {os.readlink(f"/proc/{ends.process.pid}/fd/{fd}") for fd in (0, 1)}
    assert lent.isdisjoint(listed.read_text().splitlines())
    ends.close()


# Holders that were called in vain


def test_a_holder_that_is_not_needed_is_left_alone(shared: Lab) -> None:
    """What was opened for a relay that then goes by a master, or to a plain host, does not stay."""
    shared.options[-1] = "1"
    accepted = ExitStack()
    target = Listener(lambda connection: accepted.enter_context(connection).sendall(b"x"))
    shared.host("h1", ControlPath=str(shared.top / "master"))
    route = f"h1/{LOOPBACK}:{target.port}"
    argv = (shared.program, "-F", shared.write_config(), *AGAIN, route)
    first = shared.start(*argv, stdin=subprocess.PIPE)
    assert first.stdout
    assert first.stdout.read(1) == b"x"
    first.kill()
    master = shared.start("ssh", "-F", shared.write_config(), "-M", "-N", "h1")
    until((shared.top / "master").exists, "master")
    second = shared.start(*argv, stdin=subprocess.PIPE)
    assert second.stdout
    assert second.stdout.read(1) == b"x"
    until(lambda: ", 0 relays" in control(shared, "list"), "end of what was opened ahead", SOON)
    for process in (second, master):
        process.kill()
    accepted.close()
    target.stop()


def test_an_interrupt_before_anything_else_is_no_traceback(lab: Lab) -> None:
    lab.closed("h1")
    program(
        lab,
        "import os, signal",
        "from relay.spec import options",
        "options.parse = lambda _: os.kill(os.getpid(), signal.SIGINT)",
    )
    done = lab.pyrelay("h1/h3")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_relay_that_begins_amid_a_key_exchange_holds_up_nobody(lab: Lab) -> None:
    """Its hop computes for as long as it likes: a relay of another hop goes on, and its own one afterwards."""
    gate, come = lab.top / "gate", lab.top / "come"
    os.mkfifo(gate)
    program(
        lab,
        "from relay.ssh.wire.transport import Transport",
        "from relay.ssh.wire.channel import ChannelStream",
        "parse, attach = Transport._parse_kex_init, ChannelStream.attach",
        "def slow(self, message):",
        "    if self.initial_kex_done:",
        f"        open({str(gate)!r}).read()",
        "    parse(self, message)",
        "def come(self):",
        "    if 'paramiko' in self.channel.transport.remote_version:",
        f"        open({str(come)!r}, 'w').close()",
        "    return attach(self)",
        "Transport._parse_kex_init, ChannelStream.attach = slow, come",
    )
    lab.server("h1")
    scripted(lab, "h2", lambda _: [SUCCESS]).rekeys = True
    with ExitStack() as stack:
        good = under_way(relay(lab, "h1"))
        stack.callback(good.close)
        late = relay(lab, "h2")
        stack.callback(late.close)
        with gate.open("w"):  # until that is read
            until(come.exists, "the loop is to take the channel")
            for _ in range(20):
                echoes(good)
        echoes(late)
        echoes(good)


@pytest.mark.parametrize("answers", [[failure("publickey")], [SUCCESS, disconnect("enough")]], ids=["login", "end"])
def test_hops_that_fail_leave_nothing_open_in_the_holder(lab: Lab, answers: list[bytes]) -> None:
    """Not even for as long as garbage stays: another relay is being served, so the holder lives."""
    lab.server("h1")
    scripted(lab, "h2", lambda _: answers)
    with ExitStack() as stack:
        good = under_way(relay(lab, "h1"))
        stack.callback(good.close)
        opened = Path("/proc", str(holder(lab)), "fd")
        before = len(list(opened.iterdir()))
        for _ in range(6):
            done = lab.pyrelay("--share", "0", "h2/h1")
            assert (done.returncode, done.stdout) == (1, "")
        until(lambda: len(list(opened.iterdir())) <= before, "closing")
        echoes(good)
