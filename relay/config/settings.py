"""The meaning of the lines of `ssh -G NAME`: the settings of one name of the route.

This module opens no socket, starts no program and prints nothing (lookup.py asks ssh).
"""

from __future__ import annotations

import os

from relay.errors import RelayError, printable
from relay.spec.route import DEFAULT_PORT, NOT_IN_USER, Element

# ssh runs us as its KnownHostsCommand twice for each connection, and each run imports this module. So it does not
# import typing, re or hashlib, which take long.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    Settings: TypeAlias = Mapping[str, Sequence[str]]

# Keywords that `ssh -G` prints expanded, or that allow only ~ (its other file names still hold ~, %h and ${HOME}).
_EXPANDED = frozenset({"controlpath", "globalknownhostsfile", "identityagent", "userknownhostsfile"})
# Keywords whose line holds one name, which may have white space in it; a line of the others holds a list.
_ONE_NAME = frozenset({"certificatefile", "controlpath", "identityagent", "identityfile"})

_MOST = 2**31 - 1  # the greatest number in ssh_config: a C int
_MOST_BYTES = 2**63 - 1
_STRICTNESS = {"yes": "yes", "true": "yes", "no": "no", "false": "no", "off": "no", "accept-new": "accept-new"}
# IPQoS: RFC 3246, RFC 8622, RFC 1349.
_SERVICES = {"ef": 0xB8, "le": 0x04, "lowdelay": 0x10, "throughput": 0x08, "reliability": 0x04, "none": None}


