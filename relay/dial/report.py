"""What --check prints: for a person, line by line while it goes on; with --json, one object at the end.

    {"route": "h1/h2", "ok": true, "error": null, "hint": null, "ms": 95.1, "stages": [], "notes": [],
     "legs": [{"place": "hop 1 of 1 (h1)", "ok": true, "user": "u1", "host": "192.0.2.1", "port": 22,
               "reached": {"by": "TCP", "why": ""}, "entered": {"by": "our own client (paramiko)", "why": ""},
               "stages": [{"stage": "connection", "ok": true, "ms": 21.3, "detail": "192.0.2.1 port 22"}],
               "ident": "SSH-2.0-OpenSSH_9.9", "key_exchange": "mlkem768x25519-sha256", "post_quantum": true,
               "round_trip_ms": 20.4}]}

"ok" of a leg is null if the check did not get so far; a leg that failed has "error", and "hint" where there is one.
The object's own "error" names the place, too. Its "stages" are those before the first leg.
"""

from __future__ import annotations

from relay.config.settings import without_home
from relay.dial.plan import CLIENT, COMMAND, MASTER, Choice
from relay.errors import RelayError, encoded, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from relay.dial.plan import Leg, Plan

_OF_HOST_KEY = {"host_key_is_new": "new: ssh would add it", "host_key_by": "known by "}
_USUAL = str(Choice(CLIENT))


