"""ProxyUseFdpass: ssh is handed the connection itself, and nothing is in its way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relay.errors import RelayError
from relay.run import fdpass

if TYPE_CHECKING:
    from lab import Lab

SECONDS = 2  # how long anything may remain after ssh has gone
SIZE = 10_000_000


@pytest.fixture
def plain(lab: Lab) -> Lab:
    """h3, reached without a hop."""
    lab.server("h3")
    lab.host("h3", ProxyCommand="pyrelay --fdpass %h %p", ProxyUseFdpass="yes")
    return lab


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """h1/h2/h3."""
    lab.servers("h1", "h2", "h3")
    lab.options = ["--fdpass"]
    lab.head = "Host */*\n    ProxyUseFdpass yes"
    return lab


def in_session(lab: Lab, name: str) -> subprocess.Popen[bytes]:
    """Start ssh with a command that runs until its input ends; return once it runs."""
    client = lab.start("ssh", "-F", lab.config, name, "echo up; cat", stdin=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    return client


def relays(lab: Lab) -> list[int]:
    """Every process of pyrelay's."""
    return [pid for pid, command in lab.processes().items() if "pyrelay" in command and "ssh -F" not in command]


def test_no_room_for_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(RelayError, match="no process can be started for --fdpass"):
        fdpass.fork(1)


def test_ssh_has_a_tcp_connection_for_itself(plain: Lab) -> None:
    client = in_session(plain, "h3")
    assert relays(plain) == []
    data = os.urandom(SIZE)
    assert client.communicate(data, 60) == (data, b"")
    assert client.returncode == 0


def test_a_helper_in_the_background_serves_a_chain(chain: Lab) -> None:
    client = in_session(chain, "h1/h2/h3")
    (helper,) = relays(chain)
    assert f"PPid:\t{client.pid}\n" not in Path(f"/proc/{helper}/status").read_text()
    assert os.getsid(helper) == helper  # the hang-up of ssh's terminal does not reach it
    data = os.urandom(SIZE)
    assert client.communicate(data, 60) == (data, b"")
    assert client.returncode == 0
    assert chain.remaining(SECONDS) == {}


def test_a_plain_connection_that_fails_says_why(plain: Lab) -> None:
    plain["h3"].stop()
    done = plain.ssh("h3")
    assert done.returncode == 255
    port = plain["h3"].port
    assert f"pyrelay: 127.0.0.1:{port}: cannot connect to 127.0.0.1 port {port}: connection refused\n" in done.stderr


def test_a_chain_that_fails_says_why(chain: Lab) -> None:
    chain["h2"].stop()
    done = chain.ssh("h1/h2/h3")
    assert done.returncode == 255
    assert "pyrelay: hop 2 of 2 (h2): h1 cannot connect to " in done.stderr
    assert ": connection refused\n" in done.stderr
    assert chain.remaining(SECONDS) == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["in the session", "during login"])
def test_nothing_remains_after_a_signal_to_ssh(lab: Lab, number: signal.Signals, when: str) -> None:
    lab.options = ["--fdpass"]
    lab.head = "Host */*\n    ProxyUseFdpass yes"
    lab.servers("h1", "h3")
    if when == "during login":
        waiting = lab.silent("h2")
        client = lab.start("ssh", "-F", lab.config, "h1/h2/h3")
        assert waiting.reached.wait(30)
    else:
        client = in_session(lab, "h1/h3")
    client.send_signal(number)
    assert lab.remaining(SECONDS) == {}


def test_a_chain_lives_on_under_ssh_in_the_background(chain: Lab) -> None:
    done = chain.top / "done"
    os.mkfifo(done)
    argv = ["ssh", "-F", str(chain.config), "-f", "h1/h2/h3", f"sleep 1; echo done >{done}"]
    client = chain.start(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert client.wait(30) == 0
    assert done.read_text() == "done\n"
    assert chain.remaining(SECONDS) == {}


@pytest.mark.parametrize("name", ["h3", "h1/h3"])
def test_without_a_socket_to_hand_it_over_nothing_is_dialled(lab: Lab, name: str) -> None:
    done = lab.pyrelay("--fdpass", name)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "pyrelay: --fdpass: stdout is not a socket, so the connection cannot be handed over",
        "hint: ProxyUseFdpass yes",
    ]
