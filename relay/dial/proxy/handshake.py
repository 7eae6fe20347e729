"""SOCKS4, SOCKS4a and SOCKS5: PySocks' handshake, on a connection that is made already.

PySocks gets much right: the messages and their order, addresses sent as addresses and
names as names, exact reads. This module works around what it gets wrong (1.7.1, its last):

- It connects by itself, to one IPv4 address. We give it our connection.
- Its time-out is for each read. It reads and writes through our Wire instead.
- It sends a length byte of 128 and more as UTF-8, two bytes. `_Writer` mends the message.
- It calls Tor's codes "Unknown error", and its errors wrap each other. We read the reply itself.
- It refuses answers whose version byte is wrong, which does no harm: before the status of a password
  (05 for 01: tinyproxy, microsocks), and before SOCKS4's reply (04 for 00). `_Reader` mends those bytes.

RFC 1928 (SOCKS5), RFC 1929 (user and password). SOCKS4 and 4a have no RFC, but one text each
by NEC. Tor's own codes: its socks-extensions.txt and proposal 304.
"""

from __future__ import annotations

import os
from _socket import SOCK_STREAM

from relay.run import sparing  # isort: skip  # noqa: F401  (before PySocks)
import socks

from relay.dial.proxy.wire import HINT_SSH, SSH, NoMethod, encoded_name
from relay.errors import RelayError
from relay.spec.proxy import FIELD, HINT_REFUSED, HINT_WANTED, SOCKS4, SOCKS5, TOR
from relay.spec.route import is_onion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.dial.proxy.wire import Wire

# Reply code: words, hint. The first nine are RFC 1928's (section 6); 0xF0 to 0xF7 are Tor's, for onion services.
SOCKS5_REPLIES = {
    0x01: ("general failure", ""),
    0x02: ("not allowed by its rules", ""),
    0x03: ("network unreachable", ""),
    0x04: ("host unreachable", ""),
    0x05: ("connection refused", ""),
    0x06: ("timed out", ""),  # "TTL expired": Tor and others send it when their own time is up
    0x07: ("it cannot connect to hosts", "this proxy may serve something else than TCP"),
    0x08: ("it does not take this type of address", ""),
    0xF0: (
        "onion service not found",
        "check the address; the service may be down, or may have started less than a minute ago",
    ),
    0xF1: ("the onion service's descriptor is invalid", "the service may be broken, or newer than this Tor"),
    0xF2: ("introduction failed: the onion service does not answer", "its host may be down or have lost its network"),
    0xF3: ("rendezvous with the onion service failed", "try again"),
    0xF4: (
        "the onion service wants client authorization, and Tor has no key for it",
        "put the key into Tor's ClientOnionAuthDir and reload Tor",
    ),
    0xF5: (
        "the onion service does not accept Tor's key for client authorization",
        "compare the key in ClientOnionAuthDir with the service's authorized_clients",
    ),
    0xF6: ("not a valid onion address", "a letter may be wrong or missing: an address has 56 before .onion"),
    0xF7: ("introduction timed out: the onion service does not answer", "try again; its host may be overloaded"),
}
# Reply code of SOCKS4: words, hint.
SOCKS4_REPLIES = {
    0x5B: ("refused or failed", ""),
    0x5C: ("it cannot reach an identd on this host", "SOCKS5 needs none: -X 5"),
    0x5D: ("identd names another user than was given", "give the user that identd names: -P USER"),
}
# What Tor means by ordinary codes: words, hint.
TOR_REPLIES = {
    0x02: ("not allowed by its rules", "look for SafeSocks, NoOnionTraffic or OnionTrafficOnly in torrc"),
    0x06: ("timed out", "Tor may still be starting, or has no network: its log says which"),
}
# The hint for Tor's vague codes. Without the flag Tor sends 04 in place of F0 and F2, and 01 in place of F4 to F6.
EXTENDED = "Tor says more where its SocksPort has the flag: SocksPort 9050 ExtendedErrors"
VAGUE_REPLIES = {
    0x01: ("general failure", EXTENDED),
    0x04: ("host unreachable", EXTENDED),
}
PART = 63  # bytes of a name between two dots, at most (RFC 1035 section 2.3.4); PySocks sends no more
# The first byte of a proxy's first message.
VERSIONS = {SOCKS4: (b"\0", b"\x04"), SOCKS5: (b"\x05",)}
# How the answer of a server that does not speak SOCKS may begin, and what that server is.
STRANGERS = (
    (b"HTTP/", "answers as an HTTP proxy does", "-X connect"),
    (SSH, "answers as an SSH server does", HINT_SSH),
    (b"\0\x5b", "answers as a SOCKS4 proxy does", "-X 4a"),
    (b"\x04\x5b", "answers as a SOCKS4 proxy does", "-X 4a"),
    (b"\x05", "answers as a SOCKS5 proxy does", "-X 5"),
)


