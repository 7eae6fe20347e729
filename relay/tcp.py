"""TCP connections: every address of a name, tried one after another for now."""

from __future__ import annotations

import socket

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.progress import Progress

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}  # AddressFamily of ssh_config(5)


def connect(
    host: str,
    port: int,
    progress: Progress,
    *,
    family: int = 0,
    source: str | None = None,
    timeout: float | None = None,
    keepalive: bool = True,
) -> socket.socket:
    """A connected socket with TCP_NODELAY. timeout: seconds, the hop's ConnectTimeout. Raises RelayError."""
    progress.stage(f"connecting to {host} port {port}")
    try:
        addresses = socket.getaddrinfo(host.encode(), port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise RelayError(f"no such host: {host}") from error
    cause: OSError | None = None
    for kind, _, _, _, address in addresses:
        sock = socket.socket(kind, socket.SOCK_STREAM)
        try:
            if source is not None:
                sock.bind((source, 0))
            sock.settimeout(progress.left(timeout))
            sock.connect(address)
        except OSError as error:
            sock.close()
            cause = error
            continue
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive))
        return sock
    raise RelayError((cause.strerror or "timed out").lower() if cause else "no address") from cause
