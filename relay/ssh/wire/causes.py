"""What a library's exception says of a server, in words for a person."""

from __future__ import annotations

from relay.errors import RelayError, printable, sentence, shortage
from relay.ssh.pubkey import BadKey
from relay.ssh.wire.library import SSHException
from relay.ssh.wire.packet import BadPacket

_NO_REASON = "Negotiation failed."  # what paramiko says of a transport that has ended for no reason that it kept


def in_words(error: BaseException | None) -> str:
    """The cause, as the end of a line of ours; "" when the connection has just ended.

    What paramiko's parsers raise at bytes that are not a message (KeyError, TypeError, ...) says nothing to a person.
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