class Report:
    """The report of one check.

    route: as it is printed. ok: whether nothing has failed so far. write: prints bytes, and raises RelayError.
    """

    def __init__(self, route: str, *, as_json: bool, write: Callable[[bytes], None]) -> None:
        self.route = route
        self.ok = True
        self._error: RelayError | None = None
        self._unwritten: RelayError | None = None  # why the report could not be written
        self._json = as_json
        self._put = write
        self._legs: list[dict[str, Any]] = []
        self._planned: dict[str, Leg] = {}
        self._before: list[dict[str, Any]] = []  # stages before the first leg
        self._notes: list[str] = []
        self._entered: dict[str, str] = {}  # what logs in to a hop, by its place, where that is not the usual
        self._unmeasured: list[str] = []  # notes about round trips
        self._found: list[str] = []  # facts of the present stage
        self._shown = ""  # the place that was printed last
        self._seconds = 0.0

    def note(self, text: str) -> None:
        """Add what the reader should know; it is printed at the end."""
        if text not in self._notes:
            self._notes.append(text)

    def plan(self, legs: Plan) -> None:
        """The names and addresses of the legs are known."""
        self._planned = {leg.place: leg for leg in legs.legs}
        if legs.legs[0].reached.kind == COMMAND:
            self.note(f"{legs.legs[0].place}: its ProxyCommand is run as it is, and may write something")

    def begin(self, place: str) -> None:
        """A leg begins."""
        self._legs.append({"place": place, "ok": True, **_address(self._planned.get(place)), "stages": []})

    def _leg(self, place: str) -> dict[str, Any] | None:
        return next((leg for leg in self._legs if leg["place"] == place), None)

    def _name(self, place: str) -> None:
        """Print a leg's name, with as whom and where, unless that stands there already."""
        if not place or self._shown == place:
            return
        self._shown = place
        planned = self._planned.get(place)
        where = ""
        if planned is not None:
            settings = planned.settings
            user = f"{settings.user}@" if settings.user and planned.entered is not None else ""
            host = f"[{settings.hostname}]" if ":" in settings.hostname else settings.hostname
            address = f"{user}{host}:{settings.port}"
            if place not in {settings.hostname, address}:
                where = f": {address}"
            if planned.reached.why:
                where += f", {planned.reached}"
        self._say(f"{place}{where}")
        self._say_entered(place)

    def _say_entered(self, place: str) -> None:
        """Print what logs in to a hop, once. A hop that ssh carries is logged in to only when the next leg begins."""
        if value := self._entered.pop(place, ""):
            self._say(f"  {value}")

    def fact(self, place: str, what: str, value: str) -> None:
        """A fact of a leg, and of the present stage."""
        leg = self._leg(place)
        if what == "remark":
            self.note(f"{place}: {value}" if place else value)
        if leg is None or what == "remark":
            return
        if what in _OF_HOST_KEY:
            what, value = "host_key", self._of_host_key(leg, f"{_OF_HOST_KEY[what]}{value}")
        if what == "login" and value.startswith("by "):
            value = f"as {leg['user']} {value}"
        leg[what] = value
        if what == "key_exchange":
            from relay.ssh.wire.exchanges import is_post_quantum  # our client has been imported by now

            leg["post_quantum"] = is_post_quantum(value)
            value += f" ({'post-quantum' if leg['post_quantum'] else 'not post-quantum'})"
        if what == "entered":
            self._is_entered(place, leg, value)
            return
        if what == "host_key" and " new: " in value:
            self.note(
                f"{leg['place']}: its host key is new, and a check writes nothing: ssh will ask about it, or add it"
            )
        self._found.append(value)

    def _is_entered(self, place: str, leg: dict[str, Any], value: str) -> None:
        """What enters a hop is known."""
        kind, _, why = value.removeprefix("by ").partition(": ")
        leg["entered"] = {"by": kind, "why": why}
        if value != _USUAL:
            self._entered[place] = value
        if place == self._shown:
            self._say_entered(place)
        elif kind == MASTER:  # such a hop has no stage of its own
            self._name(place)

    def _of_host_key(self, leg: dict[str, Any], value: str) -> str:
        """Return a leg's host key with what ssh says of it: the first word counts, for ssh looks up an address, too."""
        now = str(leg.get("host_key", ""))
        self._found = [text for text in self._found if text != now]
        return now if any(words in now for words in _OF_HOST_KEY.values()) else f"{now} {value}"

    def unmeasured(self, place: str) -> None:
        """The round trip to a hop cannot be measured."""
        self._unmeasured.append(f"{place}: the round trip is not known: what carries it does not say")

    def stage(self, place: str, name: str, seconds: float, *, ok: bool, detail: str) -> None:
        """A stage of a leg has ended. seconds: what it took, without a person's time."""
        detail = ", ".join(self._found) or detail
        self._found.clear()
        milliseconds = max(seconds, 0.0) * 1000
        row = {"stage": name, "ok": ok, "ms": round(milliseconds, 1), "detail": detail}
        leg = self._leg(place)
        (leg["stages"] if leg is not None else self._before).append(row)
        self._seconds += seconds
        if leg is not None and name == "round trip":
            leg["round_trip_ms"] = round(milliseconds, 1)
        self._name(place)
        number = f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"
        detail = " ".join(map(without_home, detail.split(" ")))  # as --explain shows a file; JSON has the whole name
        self._say(f"  {name:13} {'ok' if ok else 'failed':6} {number:>6} ms  {detail}".rstrip())

    def fail(self, error: RelayError) -> None:
        """The check has failed. An error may name another leg than the present one."""
        self.ok = False
        self._error = error
        leg = self._leg(error.place) or (self._legs[-1] if self._legs else None)
        if leg is not None:
            self._legs[-1]["ok"] = None  # unless that is the leg that has failed
            leg.update({"ok": False, "error": error.cause}, **({"hint": error.hint} if error.hint else {}))
        self._say(str(error))

    def finish(self) -> None:
        """Print the end. Raises RelayError if the report could not be written."""
        if self.ok:
            for text in self._unmeasured:
                self.note(text)
            self._say(f"ok: {self._seconds * 1000:.0f} ms")
            self.note("the target saw one connection, which ended after its ident; its log has that")
        begun = {leg["place"] for leg in self._legs}
        self._legs += [
            {"place": place, "ok": None, **_address(leg), "stages": []}
            for place, leg in self._planned.items()
            if place not in begun
        ]
        for text in self._notes:
            self._say(f"note: {text}")
        if self._json:
            import json  # only here

            found = {
                "route": self.route,
                "ok": self.ok,
                "error": self._error.line if self._error is not None else None,
                "hint": (self._error.hint or None) if self._error is not None else None,
                "ms": round(self._seconds * 1000, 1),
                "stages": self._before,
                "legs": self._legs,
                "notes": self._notes,
            }
            self._write(f"{json.dumps(found, indent=2)}\n")
        if self._unwritten is not None:
            raise self._unwritten

    def _say(self, line: str) -> None:
        if not self._json:
            self._write(plain(f"{line}\n"))

    def _write(self, text: str) -> None:
        """Print text. The check goes on if that cannot be done, for what it has begun must end in order."""
        if self._unwritten is None:
            try:
                self._put(encoded(text))
            except RelayError as error:
                self._unwritten = error


def _address(leg: Leg | None) -> dict[str, Any]:
    if leg is None:
        return {}
    settings = leg.settings
    user = {"user": settings.user} if leg.entered is not None else {}
    entered = {"by": leg.entered.kind, "why": leg.entered.why} if leg.entered is not None else None
    return {
        **user,
        "host": settings.hostname,
        "port": settings.port,
        "reached": {"by": leg.reached.kind, "why": leg.reached.why},
        "entered": entered,
    }
