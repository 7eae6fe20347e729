"""What the lines of `ssh -G NAME` mean: a name of the route, as the user's ssh_config has it.

It knows no socket, starts nothing and prints nothing (lookup.py asks ssh).
"""

from __future__ import annotations

import os

from relay.errors import RelayError, printable
from relay.spec.route import DEFAULT_PORT, Element

# The answer to a KnownHostsCommand passes through here, twice for each connection: it has no time for typing, re and
# hashlib.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    Settings: TypeAlias = Mapping[str, Sequence[str]]

# What `ssh -G` has expanded itself, and what takes no more than ~ (its other file names still hold ~, %h and ${HOME}).
_EXPANDED = frozenset({"controlpath", "globalknownhostsfile", "identityagent", "userknownhostsfile"})
# Keywords of which one line holds one name, white space and all; the others hold a list.
_ONE_NAME = frozenset({"certificatefile", "controlpath", "identityagent", "identityfile", "revokedhostkeys"})

# IPQoS: RFC 3246, RFC 8622, RFC 1349.
_MOST = 2**31 - 1  # of the numbers of ssh_config, which are ints of C
_MOST_BYTES = 2**63 - 1
_SERVICES = {"ef": 0xB8, "le": 0x04, "lowdelay": 0x10, "throughput": 0x08, "reliability": 0x04, "none": None}


class HopSettings:
    """One name of the route, as ssh_config has it.

    name: as the route spells it. hostname, user, port: where and as whom to
    log in. Everything else by its keyword, in lower case as `ssh -G` prints it.
    words: the end of an ssh command line that gives these settings.
    environ, directory: of who asks, for the names of files; this process's own
    unless given.
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

    def jumps(self, before: str = "") -> str:
        """The hops up to this one, as ssh's -J has them. before: the hops before it, the same way."""
        this = str(Element(self.user, self.name, self.port if self.port != DEFAULT_PORT else None))
        return f"{before},{this}" if before else this

    def get(self, key: str, default: str = "") -> str:
        """The first value of a keyword, or default."""
        values = self._values.get(key)
        return values[0] if values else default

    def all(self, key: str) -> tuple[str, ...]:
        """Every value of a keyword that may be given more than once."""
        return tuple(self._values.get(key, ()))

    def lines(self) -> str:
        """What `ssh -G` has printed; `parse` reads it again."""
        return "".join(f"{key} {value}\n" for key, values in self._values.items() for value in values)

    def yes(self, key: str) -> bool:
        """Whether a keyword is on; `ssh -G` prints some as yes and some as true."""
        return self.get(key) in {"yes", "true"}

    @property
    def log_level(self) -> str:
        """LogLevel in lower case, by the names of ssh_config(5): `ssh -G` calls quiet SILENT (log.c)."""
        level = self.get("loglevel").lower()
        return "quiet" if level == "silent" else level

    @property
    def shows_banners(self) -> bool:
        """Whether ssh shows warnings and a server's banner at this LogLevel (logit; input_userauth_banner)."""
        return self.log_level not in {"quiet", "fatal", "error"}

    def seconds(self, key: str, default: float = 0.0) -> float:
        """A time in seconds (`ssh -G` prints seconds); default when it is not set ("none")."""
        return float(self.number(key)) if self.get(key)[:1].isdigit() else default

    def number(self, key: str, default: int = 0, *, most: int = _MOST) -> int:
        """A whole number; default when it is not set. Raises RelayError."""
        value = self.get(key)
        return self._whole(key, value, most) if value else default

    def rekey_limit(self) -> tuple[int, int]:
        """RekeyLimit: bytes and seconds, each 0 for none of its own. Raises RelayError."""
        size, _, seconds = self.get("rekeylimit").partition(" ")
        key = "rekeylimit"
        return self._whole(key, size or "0", _MOST_BYTES), self._whole(key, seconds or "0", _MOST)

    def _whole(self, key: str, text: str, most: int) -> int:
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most:
            return int(text)
        raise RelayError(f"ssh_config of {self.name}: {key} is no such number: {printable(text, 40)}")

    def service(self) -> int | None:
        """The type of service of a hop's connection, or None for the system's own.

        The first word of IPQoS, as for every ssh without a terminal to serve
        (ssh_session2, ssh.c), in the names of ssh_config(5). Raises RelayError.
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
        """A list of algorithms that somebody chose; None when it is OpenSSH's own default list."""
        value = self.get(key)
        return tuple(value.split(",")) if value and self.chosen(key) else None

    def chosen(self, key: str) -> bool:
        """Whether somebody gave a keyword another value than OpenSSH's default."""
        return self._values.get(key) != self._defaults().get(key)

    def paths(self, key: str) -> tuple[str, ...]:
        """The file names of a keyword, expanded; "none" is no file. Raises RelayError for a token that ssh has not."""
        names: list[str] = []
        for line in self.all(key):
            names += [line] if key in _ONE_NAME else _listed(line)
        names = [name for name in names if name.lower() != "none"]
        return tuple(self._path(name if key in _EXPANDED else self.expand(name)) for name in names)

    def _path(self, name: str) -> str:
        """A file's name with its ~ replaced, as seen from where the user is."""
        return os.path.join(self._directory, with_home(name))

    def proxy_command(self) -> str:
        """The name's own ProxyCommand, ready for a shell, or "" when it has none.

        Its tokens are %% %h %k %n %p %r; ${NAME}s are left to the shell. What
        they stand for has passed check_host and check_user.
        """
        return self._way("proxycommand")

    def proxy_jump(self) -> str:
        """The name's own ProxyJump with its tokens replaced, or "" when it has none."""
        return self._way("proxyjump")

    def _way(self, key: str) -> str:
        value = self.get(key)
        if value.lower() in {"", "none"}:
            return ""
        tokens = self.tokens()
        return _expand(value, {letter: tokens[letter] for letter in "%hknpr"})

    def expand(self, text: str, more: Mapping[str, str] | None = None) -> str:
        """Text with its %-tokens and ${NAME}s replaced, as TOKENS and ENVIRONMENT VARIABLES of ssh_config(5) say.

        more: further tokens by their letter, such as {"H": host}. Raises
        RelayError for a token or a variable that does not exist.
        """
        if "%" not in text and "${" not in text:
            return text  # as most do: tokens take longer to import than all that is done with them
        return _expand(text, {**self.tokens(), **(more or {})}, self.environ)

    def tokens(self) -> dict[str, str]:
        """The tokens that file names may hold, by their letter (TOKENS, ssh_config(5))."""
        import hashlib
        import pwd
        import socket

        me = pwd.getpwuid(os.getuid())
        here = socket.gethostname()
        jump = self.get("proxyjump")
        parts = (here, self.hostname, str(self.port), self.user, jump)
        return {
            "%": "%",
            "C": hashlib.sha1(os.fsencode("".join(parts)), usedforsecurity=False).hexdigest(),
            "d": me.pw_dir,
            "h": self.hostname,
            "i": str(os.getuid()),
            "j": jump,
            "k": self.get("hostkeyalias", self.name),
            "L": here.partition(".")[0],
            "l": here,
            "n": self.name,
            "p": str(self.port),
            "r": self.user,
            "u": me.pw_name,
        }


