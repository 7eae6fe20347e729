"""The HMAC of a name that is hidden in a file: of a hop's memory, or in a known_hosts file."""

from __future__ import annotations

import sys


def mac(key: bytes, data: bytes, sha: str) -> bytes:
    """The HMAC (RFC 2104) by "sha1" or "sha256": by cryptography where a login has imported it, else by Python's hmac.

    That one loads the system's OpenSSL. Alone it is sooner there than cryptography; beside it, it is 4 ms for nothing.
    """
    if "relay.ssh.digest" in sys.modules:
        from relay.ssh.digest import hmac

        return hmac(key, data, sha)
    from hmac import digest

    return digest(key, data, sha)
