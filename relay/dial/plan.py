"""The plan of a route: how each name is reached, what enters each hop, and why. It connects to nothing.

    reached by    TCP           the first name, as a rule
                  PROXY, TOR    if the options or a .onion name say so
                  COMMAND       if ssh_config gives the first name a ProxyCommand
                  HOP           every other name: the hop before it opens the stream
    entered by    CLIENT        our own client, by paramiko: the rule
                  SSH           the system's ssh: hops that our client cannot serve, or --engine ssh
                  MASTER        the first hop, if a ControlMaster of the user's is alive
                  HELD          a hop that the holder of shared hops is logged in to already

Our own client is the rule, since it is faster. The plan is made from ssh_config before anything is connected. If the
key exchange with a hop shows that our client cannot serve it, `Plan.without_client` replaces the rest of the plan;
that is always before the login begins. The dialer (relay/dial/__init__.py) and the holder of shared hops
(share/job.py) do what the plan says, and -v prints its words.

Functions tell the plan what it must know of the world: whether a master is alive, and whether a hop is held.
"""

from __future__ import annotations

from relay.errors import RelayError, Unserved, printable
from relay.spec.options import ENGINES
from relay.spec.route import is_onion
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.config.settings import HopSettings
    from relay.contract import Netcat
    from relay.spec.options import Options
    from relay.spec.route import Element
    from relay.ssh.memory import Memory, Shown

    # Looks up the hops that a ProxyJump of ssh_config adds.
    LookUp = Callable[[Sequence[Element]], list[HopSettings]]

TCP, PROXY, TOR, COMMAND, HOP = "TCP", "a proxy", "Tor", "its ProxyCommand", "the hop before"
PROXIED = frozenset({PROXY, TOR})  # what keeps a name from our resolver, and leaves ssh_config's own way aside
CLIENT, SSH, MASTER, HELD = "our own client (paramiko)", "ssh", "a ControlMaster", "the holder of shared hops"
AUTO, PARAMIKO, OPENSSH = ENGINES


class Choice(Value):
    """What carries a leg or enters a hop, and why it is not the usual choice; "" if it is."""

    __slots__ = ("kind", "why")
    kind: str
    why: str

    def __init__(self, kind: str, why: str = "") -> None:
        self._set(kind=kind, why=why)

    def __str__(self) -> str:
        return f"by {self.kind}: {self.why}" if self.why else f"by {self.kind}"


class Leg(Value):
    """The way to one name of the route.

    place: what messages call the name. settings: what ssh_config gives it. reached: what makes the stream to it.
    entered: what logs in there; None for the target. netcat: the command that may cross it, see Hop.forward.
    """

    __slots__ = ("entered", "netcat", "place", "reached", "settings")
    place: str
    settings: HopSettings
    reached: Choice
    entered: Choice | None
    netcat: Netcat | None

    def __init__(
        self, place: str, settings: HopSettings, reached: Choice, entered: Choice | None, netcat: Netcat | None
    ) -> None:
        self._set(place=place, settings=settings, reached=reached, entered=entered, netcat=netcat)

    def by(self, entered: Choice) -> Leg:
        """Return a copy of this leg with another way to log in."""
        return Leg(self.place, self.settings, self.reached, entered, self.netcat)


class Plan(Value):
    """The legs of a route in the order travelled; the last one leads to the target. engine: the value of --engine."""

    __slots__ = ("engine", "legs")
    legs: tuple[Leg, ...]
    engine: str

    def __init__(self, legs: Sequence[Leg], engine: str) -> None:
        self._set(legs=tuple(legs), engine=engine)

    @property
    def hops(self) -> int:
        """The number of hops."""
        return len(self.legs) - 1

    def without_client(self, number: int, refusal: Unserved) -> Plan:
        """Return the plan for when our client cannot serve the hop of that number, counted from 0.

        Raises the refusal if the user insists on our client (--engine paramiko).
        """
        if self.engine == PARAMIKO:
            refusal.hint = refusal.hint or "--engine auto leaves such a hop to ssh"
            raise refusal
        legs = [*self.legs[:number], self.legs[number].by(Choice(SSH, refusal.cause)), *self.legs[number + 1 :]]
        return Plan(_behind_ssh(legs, number + 1), self.engine)

    def rest(self, number: int) -> Plan:
        """Return the plan from the leg of that number on."""
        return Plan(self.legs[number:], self.engine)


