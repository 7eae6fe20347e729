"""What is said of a server that closes before its ident (RFC 4253 section 4.2), be it a hop's or the target's."""

from __future__ import annotations

from relay.errors import RelayError, printable

# What sshd says in place of its ident where it lets nobody in (sshd.c).
_OF_SSHD = ("Exceeded MaxStartups", "Not allowed at this time")


def closed(said: str, carrier: str = "") -> RelayError:
    """Return the error.

    said: the first line that came instead; sshd says why it lets nobody in, and another server what it is.
    carrier: a command on the hop before that carries the stream, or "".
    """
    instead = f"; it said: {printable(said, 80)}" if said else ""
    forced = f"a command that the hop forces (ForceCommand) in place of {carrier}"
    if said and not said.startswith(_OF_SSHD):
        hint = f"this does not look like an SSH server: is {f'it {forced}' if carrier else 'the port right'}?"
    else:
        hint = (
            "a server that has no room for new logins does so (MaxStartups), or one that has seen too many fail "
            "from this address (PerSourcePenalties); --share logs in once for many relays"
            f"{f'; so does {forced}' if carrier else ''}"
        )
    return RelayError(f"the connection was closed before the server's SSH ident{instead}", hint=hint)
