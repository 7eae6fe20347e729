"""The command line: one table of flags, read into Options.

FLAGS drives the parser, the usage line and --help. A test checks that the man
page has the same flags in the same words. This file knows what an option looks
like, not what it does. It does not use argparse, which doubles the interpreter's
start-up time (and imports re). It does not use getopt, which imports gettext and
accepts no option after HOST, as ssh does.
"""

from __future__ import annotations

from relay.errors import UsageError, printable
from relay.spec.route import (
    DEFAULT_DELIMITERS,
    DEFAULT_PORT,
    Delimiters,
    RouteError,
    check_host,
    check_user,
    parse_jump,
    parse_port,
)
from relay.value import Value

TYPE_CHECKING = False  # typing costs start-up time; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from relay.spec.netcat import Netcat
    from relay.spec.proxy import Proxy

EXAMPLE = """\
In ~/.ssh/config, before other Host blocks:

    Host */* *+*
        ProxyCommand pyrelay %h %p

    ssh h1/h2/h3                     through h1, then h2, to h3
    ssh -l u3 u1%h1+h2:2022+h3       u1 at h1, port 2022 of h2, u3 at h3
"""
DEFAULT_DEADLINE = 120.0  # seconds; connecting through Tor may take a minute
MAX_DEADLINE = 1e6  # seconds; poll() counts milliseconds in 31 bits
ENGINES = ("auto", "paramiko", "ssh")
CONTROLS = ("list", "check", "stop", "exit")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}  # seconds; TIME FORMATS, sshd_config(5)
WIDTH = 80  # columns of usage and help
_HELP = "pyrelay --help shows all"
_ONE_WORD = "a route is one word, such as h1/h2"


class Options(Value):
    """The parsed command line.

    action: "help", "version", "names", "ssh-config", "explain" or "check" instead of connecting, else "".
    """

    action: str = ""
    json: bool = False
    destination: str = ""  # HOST, as it was typed
    port: int = DEFAULT_PORT
    config: str | None = None
    user: str | None = None
    identities: tuple[str, ...] = ()
    ssh_options: tuple[str, ...] = ()  # each as "Name=value"
    jump: str = ""
    netcat: tuple[str, ...] = ()  # hops that a netcat may cross; "" is all of them
    netcat_command: str = ""
    share: float | None = None  # seconds to keep shared hops after their last relay; None: do not share
    known_hosts: str | None = None  # print the target's keys instead, under this name; "": the name in HOST
    control: str = ""  # what to do with the shared hops: "list", "check", "stop" or "exit"
    engine: str = "auto"  # or "paramiko" or "ssh"
    memory: str | None = None  # the directory to remember hops in, "none" for none; None: the default one
    family: int = 0  # AF_INET, AF_INET6, or 0 for both
    source: str | None = None
    deadline: float = DEFAULT_DEADLINE  # seconds
    proxy: Proxy | None = None
    fdpass: bool = False
    delimiters: Delimiters = DEFAULT_DELIMITERS
    verbosity: int = 0  # -1 with -q, else the number of -v

    def __init__(self, **given: object) -> None:
        self._set(**given)

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(cls.__annotations__)

    def netcat_for(self, hop: str) -> Netcat | None:
        """Return the command that may cross a hop of this name; None: no command may."""
        named = hop in self.netcat
        if named or "" in self.netcat or (self.netcat_command and not self.netcat):
            from relay.spec.netcat import Netcat  # few routes need it

            return Netcat(self.netcat_command, named=named)
        return None

    @property
    def checks(self) -> bool:
        """Whether the route is dialled for a report (--check), which must leave nothing behind."""
        return self.action == "check"

    @property
    def is_strict(self) -> bool:
        """Whether the user has named the deadline (-w)."""
        return "deadline" in self.__dict__

    @property
    def batch(self) -> bool:
        """Whether -o BatchMode=yes forbids questions. For runs that do not read ssh_config."""
        return self._says("batchmode", {"yes", "true"})

    @property
    def hushed(self) -> bool:
        """Whether -o LogLevel silences warnings. For runs that do not read ssh_config."""
        return self._says("loglevel", {"quiet", "silent", "fatal", "error"})

    def _says(self, name: str, values: set[str]) -> bool:
        """Whether -o gives a keyword one of these values; the first -o of a keyword counts."""
        for pair in self.ssh_options:
            key, _, value = pair.partition("=")
            if key.lower() == name:
                return value.strip('"').lower() in values
        return False


