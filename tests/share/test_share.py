"""Shared hops: one login per hop, however many relays; who is asked; what is opened ahead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading

import pytest
from contract import SOON
from lab import LACKS, Lab, chain_with
from login_server import asking, passwords
from peers import LOOPBACK, Listener, until
from shared import AGAIN, control, holder, holders, logins, program
from terminal import Terminal

from relay.run.progress import Progress
from relay.share.ahead import Ahead

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
    """Three servers; the second one needs ssh, as only the key exchange shows."""
    chain_with(lab, "h2").options += AGAIN
    return lab


@pytest.mark.parametrize("known", [True, False])
def test_those_before_a_hop_that_ssh_must_carry_are_shared(lab: Lab, known: bool) -> None:
    """Whether ssh_config says that it needs ssh, or only the key exchange shows it."""
    lending(lab)
    if known:
        lab.host("h2", **dict(line.split() for line in LACKS.splitlines()))
    for _ in range(2):
        assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(lab) == [1, 2, 2]
    done = lab.pyrelay(*AGAIN, "-v", f"h1/h2/{LOOPBACK}:{lab['h3'].port}")
    assert "pyrelay: hop 2 of 2 (h2): by ssh: " in done.stderr
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
    # The first netcat carries our own key exchange, which shows that the hop needs ssh.
    line = "test -e $HOME/ran && { echo why >&2; exit 3; }; touch $HOME/ran; exec nc -N %h %p"
    said = lab.pyrelay(*AGAIN, "--netcat-command", line, "h0/h2/h3").stderr
    assert "pyrelay: shared hop (h0): why\n" in said
    assert "the netcat on shared hop (h0) ended with status 3" in said


# Prompts


def test_a_person_is_asked_where_the_relay_is(lab: Lab) -> None:
    """The second factor is typed once, on the terminal of the first relay that needs it."""
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
    """The server never answers; the next relay starts a login of its own."""
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
    """It holds its hops no longer, and they are closed when their time is up."""
    shared.options[-1] = "1"
    silent = shared.silent("mute")
    process = shared.start(shared.program, "-F", shared.write_config(), *shared.options, route)
    assert silent.reached.wait(SOON)
    process.kill()
    process.wait()
    until(lambda: not holders(shared), "end of the holder")


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


def test_it_is_asked_for_by_the_thread_that_runs() -> None:
    """A new thread may have to wait for a processor, and the server's answer with it."""
    asking: list[threading.Thread] = []

    class Hop:
        def ask(self, _to: tuple[str, int]) -> str:
            asking.append(threading.current_thread())
            return "what was asked for"

        def forward(self, *_: object, asked: str) -> str:
            return asked

        def responds(self, *_: object) -> bool:
            return True

    ahead = Ahead(Hop(), "h3", 22, None)  # type: ignore[arg-type]
    assert asking == [threading.current_thread()]
    assert ahead.take(Progress()) == "what was asked for"  # type: ignore[comparison-overlap]


def test_no_thread_can_be_started_for_what_is_opened_ahead(shared: Lab) -> None:
    """What was asked for is closed again, the hop is let go of, and the channel opened as if nothing had been ahead."""
    program(
        shared,
        "import threading",
        "from relay.share import ahead",
        "class Thread(threading.Thread):",
        "    starts = 0",
        "    def start(self):",
        "        Thread.starts += 1",
        "        if Thread.starts == 2:",
        '            raise RuntimeError("can\'t start new thread")',
        "        super().start()",
        "class Scarce:",
        "    Event, Lock, RLock, Thread = threading.Event, threading.Lock, threading.RLock, Thread",
        "ahead.threading = Scarce",
    )
    for _ in range(2):
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert (len(shared["h1"].forwards()), logins(shared)[0]) == (3, 1)
    until(lambda: " 0 relays" in control(shared, "list"), "end of the relays")
    until(lambda: shared["h1"].log().count(": free: direct-tcpip") == 3, "end of the channels")


def test_a_hop_that_is_crossed_by_a_netcat_is_not_asked_ahead(shared: Lab) -> None:
    """It would refuse, and log that."""
    for _ in range(2):
        assert shared.pyrelay("--netcat=h1", f"h1/{LOOPBACK}:{shared['h3'].port}", stdin="").stdout.startswith(
            "SSH-2.0"
        )
    assert shared["h1"].forwards() == []


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
    words = f"target ({LOOPBACK}:{listener.port}): h1 cannot connect to {where}: connection refused"
    assert done.stderr == f"pyrelay: {words}\n"


def test_a_hop_that_is_dead_ahead(shared: Lab) -> None:
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    for connection in shared["h1"].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2
