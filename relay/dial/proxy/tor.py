"""Tor: where it listens on this machine, and a circuit of its own for each target.

Tor speaks SOCKS5 (`handshake`, which has its reply codes in words). It gives streams
with different SOCKS users or passwords different circuits (IsolateSOCKSAuth, which
every SocksPort has unless told otherwise), and never checks either.
"""

from __future__ import annotations

import os

from relay.errors import UsageError
from relay.spec.proxy import TOR, Proxy
from relay.spec.route import check_host, parse_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "127.0.0.1"
PORTS = (9050, 9150)  # tor itself, and the one that Tor Browser brings
HOST_VARIABLE, PORT_VARIABLE = "TOR_SOCKS_HOST", "TOR_SOCKS_PORT"  # Tor Browser's own,
PATH_VARIABLE = "TOR_SOCKS_IPC_PATH"  # and its own for a unix socket, which it prefers
FIELD = 255  # bytes; see RFC 1929


def places(environ: Mapping[str, str]) -> list[Proxy]:
    """Where to look for Tor, in this order. Raises UsageError when the environment names a place that is none."""
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
    """The SOCKS user and password for a target: one pair for each user of this machine and each target.

    They are no secret, only different; so nothing is remembered, and all
    sessions of one user to one target share a circuit. Neither begins with
    "<torS0X>", which Tor reserves (socks-extensions.txt).
    """
    return f"uid{os.getuid()}", f"{host.lower()}:{port}"[-FIELD:]
