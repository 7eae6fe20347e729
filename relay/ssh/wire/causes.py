"""Put a library's exception about a server into words for a person."""

from __future__ import annotations

from relay.errors import RelayError, printable, sentence, shortage
from relay.ssh.pubkey import BadKey
from relay.ssh.wire.library import SSHException
from relay.ssh.wire.packet import BadPacket

UNREADABLE = "the server's message cannot be read"
_PORT = "is the port right?"  # to try where something else than an SSH server answers
_STRICT = "In strict-kex mode, but "  # how paramiko's texts about that begin
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
        return sentence(printable(_of_order(str(error))))
    return UNREADABLE


def _of_order(text: str) -> str:
    """A text; in other words where it is paramiko's about a message at the wrong time."""
    if text.startswith("Expecting packet from "):
        from re import findall  # re would make each start longer

        *due, came = findall(r"\d+", text)
        return f"the server sent message {came} where {' or '.join(due)} was due"
    if text.startswith(_STRICT):  # OpenSSH's PROTOCOL, "strict key exchange extension"
        how = text.removeprefix(_STRICT).replace("was sent", "it sent").rstrip("!")
        return f"the server broke the rules of strict key exchange: {how}"
    return text


def no_ident(error: BaseException, said: str, carrier: str) -> RelayError:
    """Return why a server has not said that it speaks SSH.

    said: the first line that it has said instead, or "". carrier: a command that carries the stream, or "".
    """
    from relay.ssh.ident import closed  # most servers say their ident

    cause = error.__context__ if isinstance(error, SSHException) else error
    instead = f"; it said: {printable(said, 80)}" if said else ""
    if "\ufffd" in said and not said.expandtabs().isprintable():  # else it may be a text in an older encoding
        cause, instead = UnicodeError(), ""
    if isinstance(cause, (EOFError, ConnectionError)):
        return closed(said, carrier)
    if isinstance(cause, OSError):
        return RelayError(in_words(cause))
    if isinstance(cause, UnicodeError):
        return RelayError(
            f"not an SSH server: it sent binary data{instead}",
            hint="start-up files of the hop's shell may say something first" if carrier else _PORT,
        )
    return RelayError(f"not an SSH server: {in_words(cause or error)}{instead}", hint=_PORT)