class HopSettings:
    """The settings that ssh_config gives one name of the route.

    name: as the route spells it. hostname, user, port: where and as whom to
    log in. Everything else by its keyword, in lower case as `ssh -G` prints it.
    words: the end of an ssh command line that gives these settings.
    environ, directory: those of the user's relay, to expand the names of files;
    this process's own unless given.
    """

    def __init__(
        self,
        name: str,
        values: Settings,
        defaults: Settings | Callable[[], Settings] | None = None,
        words: Sequence[str] = (),
        *,
        environ: Mapping[str, str] = os.environ,
        directory: str = "",
    ) -> None:
        self.name = name
        self.environ = environ
        self._directory = directory
        self.words = tuple(words)
        self._values = values
        self._defaults = defaults if callable(defaults) else lambda: defaults or {}
        self.hostname = self.get("hostname", name)
        self.user = self.get("user")
        self.port = self.number("port", 22, most=65535)

    def without(self, *keywords: str) -> HopSettings:
        """Return these settings with some switches off, for us and for an ssh of ours.

        One that is off already is left as it is: an ssh may not have been built with it, and complain of it.
        """
        on = [key for key in keywords if self.yes(key)]
        if not on:
            return self
        values = {**self._values, **dict.fromkeys(on, ("no",))}
        words = (*(word for key in on for word in ("-o", f"{key}=no")), *self.words)
        return HopSettings(self.name, values, self._defaults, words, environ=self.environ, directory=self._directory)

    def jumps(self, before: str = "") -> str:
        """Return the hops up to this one in the spelling of ssh's -J. before: the hops before it, in that spelling."""
        user = None if self._is_odd_user() else self.user  # ssh_config gives the name such a user without that
        this = str(Element(user, self.name, self.port if self.port != DEFAULT_PORT else None))
        return f"{before},{this}" if before else this

    def get(self, key: str, default: str = "") -> str:
        """Return the first value of a keyword, or default."""
        values = self._values.get(key)
        return values[0] if values else default

    def all(self, key: str) -> tuple[str, ...]:
        """Return every value of a keyword that may be given more than once."""
        return tuple(self._values.get(key, ()))

    def lines(self) -> str:
        """Return the lines that `ssh -G` has printed. `parse` can read them again."""
        return "".join(f"{key} {value}\n" for key, values in self._values.items() for value in values)

    def named(self, key: str) -> str:
        """Return what a keyword names; "" if that is nothing, by the word "none" or because it is not set."""
        value = self.get(key)
        return "" if value.lower() == "none" else value

    def yes(self, key: str) -> bool:
        """Whether a keyword is on; `ssh -G` prints some as yes and some as true."""
        return self.get(key) in {"yes", "true"}

    def no(self, key: str) -> bool:
        """Whether a keyword is off. One that ssh does not know is neither on nor off."""
        return self.get(key) in {"no", "false"}

    @property
    def strictness(self) -> str:
        """StrictHostKeyChecking: yes, no, accept-new or ask."""
        return _STRICTNESS.get(self.get("stricthostkeychecking"), "ask")

    @property
    def log_level(self) -> str:
        """LogLevel in lower case, named as in ssh_config(5). (`ssh -G` prints SILENT for quiet, log.c.)"""
        level = self.get("loglevel").lower()
        return "quiet" if level == "silent" else level

    @property
    def shows_banners(self) -> bool:
        """Whether ssh shows warnings and a server's banner at this LogLevel (logit; input_userauth_banner)."""
        return self.log_level not in {"quiet", "fatal", "error"}

    def seconds(self, key: str) -> float:
        """Return a time in seconds (`ssh -G` prints seconds), 0.0 if it is not set ("none")."""
        return float(self.number(key)) if self.get(key)[:1].isdigit() else 0.0

    def number(self, key: str, default: int = 0, *, most: int = _MOST) -> int:
        """Return a whole number, or default if it is not set. Raises RelayError."""
        value = self.get(key)
        return self._whole(key, value, most) if value else default

    def rekey_limit(self) -> tuple[int, int]:
        """Return RekeyLimit: bytes and seconds, each 0 if it is not set. Raises RelayError."""
        size, _, seconds = self.get("rekeylimit").partition(" ")
        key = "rekeylimit"
        return self._whole(key, size or "0", _MOST_BYTES), self._whole(key, seconds or "0", _MOST)

    def _whole(self, key: str, text: str, most: int) -> int:
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most:
            return int(text)
        raise RelayError(f"ssh_config of {self.name}: {key} is not a number within its range: {printable(text, 40)}")

    def service(self) -> int | None:
        """Return the type of service of a hop's connection, or None for the system's default.

        It is the first word of IPQoS, which every ssh without a terminal uses
        (ssh_session2, ssh.c). ssh_config(5) has the names. Raises RelayError.
        """
        word = self.get("ipqos").partition(" ")[0].lower() or "none"
        if word in _SERVICES:
            return _SERVICES[word]
        if word[:2] == "af":  # RFC 2597 section 6
            number = self._whole("ipqos", word[2:], 43)
            return number // 10 << 5 | number % 10 << 3
        if word[:2] == "cs":  # RFC 2474 section 4.2.2
            return self._whole("ipqos", word[2:], 7) << 5
        try:
            number = int(word[:6], 0)
        except ValueError:
            number = -1
        if not 0 <= number <= 255:
            raise RelayError(f"ssh_config of {self.name}: ipqos is unknown: {printable(word, 40)}")
        return number

    def algorithms(self, key: str) -> tuple[str, ...] | None:
        """Return a list of algorithms that the user chose; None if it is OpenSSH's own default list."""
        if key not in self._values or not self.chosen(key):
            return None
        return tuple(filter(None, self.get(key).split(",")))  # none at all after "-*"

    def edits_default(self, key: str) -> bool:
        """Whether a list of algorithms is likely OpenSSH's own with names added at its end (+) or removed (-).

        `ssh -G` prints only what came of that. A list with less than half of the default names is taken for one that
        somebody wrote out.
        """
        default, chosen = (values.get(key, [""])[0].split(",") for values in (self._defaults(), self._values))
        kept = [name for name in default if name in chosen]
        return kept in (default, chosen) and chosen[: len(kept)] == kept and 2 * len(kept) >= len(default)

    def picked(self, key: str) -> tuple[str, ...]:
        """Return the algorithms of a list that somebody named.

        The rest of OpenSSH's own list stands before them (+), or behind them (^): nobody chose that.
        """
        wanted = self.algorithms(key) or ()
        default = tuple(self._defaults().get(key, [""])[0].split(","))
        if wanted[: len(default)] == default:
            return wanted[len(default) :]
        for count in range(1, len(wanted)):
            if wanted[count:] == tuple(name for name in default if name not in wanted[:count]):
                return wanted[:count]
        return wanted

    def chosen(self, key: str) -> bool:
        """Whether the user's ssh_config gives a keyword another value than OpenSSH's default."""
        return self._values.get(key) != self._defaults().get(key)

    def exempts(self, address: str) -> bool:
        """Whether the host key at an address is not checked (NoHostAuthenticationForLocalhost); not at "", no address.

        After check_host_key (sshconnect.c).
        """
        exempt = self.yes("nohostauthenticationforlocalhost") and not self.get("hostkeyalias")
        return exempt and is_loopback(address)

    def paths(self, key: str) -> tuple[str, ...]:
        """Return the file names of a keyword, expanded; "none" is left out. Raises RelayError for an unknown token."""
        names: list[str] = []
        for line in self.all(key):
            names += [line] if key in _ONE_NAME else _listed(line)
        names = [name for name in names if name.lower() != "none"]
        return tuple(self._path(name if key in _EXPANDED else self.expand(name)) for name in names)

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name, which may be relative to the user's directory."""
        return os.path.exists(self._path(name))

    def _path(self, name: str) -> str:
        """Return a file's name with its ~ replaced, relative to the user's directory."""
        return os.path.join(self._directory, with_home(name))

    def proxy_command(self) -> str:
        """Return the name's own ProxyCommand, ready for a shell, or "" if it has none.

        Its tokens are %% %h %k %n %p %r; the shell expands ${NAME}s. check_host
        has checked %h. Raises RelayError if a shell would not take the user for one plain word.
        """
        command = self._way("proxycommand")
        if self._is_odd_user() and "%r" in self.get("proxycommand").replace("%%", ""):
            raise RelayError(
                f"ssh_config of {self.name}: its ProxyCommand has %r, and a shell would not take the user"
                f" {printable(self.user, 60)} for one plain word",
                hint="write the name itself into the ProxyCommand, in single quotes, instead of %r",
            )
        return command

    def _is_odd_user(self) -> bool:
        """Whether the user holds a character with a meaning to a shell."""
        return any(c in NOT_IN_USER or c == "\\" for c in self.user)

    def proxy_jump(self) -> str:
        """Return the name's own ProxyJump with its tokens replaced, or "" if it has none."""
        return self._way("proxyjump")

    def _way(self, key: str) -> str:
        value = self.named(key)
        if not value:
            return ""
        return _expand(value, lambda letter: self._token(letter) if letter in "%hknpr" else None)

    def expand(self, text: str, more: Mapping[str, str] | None = None) -> str:
        """Return text with its %-tokens and ${NAME}s replaced, see TOKENS and ENVIRONMENT VARIABLES in ssh_config(5).

        more: further tokens by their letter, such as {"H": host}. Raises
        RelayError for a token or a variable that does not exist.
        """
        if "%" not in text and "${" not in text:
            return text  # most texts
        given = more or {}
        return _expand(text, lambda letter: given[letter] if letter in given else self._token(letter), self.environ)

    def _token(self, letter: str) -> str | None:
        """Return a token that file names may hold (TOKENS, ssh_config(5)); None if there is none of that letter.

        The modules of those that are rare are imported for them alone: this runs before the first connection.
        """
        known = {
            "%": "%",
            "h": self.hostname,
            "i": str(os.getuid()),
            "j": self.get("proxyjump"),
            "k": self.get("hostkeyalias", self.name),
            "n": self.name,
            "p": str(self.port),
            "r": self.user,
        }
        if letter in ("d", "u"):
            import pwd

            me = pwd.getpwuid(os.getuid())
            known |= {"d": me.pw_dir, "u": me.pw_name}
        elif letter in ("C", "L", "l"):
            from _socket import gethostname

            here = gethostname()
            known |= {"L": here.partition(".")[0], "l": here}
            if letter == "C":
                from hashlib import sha1

                parts = (here, self.hostname, str(self.port), self.user, known["j"])
                known["C"] = sha1(os.fsencode("".join(parts)), usedforsecurity=False).hexdigest()
        return known.get(letter)


