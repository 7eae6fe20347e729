r"""The route that a name spells: hops and target, in the order travelled.

Pure: text in, values or RouteError out. This module looks nothing up and does not
know ssh_config; relay/config knows what a name means to ssh.

    route   = IPv6 [ "%" zone ]                     tested first, and the whole text only
            / element *( ( "/" / "+" ) element )
    element = [ user ( "%" / "=" ) ] host [ ( ":" / "~" ) port ]
    host    = name / IPv4 / "[" anything "]"        inside brackets nothing is a delimiter

The first user delimiter before any bracket splits off the user. The last port
delimiter splits off the port, and only when all that follows it is digits. A ":"
stands in a host only inside brackets. The last element is the target; all before
it are hops. `Delimiters` may replace each of the three pairs.

    accepted                     hops                target
    h3                                               h3
    h1/h2/h3                     h1, h2              h3
    u1%h1+h2:2022+h3:2200        u1@h1, h2:2022      h3:2200
    u1=h1+h2~2022+h3             u1@h1, h2:2022      h3
    2001:db8::1                                      2001:db8::1
    fe80::1%lo                                       fe80::1%lo
    [2001:db8::1]:2222+h2        [2001:db8::1]:2222  h2
    CORP\alice%h1+h3             CORP\alice@h1        h3
    [a+b]+h3                     a+b                 h3
    h1~x+h3                      h1~x                h3       ("x" is not a port)

    rejected                     because
    h1++h3  +h3  h1+             an empty name
    h1+u3%h3                     the target's user belongs to ssh
    h2:x+h3  h2:+h3              ":" and no port after it
    h1:0+h3  h1:70000+h3         a port is 1 to 65535
    h1+2001:db8::1               an IPv6 address in a chain stands in brackets
    fe80::1%lo+h3                again an IPv6 address: "fe80::1" is not a user
    [::1+h3  [h1]x+h3  a[b]+h3   brackets stand around a whole host
    h1+-oProxyCommand=x+h3       a host cannot begin with "-"
    h1+$(id)+h3                  a shell character
    u@h1+h3                      "@" is ssh's own; a hop's user is u%h1 or u=h1
    [ssh://h1]+h3                ssh would take it for a URI
"""

from __future__ import annotations

import os

from relay.errors import UsageError, printable
from relay.value import Value

MAX_ROUTE = 4096  # characters; enough for a chain of a dozen of the longest names
MAX_NAME = 255  # bytes; the DNS carries no more, and neither does a protocol with a length byte
DEFAULT_PORT = 22

# Punctuation that ssh accepts in a typed host, and that has no meaning in names, patterns or lines of known_hosts.
POSSIBLE_DELIMITERS = "!%+/:=^_~"

# OpenSSH's valid_hostname() and valid_ruser() (ssh.c; readconf.c, as ssh_valid_…, since 10.3) refuse these; besides:
# ssh would split at "@", brackets belong to the route's grammar, and no user name needs "$" or ",".
# A backslash may stand inside a user, as valid_ruser() allows: Active Directory writes DOMAIN\user.
NOT_IN_HOST = " '\"$\\;&<>|(){}`,@[]"
NOT_IN_USER = " '\"$;&<>|(){}`,"


class RouteError(UsageError):
    """A route, a host or a user that is not valid. The place names the element."""


class Delimiters(Value):
    """The characters that stand between the parts of a route, each set in order of preference for writing.

    Raises RouteError when a set is empty, holds a character that cannot be a
    delimiter, or shares one with another set.
    """

    __slots__ = ("hop", "port", "user")
    hop: str
    user: str
    port: str

    def __init__(self, hop: str = "/+", user: str = "%=", port: str = ":~") -> None:
        self._set(hop=hop, user=user, port=port)
        seen: dict[str, str] = {}
        for kind, characters in (("hop", hop), ("user", user), ("port", port)):
            if not characters:
                raise RouteError(f"no character is given as {kind} delimiter")
            for c in characters:
                if c not in POSSIBLE_DELIMITERS:
                    hint = f"choose from {' '.join(POSSIBLE_DELIMITERS)}"
                    raise RouteError(f"{_named(c)} cannot be a {kind} delimiter", hint=hint)
                if seen.setdefault(c, kind) != kind:
                    hint = f"give --{seen[c]}-delimiter and --{kind}-delimiter different ones"
                    raise RouteError(f"'{c}' cannot be both {seen[c]} and {kind} delimiter", hint=hint)


