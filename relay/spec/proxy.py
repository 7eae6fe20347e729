r"""Which proxy, and how to talk to it: the meaning of -X, -x, -P and the options that begin with --proxy. Pure.

-x [USER@]HOST[:PORT]        a proxy at an address; a bare IPv6 address has no port
-x [USER@]/PATH              a proxy at a unix socket
-X 4 | 4a | 5 | connect      what it speaks; 5 unless given
--proxy SCHEME://[USER[:PASSWORD]@]HOST[:PORT]
--proxy SCHEME://[USER[:PASSWORD]@]/PATH

accepted                     proxy
10.0.0.1                     SOCKS5, 10.0.0.1 port 1080
alice@proxy:3128             SOCKS5, proxy port 3128, user alice
CORP\alice@corp@proxy        SOCKS5, proxy port 1080, user CORP\alice@corp
[::1]:9050  ::1              SOCKS5, ::1 port 9050; ::1 port 1080
/run/tor/socks               SOCKS5 at that unix socket
socks5h://proxy              the name is looked up by the proxy; socks5:// does the same here
socks4a://a%40b@proxy:1081/  SOCKS4, proxy port 1081, user a@b
socks://proxy                SOCKS5, as GNOME's ALL_PROXY has it
http://proxy                 HTTP CONNECT, proxy port 3128
https://proxy                HTTP CONNECT inside TLS, proxy port 443

rejected                     because
proxy:  proxy:x  proxy:0     a port is 1 to 65535
-x http://proxy              a URL is for --proxy
-x unix:/path                the path alone says that it is one
@proxy                       the user is empty
ftp://proxy                  no such scheme
http://proxy/path            a proxy has no path
"""

from __future__ import annotations

import os

from relay.errors import UsageError, printable
from relay.spec import PROXY_PASSWORD
from relay.spec.route import RouteError, check_host, is_ipv6, parse_port
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# What a proxy speaks. SOCKS4 is 4a as soon as there is a name to send.
SOCKS4, SOCKS5, CONNECT = "SOCKS4", "SOCKS5", "HTTP"
# CONNECT inside TLS.
SECURE = "HTTPS"
# Tor on this machine, which speaks SOCKS5. It is searched for unless an address is given.
TOR = "Tor"

KINDS = {"4": SOCKS4, "4a": SOCKS4, "5": SOCKS5, "connect": CONNECT}
SCHEMES = {
    "socks4": SOCKS4,
    "socks4a": SOCKS4,
    "socks5": SOCKS5,
    "socks5h": SOCKS5,
    "socks": SOCKS5,
    "http": CONNECT,
    "https": SECURE,
}
DEFAULT_PORTS = {SOCKS4: 1080, SOCKS5: 1080, CONNECT: 3128, SECURE: 443}
HTTP = (CONNECT, SECURE)
# Methods to log in, and the kinds of proxies that have them.
NEGOTIATE, DIGEST, BASIC, GSSAPI = "negotiate", "digest", "basic", "gssapi"
METHODS = {NEGOTIATE: HTTP, DIGEST: HTTP, BASIC: HTTP, GSSAPI: (SOCKS5,)}
# What GSS-API does to each record, the weakest first (RFC 1961 section 4.3; level 0 is an addition of dante and curl).
PROTECTIONS = ("none", "integrity", "confidentiality")
TCHARS = frozenset("!#$%&'*+-.^_`|~")  # besides letters and digits, in a field's name (RFC 9110 section 5.6.2)
HINT_WANTED = f"give the user by -P, the password by ${PROXY_PASSWORD}"
HINT_REFUSED = f"the password is taken from ${PROXY_PASSWORD}, else it is asked for"
FIELD = 255  # bytes; a SOCKS5 user or password has a length byte before it (RFC 1929)
PATH = 104  # bytes of a unix socket's path, with the final NUL, on macOS; Linux takes 108


class Manner(Value):
    """How to talk to a proxy.

    auth: one of METHODS; None: any that the proxy offers. headers: "NAME: VALUE" or "@FILE" each. cacert: a file of
    the authorities to trust; None: the system's. protection: one of PROTECTIONS; None: the strongest. service: the
    proxy's name in Kerberos, NAME or NAME@HOST; None: the usual one.
    """

    __slots__ = ("auth", "cacert", "headers", "protection", "service")
    auth: str | None
    cacert: str | None
    headers: tuple[str, ...]
    protection: str | None
    service: str | None

    def __init__(
        self,
        *,
        auth: str | None = None,
        cacert: str | None = None,
        headers: tuple[str, ...] = (),
        protection: str | None = None,
        service: str | None = None,
    ) -> None:
        self._set(auth=auth, cacert=cacert, headers=headers, protection=protection, service=service)

    def __repr__(self) -> str:
        """Show a hash in place of the headers, which may be secret. Equal values still look equal."""
        shown = f"auth={self.auth!r}, cacert={self.cacert!r}, protection={self.protection!r}, service={self.service!r}"
        return f"Manner({shown}, headers={hash(self.headers)})"

    def check(self, kind: str) -> None:
        """Raise UsageError if an option is set that has no meaning for this kind of proxy."""
        if self.auth is not None and kind not in METHODS[self.auth]:
            has = ", ".join(name for name, kinds in METHODS.items() if kind in kinds) or "none"
            raise UsageError(f"{kind} has no {self.auth}", hint=f"what it has: {has}", place="--proxy-auth")
        if self.headers and kind not in HTTP:
            raise UsageError(f"{kind} has no headers", place="--proxy-header")
        if self.cacert is not None and kind != SECURE:
            raise UsageError("only https:// proxies have a certificate", place="--proxy-cacert")
        if self.protection is not None and self.auth != GSSAPI:
            raise UsageError("this is for --proxy-auth gssapi", place="--proxy-protection")
        if self.service is not None and self.auth != GSSAPI and kind not in HTTP:
            raise UsageError("this is for --proxy-auth gssapi", place="--proxy-service")


