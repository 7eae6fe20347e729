"""Systems without what only Linux has: the ways that the program goes there, run here with all of that hidden from it.

beds/elsewhere says what is hidden. `make elsewhere` runs whole files of tests in that way.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from peers import need, until

if TYPE_CHECKING:
    from lab import Lab

ROUTE = "h1/h2/h3"
SIZE = 16 << 20  # bytes
CALLS = "splice,epoll_create,epoll_create1,pidfd_open,pipe2,setsockopt,bind,connect,fcntl,openat"
# What only Linux has, as strace shows it; what another's code does (libuv's, ssh's) is not looked at here.
ONLY_LINUX = re.compile(
    r'splice\(|epoll_create|pidfd_open|TCP_QUICKACK|SETPIPE_SZ|sun_path=@|openat\([^"]*"/proc/(net|\d)'
)


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    lab.elsewhere = True
    return lab


def transfer(lab: Lab, route: str = ROUTE) -> None:
    """Send bytes to the target and get them back, under a real ssh, and see that they are the same."""
    data = os.urandom(SIZE)
    process = lab.start("ssh", "-F", lab.config, route, "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data, 100)
    assert (process.returncode, err.decode()) == (0, "")
    assert out == data


@pytest.mark.parametrize("options", [(), ("--engine", "ssh"), ("--netcat",)], ids=lambda options: "".join(options[:1]))
def test_every_byte(chain: Lab, options: tuple[str, ...]) -> None:
    chain.options += options
    if "--netcat" in options:
        chain["h1"].configure("AllowTcpForwarding no\n")
    transfer(chain)
    assert chain.remaining(10) == {}


def called(lab: Lab, *route: str) -> list[str]:
    """What only Linux has and a relay calls all the same."""
    trace = lab.top / "trace"
    lab.write_config()
    strace = [need("strace"), "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS}"]
    done = lab.run(*strace, lab.program, "-F", lab.config, *route, stdin="no SSH\n")
    assert "Invalid SSH identification string" in done.stdout, done.stderr
    # `ssh -G`, which is not ours, reads /proc/filesystems (libselinux), Rust /proc/self/cgroup, and the C library for
    # Python 3.14 where the stack ends.
    lines = [line for line in trace.read_text().splitlines() if not re.search(r'"/proc/\w+/maps"', line)]
    return [line for line in lines if ONLY_LINUX.search(line)]


def test_nothing_of_linux_is_called(chain: Lab) -> None:
    plain = ("127.0.0.1", str(chain["h3"].port))
    assert called(chain, *plain) == []
    assert called(chain, ROUTE) == []
    chain.elsewhere = False
    assert any("splice" in line for line in called(chain, *plain))


def test_shared_hops(chain: Lab) -> None:
    """The holder and the relays know each other's user by LOCAL_PEERCRED."""
    chain.options += ["--share", "1m"]
    for _ in range(2):
        transfer(chain)
    assert chain["h1"].logins() == [chain.user]
    assert chain.pyrelay("-O", "exit").returncode == 0
    assert chain.remaining(10) == {}


def test_a_socket_that_is_handed_over(chain: Lab) -> None:
    chain.options += ["--fdpass"]
    chain.head = "Host */*\n    ProxyUseFdpass yes"
    transfer(chain)
    chain.host("h3", ProxyCommand="pyrelay --fdpass %h %p", ProxyUseFdpass="yes")
    transfer(chain, "h3")
    assert chain.remaining(10) == {}


def test_a_master_of_the_first_hop(chain: Lab) -> None:
    """Its owner is whose file its socket is."""
    path = chain.top / "master"
    chain.host("h1", ControlPath=path)
    master = chain.start("ssh", "-F", chain.config, "-M", "-N", "-o", "ControlPersist=no", "h1")
    try:
        until(path.exists, "master")
        transfer(chain)
        assert chain["h1"].logins() == [chain.user]
    finally:
        master.terminate()
        master.wait(10)


def test_a_session_that_is_killed_leaves_nothing(chain: Lab) -> None:
    client = chain.start("ssh", "-F", chain.config, ROUTE, "echo up; cat", stdin=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()
    assert chain.remaining(20) == {}


def test_a_shell_that_ssh_config_runs_ends_with_ssh(lab: Lab) -> None:
    """Its parent is `ssh -G`, which does not end it: without /proc, ps says which process is whose child."""
    lab.elsewhere = True
    started = lab.top / "started"
    os.mkfifo(started)
    lab.head = f'Match originalhost h1 exec "echo >{started}; sleep 60"'
    client = lab.start("ssh", "-F", lab.config, ROUTE)
    started.read_text()
    client.kill()
    assert lab.remaining(10) == {}
