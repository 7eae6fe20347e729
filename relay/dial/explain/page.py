"""An explanation as a person reads it, in columns, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.config.settings import without_home
from relay.dial.explain.surprises import kept_under
from relay.dial.plan import CLIENT, MASTER
from relay.errors import plain, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from relay.dial.explain.facts import HostKeys, Key, Leg
    from relay.dial.explain.typed import Typed
    from relay.dial.plan import Choice
    from relay.ssh.memory import Shown

HEAD = ("PLACE", "WHERE (LOOKED UP BY)", "CARRIED BY", "KEYS OFFERED", "HOST KEY")
LONGEST = 4096  # characters of a command that is shown


class Explanation(NamedTuple):
    """What is known of a route.

    legs: none if there is no plan. obstacle: why the route could not be dialled, or "". hint: what to try then, or "".
    """

    route: str
    legs: tuple[Leg, ...]
    typed: Typed
    notes: tuple[str, ...]
    obstacle: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Whether the route could be dialled, as far as is known here."""
        return not self.obstacle


# As text


def text(found: Explanation) -> str:
    """Return the lines for a person."""
    lines = []
    if found.legs:
        lines += [*_columns([HEAD, *map(_row, found.legs)]), ""]
    lines += [f"{leg.plan.place}: {_remembered(leg)}" for leg in found.legs if _is_ours(leg)]
    lines += _of_ssh(found.typed)
    lines += [f"note: {note}" for note in found.notes]
    lines.append(f"it could not be dialled: {found.obstacle}" if found.obstacle else "it could be dialled")
    if found.hint:
        lines.append(f"hint: {found.hint}")
    return plain("".join(f"{line}\n" for line in lines))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(leg: Leg) -> tuple[str, ...]:
    settings = leg.plan.settings
    host = f"[{settings.hostname}]" if ":" in settings.hostname else settings.hostname
    user = f"{leg.user}@" if leg.user else ""
    where = printable(f"{user}{host}:{settings.port} ({leg.looked_up})", LONGEST)
    entered = leg.plan.entered
    if entered is not None and entered.kind == MASTER:
        by = _choice(entered)
    else:
        by = f"{_choice(leg.plan.reached)}; {_choice(entered) if entered is not None else 'ssh itself'}"
    keys = ", ".join(map(_offered, leg.keys)) or "none"
    return printable(leg.plan.place, LONGEST), where, by, keys, _host_keys(leg.host_keys)


def _choice(choice: Choice) -> str:
    """What carries a leg or enters a hop, and why if that is not the usual."""
    return printable(f"{choice.kind.partition(' (')[0]}" + (f" ({choice.why})" if choice.why else ""), LONGEST)


def _offered(key: Key) -> str:
    return f"{without_home(key.name)} ({key.signer})"


def _host_keys(found: HostKeys) -> str:
    """The state, with the keys of each state and where they stand."""
    parts = []
    for state in dict.fromkeys(key.state for key in found.keys):
        keys = ", ".join(f"{key.key} ({printable(without_home(key.by))})" for key in found.keys if key.state == state)
        parts.append(f"{state}: {keys}")
    if not parts:
        return f"{found.state}: {found.then}"
    return "; ".join([*parts, found.then] if found.then else parts)


def _is_ours(leg: Leg) -> bool:
    return leg.plan.entered is not None and leg.plan.entered.kind == CLIENT


def _remembered(leg: Leg) -> str:
    """What the memory holds of a hop."""
    shown = leg.memory
    if shown is None:
        return "nothing is remembered of it"
    parts = [f"remembered: {printable(shown.ident)}"]
    if shown.method:
        offered = {key.key.rpartition(" ")[2]: without_home(key.name) for key in reversed(leg.keys)}
        name = offered.get(shown.key, shown.key)
        parts.append(f"{shown.method}{f' with {name} ({shown.algorithm})' if name else ''} logged in")
    else:
        parts.append("no login since it last refused one")
    if shown.kex:
        parts.append(f"its first algorithms are {shown.kex} and {shown.host_key}")
    if shown.in_vain:
        parts.append(f"not sent ahead again: {', '.join(sorted(shown.in_vain))}")
    if shown.used:
        parts.append(f"last used {shown.used}")
    return printable("; ".join(parts), LONGEST)


def _of_ssh(typed: Typed) -> list[str]:
    """What ssh does with the name."""
    if typed.settings is None:
        return []
    if typed.command:
        way = f"runs the ProxyCommand {typed.command}"
    elif typed.jump:
        way = f"goes through the ProxyJump {typed.jump}"
    else:
        way = "connects by itself: no ProxyCommand, no ProxyJump"
    kept = f"the HostKeyAlias {typed.alias}" if typed.alias else f"{kept_under(typed.settings)}: no HostKeyAlias"
    return [f"ssh {printable(way, LONGEST)}", f"ssh looks the target's key up under {printable(kept, LONGEST)}"]


# As JSON


def json(found: Explanation) -> str:
    """Return one JSON object: route, ok, error, hint, legs, ssh, notes."""
    from json import dumps

    typed = found.typed
    ssh = {
        "user": typed.settings.user if typed.settings is not None else typed.user,
        "proxycommand": typed.command,
        "proxyjump": typed.jump,
        "hostkeyalias": typed.alias,
        "refusal": typed.refusal,
    }
    value = {
        "route": found.route,
        "ok": found.ok,
        "error": found.obstacle or None,
        "hint": found.hint or None,
        "legs": [_object(leg) for leg in found.legs],
        "ssh": ssh,
        "notes": found.notes,
    }
    return f"{dumps(value, indent=2)}\n"


def _object(leg: Leg) -> dict[str, Any]:
    settings, entered = leg.plan.settings, leg.plan.entered
    return {
        "place": leg.plan.place,
        "user": leg.user,
        "host": settings.hostname,
        "port": settings.port,
        "looked_up_by": leg.looked_up,
        "reached": {"by": leg.plan.reached.kind, "why": leg.plan.reached.why},
        "entered": {"by": entered.kind, "why": entered.why} if entered is not None else None,
        "keys": [key._asdict() for key in leg.keys],
        "host_key": {**leg.host_keys._asdict(), "keys": [key._asdict() for key in leg.host_keys.keys]},
        "memory": _memory(leg.memory),
    }


def _memory(shown: Shown | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    values = dict(zip(shown._names(), shown._key(), strict=True))
    return {**values, "in_vain": sorted(shown.in_vain)}
