"""`pyrelay --explain`: how a route would be reached, and what may surprise. Nothing is dialled, and nobody is asked.

    typed.py      what ssh itself does with the name as it was typed
    facts.py      what is known of each leg: the keys to offer, the host keys, the memory
    surprises.py  what the user may not expect
    keywords.py   settings without effect on a hop
    page.py       all of it as text and as JSON

It starts `ssh -G`, and ssh-keygen where a key revocation list is to be read. It reads files, and asks agents for the
list of their keys. It opens no other socket, starts no KnownHostsCommand, and writes nothing.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from relay.config.lookup import Lookup, Query, look_up
from relay.config.settings import HopSettings
from relay.dial import plan as planning
from relay.dial.engine import memory_of
from relay.dial.explain import page, surprises, typed
from relay.dial.explain.facts import Reader
from relay.dial.explain.page import Explanation
from relay.dial.explain.typed import is_made_canonical
from relay.dial.plan import TCP
from relay.errors import RelayError, encoded, printable
from relay.run import Run
from relay.run.children import Children
from relay.run.printed import put
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.spec import route as spelling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.dial.explain.facts import Leg
    from relay.dial.explain.typed import Typed
    from relay.dial.plan import Plan
    from relay.spec.options import Options
    from relay.spec.route import Element, Route
    from relay.ssh.memory import Memory

LISTENERS = "/proc/net/unix"  # Linux
ACCEPTS = 1 << 16  # __SO_ACCEPTCON: its flag of a socket that listens


def command(options: Options, secret: Mapping[str, str]) -> int:
    """Print the plan of the route in the options; return the exit status: 0 if it could be dialled, else 1.

    secret: the variables that were taken out of the environment. Raises RelayError if the plan cannot be written.
    """
    progress = Progress(options.deadline, options.verbosity)
    children = Children(secret=secret)
    try:
        found = explain(Run(options, progress, Prompt(progress, children, batch=True), children))
    finally:
        children.end()
    put(encoded(page.json(found) if options.json else page.text(found)))
    return 0 if found.ok else 1


def explain(run: Run) -> Explanation:
    """Return what is known of the route in the options of the run."""
    options = run.options
    route = printable(options.destination)
    try:
        name = typed.ask(options, run.children)
    except RelayError as error:  # there is no ssh
        return Explanation(
            route, (), typed.Typed("", options.destination, None, error.cause), (), error.cause, error.hint
        )
    notes = surprises.of_name(name, options)
    legs: list[Leg] = []
    try:
        way = route_of(name, options)
        route = str(way)
        assert name.settings is not None  # noqa: S101  (for the type checker: route_of raises else)
        notes += surprises.of_way(name, way, options, run.children)
        if way.hops and options.share is not None:
            notes.append("--share: a hop that pyrelay -O list shows is logged in to already")
        plan = _plan(way, run)
        reader = Reader(run, plan.legs[0])
        for leg in plan.legs:
            run.progress.at(leg.place)
            legs.append(reader.target(leg, name.settings) if leg.entered is None else reader.hop(leg))
        if way.hops and plan.legs[0].reached.kind == TCP and is_made_canonical(plan.legs[0].settings, run.children):
            notes.append(f"{plan.legs[0].place}: {surprises.MAY_BE_ANOTHER}")
            legs[0] = legs[0]._replace(host_keys=legs[0].host_keys._replace(refused=False))
    except RelayError as error:
        error.at(run.progress.place)
        return Explanation(route, tuple(legs), name, tuple(notes), error.line, error.hint)
    notes += [f"{leg.plan.place}: {note}" for leg in legs for note in leg.notes]
    notes += surprises.of_legs(plan.legs, run.children)
    notes += surprises.of_netcat(plan.legs, options)
    # The target's key is ssh's matter, and not looked at before the target is reached.
    refused = [f"{leg.plan.place}: its host key: {leg.host_keys.then}" for leg in legs[:-1] if leg.host_keys.refused]
    return Explanation(route, tuple(legs), name, tuple(notes), "; ".join(refused))


def route_of(name: Typed, options: Options) -> Route:
    """Return the route that is dialled: the name's own if it has hops, else what ssh hands over.

    Raises RelayError if it cannot be read, or ssh would not go to the name.
    """
    spelled = name.name if surprises.has_hops(name.name, options) else surprises.handed_over(name)
    way = spelling.parse(spelled, surprises.port(name, options), options.delimiters)
    if options.jump:
        way = spelling.behind(spelling.parse_jump(options.jump), way)
    if name.settings is None:
        raise RelayError(name.refusal)
    return way


def _plan(way: Route, run: Run) -> Plan:
    """Return the plan of a route. No ControlMaster is asked whether it is alive. Raises RelayError."""
    alive = False

    def lives(hop: HopSettings) -> bool:
        nonlocal alive
        alive = _listens(hop.named("controlpath"))
        return alive

    def more(hops: Sequence[Element]) -> list[HopSettings]:
        return Lookup([Query(hop, run.options, chosen=False) for hop in hops], run.children).read(run.progress)

    if not way.hops:
        return plan_of_target(way, run)
    found = look_up(way, run.options, run.children, canonical=False).read(run.progress)
    names = planning.names([*way.hops, way.target], found, run.options, look_up=more, lives=lives)

    def memory(first: planning.Choice) -> Memory:
        return memory_of(run, first, names.found[0].hostname)

    return planning.plan(names.places(), names.found, run.options, master=alive, memory=memory)


def plan_of_target(way: Route, run: Run) -> Plan:
    """Return the plan of a route without hops: ssh has looked the target up. Raises RelayError."""
    target = way.target
    values = {"hostname": [target.host], "port": [str(target.port or spelling.DEFAULT_PORT)]}
    settings = HopSettings(target.host, values, environ=run.children.environ)
    return planning.plan([str(target)], [settings], run.options)


def _listens(path: str) -> bool:
    """Whether a process of the user's or of root's listens at a unix socket. It is not connected to.

    ssh makes the socket as PATH and 17 more characters, and renames it afterwards (muxserver_listen, mux.c). Where the
    system does not list its sockets, one that is there counts.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in {os.geteuid(), 0}:
            return False
    except (OSError, ValueError):
        return False
    try:
        with open(LISTENERS, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(" ", 7) for line in file.readlines()[1:]]
    except OSError:
        return True
    bound = [line[7] for line in lines if len(line) == 8 and int(line[3], 16) & ACCEPTS]
    return any(each == path or (each.startswith(f"{path}.") and len(each) == len(path) + 17) for each in bound)
