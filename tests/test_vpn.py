"""`ssh -w` through a chain: a tunnel between two network namespaces, and bytes through it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from peers import missing, need

if TYPE_CHECKING:
    from lab import Lab

NEAR, FAR = "10.99.99.1", "10.99.99.2"
CLONE_NEWNET = 0x40000000  # sched.h
SERVER = f"""\
import socket
with socket.create_server(("{FAR}", 7)) as listener:
    print("listening", flush=True)
    connection, (peer, _) = listener.accept()
    connection.sendall(peer.encode())
"""


def test_a_tunnel_through_a_chain(lab: Lab) -> None:
    """What the recipe of the README does, with the client in one namespace and the target in another."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        missing("a tunnel needs root and /dev/net/tun")
    failure: list[BaseException] = []

    def run() -> None:
        try:
            in_a_namespace(lab)
        except BaseException as error:
            failure.append(error)

    # A namespace belongs to a thread, and to the threads and processes that it starts.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def in_a_namespace(lab: Lab) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    ip("link", "set", "lo", "up")
    with ExitStack() as ends:
        far = ends.enter_context(
            subprocess.Popen([need("unshare"), "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert far.stdin is not None
        assert far.stdout is not None
        ends.callback(far.stdin.close)  # which ends it, and with it the namespace
        far.stdin.write(b"\n")
        far.stdin.flush()
        assert far.stdout.read(1) == b"\n"  # unshare has become cat: the namespace is there
        enter = (need("nsenter"), f"--net=/proc/{far.pid}/ns/net")
        lab.servers("h1", "h2")
        lab.server("h3", extra="PermitTunnel point-to-point", within=enter)
        ssh = lab.start(
            "ssh", "-F", lab.config, "-o", "Tunnel=point-to-point", "-w", "0:0", "h1/h2/h3", "echo up; cat",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        assert ssh.stdout is not None
        assert ssh.stdout.readline() == b"up\n"
        ip("addr", "add", NEAR, "peer", FAR, "dev", "tun0")
        ip("link", "set", "tun0", "up")
        ip("addr", "add", FAR, "peer", NEAR, "dev", "tun0", within=enter)
        ip("link", "set", "tun0", "up", within=enter)
        server = lab.start(*enter, "python3", "-c", SERVER)
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        with socket.create_connection((FAR, 7), timeout=20) as connection:
            assert connection.recv(100).decode() == NEAR


def ip(*words: str, within: tuple[str, ...] = ()) -> None:
    subprocess.run([*within, need("ip"), *words], check=True)
