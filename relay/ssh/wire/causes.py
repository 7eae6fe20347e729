"""Put a library's exception about a server into words for a person."""

from __future__ import annotations

from relay.errors import RelayError, printable, sentence, shortage
from relay.ssh.pubkey import BadKey
from relay.ssh.wire.library import SSHException
from relay.ssh.wire.packet import BadPacket

_NO_REASON = "Negotiation failed."  # paramiko's text for a transport that ended without a recorded reason


def in_words(error: BaseException | None) -> str:
    """The cause, to end one of our lines with. It is "" if the connection simply ended.

    paramiko's parsers raise KeyError, TypeError and others at bytes that are not a message. Those texts help nobody.
    """
    if error is None or isinstance(error, EOFError) or str(error) == _NO_REASON:
        return ""
    if words := shortage(error):
        return words
    if isinstance(error, OSError) and error.strerror:
        return sentence(error.strerror)
    if isinstance(error, (SSHException, RelayError, BadKey, BadPacket, OSError)):
        return sentence(printable(str(error)))
    return "the server's message cannot be read"