class Names(Value):
    """The names of a route in the order travelled: those of HOST and -J, and those that a ProxyJump adds.

    master: whether the first name has a live ControlMaster, which is logged in there already.
    """

    __slots__ = ("elements", "found", "master")
    elements: tuple[Element, ...]
    found: tuple[HopSettings, ...]
    master: bool

    def __init__(self, elements: Sequence[Element], found: Sequence[HopSettings], master: bool) -> None:
        self._set(elements=tuple(elements), found=tuple(found), master=master)

    def places(self) -> list[str]:
        """Return what messages call the names. Raises RelayError if an onion name stands behind a hop."""
        count = len(self.elements) - 1
        places = [f"hop {number} of {count} ({element})" for number, element in enumerate(self.elements[:-1], 1)]
        places.append(f"target ({self.elements[-1]})")
        for place, settings in zip(places[1:], self.found[1:], strict=True):
            if is_onion(settings.hostname):
                raise RelayError(
                    "a hop cannot be asked for a .onion name: it would give the name to its resolver (RFC 7686)",
                    hint=f"begin with it: {settings.hostname}/...; Tor is then found here",
                    place=place,
                )
        return places


def names(
    elements: Sequence[Element],
    found: Sequence[HopSettings],
    options: Options,
    *,
    look_up: LookUp,
    lives: Callable[[HopSettings], bool],
) -> Names:
    """Return the names in the order travelled.

    The first name's own ProxyJump puts hops before it, unless the options or the name say how to reach it. If the first
    name has a live ControlMaster, its ProxyJump is ignored: ssh, too, asks its master before it connects to anything.

    look_up: asks ssh_config about the hops of a ProxyJump. lives: tells whether a hop's ControlMaster is alive; it is
    called only if that master may be used. Raises RelayError.
    """
    came_from = {elements[0].host}
    while not _is_proxied(elements[0].host, options):
        if _may_use_master(found[0], options) and lives(found[0]):
            return Names(elements, found, True)
        if not (jump := found[0].proxy_jump()):
            break
        from relay.spec.route import RouteError, parse_jump

        try:
            before = parse_jump(jump)
        except RouteError as error:
            cause = f"ssh_config: the ProxyJump of {found[0].name}, {printable(jump)}: {error.cause}"
            raise RelayError(cause, hint=error.hint) from error
        if before[0].host in came_from:
            raise RelayError(f"ssh_config: the ProxyJump of {found[0].name} leads back to {before[0].host}")
        came_from.add(before[0].host)
        found = [*look_up(before), *found]
        elements = [*before, *elements]
    return Names(elements, found, False)


def plan(
    places: Sequence[str],
    found: Sequence[HopSettings],
    options: Options,
    *,
    master: bool = False,
    is_held: Callable[[int], bool] = lambda _: False,
    memory: Callable[[Choice], Memory] | None = None,
) -> Plan:
    """Decide what carries each leg to the places. `found` are their settings.

    master: see Names. is_held: tells whether the holder is logged in to the hop of that number, counted from 0.
    memory: returns the memory of what hops have shown, for a route that begins so. Raises RelayError for a setting that
    cannot be read.
    """
    legs: list[Leg] = []
    jumps = ""
    for number, (place, settings) in enumerate(zip(places, found, strict=True)):
        try:
            reached = _from(legs[-1]) if legs else reached_first(settings.hostname, options, settings)
            first = legs[0].reached if legs else reached
            entered = None
            if number < len(found) - 1:
                if first.kind in PROXIED:
                    from relay.dial.only_ssh import without_kerberos  # a raw relay does not need it

                    settings = without_kerberos(settings)  # noqa: PLW2901  (the leg's)
                if master and number == 0:
                    entered = Choice(MASTER, printable(settings.get("controlpath")))
                elif is_held(number):
                    entered = Choice(HELD)
                else:
                    entered = _entered(settings, options, legs, _recall(memory, first, (settings, jumps)))
                jumps = settings.jumps(jumps)
        except RelayError as error:
            raise error.at(place) from error.__cause__
        legs.append(Leg(place, settings, reached, entered, options.netcat_for(settings.name)))
    return Plan(legs, options.engine)


