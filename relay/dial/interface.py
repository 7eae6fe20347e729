"""The address of a network interface, for BindInterface of ssh_config(5).

ssh calls getifaddrs(3), which Python does not have. This module asks the
kernel instead.
"""

from __future__ import annotations

import fcntl
import os
from _socket import AF_INET, SOCK_DGRAM, inet_ntoa, socket

from relay.errors import RelayError, printable

IFNAMSIZ = 16  # bytes, <net/if.h>
SIOCGIFADDR = 0x8915  # <linux/sockios.h>
_IPV6 = "/proc/net/if_inet6"  # address, index, prefix length, scope, flags, name
_LINK = 0x20  # the scope of an address that is valid on its own link only


def address(name: str, family: int) -> str:
    """Return the interface's address of a family, with its zone if it needs one. Raises RelayError if it has none."""
    found = _ipv4(name) if family == AF_INET else _ipv6(name)
    if not found:
        kind = "IPv4" if family == AF_INET else "IPv6"
        raise RelayError(f"the interface {printable(name)} (BindInterface) has no {kind} address")
    return found


def _ipv4(name: str) -> str:
    ifreq = os.fsencode(name)[: IFNAMSIZ - 1].ljust(40, b"\0")
    sock = socket(AF_INET, SOCK_DGRAM)
    try:
        return inet_ntoa(fcntl.ioctl(sock.fileno(), SIOCGIFADDR, ifreq)[20:24])
    except OSError:
        return ""  # no such interface, or it has no such address
    finally:
        sock.close()


def _ipv6(name: str) -> str:
    try:
        with open(_IPV6, encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return ""
    # The address with the widest scope comes first: it reaches most hosts.
    own = sorted((int(row[3], 16), row[0]) for row in rows if row[5] == name)
    if not own:
        return ""
    scope, digits = own[0]
    text = ":".join(digits[at : at + 4] for at in range(0, 32, 4))
    return f"{text}%{name}" if scope == _LINK else text
