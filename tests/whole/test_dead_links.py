"""Links that go down without a word, and addresses that answer nothing: two network namespaces and a cable between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from lab import Lab
from namespaces import far_namespace, in_namespace, ip
from peers import need, until

pytestmark = pytest.mark.alone

NEAR, FAR = "10.98.0.1", "10.98.0.129"
DARK = ["10.98.0.130", "10.98.0.131", "10.98.0.132"]  # nobody has them, and nobody says so
PORT = 2022
# Says as much as it can, and takes as much as it gets.
TARGET = f"""\
import socket, threading
with socket.create_server(("{FAR}", 7)) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    threading.Thread(target=lambda: [None for _ in iter(lambda: connection.recv(65536), b"")], daemon=True).start()
    while True:
        connection.sendall(bytes(65536))
"""
# Says one word to each.
GREETER = f"""\
import socket
with socket.create_server(("{FAR}", 7)) as listener:
    print("listening", flush=True)
    while True:
        listener.accept()[0].sendall(b"hello")
"""
RUNNING = 4 << 20  # bytes in each direction, after which a transfer is under way


@contextmanager
def far_side() -> Iterator[tuple[str, ...]]:
    """Another namespace, at the far end of a cable; what runs a command there."""
    with far_namespace() as (pid, enter):
        ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(pid))
        ip("addr", "add", f"{NEAR}/24", "dev", "near")
        ip("link", "set", "near", "up")
        ip("link", "set", "lo", "up", within=enter)
        ip("addr", "add", f"{FAR}/24", "dev", "far", within=enter)
        ip("link", "set", "far", "up", within=enter)
        # The far side takes the frames for DARK, and drops what is in them: no ARP says that nobody is there.
        (mac,) = re.findall(
            "link/ether (\\S+)", subprocess.check_output([*enter, "ip", "link", "show", "far"], text=True)
        )
        for address in DARK:
            ip("neigh", "add", address, "lladdr", mac, "nud", "permanent", "dev", "near")
        yield enter


def serve(lab: Lab, script: str, within: tuple[str, ...]) -> None:
    """Start a server on the far side, and wait until it listens."""
    server = lab.start(*within, "python3", "-c", script)
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"


def serve_ssh(lab: Lab, within: tuple[str, ...]) -> None:
    """h1, on the far side."""
    settings = lab.server("h1")  # whose files are used
    lab.host("h1", HostName=FAR, Port=PORT)
    lab.known_hosts.write_text(f"[{FAR}]:{PORT} {settings.host_keys[0]}\n")
    log = lab.top / "h1.log"
    address = ("-o", f"ListenAddress={FAR}:{PORT}")
    daemon = lab.start(*within, need("sshd"), "-D", "-E", log, "-f", lab.top / "h1" / "sshd_config", *address)
    lab.at_end(lambda: os.killpg(daemon.pid, signal.SIGKILL))  # its connections know of no end
    until(lambda: log.exists() and "Server listening" in log.read_text(), "sshd")


def cut_the_cable(within: tuple[str, ...]) -> None:
    ip("link", "set", "near", "down")


def lose_all_packets(within: tuple[str, ...]) -> None:
    """What the near side sends arrives; the far side's answers do not get away."""
    ip("route", "add", "blackhole", f"{NEAR}/32", within=within)


@pytest.mark.parametrize("cut", [cut_the_cable, lose_all_packets])
def test_a_link_that_goes_down_is_noticed_by_serveralive(lab: Lab, cut: Callable[[tuple[str, ...]], None]) -> None:
    """While as much as the link takes is sent in both directions."""

    def run() -> None:
        with far_side() as far:
            serve_ssh(lab, far)
            serve(lab, TARGET, far)
            lab.host("h1", ServerAliveInterval=1, ServerAliveCountMax=2)
            lab.host("target", HostName=FAR, Port=7)
            relay = lab.start(lab.program, "-F", lab.write_config(), "h1/target", stdin=subprocess.PIPE)
            sender = threading.Thread(target=send, args=(relay,))
            sender.start()
            assert relay.stdout is not None
            assert relay.stderr is not None
            for _ in range(RUNNING // 65536):
                assert relay.stdout.read(65536)
            cut(far)
            began = time.monotonic()
            while relay.stdout.read(65536):
                pass
            assert relay.wait(60) == 1
            took = time.monotonic() - began
            sender.join()
            said = relay.stderr.read().decode()
            assert said == (
                "pyrelay: hop 1 of 1 (h1): the connection was lost: no answer to 2 keepalives in 2 seconds\n"
            )
            assert took < 30  # TCP by itself takes a quarter of an hour

    in_namespace(run)


def send(relay: subprocess.Popen[bytes]) -> None:
    """Give it all that it takes."""
    assert relay.stdin is not None
    with suppress(BrokenPipeError), relay.stdin as stdin:
        while True:
            stdin.write(bytes(65536))


@pytest.mark.parametrize("dark", [1, 3])
def test_an_address_that_answers_nothing_does_not_delay_one_that_does(lab: Lab, dark: int) -> None:
    """RFC 8305: each next one is tried a quarter of a second later, whatever has become of those before."""
    hosts = lab.top / "hosts"
    hosts.write_text("".join(f"{address} target.example\n" for address in [*DARK[:dark], FAR]))
    mounts = [need("unshare"), "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]

    def run() -> tuple[float, subprocess.CompletedProcess[str]]:
        with far_side() as far:
            serve(lab, GREETER, far)
            began = time.monotonic()
            done = lab.run(*mounts, lab.program, "-v", "target.example", "7", timeout=100)
            return time.monotonic() - began, done

    took, done = in_namespace(run)
    assert (done.stdout, done.returncode) == ("hello", 0), done.stderr
    tried = re.findall(r"connecting to (\S+) port 7$", done.stderr, re.MULTILINE)
    assert tried == [*DARK[:dark], FAR], done.stderr
    assert took < 20  # a connection to an address that answers nothing takes TCP two minutes
