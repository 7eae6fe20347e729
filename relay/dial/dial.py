"""The dialer folds the route: each leg's stream carries the next.

It knows in which order legs follow each other and what a place is called in
messages; it must not know what is inside a leg.
"""

from __future__ import annotations

from _thread import start_new_thread

from relay.dial import tcp
from relay.errors import RelayError, Unserved
from relay.spec.route import is_onion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from relay.config.lookup import Lookup
    from relay.config.settings import HopSettings
    from relay.dial.engine import Hop, Reach, Stream
    from relay.dial.master import Control
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.share.client import Share, SharedStream
    from relay.spec.options import Options
    from relay.spec.route import Element, Route
    from relay.ssh.wire.channel import ChannelStream


def dial(
    route: Route,
    options: Options,
    progress: Progress,
    prompt: Prompt,
    children: Children,
    *,
    lookup: Lookup | None = None,
    share: Share | None = None,
) -> Stream | SharedStream:
    """A stream to the route's target. Raises RelayError that names the leg that failed.

    lookup: of the route's names, where it has begun. share: who has hops that
    are shared, where they are to be.
    Blocks; the guard sees to the deadline and to ssh's leaving.
    """
    try:
        if route.hops:
            if lookup is None:
                from relay.config.lookup import look_up

                lookup = look_up(route, options, children)
            return _through_hops(route, options, progress, prompt, children, lookup=lookup, share=share)
        target = route.target
        progress.at(str(target))
        connect = _way_to(target.host, options, prompt)
        return connect(
            target.host, target.port or 22, progress, tcp.Terms(family=options.family, source=options.source)
        )
    except RelayError as error:
        raise error.at(progress.place) from error.__cause__


def _way_to(host: str, options: Options, prompt: Prompt) -> Callable[..., socket]:
    """What makes the first connection of a route, called as tcp.connect is.

    It is the proxy that was named, Tor for an onion name, else TCP.
    """
    if not _is_proxied(host, options):
        return tcp.connect
    from relay.dial.proxy import leg  # a raw relay has no use for it
    from relay.spec.proxy import TOR, Proxy

    proxy = options.proxy or Proxy(TOR)
    return lambda *place, **how: leg.connect(proxy, *place, prompt=prompt, **how)


def _is_proxied(host: str, options: Options) -> bool:
    """Whether options or name say how the first host is reached, whatever ssh_config says."""
    return options.proxy is not None or is_onion(host)


def _through_hops(
    route: Route,
    options: Options,
    progress: Progress,
    prompt: Prompt,
    children: Children,
    *,
    lookup: Lookup,
    share: Share | None,
) -> Stream | SharedStream:
    """The names of the route looked up, and the hops entered, by who shares them or by us."""
    progress.stage("reading ssh_config")
    early = len(route.hops) > 1 and share is None  # else a master, or who shares its hops, may do without paramiko here
    if early:
        _expect_session(options)
    elements, found, control = _look_up(route, lookup, options, progress, children)
    if not early and share is None and (control is None or len(found) > 2):
        _expect_session(options)
    places = _places(elements, found)
    shared = None
    if share is not None:
        try:
            if control is not None:
                share.close()
                raise Unserved("the first hop has a master")
            shared = share.ask(places, found, progress, prompt)
        except Unserved as error:
            progress.note(1, f"not shared: {error.cause}")
    if shared is None:
        return _enter_hops(found, places, options, progress, prompt, children=children, control=control)
    if not shared.unserved:
        return shared
    left = slice(shared.leads_to, None)
    return _enter_hops(found[left], places[left], options, progress, prompt, children=children, shared=shared)


def _enter_hops(
    found: list[HopSettings],
    places: list[str],
    options: Options,
    progress: Progress,
    prompt: Prompt,
    *,
    children: Children,
    control: Control | None = None,
    shared: SharedStream | None = None,
) -> Stream:
    """Hop by hop: the stream that reaches a hop carries its session, and the session opens the stream to the next.

    control: of the first hop's master. shared: what reaches the first of these hops, which is for ssh.
    """
    from functools import partial  # a raw relay logs in nowhere, and a shared hop has been logged in to

    from relay.dial.engine import Engines

    progress.at(places[0])
    engines = Engines(options.engine, progress, prompt, children)
    hop: Hop | None = None
    reach: Reach = partial(first_leg, found[0], options, progress, prompt, children)
    for settings, following, place in zip(found, found[1:], places[1:], strict=False):
        prompt.batch = settings.yes("batchmode")
        if hop is None and control is not None:
            from relay.dial.master import MasterHop  # it has been imported

            hop = MasterHop(settings, control, progress)
        elif hop is None and shared is not None:
            hop = engines.by_ssh(settings, lambda: (shared.lend(), ""), shared.unserved)
        else:
            hop = engines.enter(settings, reach, hop, following)
        progress.at(place)
        reach = partial(_next_leg, hop, following, progress, options.netcat_for(settings.name))
    return reach()[0]


