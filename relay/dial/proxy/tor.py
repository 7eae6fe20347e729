"""Tor: where it listens on this machine, and a circuit of its own for each target.

Tor speaks SOCKS5; `handshake` has its reply codes in words. Streams with different
SOCKS users or passwords get different circuits (IsolateSOCKSAuth, on by default for
every SocksPort). Tor never checks the user or the password.
"""

from __future__ import annotations

import os

from relay.dial.proxy.wire import encoded_name
from relay.errors import UsageError
from relay.spec.proxy import FIELD, TOR, Proxy
from relay.spec.route import check_host, parse_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
PORTS = (9050, 9150)  # the port of tor itself, and that of Tor Browser's
HOST_VARIABLE, PORT_VARIABLE = "TOR_SOCKS_HOST", "TOR_SOCKS_PORT"  # Tor Browser reads these
PATH_VARIABLE = "TOR_SOCKS_IPC_PATH"  # Tor Browser's for a unix socket, which goes before host and port


def places(environ: Mapping[str, str]) -> list[Proxy]:
    """Return where to look for Tor, in this order. Raises UsageError if the environment names an invalid place."""
    if path := environ.get(PATH_VARIABLE):
        return [Proxy(TOR, path=path)]
    host, port = environ.get(HOST_VARIABLE), environ.get(PORT_VARIABLE)
    if not host and not port:
        return [Proxy(TOR, HOST, port) for port in PORTS]
    try:
        if host:
            check_host(host)
        return [Proxy(TOR, host or HOST, parse_port(port) if port else PORTS[0])]
    except UsageError as error:
        error.at(f"${HOST_VARIABLE} and ${PORT_VARIABLE}")
        raise


def isolation(host: str, port: int) -> tuple[str, str]:
    """Return the SOCKS user and password for a target: one pair for each user of this machine and each target.

    They need not be secret, only different. They are computed, not stored, so all
    sessions of one user to one target share a circuit. Neither begins with
    "<torS0X>", which Tor reserves (socks-extensions.txt). Raises RelayError for a
    name that cannot be sent.
    """
    name = encoded_name(host).decode().lower()
    return f"uid{os.getuid()}", f"{name}:{port}"[-FIELD:]