DEFAULT_DELIMITERS = Delimiters()


class Element(Value):
    """One name of a route. user and port are None if the name does not give them."""

    __slots__ = ("host", "port", "user")
    user: str | None
    host: str
    port: int | None

    def __init__(self, user: str | None, host: str, port: int | None) -> None:
        self._set(user=user, host=host, port=port)

    def __str__(self) -> str:
        """Return the name as messages show it, in ssh's spelling: "u1@h2:2022", "[::1]:22"."""
        user = "" if self.user is None else f"{self.user}@"
        if self.port is None:
            return f"{user}{self.host}"
        return f"{user}[{self.host}]:{self.port}" if ":" in self.host else f"{user}{self.host}:{self.port}"

    def spelled(self, delimiters: Delimiters) -> str:
        """Return the name as an element of a chain: "u1%h2:2022", "[::1]:22"."""
        user = "" if self.user is None else f"{self.user}{delimiters.user[0]}"
        special = f":{delimiters.hop}{delimiters.user}{delimiters.port}"
        host = f"[{self.host}]" if any(c in special for c in self.host) else self.host
        port = "" if self.port is None else f"{delimiters.port[0]}{self.port}"
        return f"{user}{host}{port}"


class Route(Value):
    """Hops and target, in the order travelled.

    delimiters: those of the text that was parsed; `parse(str(route), delimiters=route.delimiters)`
    gives an equal route. They do not count in a comparison: two routes with the same hops and
    target are equal.
    is_resolved: whether the target is ssh's %h and %p unchanged. It is when HOST has no hop but -J adds some.
    """

    __slots__ = ("delimiters", "hops", "is_resolved", "target")
    hops: tuple[Element, ...]
    target: Element
    delimiters: Delimiters
    is_resolved: bool

    def __init__(
        self,
        hops: tuple[Element, ...],
        target: Element,
        delimiters: Delimiters = DEFAULT_DELIMITERS,
        is_resolved: bool = False,
    ) -> None:
        self._set(hops=hops, target=target, delimiters=delimiters, is_resolved=is_resolved)

    def _key(self) -> tuple[object, ...]:
        return (self.hops, self.target)

    def __str__(self) -> str:
        return self.delimiters.hop[0].join(e.spelled(self.delimiters) for e in (*self.hops, self.target))


def parse(text: str, port: int = DEFAULT_PORT, delimiters: Delimiters = DEFAULT_DELIMITERS) -> Route:
    """Read HOST, with PORT for the target.

    The target's port is the one in the name, else `port` if that is not 22, else None. With
    None, ssh_config gives the port, else it is 22. Raises RouteError.
    """
    _check_length(text)
    given = port if port != DEFAULT_PORT else None
    if is_ipv6(text):
        check_host(text)  # is_ipv6 does not limit the length of a zone
        return Route((), Element(None, text, given), delimiters)
    words = _split(text, delimiters.hop)
    last = len(words) - 1
    elements = []
    for i, word in enumerate(words):
        try:
            elements.append(_element(word, delimiters, last=i == last))
        except RouteError as error:
            error.at(_place(word, "target" if i == last else f"hop {i + 1} of {last}"))
            raise
    target = elements.pop()
    if target.user is not None:
        name = text[: len(text) - len(words[last])] + target.spelled(delimiters)[len(target.user) + 1 :]
        raise RouteError(
            "the target's user belongs to ssh, not to the route",
            hint=printable(f"ssh -l {target.user} {name}", 100),
            place=_place(words[last], "target"),
        )
    if target.port is None:
        target = Element(None, target.host, given)
    return Route(tuple(elements), target, delimiters)


def behind(jumps: tuple[Element, ...], route: Route) -> Route:
    """Return a route with the hops of -J before it."""
    return Route(jumps + route.hops, route.target, route.delimiters, is_resolved=bool(jumps) and not route.hops)


def parse_jump(text: str) -> tuple[Element, ...]:
    """Read a ProxyJump list, `[user@]host[:port]` or `ssh://…`, comma-separated; "none" means no hops.

    It accepts what OpenSSH's parse_jump(), parse_user_host_port() and parse_ssh_uri()
    (readconf.c, misc.c) accept, and also IPv6 in brackets in a URI. Raises RouteError.
    """
    _check_length(text)
    if text.lower() == "none":
        return ()
    words = text.split(",")
    elements = []
    for i, word in enumerate(words):
        try:
            elements.append(_jump(word))
        except RouteError as error:
            error.at(_place(word, f"jump {i + 1} of {len(words)}"))
            raise
    return tuple(elements)