def _places(elements: list[Element], found: list[HopSettings]) -> list[str]:
    """What messages call the names of a route. Raises RelayError when one behind a hop is an onion name."""
    count = len(elements) - 1
    places = [f"hop {number} of {count} ({element})" for number, element in enumerate(elements[:-1], 1)]
    places.append(f"target ({elements[-1]})")
    for place, settings in zip(places[1:], found[1:], strict=True):
        if is_onion(settings.hostname):
            raise RelayError(
                "a .onion name cannot be asked of a hop, which would tell it to its resolver (RFC 7686)",
                hint=f"begin with it: {settings.hostname}/...; Tor is then found here",
                place=place,
            )
    return places


def _expect_session(options: Options) -> None:
    """paramiko takes longer to import than ssh to read its files and a near server to answer: do it meanwhile."""
    if options.engine != "ssh":
        start_new_thread(_import_session, ())


def _import_session() -> None:
    import relay.ssh.session  # noqa: F401


def _look_up(
    route: Route, lookup: Lookup, options: Options, progress: Progress, children: Children
) -> tuple[list[Element], list[HopSettings], Control | None]:
    """The names of the route, the first hop's own ProxyJump before them, and what ssh_config says of each.

    And the ControlMaster of the first of them, where one lives: what its ProxyJump says is not looked at then, as with
    ssh, which asks its own master before it connects to anything.
    """
    from relay.config.lookup import Lookup, Query
    from relay.spec.route import parse_jump

    elements = [*route.hops, route.target]
    found = lookup.read(progress)
    came_from = {elements[0].host}
    while not _is_proxied(elements[0].host, options):
        if (control := _master_of(found[0], options, progress)) is not None:
            return elements, found, control
        if not (jump := found[0].proxy_jump()):
            break
        before = parse_jump(jump)
        if before[0].host in came_from:
            raise RelayError(f"ssh_config: the ProxyJump of {found[0].name} leads back to {before[0].host}")
        came_from.add(before[0].host)
        found = Lookup([Query(hop, options, chosen=False) for hop in before], children).read(progress) + found
        elements = [*before, *elements]
    return elements, found, None


def _master_of(hop: HopSettings, options: Options, progress: Progress) -> Control | None:
    """The ControlMaster of a first hop, where one lives and may be used.

    Whoever names an engine wants that one; and why a hop refuses, which --netcat must know, a master does not say.
    """
    if options.engine != "auto" or options.netcat_for(hop.name) is not None or not hop.get("controlpath"):
        return None
    from relay.dial.master import find  # few have one

    return find(hop, progress)


def first_leg(
    hop: HopSettings, options: Options, progress: Progress, prompt: Prompt, children: Children
) -> tuple[socket, str]:
    """A stream to the first hop, as options or name say, else its ssh_config; and its address, if TCP knows it."""
    command = hop.proxy_command()
    if command and not _is_proxied(hop.name, options):
        from relay.dial.command import run  # few hops have one

        return run(command, hop, progress, children), ""
    proxied = _is_proxied(hop.hostname, options)
    family, source, interface = 0, "", ""  # what ssh_config has of these is said of the hop, not of a proxy
    if not proxied:
        family = tcp.FAMILIES.get(hop.get("addressfamily"), 0)
        source, interface = hop.get("bindaddress"), hop.get("bindinterface")
    terms = tcp.Terms(
        family=options.family or family,
        source=options.source or source or None,
        interface=interface or None,
        timeout=hop.seconds("connecttimeout") or None,
        attempts=hop.number("connectionattempts", 1),
        keepalive=hop.yes("tcpkeepalive"),
        service=hop.service(),
    )
    prompt.batch = hop.yes("batchmode")
    stream = _way_to(hop.hostname, options, prompt)(hop.hostname, hop.port, progress, terms)
    if proxied:
        return stream, ""
    try:
        return stream, stream.getpeername()[0]
    except OSError:  # reset as soon as it was connected: what reads it first will say so
        return stream, ""


def _next_leg(
    hop: Hop, following: HopSettings, progress: Progress, netcat: str | None
) -> tuple[socket | ChannelStream, str]:
    """A stream from a hop to what follows it; what a hop connects to has no address here."""
    return hop.forward(following.hostname, following.port, progress, netcat), ""