def reached_first(host: str, options: Options, settings: HopSettings | None = None) -> Choice:
    """Return what makes the first connection of a route, to host. The options decide, then the name, then ssh_config.

    settings: the settings of the first name; None if ssh has looked it up itself.
    """
    name = settings.name if settings is not None else host
    if settings is not None and not _is_proxied(name, options) and settings.proxy_command():
        return Choice(COMMAND)
    if options.proxy is not None:
        from relay.spec import proxy

        by_option = options.proxy.kind == proxy.TOR and not options.proxy.address
        return Choice(TOR if options.proxy.kind == proxy.TOR else PROXY, "--tor" if by_option else str(options.proxy))
    return Choice(TOR, "a .onion name") if is_onion(host) else Choice(TCP)


def _from(hop: Leg) -> Choice:
    """Return what makes the stream to the name behind a hop."""
    if hop.netcat is None:
        return Choice(HOP)
    return Choice(HOP, "by a netcat there" if hop.netcat.named else "by a netcat there, if it denies forwarding")


def _is_proxied(host: str, options: Options) -> bool:
    """Whether the options or the name say how to reach the first host, so that ssh_config does not matter."""
    return options.proxy is not None or is_onion(host)


def _may_use_master(hop: HopSettings, options: Options) -> bool:
    """Whether a ControlMaster of a first hop may be used.

    Not with --engine: the user wants that engine. Not with --netcat: it must know why a hop refuses to forward, and a
    master does not say why.
    """
    return options.engine == AUTO and options.netcat_for(hop.name) is None and bool(hop.named("controlpath"))


def _recall(
    memory: Callable[[Choice], Memory] | None, first: Choice, hop: tuple[HopSettings, str]
) -> Callable[[], Shown | None] | None:
    """Return what recalls a hop, see only_ssh.reason. first: what makes the route's first connection."""
    if memory is None:
        return None

    def recall() -> Shown | None:
        from relay.ssh.memory import Shown, name_of  # few hops need it

        kept = memory(first)
        return (kept.recall(name_of(*hop)) or Shown()) if kept.keeps else None

    return recall


def _entered(
    settings: HopSettings, options: Options, legs: Sequence[Leg], recall: Callable[[], Shown | None] | None
) -> Choice:
    """Return what enters a hop by a login. legs: the legs before it. recall: as for only_ssh.reason."""
    if options.engine == OPENSSH:
        return Choice(SSH, "--engine ssh")
    if options.engine == PARAMIKO:
        return Choice(CLIENT, "--engine paramiko")
    if legs and _is_by_ssh(legs[-1]):
        return AFTER_SSH
    from relay.dial.objection import objection  # a raw relay does not need it

    reason = objection(settings, recall)
    return Choice(SSH, reason) if reason else Choice(CLIENT)


# Our client could find out at the key exchange that it cannot serve this hop. Then the hop before would have to be
# entered once more: another ssh, another login, and the questions of that login again.
AFTER_SSH = Choice(SSH, "as the hop before, which a second try would log in to again")


def _is_by_ssh(leg: Leg) -> bool:
    return leg.entered is not None and leg.entered.kind == SSH


def _behind_ssh(legs: Sequence[Leg], number: int) -> list[Leg]:
    """Return the legs with all hops from that number on left to ssh, since the hop before them is, too."""
    return [
        leg if at < number or leg.entered is None or _is_by_ssh(leg) else leg.by(AFTER_SSH)
        for at, leg in enumerate(legs)
    ]
