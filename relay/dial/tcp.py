"""Plain TCP: from a name and a port to a connected socket.

It tries all addresses of the name, the two families in turn, a quarter of a
second apart (RFC 8305, Happy Eyeballs); the first to answer wins. This module
knows addresses and deadlines. It does not know SSH, nor what the connection is
for.

Sockets are `_socket.socket`, the class below `socket.socket`. Importing the
module `socket` costs 5.5 ms (enum, selectors), `_socket` 0.3 ms, and the goal
for the whole raw path is 4 ms. Where a library needs the richer class,
`socket.socket(fileno=s.detach())` makes one.
"""

from __future__ import annotations

import _socket
import os
import select
from _socket import AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, SOCK_STREAM, gaierror
from errno import EINPROGRESS
from time import monotonic, sleep

from relay.errors import RelayError, TimedOut, in_seconds, printable, words
from relay.spec.route import is_onion
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from relay.run.progress import Progress
    from relay.spec.options import Options

    Sockaddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]  # as the kernel takes it
    Address: TypeAlias = tuple[int, Sockaddr]  # (family, where)

FAMILIES = {"inet": AF_INET, "inet6": AF_INET6}  # AddressFamily of ssh_config(5)
ATTEMPT_DELAY = 0.25  # seconds before the next address is tried in parallel (RFC 8305, section 5)
_FAMILY = {AF_INET: "IPv4", AF_INET6: "IPv6"}
_SERVICE = {AF_INET: (_socket.IPPROTO_IP, _socket.IP_TOS), AF_INET6: (_socket.IPPROTO_IPV6, _socket.IPV6_TCLASS)}
_MOST_TOLD = 4  # the most addresses that an error names one by one
_NO_NAME = {getattr(_socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")}


class NoSuchHost(RelayError):
    """The resolver has no address for a name."""


class Local(Value):
    """Where to connect from.

    source: an address or a name. interface: if there is no source, the network interface whose address is used.
    """

    __slots__ = ("interface", "source")
    source: str | None
    interface: str | None

    def __init__(self, source: str | None = None, *, interface: str | None = None) -> None:
        self._set(source=source, interface=interface)


ANY = Local()  # the system chooses


class Terms(Value):
    """On which terms to connect.

    family: AF_INET or AF_INET6 to use addresses of that family only.
    local: the local end.
    timeout: seconds for each attempt, the look-up not counted (a hop's ConnectTimeout, as the error says).
    attempts: how often to try, a second apart (ConnectionAttempts).
    keepalive: whether the kernel asks for signs of life (TCPKeepAlive).
    service: the IPv4 type of service or IPv6 traffic class, None for the system's default (IPQoS).
    """

    __slots__ = ("attempts", "family", "keepalive", "local", "service", "timeout")
    family: int
    local: Local
    timeout: float | None
    attempts: int
    keepalive: bool
    service: int | None

    def __init__(
        self,
        *,
        family: int = 0,
        local: Local = ANY,
        timeout: float | None = None,
        attempts: int = 1,
        keepalive: bool = True,
        service: int | None = None,
    ) -> None:
        self._set(family=family, local=local, timeout=timeout, attempts=attempts, keepalive=keepalive, service=service)


USUAL = Terms()


def connect(
    host: str, port: int, progress: Progress, terms: Terms = USUAL, *, typed: Options | None = None
) -> _socket.socket:
    """Return a connected socket in blocking mode, with TCP_NODELAY set.

    Both the deadline of progress and the timeout of the terms hold. A resolver
    cannot be interrupted: the only way to keep the deadline during a look-up is
    to end the process. typed: the options beside the name, where that stands in ssh's command line so, and may have
    lost its capitals there.

    Raises RelayError if no address answers, TimedOut if time is up.
    """
    progress.stage(f"looking up {host}")
    addresses = _look_up(host, port, terms.family, typed=typed)
    if sources := _from(terms, {kind for kind, _ in addresses}):
        addresses = [address for address in addresses if address[0] in sources]
        if not addresses:
            kinds = " and ".join(_FAMILY[kind] for kind in sorted(sources))
            raise RelayError(f"{printable(host)} has no {kinds} address to reach from {terms.local.source}")
    for attempt in range(1, terms.attempts + 1):
        try:
            sock = _Race(_in_turn(addresses), sources, progress).run(terms.timeout)
            break
        except RelayError as error:
            if attempt == terms.attempts:
                raise
            progress.note(1, f"{error.cause}; attempt {attempt} of {terms.attempts}")
            sleep(progress.left(1.0))
    sock.setblocking(True)
    if terms.keepalive:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
    if terms.service is not None:
        level, option = _SERVICE[sock.family]
        sock.setsockopt(level, option, terms.service)
    return sock


def connect_unix(path: str, progress: Progress) -> _socket.socket:
    """Return a connected unix stream socket in blocking mode. Raises RelayError."""
    from relay.run import unix  # few proxies are a socket

    progress.stage(f"connecting to {path}")
    sock = _socket.socket(AF_UNIX, SOCK_STREAM)
    try:
        unix.connect(sock, path, progress.left)
        sock.settimeout(None)
    except OSError as error:
        sock.close()
        raise RelayError(words(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _from(terms: Terms, kinds: set[int]) -> dict[int, Sockaddr]:
    """Return where to connect from, by family. kinds: the families of the host. Raises RelayError."""
    if terms.local.source:
        return _sources(terms.local.source, terms.family)
    return _sources_at(terms.local.interface, kinds) if terms.local.interface else {}


def _sources_at(interface: str, kinds: set[int]) -> dict[int, Sockaddr]:
    """Return an interface's own addresses of some families, by family. Raises RelayError if it has none of them."""
    from relay.dial.interface import address  # few hops have a BindInterface

    sources = {}
    for kind in sorted(kinds):
        try:
            sources[kind] = _look_up(address(interface, kind), 0, kind)[0][1]
        except RelayError as error:  # ssh, too, goes on with the other family
            missing = error
    if not sources:
        raise missing
    return sources


def _sources(source: str, family: int) -> dict[int, Sockaddr]:
    """Return where to connect from, by family. Raises RelayError."""
    try:
        return dict(_look_up(source, 0, family)[::-1])
    except RelayError as error:
        raise RelayError(f"it cannot be connected to from {printable(source)}: {error.cause}") from error


def _look_up(host: str, port: int, family: int, *, typed: Options | None = None) -> list[Address]:
    """Return the addresses of a name in the resolver's order (RFC 6724), each once. Raises RelayError."""
    if is_onion(host):
        raise RelayError(
            "a .onion name is reached through Tor only; a look-up would give it to the DNS (RFC 7686)",
            hint="use --tor, or a proxy that knows .onion names: -x HOST:PORT",
        )
    # The name is passed as bytes, as ssh passes it. For a str Python would import the idna codec, and a name
    # such as "a..b" would raise a bare UnicodeError.
    try:
        found = _socket.getaddrinfo(os.fsencode(host), port, family, SOCK_STREAM, IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, family, error, typed=typed) from error
    return list(dict.fromkeys((int(kind), where) for kind, _, _, _, where in found if kind in _FAMILY))  # type: ignore[misc]


def _no_address(host: str, family: int, error: Exception, *, typed: Options | None) -> RelayError:
    """Return the error for a name that the resolver has no address for."""
    name = printable(host)
    if not isinstance(error, gaierror):
        return RelayError(f"{name}: {error}")
    if error.errno not in _NO_NAME:
        return RelayError(f"{name}: {words(error)}")
    hint = "" if host.isascii() else "the DNS knows an international name by its xn-- form"
    if family:
        return NoSuchHost(f"no such host: {name}, or it has no {_FAMILY[family]} address", hint=hint)
    if typed is not None:
        from relay.config.names import with_other_capitals  # most names are found

        if alike := with_other_capitals(host, typed.config):
            known = printable(" and ".join(alike))
            hint = f"ssh_config has {known}: capitals count, and ssh hands %h over without; write %n for %h"
    return NoSuchHost(f"no such host: {name}", hint=hint)


def _in_turn(addresses: list[Address]) -> list[Address]:
    """Sort addresses so that the two families alternate, beginning with that of the first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    turns: list[Address] = []
    for place in range(max(len(first), len(other))):
        turns += first[place : place + 1] + other[place : place + 1]
    return turns


class _Race:
    """Connection attempts to several addresses. The first to connect wins."""

    def __init__(self, addresses: list[Address], sources: dict[int, Sockaddr], progress: Progress) -> None:
        self.waiting = addresses[::-1]  # the next address is the last item
        self.sources = sources
        self.progress = progress
        self.running: dict[int, tuple[_socket.socket, Address]] = {}  # by file descriptor
        self.failed: list[tuple[Address, str]] = []
        self.poll = select.poll()

    def run(self, timeout: float | None) -> _socket.socket:
        """Return the socket that connects first. Every other socket is closed, also when this raises."""
        end = None if timeout is None else monotonic() + timeout
        try:
            while self.waiting or self.running:
                if self.waiting and (won := self.start(self.waiting.pop())):
                    return won
                if not self.running:
                    continue
                patience = self.left(end, timeout)
                if self.waiting:
                    patience = min(patience, ATTEMPT_DELAY)
                # Rounded up, or poll would return just before the deadline again and again.
                for fd, _ in self.poll.poll(int(patience * 1000) + 1):
                    if won := self.finish(fd):
                        return won
            raise self.defeat()
        finally:
            for sock, _ in self.running.values():
                sock.close()

    def left(self, end: float | None, timeout: float | None) -> float:
        """Return for how many seconds we may still wait. Raises TimedOut."""
        if end is None or timeout is None:
            return self.progress.left()
        if (left := end - monotonic()) <= 0:
            still = [(address, "no answer") for _, address in self.running.values()]
            causes = _causes(self.failed + still) if self.failed or len(still) > 1 else self.progress.doing
            raise TimedOut(f"no answer within {in_seconds(timeout)} (ConnectTimeout; {causes})")
        return self.progress.left(left)

    def start(self, address: Address) -> _socket.socket | None:
        """Begin an attempt. Return its socket if that is connected already, else None."""
        family, where = address
        self.progress.stage(f"connecting to {_at(where)}")
        try:
            sock = _socket.socket(family, SOCK_STREAM, IPPROTO_TCP)
        except OSError as error:  # such as a kernel without IPv6
            self.failed.append((address, words(error)))
            return None
        try:
            sock.setblocking(False)
            sock.setsockopt(IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            if family in self.sources and not self.bind(sock, self.sources[family], address):
                return None
            code = sock.connect_ex(where)
        except BaseException:
            sock.close()
            raise
        if code == 0:
            return sock
        if code != EINPROGRESS:
            self.fail(sock, address, code)
            return None
        self.running[sock.fileno()] = sock, address
        self.poll.register(sock.fileno(), select.POLLOUT)
        return None

    def bind(self, sock: _socket.socket, source: Sockaddr, address: Address) -> bool:
        """Bind to the local address; return whether that went well. If not, the other family may do, as with ssh."""
        try:
            sock.bind(source)
        except OSError as error:
            sock.close()
            self.failed.append((address, f"the local address {_text(source)}: {words(error)}"))
            self.waiting = [other for other in self.waiting if other[0] != address[0]]
            return False
        return True

    def finish(self, fd: int) -> _socket.socket | None:
        """Finish an attempt. Return its socket, or None if it has failed."""
        self.poll.unregister(fd)
        sock, address = self.running.pop(fd)
        code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code == 0:
            return sock
        self.fail(sock, address, code)
        return None

    def fail(self, sock: _socket.socket, address: Address, code: int) -> None:
        """Close the socket, and remember why the address did not answer."""
        sock.close()
        self.failed.append((address, words(OSError(code, os.strerror(code)))))

    def defeat(self) -> RelayError:
        """Return the error for when no address is left."""
        return RelayError(f"cannot connect to {_causes(self.failed)}")


def _causes(failed: list[tuple[Address, str]]) -> str:
    """Say in one line how each address failed."""
    told = [f"{_at(where)}: {why}" for (_, where), why in failed[:_MOST_TOLD]]
    if len(failed) > _MOST_TOLD:
        told.append(f"and {len(failed) - _MOST_TOLD} more")
    return "; ".join(told)


def _at(where: Sockaddr) -> str:
    """Return an address and its port for a person, as ssh says where it cannot connect to."""
    return f"{_text(where)} port {where[1]}"


def _text(where: Sockaddr) -> str:
    """Return an address for a person, with its zone, which the text from getaddrinfo leaves out."""
    return f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else where[0]