def is_loopback(address: str) -> bool:
    """Whether an IP address, which may have a zone, is a loopback address; not "", which is none."""
    from ipaddress import ip_address  # few hops have a setting that asks this

    return bool(address) and ip_address(address.partition("%")[0]).is_loopback


def with_home(name: str) -> str:
    """Return a file's name with its ~ replaced by the user's home in the password database, not by $HOME.

    ssh does the same (tilde_expand, misc.c).
    """
    if name != "~" and not name.startswith("~/"):
        return os.path.expanduser(name)
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir + name[1:]


def without_home(name: str) -> str:
    """Return a file's name with ~ for the user's home, to show it."""
    home = with_home("~")
    return f"~{name[len(home) :]}" if name.startswith(f"{home}/") else name


def _listed(line: str) -> list[str]:
    """Split a line of absolute file names, which `ssh -G` prints with a space between them and without quotes.

    A word that does not begin with "/" belongs to the name before it: that name has a space in it. Where "~" is left as
    it is, the line has one name (RevokedHostKeys before OpenSSH 10.6).
    """
    return line.replace(" /", "\0/").split("\0") if line.startswith(("/", "~")) else line.split()


def _expand(text: str, token: Callable[[str], str | None], environ: Mapping[str, str] | None = None) -> str:
    """Return text with its %-tokens replaced, and its ${NAME}s if an environment is given.

    token: returns the token of a letter, None if there is none. (A pattern would do, but to import re takes as long as
    a plain relay's whole start.) Raises RelayError for a token or a variable that does not exist.
    """
    done, left = "", text
    while left:
        if left[0] == "%":
            value = token(left[1:2])
            if value is None:
                raise RelayError(f"ssh_config: {printable(text)}: unknown token %{left[1:2]}")
            size = 2
        elif environ is not None and left.startswith("${") and "}" in left:
            name = left[2 : left.index("}")]
            if name not in environ:
                raise RelayError(f"ssh_config: {printable(text)}: ${{{name}}} is not set")
            value, size = environ[name], len(name) + 3
        else:
            value, size = left[0], 1
        done, left = done + value, left[size:]
    return done


def parse(output: bytes) -> dict[str, list[str]]:
    """Parse the lines of `ssh -G` into values by keyword. No input is an error.

    Bytes are decoded like the names of files in Python, so that `open` opens the file that ssh means, in any locale.
    """
    values: dict[str, list[str]] = {}
    for line in os.fsdecode(output).split("\n"):
        key, _, value = line.partition("\0")[0].partition(" ")  # ssh's strings end at a NUL, as in C
        if key:
            values.setdefault(key.lower(), []).append(value)
    return values
