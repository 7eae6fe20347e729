"""`ssh -G`, asked for all names of a route at once: ssh itself reads its files (Include, Match, tokens, defaults)."""

from __future__ import annotations

from relay.config.settings import HopSettings, parse
from relay.errors import RelayError, printable, words
from relay.spec.route import DEFAULT_PORT, RouteError, check_host, check_user
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import Settings
    from relay.run.children import Asked, Children
    from relay.run.progress import Progress
    from relay.spec.options import Options
    from relay.spec.route import Element, Route


class Query(Value):
    """A name to be looked up, and which of the user's options bear on it.

    is_hop: -l, -i and -o are for hops; the target's login is ssh's. chosen:
    False for hops that a ProxyJump in ssh_config brings in.
    """

    __slots__ = ("chosen", "element", "is_hop", "options")
    element: Element
    options: Options
    is_hop: bool
    chosen: bool

    def __init__(self, element: Element, options: Options, is_hop: bool = True, chosen: bool = True) -> None:
        self._set(element=element, options=options, is_hop=is_hop, chosen=chosen)

    def argv(self) -> list[str]:
        """The command. A hop has no session of its own (-N), as under `ssh -W`."""
        return ["ssh", "-G", "-T", "-N", *self.words()]

    def words(self) -> list[str]:
        """The end of ssh's command line; the name stands behind `--` and has passed check_host."""
        words = ["-o", "CanonicalizeHostname=no"]
        if self.options.config is not None:
            words += ["-F", self.options.config]
        for_it = self.is_hop and self.chosen
        if user := self.element.user or (self.options.user if for_it else None):
            words += ["-l", user]
        if self.element.port:
            words += ["-p", str(self.element.port)]
        if for_it:  # after what the route spells: of what is given twice, ssh takes the first
            words += [word for name in self.options.identities for word in ("-i", name)]
            words += [word for pair in self.options.ssh_options for word in ("-o", pair)]
        return [*words, "--", self.element.host]


class Defaults:
    """What `ssh -G` says where no ssh_config does; asked for when it is first wanted, unless `begin` was called."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._asked: Asked | None = None
        self._values: Settings | None = None

    def begin(self) -> None:
        """It will be wanted."""
        self._asked = self._asked or self._children.ask(["ssh", "-G", "-T", "-N", "-F", "none", "--", "default"])

    def __call__(self) -> Settings:
        """The settings. Raises RelayError."""
        if self._values is None:
            self.begin()
            assert self._asked is not None  # noqa: S101  (for the type checker)
            out, err = self._asked.communicate()
            if self._asked.returncode != 0:
                raise RelayError(f"ssh's own defaults: {'; '.join(_said(err)) or 'ssh -G failed'}")
            self._values = parse(out)
        return self._values


class Lookup:
    """`ssh -G` under way for all names at once, and for its own defaults where they are `expected` to be wanted.

    What does not need the answers can be done until `read` waits for them.
    known: the settings of what follows those names, where no question is to be asked.
    Raises RelayError when there is no ssh.
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
        self._defaults = Defaults(children)
        try:
            self._asked = [children.ask(query.argv()) for query in queries]
            if expected:
                self._defaults.begin()
        except OSError as error:
            raise no_ssh(error, "hop") from error

    def read(self, progress: Progress) -> list[HopSettings]:
        """The settings, in the order of the queries. Raises RelayError with ssh's own words."""
        answers = [child.communicate() for child in self._asked]
        found = []
        warned: set[str] = set()
        for query, child, (out, err) in zip(self._queries, self._asked, answers, strict=True):
            said = _said(err)
            if child.returncode != 0:
                raise RelayError(f"ssh_config of {query.element}: {'; '.join(said) or 'ssh -G failed'}")
            settings = HopSettings(query.element.host, parse(out), self._defaults, query.words())
            if settings.shows_banners or progress.verbosity >= 1:
                for line in said:
                    if line not in warned:
                        progress.note(0, line)
                    warned.add(line)
            found.append(checked(settings, login=query.is_hop))
        return [*found, *self._known]


def _said(err: bytes) -> list[str]:
    """What ssh has said on stderr, line by line."""
    return [printable(line) for line in err.decode(errors="replace").splitlines() if line.strip()]


def look_up(route: Route, options: Options, children: Children) -> Lookup:
    """Begin to look up the names of a route. (Who shares hops that have been logged in to wants no defaults.)

    A target that is all of HOST is not looked up: ssh has done so before it gave us %h and %p.
    """
    hops, target = [Query(element, options) for element in route.hops], route.target
    expected = options.share is None
    if not route.is_resolved:
        return Lookup([*hops, Query(target, options, is_hop=False)], children, expected=expected)
    known = HopSettings(target.host, {"hostname": [target.host], "port": [str(target.port or DEFAULT_PORT)]})
    return Lookup(hops, children, expected=expected, known=[known])


def no_ssh(error: OSError, of: str) -> RelayError:
    """Why `ssh -G` could not be run."""
    asked = f"the settings of a {of} are asked from it (ssh -G)"
    if isinstance(error, FileNotFoundError):
        return RelayError(f"ssh is not in PATH; {asked}")
    return RelayError(f"ssh cannot be run, {words(error)}; {asked}")


def checked(settings: HopSettings, *, login: bool = True) -> HopSettings:
    """The same, when HostName and User are fit to be handed on: ssh does not check them itself.

    login: whether we log in there; a target's User is ssh's own business.
    """
    try:
        check_host(settings.hostname)
        if login:
            check_user(settings.user)
    except RouteError as error:
        raise RelayError(f"ssh_config of {settings.name}: {error.cause}", hint=error.hint) from error
    return settings
