"""A hop that means harm, in a process of its own: python hostile_hop.py KIND KEY PORT, until it is ended.

flood    lets everybody in, then sends bytes of one letter, messages that say nothing and requests, without end
groups   has no key exchange but group exchange, with a group of 8192 bits, and then lets nobody in
rekeys   has those groups, lets everybody in, and exchanges keys without end
steps    grants every login, and each time wants another one
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
from contextlib import suppress

import paramiko
from paramiko.kex_gex import KexGexSHA256

KINDS = ("flood", "groups", "rekeys", "steps")
# Whether it is a prime nobody looks at (nor does ssh).
PRIME = (1 << 8192) - 1 - 2 * random.Random(4).getrandbits(8000)


class _Server(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    def __init__(self, kind: str) -> None:
        self._login = {
            "flood": paramiko.AUTH_SUCCESSFUL,
            "rekeys": paramiko.AUTH_SUCCESSFUL,
            "groups": paramiko.AUTH_FAILED,
            "steps": paramiko.AUTH_PARTIALLY_SUCCESSFUL,
        }[kind]

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(self._login)

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: object) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


class _Quick(KexGexSHA256):  # type: ignore[misc]  # paramiko has no types
    """Group exchange whose cost is the client's: this side's secret is short."""

    def _generate_x(self) -> None:
        self.x = random.getrandbits(64) | 1 << 63


class _Groups:
    """What paramiko asks for a group."""

    def get_modulus(self, *_: int) -> tuple[int, int]:
        return 2, PRIME


def serve(connection: socket.socket, kind: str, key: paramiko.PKey) -> None:
    with suppress(paramiko.SSHException, OSError, EOFError):
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        if kind in {"groups", "rekeys"}:
            transport._preferred_kex = ("diffie-hellman-group-exchange-sha256",)
            transport._modulus_pack = _Groups()
            transport._kex_info = {**transport._kex_info, "diffie-hellman-group-exchange-sha256": _Quick}
        transport.start_server(threading.Event(), _Server(kind))
        while kind == "flood" and transport.is_active():
            if (channel := transport.accept(1)) is not None:
                threading.Thread(target=flood, args=(transport, channel), daemon=True).start()
        if kind == "rekeys":
            channel = transport.accept(60)  # (one that nobody has is closed)
            while channel is not None and transport.is_active():
                transport.renegotiate_keys()
        transport.join()


def flood(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
    with suppress(paramiko.SSHException, OSError, EOFError):
        channel.settimeout(0.01)  # one whose window is full goes on with what needs none
        while transport.is_active():
            with suppress(TimeoutError):
                for _ in range(100):
                    channel.sendall(b"x")
                channel.sendall(bytes(32768))
            for _ in range(20):
                transport.send_ignore(1)
                transport.global_request("nothing@example.com", wait=False)


def main() -> None:
    kind, path, descriptor = sys.argv[1:]
    os.nice(19)  # the other hop's share of the processor is not what is measured
    key = paramiko.Ed25519Key.from_private_key_file(path)
    with socket.socket(fileno=int(descriptor)) as listener:
        print("up", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, kind, key), daemon=True).start()


if __name__ == "__main__":
    main()
