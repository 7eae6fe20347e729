"""The lab itself: what other tests take for granted, shown with OpenSSH's own clients."""

from __future__ import annotations

import socket

import pytest
from lab import Lab, hop_users
from peers import LOOPBACK, until


def test_a_command_runs_on_the_server_and_its_log_says_who_came(lab: Lab) -> None:
    server = lab.server("h1")
    ran = lab.ssh("h1", "echo $SERVER $HOME")
    assert (ran.stdout, ran.stderr) == (f"h1 {server.home}\n", "")
    assert server.logins() == [lab.user]
    assert server.forwards() == []


def test_a_jump_host_logs_the_forward(lab: Lab) -> None:
    h1, h2 = lab.servers("h1", "h2")
    assert lab.ssh("-J", "h1", "h2", "echo $SERVER").stdout == "h2\n"
    assert h1.forwards() == [("127.0.0.1", h2.port)]
    assert h2.logins() == [lab.user]


def test_a_hop_takes_accounts_without_a_shell(lab: Lab) -> None:
    h1, _ = lab.servers("h1", "h2")
    for user in hop_users():
        assert lab.ssh("-J", f"{user}@h1", "h2", "echo $SERVER").stdout == "h2\n"
    assert h1.logins() == list(hop_users())


def test_no_one_logs_in_without_a_key(lab: Lab) -> None:
    server = lab.server("h1", authorized_keys="")
    assert "Permission denied" in lab.ssh("h1", "true").stderr
    assert server.logins() == []


def test_several_host_keys_are_known(lab: Lab) -> None:
    lab.server("h1", host_key_types=("ed25519", "ecdsa"))
    for algorithm in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
        assert lab.ssh("-o", f"HostKeyAlgorithms={algorithm}", "h1", "true").returncode == 0


def test_processes_are_those_that_clients_started(lab: Lab) -> None:
    lab.server("h1")
    client = lab.start("ssh", "-F", lab.config, "-o", "ProxyCommand=cat", "h1")
    until(lambda: client.pid in lab.processes(), "process")  # its environment can be read a moment after it runs
    client.kill()
    client.wait()
    assert client.pid not in lab.processes()


def test_a_dying_host_greets_and_hangs_up(lab: Lab) -> None:
    server = lab.dying("h1", b"hello")
    with socket.create_connection((LOOPBACK, server.port)) as client:
        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        assert client.recv(1) == b""
    assert server.accepted == 1


def test_a_silent_host_hangs_up_only_when_it_ends(lab: Lab) -> None:
    server = lab.silent("h1")
    with socket.create_connection((LOOPBACK, server.port)) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        server.stop()
        assert client.recv(1) == b""


def test_a_closed_host_refuses(lab: Lab) -> None:
    port = lab.closed("h1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port))
    assert "Connection refused" in lab.ssh("h1").stderr
