"""Asks `ssh -G` for all names of a route at once: ssh itself reads its files (Include, Match, tokens, defaults).

CanonicalizeHostname is obeyed for a name that this machine connects to directly, since then ssh looks the name up, too.
Any other name belongs to the hop before it, to the proxy or to Tor, and our resolver must not see it. Whether
ssh_config sets it shows only in an answer; so for the first name of a route ssh is asked in a way that has the setting
and finds nothing to look up, and once more if it is set.
"""

from __future__ import annotations

import os

from relay.config.settings import HopSettings, parse
from relay.errors import RelayError, printable, words
from relay.spec.route import DEFAULT_PORT, RouteError, check_host, check_login, is_onion
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import Settings
    from relay.run.asked import Asked
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.spec.options import Options
    from relay.spec.route import Element, Route


# How `ssh -G` treats a name that is not canonical. With permitted CNAMEs it would look the name up in any case (ssh.c).
NO_CNAMES = "CanonicalizePermittedCNAMEs=none"
AS_IT_IS: tuple[str, ...] = ("CanonicalizeHostname=no", NO_CNAMES)
IF_IT_WERE: tuple[str, ...] = (
    "CanonicalizeMaxDots=0",
    "CanonicalDomains=none",
    "CanonicalizeFallbackLocal=yes",
    NO_CNAMES,
)
ON = frozenset({"yes", "true", "always"})  # what CanonicalizeHostname says then
CANONICAL = ("CanonicalizeHostname=always",)  # also for the ssh that carries the hop, behind a ProxyCommand of ours


class Query(Value):
    """A name to look up, and which of the user's options apply to it.

    is_hop: False for the target, where ssh itself logs in. chosen: False for
    hops that a ProxyJump in ssh_config adds. -l, -i and -o apply if both hold.
    is_first: whether this machine connects to it, as far as is known without ssh_config.
    """

    __slots__ = ("chosen", "element", "is_first", "is_hop", "options")
    element: Element
    options: Options
    is_hop: bool
    chosen: bool
    is_first: bool

    def __init__(
        self,
        element: Element,
        options: Options,
        is_hop: bool = True,
        chosen: bool = True,
        is_first: bool = False,
    ) -> None:
        direct = is_first and options.proxy is None and not is_onion(element.host) and element.host[-1:] != "."
        self._set(element=element, options=options, is_hop=is_hop, chosen=chosen, is_first=direct)

    def argv(self, treated: tuple[str, ...] = AS_IT_IS) -> list[str]:
        """Return the command. -N, as under `ssh -W`: a hop has no session of its own."""
        return ["ssh", "-G", "-T", "-N", *self.words(treated)]

    def words(self, treated: tuple[str, ...] = AS_IT_IS) -> list[str]:
        """Return the end of ssh's command line. The name stands after `--`, and check_host has checked it."""
        words = [f"-o{setting}" for setting in treated]
        if self.options.config is not None:
            words += ["-F", self.options.config]
        for_it = self.is_hop and self.chosen
        if user := self.element.user or (self.options.user if for_it else None):
            words += ["-l", user]
        if self.element.port:
            words += ["-p", str(self.element.port)]
        if for_it:  # after the route's own settings: ssh takes the first of two
            words += [word for name in self.options.identities for word in ("-i", name)]
            words += [word for pair in self.options.ssh_options for word in ("-o", pair)]
        return [*words, "--", self.element.host]