class Flag(Value):
    """One option.

    name: "-F" or "--help". short: a letter with the same meaning, "-h", or "".
    value: the word that stands for its value in help and manual; "" if it takes no value;
    "[=HOP]" if the value may be left out, which sets the text "".
    field: the attribute of Options that it sets.
    take: computes the field's new value from the present one and the text of the
    option's value. It raises UsageError without a place.
    words: what the option does, in the words of --help and the manual.
    """

    __slots__ = ("field", "name", "short", "take", "value", "words")
    name: str
    short: str
    value: str
    field: str
    take: Callable[[Any, str], object]
    words: str

    def __init__(
        self, name: str, value: str, field: str, take: Callable[[Any, str], object], words: str, *, short: str = ""
    ) -> None:
        self._set(name=name, short=short, value=value, field=field, take=take, words=words)

    @property
    def is_optional(self) -> bool:
        """Whether its value may be left out. Such an option never takes the next word as its value."""
        return self.value.startswith("[")

    @property
    def form(self) -> str:
        """The option as the user types it: "-F FILE"."""
        name = f"{self.short}, {self.name}" if self.short else self.name
        return name + self.value if self.is_optional else f"{name} {self.value}".rstrip()


def _last(_now: object, text: str) -> str:
    return text


def _append(now: tuple[str, ...], text: str) -> tuple[str, ...]:
    return (*now, text)


def _user(_now: object, text: str) -> str:
    check_user(text)
    return text


def _hop(now: tuple[str, ...], text: str) -> tuple[str, ...]:
    if text:
        check_host(text)
    return (*now, text)


def _one_of(words: Iterable[str], text: str) -> str:
    if text not in words:
        raise UsageError(f"'{printable(text, 40)}' is not one of {', '.join(words)}")
    return text


def _engine(_now: object, text: str) -> str:
    return _one_of(ENGINES, text)


def _control(_now: object, text: str) -> str:
    return _one_of(CONTROLS, text)


def _time(_now: object, text: str) -> float | None:
    """Parse a time as ControlPersist does: 10m, 1h30m, seconds; yes and 0 mean for ever, no means not at all."""
    if text in {"yes", "no"}:
        return float("inf") if text == "yes" else None
    seconds, digits = 0, ""
    for letter in text.lower()[:40] + "s" * text[-1:].isdigit():
        if letter in UNITS and digits:
            seconds, digits = seconds + int(digits) * UNITS[letter], ""
        elif letter.isascii() and letter.isdigit():
            digits += letter
        else:
            raise UsageError(
                f"'{printable(text, 40)}' is not a duration", hint="write 10m, 1h30m, or a number of seconds"
            )
    return min(float(seconds), MAX_DEADLINE * 1000) or float("inf")


def _jump(_now: object, text: str) -> str:
    parse_jump(text)
    return text


