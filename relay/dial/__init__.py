"""From a route to a stream. This file holds the dialer, which walks the plan: the stream of each leg carries the next.

The dialer knows the order of the legs. It must not know what is inside a leg, nor why the plan chose it.
"""

from __future__ import annotations

from _thread import start_new_thread

from relay.dial import tcp
from relay.dial.stream import SocketStream
from relay.errors import RelayError, Unserved
from relay.spec.route import is_onion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from relay.config.lookup import Lookup
    from relay.config.settings import HopSettings
    from relay.contract import Forwards, Reach, Stream
    from relay.dial.master import Control
    from relay.dial.plan import Choice, Leg, Names, Plan
    from relay.run import Run
    from relay.spec.route import Element, Route
    from relay.ssh.memory import Memory

    Entered = TypeVar("Entered", bound=Forwards)

    class Shared(Stream, Protocol):
        """A stream that the holder of shared hops has opened (relay/share/client.py).

        leads_to: the number of the name at its far end. unserved: why that name is a hop for ssh, "" for the target.
        """

        leads_to: int
        unserved: str

        def lend(self) -> Stream:
            """Return the same stream as one that a program can be given by its descriptor. Raises RelayError."""

    class Share(Protocol):
        """The holder of shared hops, as one relay talks to it."""

        def ask(self, names: Names, places: Sequence[str], run: Run) -> Shared:
            """Return the stream through the hops. Raises RelayError; Unserved when the hops cannot be shared."""

        def close(self) -> None:
            """Close the connection to the holder without asking for anything."""


def dial(route: Route, run: Run, *, lookup: Lookup | None = None, share: Share | None = None) -> Stream:
    """Return a stream to the route's target. Raises a RelayError that names the leg that failed.

    lookup: the look-up of the route's names, if it has begun. share: the holder of shared hops, with --share only.
    Blocks. The guard ends the process at the deadline, or when ssh has gone.
    """
    try:
        if route.hops:
            if lookup is None:
                from relay.config.lookup import look_up

                lookup = look_up(route, run.options, run.children)
            return _through_hops(route, run, lookup, share)
        target = route.target
        run.progress.at(str(target), hushed=run.options.hushed)
        terms = tcp.Terms(family=run.options.family, local=tcp.Local(run.options.source))
        if run.options.proxy is None and not is_onion(target.host):  # a route this plain needs no plan
            return SocketStream(tcp.connect(target.host, target.port or 22, run.progress, terms, typed=run.options))
        from relay.dial.first import connect
        from relay.dial.plan import reached_first

        kind = reached_first(target.host, run.options).kind
        return connect(kind, target.host, target.port or 22, run, terms)
    except RelayError as error:
        raise error.at(run.progress.place) from error.__cause__


def entered(
    legs: Plan,
    reach: Reach,
    enter: Callable[[Leg, Reach, Entered | None, Leg], Entered],
    run: Run,
) -> Iterator[Entered]:
    """Enter the hops of a plan one by one, each through the one before it, and yield each as it is entered.

    reach: makes the stream to the first hop. enter: enters one hop, see Engines.enter.
    When a hop turns out not to be for our client, the rest of the plan is replaced, and that hop is entered by the
    new plan. Raises RelayError.
    """
    hop: Entered | None = None
    for number in range(legs.hops):
        leg, following = legs.legs[number : number + 2]
        run.progress.at(leg.place, hushed=not leg.settings.shows_banners)
        run.prompt.batch = leg.settings.yes("batchmode")
        try:
            hop = enter(leg, reach, hop, following)
        except Unserved as refusal:
            run.progress.failed()
            legs = legs.without_client(number, refusal)
            hop = enter(legs.legs[number], reach, hop, following)
        yield hop
        reach = _forwarding(hop, leg, following, run)


def _forwarding(hop: Forwards, leg: Leg, following: Leg, run: Run) -> Reach:
    """Return what makes a stream from a hop to the next name. The address is "": only the hop looks that name up."""
    to = following.settings
    return lambda: (hop.forward(to.hostname, to.port, run.progress, leg.netcat), "")