def parse_port(text: str) -> int:
    """Read a port, 1 to 65535, in ASCII digits. Raises RouteError."""
    if not _digits(text):
        raise _no_port(text)
    # int() refuses more than 4,300 digits with an error of its own.
    port = int(text.lstrip("0")[:6] or "0")
    if not 1 <= port <= 65535:
        raise RouteError(f"port {printable(text, 20)} is not between 1 and 65535")
    return port


def check_host(text: str) -> None:
    """Raise RouteError unless text may stand for a host: as an argument of ssh, in a message, in an expanded token."""
    _check_name("host", text, NOT_IN_HOST)
    # `ssh -- NAME` parses such a NAME as a URI (parse_ssh_uri() in readconf.c, which accepts lower case only).
    if text[:6].lower() == "ssh://":
        raise RouteError("a host cannot be a URI")


def check_user(text: str) -> None:
    """Raise RouteError unless text may stand for a user: in a message, in an expanded token."""
    _check_name("user", text, NOT_IN_USER)
    if text.endswith("\\"):
        raise RouteError("a user cannot end with '\\'")


def check_login(text: str) -> None:
    """Raise RouteError unless text may be the user of a login, which is data: "John Doe", "svc$".

    ssh_config may give a name such a user, but no route, since a route is an argument of commands.
    """
    _check_name("user", text, "")