def _setting(now: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Parse ssh_config's two spellings, `Name=value` and `Name value` (OpenSSH's strdelim()); keep the first one."""
    end = next((i for i, c in enumerate(text) if not (c.isascii() and c.isalnum())), len(text))
    name, rest = text[:end], text[end:].lstrip(" \t")
    value = rest.removeprefix("=").strip(" \t")
    if not name or (rest and not (rest[0] == "=" or text[end] in " \t")):
        raise UsageError(f"'{printable(text, 40)}' is not NAME=VALUE")
    if not value:
        raise UsageError(f"{name} has no value", hint=f"write {name}=value")
    return (*now, f"{name}={value}")


def _ipv4(_now: object, _text: str) -> int:
    from _socket import AF_INET  # `socket` would cost every run its start-up time

    return AF_INET


def _ipv6(_now: object, _text: str) -> int:
    from _socket import AF_INET6

    return AF_INET6


def _seconds(_now: object, text: str) -> float:
    # float() alone would also accept "nan", "1_0" and "1e9".
    plain = text.isascii() and text.count(".") <= 1 and text.replace(".", "").isdigit()
    seconds = float(text[:400]) if plain else 0.0
    if not 0 < seconds <= MAX_DEADLINE:
        raise UsageError(f"'{printable(text, 40)}' is not a number of seconds, above 0 and up to {MAX_DEADLINE:.0f}")
    return seconds


def _yes(_now: object, _text: str) -> bool:
    return True


def _proxy_kind(_now: object, text: str) -> str:
    from relay.spec.proxy import parse_kind  # a run without a proxy does not pay for it

    return parse_kind(text)


def _proxy_auth(_now: object, text: str) -> str:
    from relay.spec.proxy import METHODS

    return _one_of(METHODS, text)


def _proxy_protection(_now: object, text: str) -> str:
    from relay.spec.proxy import PROTECTIONS

    return _one_of(PROTECTIONS, text)


def _proxy_header(now: tuple[str, ...] | None, text: str) -> tuple[str, ...]:
    from relay.spec.proxy import check_header

    check_header(text)
    return (*(now or ()), text)


def _proxy_service(_now: object, text: str) -> str:
    from relay.spec.proxy import check_service

    check_service(text)
    return text


def _louder(now: int, _text: str) -> int:
    return max(now, 0) + 1


HOPS = (
    Flag("-F", "FILE", "config", _last, "Read the hops' settings from FILE instead of ssh's own ssh_config."),
    Flag("-i", "FILE", "identities", _append, "Offer the key in FILE to the hops; may be given more than once."),
    Flag("-J", "HOPS", "jump", _jump, "Go through HOPS first; they are spelled as for ssh's own -J."),
    Flag("-l", "USER", "user", _user, "Log in to the hops as USER, unless the route names another."),
    Flag("-o", "NAME=VALUE", "ssh_options", _setting, "Set an ssh_config option; may be given more than once."),
    Flag(
        "--netcat", "[=HOP]", "netcat", _hop, "Cross hops that deny forwarding, or HOP, by a command that runs there."
    ),
    Flag("--netcat-command", "LINE", "netcat_command", _last, "The command line for that; %h and %p are where to."),
    Flag(
        "--share",
        "TIME",
        "share",
        _time,
        "Share the hops with other relays, and keep them for TIME after the last one.",
    ),
    Flag("--engine", "NAME", "engine", _engine, "What carries the hops: auto, paramiko or ssh; auto unless given."),
    Flag(
        "--memory",
        "DIR",
        "memory",
        _last,
        "Remember in DIR, or nowhere (none), what each hop takes, to save round trips.",
    ),
)
CONNECTION = (
    Flag("-4", "", "family", _ipv4, "Use IPv4 only."),
    Flag("-6", "", "family", _ipv6, "Use IPv6 only."),
    Flag("-s", "ADDRESS", "source", _last, "Connect from ADDRESS, one of this machine's own."),
    Flag("-w", "SECONDS", "deadline", _seconds, "Give up after SECONDS; 120 unless given."),
    Flag("--fdpass", "", "fdpass", _yes, "Hand the connection to ssh and exit; ssh wants ProxyUseFdpass yes."),
)
PROXY = (
    Flag("-X", "PROTOCOL", "proxy_kind", _proxy_kind, "What the proxy speaks: 4, 4a, 5 or connect; 5 unless given."),
    Flag("-x", "PROXY", "proxy_address", _last, "Begin at a proxy, [USER@]HOST[:PORT] or a unix socket's /PATH."),
    Flag("-P", "USER", "proxy_user", _last, "The user to log in to the proxy as."),
    Flag(
        "--proxy",
        "URL",
        "proxy_url",
        _last,
        "Begin at a proxy: socks5h://, socks4a://, http:// or https://[USER@]HOST[:PORT].",
    ),
    Flag(
        "--proxy-auth",
        "METHOD",
        "proxy_auth",
        _proxy_auth,
        "Log in to the proxy by negotiate, digest, basic or gssapi, and by nothing else.",
    ),
    Flag(
        "--proxy-header",
        "HEADER",
        "proxy_headers",
        _proxy_header,
        "Add 'NAME: VALUE' to what an HTTP proxy is asked, or the lines of @FILE; may be given more than once.",
    ),
    Flag(
        "--proxy-cacert",
        "FILE",
        "proxy_cacert",
        _last,
        "Trust the certificates in FILE for an https:// proxy, instead of the system's.",
    ),
    Flag(
        "--proxy-protection",
        "LEVEL",
        "proxy_protection",
        _proxy_protection,
        "What gssapi does to the bytes: none, integrity or confidentiality; confidentiality unless given.",
    ),
    Flag(
        "--proxy-service",
        "NAME",
        "proxy_service",
        _proxy_service,
        "What Kerberos calls the proxy, NAME or NAME@HOST; HTTP for negotiate and rcmd for gssapi unless given.",
    ),
    Flag("--tor", "", "tor", _yes, "Begin at Tor, which an onion name does by itself."),
)
SPELLING = (
    Flag("--hop-delimiter", "CHARS", "hop_delimiter", _last, "What stands between names; / and + unless given."),
    Flag("--user-delimiter", "CHARS", "user_delimiter", _last, "What stands after a user; % and = unless given."),
    Flag("--port-delimiter", "CHARS", "port_delimiter", _last, "What stands before a port; : and ~ unless given."),
)


def _instead(action: str, words: str) -> Flag:
    """Return the option of that name, which does something instead of relaying."""
    return Flag(f"--{action}", "", "action", lambda _now, _text: action, words)


INSTEAD = (
    _instead("explain", "Print how HOST would be reached, and what may surprise; connect to nothing."),
    _instead("check", "Connect to HOST as a run would, print how each stage goes, and write nothing."),
    Flag("--json", "", "json", _yes, "Print what --explain or --check prints as one JSON object."),
    Flag(
        "--known-hosts",
        "[=NAME]",
        "known_hosts",
        _last,
        "Print the known host keys of HOST's target, under NAME, for ssh's KnownHostsCommand.",
    ),
    _instead("ssh-config", "Print a block for ~/.ssh/config, with the other options in its ProxyCommand."),
    _instead("names", "Print the names of ssh_config and known_hosts, for the completion of a route."),
    Flag("-O", "COMMAND", "control", _control, "List the shared hops, or end them: list, check, stop or exit."),
)
MESSAGES = (
    Flag("-q", "", "verbosity", lambda _now, _text: -1, "Say nothing but errors."),
    Flag("-v", "", "verbosity", _louder, "Say each stage with its time; twice for more."),
    Flag("--help", "", "action", lambda _now, _text: "help", "Print this help.", short="-h"),
    Flag("--version", "", "action", lambda _now, _text: "version", "Print the version.", short="-V"),
)
GROUPS = {
    "Hops": HOPS,
    "Connection": CONNECTION,
    "Proxies": PROXY,
    "Spelling of the route": SPELLING,
    "Instead of connecting": INSTEAD,
    "Messages": MESSAGES,
}
FLAGS = tuple(flag for flags in GROUPS.values() for flag in flags)
_ALONE = frozenset({"--help", "--version"})  # options that end the reading
_INSTEAD = ("--ssh-config", "--names", "-O")  # options with a line of their own in the usage; they take no HOST
_ONE_OF = frozenset({"action", "known_hosts", "control"})  # the fields of which only one can be given
_BY_NAME = {name: flag for flag in FLAGS for name in (flag.name, flag.short) if name}


def parse(argv: Sequence[str]) -> Options:
    """Read the words after the program's name.

    Options may stand before and after HOST; "--" ends them. Short options cluster, and
    take their value from the same word or the next one ("-vv", "-w3", "-w 3"). Long
    options take it after "=" or from the next word. If an option with one value is given
    twice, the last one counts. Raises UsageError.
    """
    given: dict[str, Any] = {}
    words: list[str] = []
    instead: list[str] = []
    for flag, text in _read(iter(argv)):
        if flag is None:
            words.append(text)
            continue
        if flag.value and not text and not flag.is_optional:
            raise UsageError(f"{flag.value} is empty", place=flag.name)
        try:
            given[flag.field] = flag.take(given.get(flag.field, getattr(Options, flag.field, None)), text)
        except UsageError as error:
            error.at(flag.name)
            raise
        if flag.name in _ALONE:
            return Options(**given)
        if flag.field in _ONE_OF:
            instead.append(flag.name)
    _at_most_one(instead)
    if given.get("json") and given.get("action") not in {"explain", "check"}:
        raise UsageError("this is for --explain and --check", place="--json")
    if instead and instead[0] in _INSTEAD:
        if words:
            raise UsageError(f"one word too many: {printable(words[0], 40)}", hint=_HELP)
        return Options(**_proxy(_delimiters(given)))
    return Options(**_proxy(_delimiters(given)), **_positional(words))


def without_host(argv: Sequence[str]) -> list[str]:
    """Return the options of a command line, each with its value, without HOST and PORT. Raises UsageError."""
    found = [(flag, text) for flag, text in _read(iter(argv)) if flag is not None]
    spelled = ([f"{flag.name}={text}"] if text and flag.is_optional else [flag.name, text] for flag, text in found)
    return [word for words in spelled for word in words if word]


def _at_most_one(instead: Sequence[str]) -> None:
    """Raise UsageError if different options each ask for something else than a relay."""
    names = list(dict.fromkeys(instead))
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} cannot be used together", hint="give one of them")


def usage() -> str:
    """Return the usage in a few lines, without a final new-line."""
    switches = "".join(flag.name[1:] for flag in FLAGS if not flag.value and len(flag.name) == 2)
    parts = [f"[-{switches}]"]
    parts += [f"[{flag.form}]" for flag in FLAGS if _in_line(flag) and (flag.value or len(flag.name) > 2)]
    parts += ["HOST [PORT]"]
    start = "usage: pyrelay"
    lines = [start]
    for part in parts:
        if len(lines[-1]) + 1 + len(part) > WIDTH:
            lines.append(" " * len(start))
        lines[-1] += f" {part}"
    others = [_BY_NAME[name].form for name in _INSTEAD]
    return "\n".join([*lines, *(f"       pyrelay {form}" for form in others)])


def _in_line(flag: Flag) -> bool:
    """Whether the flag stands in the usage's first line."""
    return flag.name not in _ALONE and flag.name not in _INSTEAD