class Proxy(Value):
    """A proxy.

    path: its unix socket, else "". password: the one on the command line, in clear. manner: how to talk to it.
    """

    __slots__ = ("host", "kind", "manner", "password", "path", "port", "user")
    kind: str
    host: str
    port: int
    path: str
    user: str | None
    password: str | None
    manner: Manner

    def __init__(
        self,
        kind: str,
        host: str = "",
        port: int = 0,
        *,
        path: str = "",
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self._set(kind=kind, host=host, port=port, path=path, user=user, password=password, manner=Manner())

    def asked(self, manner: Manner) -> Proxy:
        """Return this proxy with another manner. Raises UsageError if the two do not fit."""
        manner.check(self.kind)
        proxy = Proxy(self.kind, self.host, self.port, path=self.path, user=self.user, password=self.password)
        proxy._set(manner=manner)
        return proxy

    @property
    def address(self) -> str:
        """Where it is: "127.0.0.1:1080", "[::1]:1080", "/run/tor/socks"; "" for a Tor that is not found yet."""
        if self.path or not self.host:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_layered(self) -> bool:
        """Whether the data passes inside TLS or GSS-API records, so that the connection alone is not the stream."""
        return self.kind == SECURE or (self.manner.auth == GSSAPI and self.manner.protection != PROTECTIONS[0])

    def __str__(self) -> str:
        """Return the proxy's name in messages, without user and password."""
        if self.kind == TOR:
            return f"Tor at {self.address}" if self.address else "Tor"
        return f"the {self.kind} proxy {self.address}"

    def __repr__(self) -> str:
        manner = "" if self.manner == Manner() else f", {self.manner!r}"
        return f"Proxy({self.kind!r}, {self.address!r}, user={self.user!r}{manner})"


def parse_kind(text: str) -> str:
    """Read the value of -X. Raises UsageError."""
    try:
        return KINDS[text]
    except KeyError:
        raise UsageError(f"'{printable(text, 20)}' is not one of {', '.join(KINDS)}") from None


def parse_address(text: str, kind: str = SOCKS5, user: str | None = None) -> Proxy:
    """Read the value of -x. user: the value of -P; a user before an "@" takes precedence. Raises UsageError."""
    if not text.startswith("/"):
        _refuse_other_spellings(text)
        before, at, text = text.rpartition("@")
        user = before if at else user
    return _proxy(kind, text, user, None)


def _refuse_other_spellings(text: str) -> None:
    """Raise UsageError for spellings of a proxy's address that only other programs accept: a URL, and unix:/path."""
    scheme, is_url, rest = text.partition("://")
    if is_url:
        authority, at, place = rest.rpartition("@")
        user = f"{authority.partition(':')[0]}@" if at else ""  # not the password: the hint is printed
        raise UsageError("this is a URL", hint=printable(f"--proxy {scheme}://{user}{place}", 300))
    if text.startswith("unix:"):
        raise UsageError("'unix:' is not needed", hint=printable(f"-x {text.removeprefix('unix:')}", 300))


def parse_url(text: str) -> Proxy:
    """Read the value of --proxy. Raises UsageError."""
    scheme, colon, rest = text.partition("://")
    kind = SCHEMES.get(scheme.lower())
    if not colon or kind is None:
        raise UsageError(
            f"'{printable(scheme, 20)}' is not a scheme of a proxy" if colon else "a proxy's URL begins with SCHEME://",
            hint=f"one of {', '.join(f'{name}://' for name in SCHEMES)}",
        )
    # The last "@", as in -x: a user that holds one need not be escaped.
    authority, at, place = rest.rpartition("@")
    user, colon, password = authority.partition(":")
    if not place.startswith("/"):
        address, mark, zone = place.partition("%25")  # before the zone of an IPv6 address (RFC 6874 section 2)
        if mark and place.startswith("[") and not zone.startswith("]"):
            place = f"{address}%{zone}"
        place = place.removesuffix("/")
        if "/" in place:
            raise UsageError("a proxy's URL ends after the port")
    return _proxy(kind, place, _decoded(user) if at else None, _decoded(password) if colon else None)


def _proxy(kind: str, place: str, user: str | None, password: str | None) -> Proxy:
    """Check an address or a path, and return the proxy there."""
    for name, text in (("user", user), ("password", password)):
        if text is not None:
            check_field(kind, name, text)
    if place.startswith("/"):
        if kind == SECURE:
            raise UsageError("a unix socket has no name that a certificate could have")
        if "\0" in place or len(os.fsencode(place)) >= PATH:
            raise UsageError(f"a unix socket's path has less than {PATH} bytes")
        return Proxy(kind, path=place, user=user, password=password)
    host, port = _split_port(place)
    check_host(host)
    if "/" in host:
        raise UsageError("'/' cannot stand in a proxy's host", hint="the path of a unix socket begins with it")
    return Proxy(kind, host, port or DEFAULT_PORTS[kind], user=user, password=password)


def _split_port(text: str) -> tuple[str, int | None]:
    if is_ipv6(text):
        return text, None
    if text.startswith("["):
        host, end, tail = text[1:].partition("]")
        if not end or (tail and not tail.startswith(":")):
            raise RouteError("brackets stand around a whole host", hint="write [2001:db8::1]:1080")
        digits = tail[1:] if tail else None
    else:
        host, colon, digits = text.rpartition(":")
        if not colon:
            return text, None
        if ":" in host:
            raise RouteError("':' cannot stand in a host outside brackets", hint="write [2001:db8::1]:1080")
    return host, None if digits is None else parse_port(digits)


def check_field(kind: str, name: str, text: str) -> None:
    """Raise UsageError unless text, a "user" or a "password", can be sent to this kind of proxy."""
    if not text and not (kind in HTTP and name == "password"):  # Basic allows an empty password, RFC 1929 does not
        raise UsageError(f"the proxy's {name} is empty")
    if "\0" in text or (kind in HTTP and not _is_printable(text)):
        raise UsageError(f"the proxy's {name} holds a character that cannot be sent")
    if kind in HTTP and name == "user" and ":" in text:
        raise UsageError("a user of an HTTP proxy cannot hold ':'")  # RFC 7617 section 2
    if kind == SOCKS5 and len(os.fsencode(text)) > FIELD:
        raise UsageError(f"a SOCKS5 {name} has at most {FIELD} bytes")


def _is_printable(text: str) -> bool:
    """Whether text holds no control character (RFC 7617 section 2). Others may be in a password: U+00A0, U+3000."""
    return not any(c < " " or "\x7f" <= c <= "\x9f" for c in text)


def check_header(text: str) -> None:
    """Raise UsageError unless text is a line of a request's head, "NAME: VALUE", or "@FILE"."""
    if text.startswith("@"):
        if not text[1:] or "\0" in text:
            raise UsageError("there is no name of a file behind '@'")
        return
    name, colon, value = text.partition(":")
    if not colon or not name or not all((c.isascii() and c.isalnum()) or c in TCHARS for c in name):
        raise UsageError("a header is NAME: VALUE, or @FILE")  # not the text: it may be a secret
    if not _is_printable(value.replace("\t", "")):
        raise UsageError(f"the header {printable(name, 40)} holds a character that cannot be sent")


def check_service(text: str) -> None:
    """Raise UsageError unless text is a service of Kerberos, NAME or NAME@HOST."""
    name, at, host = text.partition("@")
    if not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name) or not name:
        raise UsageError("a service is NAME or NAME@HOST")
    if at:
        check_host(host)