def is_ipv4(text: str) -> bool:
    """Whether this is an IPv4 address."""
    from _socket import AF_INET, inet_pton

    try:
        inet_pton(AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def is_ipv6(text: str) -> bool:
    """Whether text is an IPv6 literal, with or without a zone: "::1", "fe80::1%lo"."""
    if ":" not in text:
        return False
    # Not `socket`: it imports selectors, enum and array, and we need only one C function.
    from _socket import AF_INET6, inet_pton  # only names with a ":" pay

    address, percent, zone = text.partition("%")
    if percent and not (zone and all(c.isalnum() or c in "._-" for c in zone)):
        return False
    try:
        inet_pton(AF_INET6, address)
    except (OSError, ValueError):  # ValueError: an embedded NUL, or a character that is not ASCII
        return False
    return True


def is_onion(host: str) -> bool:
    """Whether the name is an onion service of Tor's. No resolver and no hop may be asked for it (RFC 7686)."""
    return host.removesuffix(".").lower().endswith(".onion")


def _split(text: str, delimiters: str) -> list[str]:
    """Split a text at the delimiters that stand outside brackets."""
    words = []
    start = 0
    inside = False
    for i, c in enumerate(text):
        if c == "[":
            inside = True
        elif c == "]":
            inside = False
        elif c in delimiters and not inside:
            words.append(text[start:i])
            start = i + 1
    words.append(text[start:])
    return words


def _element(word: str, delimiters: Delimiters, *, last: bool) -> Element:
    """Read one name of a chain."""
    if not word:
        raise RouteError("the name is empty")
    user, rest = _split_user(word, delimiters)
    if rest.startswith("["):
        host, tail = _split_brackets(rest)
        if tail and tail[0] not in delimiters.port:
            raise _after_brackets(tail, delimiters.port[0])
        digits = tail[1:] if tail else None
    else:
        at = max(rest.rfind(c) for c in delimiters.port)
        host, digits = (rest[:at], rest[at + 1 :]) if at >= 0 and _digits(rest[at + 1 :]) else (rest, None)
        if ":" in host:
            raise _colon(rest, delimiters)
    if "@" in host:
        spelled = " or ".join(f"user{c}host" for c in delimiters.user)
        raise RouteError(
            "'@' cannot stand in a host",
            hint="the target's user is ssh's: ssh -l user" if last else f"a hop's user is written {spelled}",
        )
    check_host(host)
    return Element(user, host, None if digits is None else parse_port(digits))


def _split_user(word: str, delimiters: Delimiters) -> tuple[str | None, str]:
    """Split at the first user delimiter before any bracket."""
    for i, c in enumerate(word):
        if c == "[":
            break
        if c in delimiters.user:
            user, rest = word[:i], word[i + 1 :]
            if is_ipv6(user):
                raise RouteError("an IPv6 address outside brackets", hint=f"write [{printable(word, 60)}]")
            check_user(user)
            return user, rest
    return None, word


def _split_brackets(text: str) -> tuple[str, str]:
    """Return the text inside the brackets at the beginning, and the text after them."""
    end = text.find("]")
    if end < 0:
        raise RouteError("'[' is never closed")
    return text[1:end], text[end + 1 :]


def _after_brackets(tail: str, delimiter: str) -> RouteError:
    return RouteError(f"'{printable(tail, 40)}' after ']' is not a port", hint=f"write [host]{delimiter}22")


def _colon(text: str, delimiters: Delimiters) -> RouteError:
    """Return the error for a host and port with a ':' too many."""
    if is_ipv6(text):
        return RouteError("an IPv6 address outside brackets", hint=f"write [{printable(text, 60)}]")
    name, _, tail = text.partition(":")
    if ":" in tail:
        return RouteError("':' cannot stand in a host outside brackets", hint="write an IPv6 address as [2001:db8::1]")
    if ":" not in delimiters.port:
        example = f"{printable(name, 40)}{delimiters.port[0]}22"
        return RouteError("':' cannot stand in a host outside brackets", hint=f"a port is written {example}")
    return _no_port(tail)


def _no_port(text: str) -> RouteError:
    return RouteError(f"'{printable(text, 40)}' is not a port number" if text else "the port is empty")


def _jump(word: str) -> Element:
    """Read one name of a ProxyJump list."""
    if not word:
        raise RouteError("the name is empty")
    uri = word.startswith("ssh://")
    text = word[len("ssh://") :].removesuffix("/") if uri else word
    user, at, rest = text.rpartition("@")
    if at:
        user = _percent_decoded(user) if uri else user
        check_user(user)
    if rest.startswith("["):
        host, tail = _split_brackets(rest)
        if tail and tail[0] != ":":
            raise _after_brackets(tail, ":")
        digits = tail[1:]
    else:
        host, _, digits = rest.partition(":")
        if ":" in digits:
            raise _colon(rest, DEFAULT_DELIMITERS)
        if "/" in host or "/" in digits:
            raise RouteError("'/' cannot stand in a jump host", hint="jump hosts are separated by ','")
    check_host(host)
    # ssh accepts "host:" as a host without a port, and so do we.
    return Element(user if at else None, host, parse_port(digits) if digits else None)


def _percent_decoded(text: str) -> str:
    """Return text with its %XX escapes decoded (RFC 3986 section 2.1). Raises RouteError."""
    head, *escaped = text.split("%")
    data = os.fsencode(head)
    for part in escaped:
        digits = part[:2]
        if len(digits) != 2 or not all(c in "0123456789abcdefABCDEF" for c in digits):
            raise RouteError("'%' in the user of a URI is followed by two hexadecimal digits")
        data += bytes.fromhex(digits) + os.fsencode(part[2:])
    return os.fsdecode(data)


def _check_length(text: str) -> None:
    if not text:
        raise RouteError("the route is empty")
    if len(text) > MAX_ROUTE:
        raise RouteError(f"a route of {len(text)} characters is too long; {MAX_ROUTE} is the most")


def _check_name(kind: str, text: str, forbidden: str) -> None:
    """Check the rules that hosts and users have in common. Raises RouteError."""
    if not text:
        raise RouteError(f"the {kind} is empty")
    if text.startswith("-"):
        raise RouteError(f"a {kind} cannot begin with '-'")
    for c in text:
        # Bytes that are not text in this locale arrive as surrogates (os.fsdecode). ssh accepts them, too.
        if c in forbidden or not (c.isprintable() or "\udc80" <= c <= "\udcff"):
            raise RouteError(f"a {kind} cannot hold {_named(c)}")
    size = len(text.encode(errors="surrogateescape"))
    if size > MAX_NAME:
        raise RouteError(f"a {kind} of {size} bytes is too long; {MAX_NAME} is the most")


def _named(c: str) -> str:
    """Return a character in words, for a message."""
    if c == " ":
        return "a space"
    return f"'{c}'" if c.isprintable() else f"the character U+{ord(c):04X}"


def _place(word: str, which: str) -> str:
    shown = printable(word, 60)
    return f"{which} ({shown})" if shown else which


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
