"""A shared route whose first hop has a ControlMaster that lives: nobody logs in there, and the next hop is shared."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab import Lab, chain_with
from masters import start_master
from peers import until
from shared import AGAIN, control, holders, logins

TEN = 10


@pytest.fixture
def path(shared: Lab) -> Path:
    """What the ControlPath of h1 says."""
    found = shared.top / "master"
    shared.host("h1", ControlPath=found)
    shared.write_config()
    return found


def test_ten_at_once_make_one_login_behind_a_master(shared: Lab, path: Path) -> None:
    start_master(shared, "h1", path)
    config = shared.write_config()
    running = [
        shared.start("ssh", "-F", config, "h1/h2/h3", "echo $SERVER", stdout=subprocess.PIPE) for _ in range(TEN)
    ]
    assert [process.communicate(timeout=120)[0] for process in running] == [b"h3\n"] * TEN
    assert logins(shared) == [1, 1, TEN]  # the master's own at h1
    assert len(holders(shared)) == 1
    assert [line.partition(":")[0] for line in control(shared, "list").splitlines()] == ["h1", "h1/h2"]


def test_a_route_with_no_other_hop_goes_by_the_master_alone(shared: Lab, path: Path) -> None:
    start_master(shared, "h1", path)
    done = shared.pyrelay("-v", "h1/h3")
    assert done.stdout.startswith("SSH-2.0-")
    assert "not shared: the first hop has a master\n" in done.stderr
    assert holders(shared) == []


def test_a_route_goes_by_the_master_alone_if_ssh_must_carry_the_second_hop(lab: Lab) -> None:
    """Only the key exchange with the second hop shows that it needs ssh."""
    path = lab.top / "master"
    chain_with(lab, "h2").options += AGAIN
    lab.host("h1", ControlPath=path)
    lab.write_config()
    start_master(lab, "h1", path)
    for _ in range(2):
        assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    done = lab.pyrelay(*AGAIN, "-v", "h1/h2/h3")
    assert done.stdout.startswith("SSH-2.0-")
    assert "not shared: " in done.stderr
    assert logins(lab, "h1") == [1]  # the master's own


def test_the_hops_behind_it_end_with_the_master_and_are_made_anew(shared: Lab, path: Path) -> None:
    master = start_master(shared, "h1", path)
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    master.terminate()
    master.wait()
    until(lambda: not path.exists(), "end of the master")
    until(lambda: not holders(shared), "end of the holder, whose hops are all dead")
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared) == [2, 2, 2]


def test_a_master_that_comes_later_is_used(shared: Lab, path: Path) -> None:
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared) == [1, 1, 1]
    start_master(shared, "h1", path)
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared) == [2, 2, 2]  # the master's own at h1


def test_exit_leaves_the_master_alone(shared: Lab, path: Path) -> None:
    master = start_master(shared, "h1", path)
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    control(shared, "exit")
    until(lambda: not holders(shared), "end of the holder")
    assert master.poll() is None
    assert shared.run("ssh", "-F", shared.config, "-O", "check", "h1").returncode == 0


def test_one_whose_own_connection_is_dead_is_named(shared: Lab, path: Path) -> None:
    start_master(shared, "h1", path)
    with shared["h1"].silenced():
        said = shared.pyrelay("-w", "1", "h1/h2/h3").stderr
    assert said == (
        "pyrelay: hop 2 of 2 (h2): no answer within 1 second (waiting for the master of h1 to connect)\n"
        "hint: the connection of a master may be dead: ssh -O exit h1 ends it\n"
    )


def test_the_time_of_who_is_asked_by_it_does_not_count(shared: Lab, path: Path) -> None:
    """ControlMaster ask."""
    shared.host("h1", ControlMaster="ask")
    askpass = shared.top / "askpass"
    askpass.write_text("#!/bin/sh\nsleep 5\n")
    askpass.chmod(0o755)
    start_master(shared, "h1", path, "-M", SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    assert shared.pyrelay("-w", "4", "h1/h2/h3").stdout.startswith("SSH-2.0-")
