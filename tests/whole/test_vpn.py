"""`ssh -w` through a chain: a tunnel between two network namespaces, and bytes through it."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import TYPE_CHECKING

from namespaces import far_namespace, in_namespace, ip
from peers import missing

if TYPE_CHECKING:
    from lab import Lab

NEAR, FAR = "10.99.99.1", "10.99.99.2"
SERVER = f"""\
import socket
import subprocess
with socket.create_server(("{FAR}", 7)) as listener:
    print("listening", flush=True)
    connection, (peer, _) = listener.accept()
    connection.sendall(peer.encode())
"""


def test_a_tunnel_through_a_chain(lab: Lab) -> None:
    """What the line of docs/recipes.md does, with the client in one namespace and the target in another."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        missing("a tunnel needs root and /dev/net/tun")
    in_namespace(lambda: through_a_tunnel(lab))


def through_a_tunnel(lab: Lab) -> None:
    with far_namespace() as (_, enter):
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
