"""From a route to a stream. Here is the dialer, which folds the plan: the stream of each leg carries the next.

It knows in which order legs follow each other; it must not know what is inside a leg, nor why the plan has it.
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
    from relay.dial.plan import Leg, Names, Plan
    from relay.run import Run
    from relay.spec.route import Element, Route

    Entered = TypeVar("Entered", bound=Forwards)

    class Shared(Stream, Protocol):
        """A stream that the holder of shared hops has (relay/share/client.py).

        leads_to: the number of the name that it leads to. unserved: why that is a hop for ssh, "" for the target.
        """

        leads_to: int
        unserved: str

        def lend(self) -> Stream:
            """The same as a stream that is its descriptor, for a program. Raises RelayError."""

    class Share(Protocol):
        """The holder of shared hops, as one relay has it."""

        def ask(self, names: Names, places: Sequence[str], run: Run) -> Shared:
            """The stream through the hops. Raises RelayError: Unserved, when they cannot be shared."""

        def close(self) -> None:
            """Want nothing of it."""


def dial(route: Route, run: Run, *, lookup: Lookup | None = None, share: Share | None = None) -> Stream:
    """A stream to the route's target. Raises RelayError that names the leg that failed.

    lookup: of the route's names, where it has begun. share: the holder of shared hops, where they are to be shared.
    Blocks; the guard sees to the deadline and to ssh's leaving.
    """
    try:
        if route.hops:
            if lookup is None:
                from relay.config.lookup import look_up

                lookup = look_up(route, run.options, run.children)
            return _through_hops(route, run, lookup, share)
        target = route.target
        run.progress.at(str(target))
        terms = tcp.Terms(family=run.options.family, local=tcp.Local(run.options.source))
        if run.options.proxy is None and not is_onion(target.host):  # what needs no plan does not import one
            return SocketStream(tcp.connect(target.host, target.port or 22, run.progress, terms))
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
    *,
    limit: Callable[[], float | None] = lambda: None,
) -> Iterator[Entered]:
    """The hops of a plan, one by one as they are entered: each is reached through the one before it.

    reach: makes the stream to the first. enter: enters one, as Engines.enter does. limit: as for Hop.forward.
    A hop that turns out not to be for our client is entered as the rest of the plan then has it. Raises RelayError.
    """
    hop: Entered | None = None
    for number in range(legs.hops):
        leg, following = legs.legs[number : number + 2]
        run.progress.at(leg.place)
        run.prompt.batch = leg.settings.yes("batchmode")
        try:
            hop = enter(leg, reach, hop, following)
        except Unserved as refusal:
            legs = legs.without_client(number, refusal)
            hop = enter(legs.legs[number], reach, hop, following)
        yield hop
        reach = _forwarding(hop, leg, following, run, limit)


def _forwarding(hop: Forwards, leg: Leg, following: Leg, run: Run, limit: Callable[[], float | None]) -> Reach:
    """What makes a stream from a hop to what follows it; what a hop connects to has no address here."""
    to = following.settings
    return lambda: (hop.forward(to.hostname, to.port, run.progress, leg.netcat, limit()), "")


def _through_hops(route: Route, run: Run, lookup: Lookup, share: Share | None) -> Stream:
    """The names of the route looked up, and the hops entered, by the holder of shared hops or by us."""
    run.progress.stage("reading ssh_config")
    early = len(route.hops) > 1 and share is None  # else a master, or the holder, may do without paramiko here
    if early:
        _expect_session(run)
    from relay.dial.first import first_leg
    from relay.dial.plan import plan

    names, control = _names(route, run, lookup)
    if not early and share is None and (control is None or len(names.found) > 2):
        _expect_session(run)
    places = names.places()
    shared = _shared(share, names, places, run) if share is not None else None
    if shared is None:
        legs = plan(places, names.found, run.options, master=control is not None)
        return _dial(legs, lambda: first_leg(legs.legs[0], run), run, control)
    if control is not None:
        control.close()  # the holder has its own
    if not shared.unserved:
        return shared
    legs = plan(places, names.found, run.options, is_held=lambda number: number < shared.leads_to)
    legs = legs.without_client(shared.leads_to, Unserved(shared.unserved)).rest(shared.leads_to)
    return _dial(legs, lambda: (shared.lend(), ""), run)


def _dial(legs: Plan, reach: Reach, run: Run, control: Control | None = None) -> Stream:
    """The stream to the target of a plan with hops. reach: makes the stream to the first."""
    from relay.dial.engine import Engines  # a raw relay logs in nowhere, and a shared hop has been logged in to

    for hop in entered(legs, reach, Engines(run, legs.legs[0], control).enter, run):
        last = hop
    run.progress.at(legs.legs[-1].place)
    return _forwarding(last, legs.legs[-2], legs.legs[-1], run, lambda: None)()[0]


def _shared(share: Share, names: Names, places: Sequence[str], run: Run) -> Shared | None:
    """The stream that the holder of shared hops has, or None: -v says why."""
    try:
        if names.master and len(places) == 2:
            share.close()
            raise Unserved("the first hop has a master")
        return share.ask(names, places, run)
    except Unserved as error:
        run.progress.note(1, f"not shared: {error.cause}")
        return None


def _names(route: Route, run: Run, lookup: Lookup) -> tuple[Names, Control | None]:
    """The names to be travelled, and the connection to the first one's ControlMaster, where that lives."""
    from relay.dial import plan as planning

    control: Control | None = None

    def lives(hop: HopSettings) -> bool:
        nonlocal control
        from relay.dial.master import find  # few have one

        control = find(hop, run.progress)
        return control is not None

    def look_up(hops: Sequence[Element]) -> list[HopSettings]:
        from relay.config.lookup import Lookup, Query

        return Lookup([Query(hop, run.options, chosen=False) for hop in hops], run.children).read(run.progress)

    found = lookup.read(run.progress)
    names = planning.names([*route.hops, route.target], found, run.options, look_up=look_up, lives=lives)
    return names, control


def _expect_session(run: Run) -> None:
    """Import our client meanwhile: that takes longer than ssh needs to read its files, or a near server to answer."""
    from relay.run.limits import check_memory  # a raw relay needs little

    if run.options.engine != "ssh":
        check_memory()
        start_new_thread(_import_session, ())


def _import_session() -> None:
    try:
        import relay.ssh.enter  # noqa: F401
    except Exception:  # noqa: S110 - out of memory, most likely: whoever needs it tries again, and says so
        pass
