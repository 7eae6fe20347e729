"""What is said of a server that closes before its ident (RFC 4253 section 4.2), be it a hop's or the target's."""

from __future__ import annotations

from relay.errors import RelayError, printable


def closed(said: str, more: str = "") -> RelayError:
    """Return the error. said: the last line that came instead; sshd says why it lets nobody in. more: ends the hint."""
    instead = f"; it said: {printable(said, 80)}" if said else ""
    return RelayError(
        f"the connection was closed before the server's SSH ident{instead}",
        hint="a server that has no room for new logins does so (MaxStartups), or one that has seen too many fail "
        f"from this address (PerSourcePenalties); --share logs in once for many relays{more}",
    )
