"""What a user of a route may not expect: where ssh takes the name apart, and which settings do nothing on a hop."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

from relay.config.lookup import Query
from relay.config.names import with_other_capitals
from relay.dial.explain.keywords import BUT_BY_TCP, BY_OUR_CLIENT, ON_ANY_HOP
from relay.dial.explain.typed import is_made_canonical, output
from relay.dial.plan import CLIENT, COMMAND, MASTER, PROXIED, TCP
from relay.errors import RelayError, UsageError, printable
from relay.spec.options import parse as parse_options
from relay.spec.options import without_host
from relay.spec.route import DEFAULT_PORT, RouteError, is_onion, parse, parse_jump
from relay.ssh.trust.known_hosts import lowered, with_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import HopSettings
    from relay.dial.explain.typed import Typed
    from relay.dial.plan import Leg
    from relay.run.children import Children
    from relay.spec.options import Options
    from relay.spec.route import Element, Route

PROGRAM = "pyrelay"
NEW_LINE = "\n"
MAY_BE_ANOTHER = (
    "CanonicalizeHostname is on: ssh may give it another name, and the settings of that, when it looks it up"
)
# ssh has a shell `exec` the ProxyCommand. Words that zsh's `exec` takes, and characters with a meaning to shells.
OF_A_SHELL = frozenset({"builtin", "command", "eval", "exec", "noglob"})
TO_A_SHELL = frozenset("!\"#$&'()*;<>?[\\]^`{|}\n")
SOCKET_PATH = 107 - 17  # bytes: a sockaddr_un has 107; ssh binds to the ControlPath with 17 characters after it (mux.c)


def of_name(typed: Typed, options: Options) -> list[str]:
    """Return what is surprising about a name as ssh takes it."""
    if typed.settings is None:
        return []  # that is an error (route_of)
    notes = []
    if typed.user:
        notes += _cut(typed, options)
    notes += _control_path(typed.settings)
    return notes


def _cut(typed: Typed, options: Options) -> list[str]:
    """ssh cuts a name at its last "@"."""
    at = _cut_at(typed, options)
    if at < 0:
        return []  # one user: that of the target
    mark = options.delimiters.user[0]
    hops, user = typed.user[: at + 1].replace("@", mark), typed.user[at + 1 :]
    if has_hops(typed.name, options):  # it is the user of the next hop
        spelled = f"ssh {hops}{user}{mark}{typed.name}"
    else:
        spelled = f"ssh -l {user} {hops}{typed.name}"
    note = f"ssh cuts the name at its last '@': it goes straight to {typed.name}, as the user {typed.user}"
    return [f"{note}; write {printable(spelled, 200)}"]


def _cut_at(typed: Typed, options: Options) -> int:
    """Return where the last hop ends in what ssh takes for the user; -1 if none does."""
    return max(typed.user.rfind(delimiter) for delimiter in options.delimiters.hop)


def _control_path(settings: HopSettings) -> list[str]:
    """ssh shares this connection under a ControlPath that may not be the name of a socket."""
    path = settings.named("controlpath")
    if not path:
        return []
    shown = printable(path)
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        if any("/" in name and name in path for name in (settings.hostname, settings.name)):
            return [f"ControlPath {shown} cannot be a file name, since the route has a / in it: use %C for %h or %n"]
        return [f"ControlPath {shown} cannot be made: there is no directory {printable(directory)}"]
    if len(os.fsencode(path)) > SOCKET_PATH:
        return [f"ControlPath {shown} is too long for a socket; use %C"]
    return []


def of_way(typed: Typed, way: Route, options: Options, children: Children) -> list[str]:
    """Return what is surprising about the way that ssh goes with a name, beside the route that the name spells."""
    settings = typed.settings
    if settings is None or options.jump:
        return []
    notes = [f"the ProxyCommand of {typed.name} {unfound}"] if (unfound := _not_found(settings, children)) else []
    if not way.hops:
        return [
            *notes,
            *_another_way(typed, options),
            *_another_name(typed, options, children),
            *_capitals(typed, way, options, children),
            *_other_options(typed, options),
        ]
    is_alias = not has_hops(typed.name, options)
    if is_alias and typed.template:
        notes.append(f"{typed.name} is an alias: ssh hands {way} over")
    elif not typed.template:
        whole = f"{settings.hostname} up" if is_alias else "it up"
        other = f"goes through its ProxyJump {typed.jump}" if typed.jump else f"looks {whole} as one name"
        notes.append(f"ssh_config gives {typed.name} no ProxyCommand: ssh {other}; see pyrelay --ssh-config")
        if is_alias:
            return notes
    elif _takes(typed.template, "h") and lowered(settings.hostname) != lowered(typed.name):
        notes.append(
            f"HostName takes the route away: a block of ssh_config that matches {typed.name} gives it the HostName "
            f"{settings.hostname}, and ssh hands that over; write %n for %h, as pyrelay --ssh-config does"
        )
    if typed.user and not is_alias and _cut_at(typed, options) < 0:
        first = f"{typed.user}{way.delimiters.user[0]}{way.hops[0].host}"
        notes.append(
            f"ssh takes {typed.user} for the user of {way.target.host}, the target; a hop's user is written {first}"
        )
    if not is_alias and options.port != port(typed, options) == way.target.port:
        notes.append(f"ssh_config gives {typed.name} the Port {settings.port}, which ssh hands over for the target")
    return [*notes, *_capitals(typed, way, options, children), *_other_options(typed, options)]


def _another_way(typed: Typed, options: Options) -> list[str]:
    """ssh goes to a single name by what its ssh_config says, and pyrelay to it straight."""
    if options.proxy is not None:
        return []
    if is_onion(typed.name if typed.settings is None else typed.settings.hostname):
        other = f"goes through its ProxyJump {typed.jump}" if typed.jump else "asks the resolver for it"
        note = f"ssh_config gives it no ProxyCommand: ssh {other}; see pyrelay --ssh-config"
        return [] if typed.template else [note]
    if typed.jump:
        shown = f"{PROGRAM} --check -J {typed.jump} {typed.name}"
        return [f"ssh goes through its ProxyJump {typed.jump}, and this is the straight way; {shown} tries that one"]
    if typed.template and not _words(typed):
        return [f"ssh goes by its ProxyCommand, {printable(typed.command, 200)}, and this is the straight way"]
    return []


def _another_name(typed: Typed, options: Options, children: Children) -> list[str]:
    """ssh may make another name of a single one that it connects to by itself."""
    if options.proxy is not None or typed.settings is None or typed.template or typed.jump:
        return []
    return [f"{typed.name}: {MAY_BE_ANOTHER}"] if is_made_canonical(typed.settings, children) else []


def _takes(template: str, letter: str) -> bool:
    """Whether a ProxyCommand has a token."""
    return f"%{letter}" in template.replace("%%", "")


def _capitals(typed: Typed, way: Route, options: Options, children: Children) -> list[str]:
    """ssh hands a name over in lower case, and the patterns of a Host line are compared with capitals."""
    notes = []
    lower_case = bool(typed.template) and not _takes(typed.template, "n")
    every = [*way.hops, way.target] if way.hops else []
    handed = typed.settings.hostname if typed.settings is not None else ""  # ssh leaves names with a % or : as they are
    for element in every:
        lower = lowered(element.host)
        is_lowered = lower_case and element.host != lower and element.host not in handed
        if is_lowered and _differs(element, lower, options, children):
            notes.append(
                f"{element.host} is known with its capitals only, and ssh hands over {lower}: "
                "write %n for %h, as pyrelay --ssh-config does"
            )
        user = element.user or ""
        if lower_case and user != lowered(user) and user not in handed:
            notes.append(
                f"ssh hands over {lowered(user)} for the user {user}: write %n for %h, as pyrelay --ssh-config does"
            )
        if alike := with_other_capitals(element.host, options.config):
            notes.append(f"ssh_config has {' and '.join(alike)}, which {element.host} does not match: capitals count")
    return notes


def _differs(element: Element, lower: str, options: Options, children: Children) -> bool:
    """Whether ssh_config says something else of a name in lower case."""
    both = [
        output(Query(type(element)(element.user, host, element.port), options).argv(), children)[0] or {}
        for host in (element.host, lower)
    ]
    ignored = {"host", "controlpath"}
    first, second = ({key: value for key, value in values.items() if key not in ignored} for values in both)
    return first != second


def of_legs(legs: Sequence[Leg], children: Children) -> list[str]:
    """Return which settings have no effect on the hops of a plan, and which ProxyCommand cannot be run."""
    notes = []
    for number, leg in enumerate(legs):
        if leg.entered is None or leg.entered.kind == MASTER:
            continue
        notes += [f"{leg.place}: {note}" for note in _without_effect(leg, after=legs[number - 1] if number else None)]
        if leg.reached.kind == COMMAND and (unfound := _not_found(leg.settings, children)):
            notes.append(f"{leg.place}: its ProxyCommand {unfound}")
    return notes


def of_netcat(legs: Sequence[Leg], options: Options) -> list[str]:
    """Return which names of --netcat are not those of a hop of a plan."""
    hops = {leg.settings.name for leg in legs[:-1]}
    named = dict.fromkeys(name for name in options.netcat if name and name not in hops)
    return [f"--netcat={printable(name)} names a host that is not a hop of this route" for name in named]


def _without_effect(leg: Leg, after: Leg | None) -> list[str]:
    settings = leg.settings
    notes = []
    for key, way in (("ProxyJump", settings.proxy_jump()), ("ProxyCommand", settings.proxy_command())):
        if not way:
            continue
        if after is not None:
            if key == "ProxyCommand" or parse_jump(way)[-1].host != after.settings.name:
                notes.append(f"its {key} has no effect: it is reached through {after.settings.name}")
        elif leg.reached.kind in PROXIED:
            notes.append(f"its {key} has no effect: it is reached by {leg.reached.kind}")
    words = [*ON_ANY_HOP]
    if leg.entered is not None and leg.entered.kind == CLIENT:
        words += BY_OUR_CLIENT
    # What is off is off on a hop, too.
    idle = [word for word in words if settings.get(word.lower()) not in {"", "no", "false", "none"}]
    if leg.reached.kind != TCP:
        idle += BUT_BY_TCP
    idle = sorted(word for word in idle if settings.chosen(word.lower()))
    if idle:
        notes.append(f"without effect on a hop: {', '.join(idle)}")
    return notes


def has_hops(name: str, options: Options) -> bool:
    """Whether a name spells a route with hops."""
    try:
        return bool(parse(name, delimiters=options.delimiters).hops)
    except RouteError:
        return False


def handed_over(typed: Typed) -> str:
    """Return what pyrelay gets as HOST when ssh is given the name."""
    if typed.settings is None:
        return typed.name
    words = _words(typed)
    if words:
        try:
            return parse_options(words[1:]).destination or typed.name
        except UsageError:
            pass
    return typed.name if typed.template and not _takes(typed.template, "h") else typed.settings.hostname


def _words(typed: Typed) -> list[str]:
    """Return the words of the ProxyCommand if it is pyrelay, else none."""
    try:
        words = shlex.split(typed.command)
    except ValueError:
        return []
    while words and (words[0] in {"exec", "env"} or "=" in words[0]):
        words = words[1:]
    return words if words and os.path.basename(words[0]) == PROGRAM else []


def _not_found(settings: HopSettings, children: Children) -> str:
    """Return the end of a note if there is no program of the name that the ProxyCommand begins with, else ""."""
    try:
        name = shlex.split(settings.proxy_command())[:1]
    except (RelayError, ValueError):
        return ""
    if not name or name[0] in OF_A_SHELL or not TO_A_SHELL.isdisjoint(name[0]):
        return ""
    path = os.path.expanduser(name[0])
    if shutil.which(path, path=children.environ.get("PATH")):
        return ""
    return f"cannot be run: there is no program {printable(path)}{'' if '/' in path else ' in PATH'}"


def _other_options(typed: Typed, options: Options) -> list[str]:
    """ssh may run pyrelay with other options than it has now, or with what it does not take."""
    words = _words(typed)
    if not words:
        return []
    try:
        chosen = parse_options(words[1:])
        parse(chosen.destination, chosen.port, chosen.delimiters)
        if chosen.jump:
            parse_jump(chosen.jump)
    except UsageError as error:  # of the options, or of the route
        return [f"ssh runs pyrelay with what it does not take: {error.line.partition(NEW_LINE)[0]}"]
    theirs, ours = {**chosen.__dict__}, {**options.__dict__}
    for field in ("action", "config", "json", "destination", "port", "deadline", "verbosity"):
        theirs.pop(field, None)
        ours.pop(field, None)
    if theirs == ours:
        return []
    given = ["-F", options.config] if options.config is not None and chosen.config is None else []
    given += [*without_host(words[1:]), options.destination]
    given += [str(options.port)] if options.port != DEFAULT_PORT else []
    command = shlex.join([PROGRAM, "--explain", *given])
    return [f"ssh runs pyrelay with other options; {printable(command, 1000)} explains that"]


def port(typed: Typed, options: Options) -> int:
    """Return the port that ssh hands over."""
    if not has_hops(typed.name, options) and (words := _words(typed)):
        try:
            return parse_options(words[1:]).port
        except UsageError:
            pass
    if typed.settings is None or (has_hops(typed.name, options) and not _takes(typed.template, "p")):
        return options.port
    return typed.settings.port


def kept_under(settings: HopSettings) -> str:
    """Return the name under which ssh looks a host's key up."""
    return settings.get("hostkeyalias") or with_port(lowered(settings.hostname), settings.port)
