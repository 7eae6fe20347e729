"""It ends when ssh ends, and leaves no process behind; it lives on as long as ssh needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import faulty_hop
import pytest
from faults import BANNER, Peer
from lab import Lab
from sshd import Server

from relay.run import guard
from relay.run.guard import Waiting

ROUTE = "h1/h2/h3"
SECONDS = 2  # how long anything may remain after ssh has gone

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found by Linux's /proc"),
]


@pytest.fixture
def servers(lab: Lab) -> list[Server]:
    return lab.servers("h1", "h2", "h3")


def in_session(lab: Lab, name: str) -> subprocess.Popen[bytes]:
    """Start ssh with a command that runs until its input ends; return once it runs."""
    client = lab.start("ssh", "-F", lab.config, name, "echo up; cat", stdin=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    return client


def test_nothing_remains_after_a_session(lab: Lab, servers: list[Server]) -> None:
    client = in_session(lab, ROUTE)
    assert any("pyrelay" in command for command in lab.processes().values())
    client.communicate(b"")
    assert client.returncode == 0
    assert lab.remaining(SECONDS) == {}


@pytest.mark.parametrize("name", [ROUTE, "h3"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_remains_after_a_signal_to_ssh(
    lab: Lab, servers: list[Server], name: str, number: signal.Signals
) -> None:
    lab.host("h3", ProxyCommand="pyrelay %h %p")
    in_session(lab, name).send_signal(number)
    assert lab.remaining(SECONDS) == {}


@pytest.mark.parametrize("silent", ["h1", "h2"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_remains_when_ssh_is_interrupted_during_login(lab: Lab, silent: str, number: signal.Signals) -> None:
    waiting = lab.silent(silent)
    lab.servers(*({"h1", "h2"} - {silent}))
    client = lab.start("ssh", "-F", lab.config, ROUTE)
    assert waiting.reached.wait(30)
    client.send_signal(number)
    assert lab.remaining(SECONDS) == {}


def test_nothing_remains_when_ssh_is_interrupted_while_ssh_config_is_read(lab: Lab, servers: list[Server]) -> None:
    started = lab.top / "started"
    os.mkfifo(started)
    lab.head = f'Match originalhost h1 exec "echo >{started}; sleep 60"'
    client = lab.start("ssh", "-F", lab.config, ROUTE)
    started.read_text()
    assert any("sleep 60" in command for command in lab.processes().values())
    client.kill()
    assert lab.remaining(SECONDS) == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_remains_of_a_hops_proxycommand(lab: Lab, number: signal.Signals) -> None:
    started = lab.top / "started"
    os.mkfifo(started)
    lab.host("h1", ProxyCommand=f"sh -c 'echo >{started}; sleep 60; :'")
    client = lab.start("ssh", "-F", lab.config, "h1/h2")
    started.read_text()
    client.send_signal(number)
    assert lab.remaining(SECONDS) == {}


def test_nothing_remains_when_the_target_hangs_up(lab: Lab) -> None:
    lab.server("h1")
    lab.dying("h2")
    ran = lab.ssh("h1/h2")
    assert ran.returncode == 255
    assert lab.remaining(SECONDS) == {}


def test_nothing_remains_when_a_hop_dies(lab: Lab, servers: list[Server]) -> None:
    client = in_session(lab, ROUTE)
    servers[1].stop()
    _, err = client.communicate(timeout=30)
    assert client.returncode == 255
    assert b"pyrelay: " in err  # and not ssh alone
    assert lab.remaining(SECONDS) == {}


@pytest.mark.parametrize(
    ("options", "ended"), [((), True), ((), False), (("--share", "1"), True)], ids=["alone", "stdin open", "shared"]
)
def test_nothing_remains_when_a_hop_never_closes_and_ssh_was_killed(
    lab: Lab, options: tuple[str, ...], ended: bool
) -> None:
    """The hop says that the target has ended, and then nothing more. Only ssh would end the relay, and cannot."""
    peer = Peer(faulty_hop.hop, "close", "silence")
    lab.at_end(peer.stop)
    lab.host("bad", Port=peer.port)
    lab.know("bad", peer.port, [f"{faulty_hop.KEY.get_name()} {faulty_hop.KEY.get_base64()}"])
    line = f"{lab.program} -F {lab.config} {' '.join(options)} bad/target:9; true"
    lab.write_config()
    parent = lab.start("sh", "-c", line, stdin=subprocess.PIPE)
    assert parent.stdin and parent.stdout
    assert parent.stdout.read(len(BANNER)) == BANNER
    parent.stdin.write(b"x")
    parent.stdin.flush()
    assert peer.reached.wait(30)
    if ended:
        parent.stdin.close()
    # That nothing ends has no event to wait for: this is longer than the relay takes to look at its parent again.
    time.sleep(1.2)
    assert len(lab.processes()) == 2 + len(options[:1])
    parent.kill()
    parent.wait()
    if not ended:
        parent.stdin.close()
    assert lab.remaining(10) == {}


def test_an_orphan_gives_a_hop_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent left long ago, as with ssh -f: who waits for it cannot be seen."""
    near, far = socket.socketpair()
    reads, writes = os.pipe()
    os.close(writes)
    with near, far, open(reads, "rb") as pipe:
        monkeypatch.setattr(guard, "ORPHANED", 0.0)
        assert Waiting(pipe.fileno(), os.getppid() + 1).over
        assert not Waiting(pipe.fileno(), os.getppid()).over  # a pipe that has hung up is only the end of stdin
        waiting = Waiting(near.fileno(), os.getppid())
        assert not waiting.over
        far.close()
        assert waiting.over
        monkeypatch.setattr(guard, "ORPHANED", 60.0)
        assert not Waiting(pipe.fileno(), os.getppid() + 1).over


def start_and_leave(lab: Lab, *arguments: str) -> None:
    """Run an ssh that goes to the background; it keeps its stderr open, so that is not waited for."""
    client = lab.start("ssh", "-F", lab.config, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert client.wait(30) == 0


def test_it_lives_on_under_ssh_in_the_background(lab: Lab, servers: list[Server]) -> None:
    done = lab.top / "done"
    os.mkfifo(done)
    start_and_leave(lab, "-f", ROUTE, f"sleep 3; echo done >{done}")
    assert done.read_text() == "done\n"
    assert lab.remaining(SECONDS) == {}


def test_it_lives_on_under_a_persisted_controlmaster(lab: Lab, servers: list[Server]) -> None:
    lab.head = f"ControlMaster auto\nControlPath {lab.top}/%C\nControlPersist yes"
    start_and_leave(lab, ROUTE, "true")
    for number in ("1", "2"):
        assert lab.ssh(ROUTE, f"echo {number}").stdout == f"{number}\n"
    assert servers[2].logins() == [lab.user]  # all three sessions are one connection's
    assert any("pyrelay" in command for command in lab.processes().values())
    lab.ssh("-O", "exit", ROUTE)
    assert lab.remaining(SECONDS) == {}
