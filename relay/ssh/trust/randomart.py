"""The picture of a fingerprint (VisualHostKey), as ssh and `ssh-keygen -lv` draw it.

A walk over a board: two bits of the digest are a diagonal step, and a field shows how often it was walked on (sshkey.c,
fingerprint_randomart; Loss, Limmer and von Gernler, "The drunken bishop", 2009). Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.pubkey import PublicKey

_WIDTH, _HEIGHT = 17, 9
_VALUES = " .o+=*BOX@%&#/^"
_START, _END = "S", "E"
_SIZES = {"ssh-ed25519": 256, "ecdsa-sha2-nistp256": 256, "ecdsa-sha2-nistp384": 384, "ecdsa-sha2-nistp521": 521}


def draw(key: PublicKey, digest: str = "sha256") -> list[str]:
    """Return the lines of the picture of a key's fingerprint. digest: FingerprintHash."""
    fields = [[0] * _WIDTH for _ in range(_HEIGHT)]
    x, y = _WIDTH // 2, _HEIGHT // 2
    for byte in key.digest(digest):
        for shift in (0, 2, 4, 6):
            x = min(max(x + (1 if byte >> shift & 1 else -1), 0), _WIDTH - 1)
            y = min(max(y + (1 if byte >> shift & 2 else -1), 0), _HEIGHT - 1)
            fields[y][x] += 1
    rows = [[_VALUES[min(count, len(_VALUES) - 1)] for count in row] for row in fields]
    rows[_HEIGHT // 2][_WIDTH // 2] = _START
    rows[y][x] = _END
    bits = key.bits or _SIZES.get(key.plain, 0)
    title = f"[{key.short} {bits}]"
    if len(title) >= _WIDTH:
        title = f"[{key.short}]"
    return [_border(title), *(f"|{''.join(row)}|" for row in rows), _border(f"[{digest.upper()}]")]


def _border(title: str) -> str:
    """A line of the frame, with a title in its middle."""
    left = "-" * ((_WIDTH - len(title)) // 2)
    return f"+{left + title:-<{_WIDTH}}+"