def _through_hops(route: Route, run: Run, lookup: Lookup, share: Share | None) -> Stream:
    """Look up the names of the route and go through its hops, by the holder of shared hops or by ourselves."""
    run.progress.stage("reading ssh_config")
    early = len(route.hops) > 1 and share is None  # in other cases a master or the holder may spare us paramiko
    if early:
        _expect_session(run)
    from relay.dial.first import first_leg
    from relay.dial.plan import plan

    def memory(first: Choice) -> Memory:
        from relay.dial.engine import memory_of

        return memory_of(run, first, names.found[0].hostname)

    names, control = _names(route, run, lookup)
    run.progress.stage("")
    if not early and share is None and (control is None or len(names.found) > 2):
        _expect_session(run)
    places = names.places()
    shared = _shared(share, names, places, run) if share is not None else None
    if shared is None:
        legs = plan(places, names.found, run.options, master=control is not None, memory=memory)
        return _dial(legs, lambda: first_leg(legs.legs[0], run), run, control)
    if control is not None:
        control.close()  # the holder connects to the master itself
    if not shared.unserved:
        return shared
    legs = plan(places, names.found, run.options, is_held=lambda number: number < shared.leads_to, memory=memory)
    legs = legs.without_client(shared.leads_to, Unserved(shared.unserved)).rest(shared.leads_to)
    return _dial(legs, lambda: (shared.lend(), ""), run)


def _dial(legs: Plan, reach: Reach, run: Run, control: Control | None = None) -> Stream:
    """Return the stream to the target of a plan with hops. reach: makes the stream to the first hop."""
    from relay.dial.engine import Engines  # a raw relay logs in nowhere, and the holder has logged in to a shared hop

    run.progress.planned(legs)
    for hop in entered(legs, reach, Engines(run, legs.legs[0], control).enter, run):
        run.progress.entered(hop)
        last = hop
    target = legs.legs[-1]
    run.progress.at(target.place, hushed=not target.settings.shows_banners)
    return _forwarding(last, legs.legs[-2], legs.legs[-1], run)()[0]


def _shared(share: Share, names: Names, places: Sequence[str], run: Run) -> Shared | None:
    """Return the stream from the holder of shared hops, or None, and say why under -v."""
    try:
        if names.master and len(places) == 2:
            share.close()
            raise Unserved("the first hop has a master")
        return share.ask(names, places, run)
    except Unserved as error:
        run.progress.note(1, f"not shared: {error.cause}")
        return None


def _names(route: Route, run: Run, lookup: Lookup) -> tuple[Names, Control | None]:
    """Return the names to travel, and a connection to the ControlMaster of the first name if that is alive."""
    from relay.dial import plan as planning

    control: Control | None = None

    def lives(hop: HopSettings) -> bool:
        nonlocal control
        from relay.dial.master import find  # few hops have a ControlMaster

        control = find(hop, run.progress)
        return control is not None

    def look_up(hops: Sequence[Element]) -> list[HopSettings]:
        from relay.config.lookup import Lookup, Query

        queries = [Query(hop, run.options, chosen=False, is_first=not at) for at, hop in enumerate(hops)]
        return Lookup(queries, run.children).read(run.progress)

    found = lookup.read(run.progress)
    names = planning.names([*route.hops, route.target], found, run.options, look_up=look_up, lives=lives)
    return names, control


def _expect_session(run: Run) -> None:
    """Import our client in the meantime: it takes longer than `ssh -G` does, or a near server's answer."""
    from relay.run.limits import check_memory  # a raw relay needs little

    if run.options.engine != "ssh":
        import collections.abc  # noqa: F401  (that of Python 3.13.0 is no module to import in two threads)

        check_memory()
        start_new_thread(_import_session, ())


def _import_session() -> None:
    try:
        import relay.ssh.enter  # noqa: F401
    except Exception:  # noqa: S110 - probably out of memory: the code that needs it imports it again, and reports
        pass
