"""Which OpenSSH it is, from what it says of itself."""

from __future__ import annotations

_LONGEST = 9  # digits of a number; an ident may be a hostile server's, and Python reads no more than 4,300


def number(said: str) -> tuple[int, int]:
    """Return the version that `ssh -V` or an ident names: "OpenSSH_9.2p1 Debian-2" is (9, 2). (0, 0) is no OpenSSH."""
    _, found, rest = said.partition("OpenSSH_")
    parts = rest.replace("p", ".").replace(" ", ".").replace(",", ".").split(".")[:2]
    if not found or len(parts) < 2 or not all(part.isdecimal() and len(part) <= _LONGEST for part in parts):
        return 0, 0
    return int(parts[0]), int(parts[1])