def with_home(name: str) -> str:
    """A file's name with its ~ replaced: by what the system has for the user, whatever $HOME says, as for ssh.

    (tilde_expand, misc.c.)
    """
    if name != "~" and not name.startswith("~/"):
        return os.path.expanduser(name)
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir + name[1:]


def _listed(line: str) -> list[str]:
    """The file names of a line, which `ssh -G` prints in full, with a space between them and no quotes around any.

    So a word that begins with no "/" belongs to the name before it, which has a space in it.
    """
    return line.replace(" /", "\0/").split("\0") if line.startswith("/") else line.split()


def _expand(text: str, tokens: Mapping[str, str], environ: Mapping[str, str] | None = None) -> str:
    """Text with its %-tokens and, where an environment is given, its ${NAME}s replaced."""
    import re

    def value(match: re.Match[str]) -> str:
        letter, name = match.group(1, 2)
        if name is None:
            if letter not in tokens:
                raise RelayError(f"ssh_config: {printable(text)}: unknown token %{letter}")
            return tokens[letter]
        if environ is None:
            return match.group()
        if name not in environ:
            raise RelayError(f"ssh_config: {printable(text)}: ${{{name}}} is not set")
        return environ[name]

    return re.sub(r"%(.?)|\$\{([^}]*)\}", value, text)


def parse(output: bytes) -> dict[str, list[str]]:
    """The lines of `ssh -G`, keyword by keyword; any bytes give a table.

    They are decoded as Python decodes the names of files: `open` then opens the file that ssh means, in any locale.
    """
    values: dict[str, list[str]] = {}
    for line in os.fsdecode(output).split("\n"):
        key, _, value = line.partition("\0")[0].partition(" ")  # what ssh prints are C's strings
        if key:
            values.setdefault(key.lower(), []).append(value)
    return values