def _decoded(text: str) -> str:
    """Return text with its %XX escapes decoded."""
    if "%" not in text:
        return text
    from urllib.parse import unquote_to_bytes  # costs start-up time, and few users hold an escape

    return os.fsdecode(unquote_to_bytes(os.fsencode(text)))


def combined(told: Mapping[str, Any], names: Mapping[str, str]) -> Proxy:
    """Return the proxy of the options about one: the address depends on the protocol and the user.

    told: the values that are given, by their fields. names: the options, by their fields. Raises UsageError.
    """
    places = [names[field] for field in ("proxy_address", "proxy_url", "tor") if field in told]
    if len(places) > 1:
        raise UsageError(f"{' and '.join(places)} each name a proxy", hint="give one of them")
    if places != ["-x"]:
        for field in ("proxy_kind", "proxy_user"):
            if field in told:
                raise UsageError(f"{names[field]} says how to use -x, which is not given")
    manner = {field: told[field] for field in told if field.removeprefix("proxy_") in Manner.__slots__}
    if manner and not places:
        raise UsageError(f"{names[next(iter(manner))]} says how to use a proxy, and none is given")
    try:
        if places == ["--tor"]:
            proxy = Proxy(TOR)
        elif places == ["--proxy"]:
            proxy = parse_url(told["proxy_url"])
        else:
            proxy = parse_address(told["proxy_address"], told.get("proxy_kind", SOCKS5), told.get("proxy_user"))
        how = Manner(**{field.removeprefix("proxy_"): value for field, value in manner.items()})
        return proxy.asked(how)
    except UsageError as error:
        error.at(places[0])
        raise