class Defaults:
    """The defaults of `ssh -G`, without any ssh_config. ssh is asked at the first call, or before that by `begin`."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._asked: Asked | None = None
        self._values: Settings | None = None

    def begin(self) -> None:
        """Start asking now, since the answer will be needed."""
        self._asked = self._asked or self._children.ask(["ssh", "-G", "-T", "-N", "-F", "none", "--", "default"])

    def __call__(self) -> Settings:
        """Return the settings. Raises RelayError."""
        if self._values is None:
            self.begin()
            assert self._asked is not None  # noqa: S101  (for the type checker)
            out, err = self._asked.communicate()
            if self._asked.returncode != 0:
                raise RelayError(f"ssh's own defaults: {'; '.join(what_ssh_said(err)) or 'ssh -G failed'}")
            self._values = parse(out)
        return self._values


class Lookup:
    """The running `ssh -G` of all names, and of the defaults if they are `expected` to be needed.

    The caller can do other work until it calls `read`, which waits for the answers.
    known: the settings of a target that follows the names and needs no look-up.
    Raises RelayError if there is no ssh.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        children: Children,
        *,
        expected: bool = True,
        known: Sequence[HopSettings] = (),
    ) -> None:
        self._queries = queries
        self._known = known
        self._children = children
        self._defaults = Defaults(children)
        try:
            self._asked = [children.ask(query.argv(IF_IT_WERE if query.is_first else AS_IT_IS)) for query in queries]
            if expected:
                self._defaults.begin()
        except OSError as error:
            raise no_ssh(error, "hop") from error

    def read(self, progress: Progress) -> list[HopSettings]:
        """Wait for the settings and return them in the order of the queries. Raises RelayError with ssh's own words."""
        answers = [child.communicate() for child in self._asked]
        as_it_is = AS_IT_IS
        if any(is_old(child.returncode, err) for child, (_, err) in zip(self._asked, answers, strict=True)):
            as_it_is, if_it_were = without_cnames(AS_IT_IS), without_cnames(IF_IT_WERE)
            argvs = [query.argv(if_it_were if query.is_first else as_it_is) for query in self._queries]
            self._asked = [self._children.ask(argv) for argv in argvs]
            answers = [child.communicate() for child in self._asked]
        found = []
        warned: set[str] = set()
        for query, child, answer in zip(self._queries, self._asked, answers, strict=True):
            settings, said = self._settings(query, child, answer, as_it_is)
            if query.is_first and settings.get("canonicalizehostname") in ON:
                direct = not (settings.proxy_command() or settings.proxy_jump() or is_onion(settings.hostname))
                treated = CANONICAL if direct else as_it_is
                again = self._children.ask(query.argv(treated))
                settings, said = self._settings(query, again, again.communicate(), treated)
            if settings.shows_banners or progress.verbosity >= 1:
                for line in said:
                    if line not in warned:
                        progress.note(0, line)
                    warned.add(line)
            found.append(checked(settings, login=query.is_hop))
        return [*found, *self._known]

    def _settings(
        self, query: Query, child: Asked, answer: tuple[bytes, bytes], treated: tuple[str, ...]
    ) -> tuple[HopSettings, list[str]]:
        """Return what `ssh -G` has answered, and its words on stderr. Raises RelayError."""
        out, err = answer
        said = what_ssh_said(err)
        if child.returncode != 0:
            # OpenSSH 10.6 takes a user with a $ or a backslash from ssh_config alone (ssh_valid_ruser, readconf.c).
            hint = "ssh takes such a user from ssh_config (User)" if "username" in " ".join(said) else ""
            raise RelayError(f"ssh_config of {query.element}: {'; '.join(said) or 'ssh -G failed'}", hint=hint)
        return HopSettings(query.element.host, parse(out), self._defaults, query.words(treated)), said


def is_old(status: int | None, err: bytes) -> bool:
    """Whether an ssh has ended with this status and these words because it does not know NO_CNAMES (before 8.8)."""
    return status != 0 and b"Invalid permitted CNAME" in err


def without_cnames(words: Sequence[str]) -> tuple[str, ...]:
    """Return settings, or the words of an `ssh -G`, without NO_CNAMES."""
    return tuple(word for word in words if not word.endswith(NO_CNAMES))


def what_ssh_said(err: bytes) -> list[str]:
    """Return ssh's words on stderr, line by line."""
    return [printable(line) for line in err.decode(errors="replace").splitlines() if line.strip()]


def look_up(route: Route, options: Options, children: Children, *, canonical: bool = True) -> Lookup:
    """Begin to look up the names of a route. (A relay with --share does not expect to need the defaults.)

    If HOST is a single name, the target is not looked up: ssh has done so before it gave us %h and %p.
    canonical: whether ssh may ask our resolver for the first hop's canonical name.
    """
    hops = [Query(element, options, is_first=canonical and not at) for at, element in enumerate(route.hops)]
    target = route.target
    expected = options.share is None
    if not route.is_resolved:
        return Lookup([*hops, Query(target, options, is_hop=False)], children, expected=expected)
    known = HopSettings(target.host, {"hostname": [target.host], "port": [str(target.port or DEFAULT_PORT)]})
    return Lookup(hops, children, expected=expected, known=[known])


def version(children: Children) -> tuple[int, int]:
    """Return the version of the ssh in PATH, (0, 0) if it is not OpenSSH. Raises RelayError if there is no ssh."""
    from relay.config.version import number  # few ask for it

    try:
        child = children.ask(["ssh", "-V"])
    except OSError as error:
        raise no_ssh(error, "hop") from error
    return number(b"".join(child.communicate()).decode(errors="replace"))


def no_ssh(error: OSError, of: str) -> RelayError:
    """Return the error for an `ssh -G` that could not be run."""
    asked = f"the settings of a {of} are asked from it (ssh -G)"
    if isinstance(error, FileNotFoundError):
        from shutil import which  # few have no ssh

        if not (found := which("ssh")):
            return RelayError(f"ssh is not in PATH; {asked}")
        hint = f"there is {printable(found)}; what a script's first line names may be missing, or {os.devnull}"
        return RelayError(f"ssh cannot be run, {words(error)}; {asked}", hint=hint)
    return RelayError(f"ssh cannot be run, {words(error)}; {asked}")


def checked(settings: HopSettings, *, login: bool = True) -> HopSettings:
    """Check HostName and User, which `ssh -G` does not check, and return the settings. Raises RelayError.

    login: whether we log in there. If not, User is not checked: ssh itself logs in to a target.
    """
    try:
        check_host(settings.hostname)
        if login:
            check_login(settings.user)
    except RouteError as error:
        raise RelayError(f"ssh_config of {settings.name}: {error.cause}", hint=error.hint) from error
    return settings