def negotiate(
    wire: Wire, host: str, port: int, user: str | None, password: str | None, *, logged_in: bool = False
) -> None:
    """Ask the proxy to connect to host. logged_in: greeting and login are done already. Raises RelayError."""
    if wire.proxy.kind == SOCKS4 and ":" in host:
        raise RelayError("SOCKS4 cannot carry an IPv6 address", hint="SOCKS5 can: -X 5")
    handshake = _Handshake(wire, user, password, logged_in=logged_in)
    try:
        handshake.run(host, port)
    except socks.SOCKS4Error as error:
        raise _refused(wire, SOCKS4_REPLIES, handshake.reply[1]) from error
    except socks.SOCKS5Error as error:
        replies = SOCKS5_REPLIES
        if wire.proxy.kind == TOR or is_onion(host):
            replies = replies | TOR_REPLIES
        if is_onion(host):
            replies = replies | VAGUE_REPLIES
        raise _refused(wire, replies, handshake.reply[1]) from error
    except socks.SOCKS5AuthError as error:
        raise _not_authenticated(wire, handshake.reply, user) from error
    except socks.ProxyError as error:
        if handshake.reply == b"\x05\x01":  # GSS-API, which we have not offered
            raise _wants(wire, 1, user) from error
        raise wire.fault(f"sends what is not {_protocol(wire)}: {handshake.reply.hex(' ')}") from error
    finally:
        handshake.detach()


class _Handshake(socks.socksocket):  # type: ignore[misc]  # PySocks has no types
    """PySocks' socket, wrapped around the wire's for the time of the handshake.

    reply: the message that was read last. PySocks' errors have only its words, not its code.
    """

    def __init__(self, wire: Wire, user: str | None, password: str | None, *, logged_in: bool) -> None:
        sock = wire.tcp
        super().__init__(sock.family, SOCK_STREAM, sock.proto, sock.fileno())
        self.wire = wire
        self.logged_in = logged_in
        self.reply = b""
        credentials = (_field(user), _field(password))
        # Each is sent after a length byte; SOCKS4 has none.
        self.fields: tuple[bytes | None, ...] = () if wire.proxy.kind == SOCKS4 else credentials
        kind = socks.SOCKS4 if wire.proxy.kind == SOCKS4 else socks.SOCKS5
        # True is rdns: names are sent as names. The address is None, since the connection is made already.
        self.proxy = (kind, None, None, True, *credentials)

    def run(self, host: str, port: int) -> None:
        """Do what PySocks' connect() does after it has connected. Raises RelayError for a name that cannot be sent."""
        name = encoded_name(host)
        if len(name) > FIELD:
            raise RelayError(f"the name has {len(name)} bytes, and {_protocol(self.wire)} takes {FIELD} at most")
        host, parts = name.decode(), name.split(b".")
        if not all(parts[:-1]) or any(len(part) > PART for part in parts):  # said before anything is sent
            raise RelayError(f"the name cannot be sent: a part of it is empty or has more than {PART} bytes")
        if self.proxy[0] == socks.SOCKS4:
            self._negotiate_SOCKS4(host, port)
        else:
            self.fields += (name,)
            self._negotiate_SOCKS5(host, port)

    def makefile(self, mode: str = "r", _buffering: int | None = None) -> _Reader | _Writer:
        """Return the file that PySocks reads from, or the one that it writes to."""
        return _Reader(self) if mode == "rb" else _Writer(self)