def help_text() -> str:
    """Return the text of --help."""
    import textwrap  # only here: it imports re, which takes long

    lines = [usage(), "", EXAMPLE.rstrip()]
    for group, flags in GROUPS.items():
        lines += ["", f"{group}:"]
        for flag in flags:
            lines += textwrap.wrap(
                f"{flag.form:23} {flag.words}",
                WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * 26,
                break_on_hyphens=False,
            )
    return "\n".join((*lines, "", "The manual is pyrelay(1).", ""))


def _read(args: Iterator[str]) -> Iterator[tuple[Flag | None, str]]:
    """Yield each option with the text of its value, and each other word as (None, word)."""
    for word in args:
        if word == "--":
            for rest in args:
                yield None, rest
        elif word.startswith("--"):
            name, equals, text = word.partition("=")
            flag = _flag(name)
            if equals and not flag.value:
                raise UsageError(f"{name} takes no value", hint=_HELP)
            if equals and not text and flag.is_optional:
                raise UsageError(f"{flag.value.strip('[=]')} is empty", place=name)
            yield flag, text if equals or not flag.value or flag.is_optional else _next(flag, args)
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                flag, letters = _flag(f"-{letters[0]}"), letters[1:]
                if flag.value:
                    yield flag, letters or _next(flag, args)
                    break
                yield flag, ""
        else:
            yield None, word


