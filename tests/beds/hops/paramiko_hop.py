"""An SSH server by paramiko: one key logs in, and direct-tcpip channels are passed on.

    python paramiko_hop.py HOSTKEY AUTHORIZED_KEYS

It prints its port, and ends with its stdin.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import paramiko

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its last resort prints
BLOCK = 65536


class Forwards(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """Lets the key in, and connects where a channel asks for."""

    def __init__(self, transport: paramiko.Transport, known: str) -> None:
        self._transport = transport
        self._known = known

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return int(paramiko.AUTH_SUCCESSFUL if key.get_base64() == self._known else paramiko.AUTH_FAILED)

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: tuple[str, int]) -> int:
        try:
            target = socket.create_connection(destination)
        except OSError:
            return int(paramiko.OPEN_FAILED_CONNECT_FAILED)
        threading.Thread(target=self._forward, args=(target,), daemon=True).start()
        return int(paramiko.OPEN_SUCCEEDED)

    def _forward(self, target: socket.socket) -> None:
        channel = self._transport.accept()
        back = threading.Thread(target=_copy, args=(target, channel), daemon=True)
        back.start()
        _copy(channel, target)
        back.join()
        channel.close()
        target.close()


def _copy(source: Any, to: Any) -> None:
    """Pass on one direction, and its end."""
    try:
        while data := source.recv(BLOCK):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):  # paramiko raises the second when its link has ended
        source.close()
        to.close()


def main() -> None:
    host_key, authorized_keys = sys.argv[1:]
    key = paramiko.Ed25519Key.from_private_key_file(host_key)
    known = Path(authorized_keys).read_text().split()[1]
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def serve() -> None:
        while True:
            transport = paramiko.Transport(listener.accept()[0])
            transport.add_server_key(key)
            transport.start_server(event=threading.Event(), server=Forwards(transport, known))

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