class _Reader:
    """The file that PySocks reads from."""

    def __init__(self, handshake: _Handshake) -> None:
        self._handshake = handshake
        self._number = 0  # how many messages have been read

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes. Raises RelayError if the connection closes or the answer is not SOCKS."""
        wire = self._handshake.wire
        self._number += 1
        if self._number == 1 and self._handshake.logged_in:
            return b"\x05\x00"
        data = wire.receive(1)
        if self._number == 1:
            if data not in VERSIONS[_protocol(wire)]:
                raise _stranger(wire, data)
            wire.answered()
        while len(data) < size:
            data += wire.receive(size - len(data))
        if self._number == 1 and wire.proxy.kind == SOCKS4:
            data = b"\0" + data[1:]
        elif self._number == 2 and size == 2:  # the status of a password; a reply is read three bytes at first
            data = b"\1" + data[1:]
        self._handshake.reply = data
        return data

    def close(self) -> None:
        """Do nothing: the wire outlives the handshake."""


class _Writer:
    """The file that PySocks writes to: it writes the parts of a message, then flushes, which sends the message."""

    def __init__(self, handshake: _Handshake) -> None:
        self._handshake = handshake
        self._message = b""
        self._hold_back = handshake.logged_in  # do not send the greeting: it was sent before

    def write(self, part: bytes) -> None:
        """Add a part to the message."""
        self._message += part

    def flush(self) -> None:
        """Send the message."""
        message, self._message = self._message, b""
        if self._hold_back:
            self._hold_back = False
            return
        self._handshake.wire.send(_mended(message, self._handshake.fields))

    def close(self) -> None:
        """Do nothing: the wire outlives the handshake."""


def _mended(message: bytes, fields: tuple[bytes | None, ...]) -> bytes:
    """Return the message with each length byte of 128 and more as one byte.

    PySocks writes chr(length).encode(), which is two bytes from 128 on. The fields
    stand in the message in the given order, and a field so long does not fit into a
    shorter one, so the search cannot find it in the wrong place.
    """
    at = 0
    for field in fields:
        if field is None or len(field) < 128:
            continue
        wrong = chr(len(field)).encode() + field
        found = message.find(wrong, at)
        if found >= 0:
            message = message[:found] + bytes((len(field),)) + message[found + 2 :]
            at = found + 1 + len(field)
    return message


def _refused(wire: Wire, replies: dict[int, tuple[str, str]], code: int) -> RelayError:
    """Return the error for a reply code."""
    words, hint = replies.get(code, (f"unknown reply code 0x{code:02X}", ""))
    return RelayError(f"{words}, says {wire.proxy}", hint=hint)


def _not_authenticated(wire: Wire, reply: bytes, user: str | None) -> RelayError:
    """Return the error for a refused method (RFC 1928 section 3) or a refused password (RFC 1929 section 2)."""
    if reply[0] == 1:
        return RelayError(f"{wire.proxy} does not accept the password of {user}", hint=HINT_REFUSED)
    if reply[1] == 2:
        return _wants(wire, 2, user)
    if user is None:
        return NoMethod(f"{wire.proxy} wants a login", hint=HINT_WANTED)
    return NoMethod(f"{wire.proxy} wants another authentication than user and password")


def greet_gssapi(wire: Wire) -> None:
    """Offer GSS-API and no other method. Raises RelayError."""
    wire.send(b"\x05\x01\x01")
    answer = wire.receive(1)
    if answer != b"\x05":
        raise _stranger(wire, answer)
    wire.answered()
    if wire.receive(1) != b"\x01":
        raise RelayError(f"{wire.proxy} takes no login by GSS-API")


def find_method(wire: Wire, user: str | None) -> RelayError:
    """Find out which method a proxy wants that has refused with NoMethod, and return the error that says so.

    It uses a connection of its own. (A client must go through with any method that it offers. So the first connection
    offers only methods that we have.)
    """
    wire.send(b"\x05\x02\x01\x02")
    answer = wire.receive(1)
    if answer != b"\x05":
        raise _stranger(wire, answer)
    return _wants(wire, wire.receive(1)[0], user)


def _wants(wire: Wire, method: int, user: str | None) -> RelayError:
    """Return the error for a method (RFC 1928 section 3) that the proxy wants and was not offered at first."""
    if method == 1:
        return RelayError(f"{wire.proxy} wants GSS-API (Kerberos)", hint="--proxy-auth gssapi")
    if method == 2 and user is None:
        return RelayError(f"{wire.proxy} wants a user and a password", hint=HINT_WANTED)
    return RelayError(f"{wire.proxy} wants an authentication that pyrelay does not have")


def _stranger(wire: Wire, begins: bytes) -> RelayError:
    """Return the error for a first answer that is not SOCKS. It names what the server speaks, if that is known."""
    answer = begins + wire.glimpse()
    for start, words, hint in STRANGERS:
        if answer.startswith(start):
            return wire.fault(words, hint=hint)
    return wire.fault(f"does not speak {_protocol(wire)}: its answer begins with {answer[:8].hex(' ')}")


def _protocol(wire: Wire) -> str:
    return SOCKS4 if wire.proxy.kind == SOCKS4 else SOCKS5


def _field(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