def _flag(name: str) -> Flag:
    try:
        return _BY_NAME[name]
    except KeyError:
        if name == "-p":  # ssh's option for the port
            hint = "a port stands in the route, h3:2022, or after it: pyrelay h1/h3 2022"
            raise UsageError(f"unknown option {name}", hint=hint) from None
        nearest = _nearest(name)
        cause = f"unknown option {printable(name, 40)}" + (f"; the nearest is {nearest}" if nearest else "")
        raise UsageError(cause, hint=_HELP) from None


def _nearest(name: str) -> str:
    """Return the option that the user may have meant, or ""."""
    if len(name) == 2:
        return name.swapcase() if name.swapcase() in _BY_NAME else ""
    import difflib  # only after a typing error: it imports re

    begun = [known for known in _BY_NAME if len(name) > 3 and known.startswith(name)]
    return (begun or difflib.get_close_matches(name, _BY_NAME, 1) or [""])[0]


def _next(flag: Flag, args: Iterator[str]) -> str:
    """Return the value of a flag from the next word."""
    for word in args:
        return word
    raise UsageError(f"{flag.name} needs a value, {flag.value}", hint=_HELP)


def _delimiters(given: dict[str, Any]) -> dict[str, Any]:
    """Combine the three delimiter options into one value. Overlaps show only when all three are known."""
    sets = {kind: given.pop(f"{kind}_delimiter") for kind in ("hop", "user", "port") if f"{kind}_delimiter" in given}
    return {**given, "delimiters": Delimiters(**sets)} if sets else given


def _proxy(given: dict[str, Any]) -> dict[str, Any]:
    """Combine the options about the proxy into one value: the address depends on the protocol and the user."""
    names = {flag.field: flag.name for flag in PROXY}
    told = {field: given.pop(field) for field in names if field in given}
    if not told:
        return given
    from relay.spec.proxy import combined  # few runs have a proxy

    return {**given, "proxy": combined(told, names)}


def _positional(words: list[str]) -> dict[str, Any]:
    """Read HOST and PORT."""
    if not words or not words[0]:
        raise UsageError("HOST is empty" if words else "no HOST is given", hint=f"{_ONE_WORD}; {_HELP}")
    if len(words) > 2:
        raise UsageError(f"one word too many: {printable(words[2], 40)}", hint=f"{_ONE_WORD}; {_HELP}")
    if len(words) == 1:
        return {"destination": words[0]}
    try:
        return {"destination": words[0], "port": parse_port(words[1])}
    except RouteError as error:
        if words[1] and not words[1].isdecimal():
            error.hint = _ONE_WORD
        error.at("PORT")
        raise
