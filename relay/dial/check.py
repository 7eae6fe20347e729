"""--check: dials a route as a run would, and reports how each stage went. It leaves nothing behind.

It asks what a run would ask. It writes no line to known_hosts, remembers nothing, and gives the agent no key. The
target sees one connection, which ends after the target's ident; it is never repeated.

    hop 1 of 1 (h1): u1@192.0.2.1:22
      look-up       ok        1.2 ms  h1.example
      connection    ok         21 ms  192.0.2.1 port 22
      ident         ok         22 ms  SSH-2.0-OpenSSH_9.9
      ...

report.py prints it.
"""

from __future__ import annotations

import os
from threading import Event

from relay.dial.report import Report
from relay.errors import EXIT_FAILED, RelayError, printable
from relay.run.printed import put
from relay.run.progress import Progress
from relay.spec import route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.config.lookup import Lookup
    from relay.contract import Hop, Stream
    from relay.run import Run
    from relay.run.children import Children
    from relay.spec.options import Options
    from relay.spec.route import Route
    from relay.value import Value

STDIN, STDOUT = 0, 1
IDENT = b"SSH-2.0-pyrelay\r\n"  # what our own client sends
_ANSWER = 10.0  # seconds for a hop to answer a keepalive
# Bytes before the target's ident: ssh reads no more than some such lines (kex_exchange_identification).
_MOST = 64 * 1024

# How a stage's words begin (Progress.stage), what the report calls the stage, and whether what follows is its detail.
_NAMES = {
    "reading ssh_config": ("ssh_config", False),
    "looking up ": ("look-up", True),
    "connecting to ": ("connection", True),
    "running ": ("ProxyCommand", True),
    "TLS with ": ("TLS", True),
    "asking Kerberos for ": ("Kerberos", True),
    "waiting for the hop to connect": ("connection", False),
    "waiting for the server's ident": ("ident", False),
    "waiting for the agent's signature": ("login", False),
    "looking for a master at ": ("ControlMaster", True),
    "waiting for the master of ": ("connection", False),
    "starting a netcat on the hop": ("netcat", False),
    "waiting for ": ("proxy", True),  # "... the SOCKS5 proxy 127.0.0.1:1080 to reach h1 port 22"
}
BY_SSH = "login by ssh"  # a stage
_LAST_WORD = 1.0  # seconds for the thread that reads ssh's words to have them all


# How lines begin that ssh prints under -v, what they say, and the text before the rest of the line.
_SSH_SAYS = {
    "Remote protocol version 2.0, remote software version ": ("ident", "SSH-2.0-"),
    "kex: algorithm: ": ("key_exchange", ""),
    "kex: client->server cipher: ": ("cipher", ""),
    "kex: host key algorithm: ": ("host_key_algorithm", ""),
    "Server host key: ": ("host_key", ""),
    "Found key in ": ("host_key_by", ""),
}
_LOGGED_IN = "Authenticated to "  # 'Authenticated to h1 ([192.0.2.1]:22) using "publickey".'
# What else only -v prints; and advice about the file that a check gives ssh in the place of the user's.
_NOISE = (
    *("OpenSSH_", "Authenticated ", "Transferred: ", "Bytes per second: ", "Killed by signal "),
    f"Add correct host key in {os.devnull} ",
)


class Recorder(Progress):
    """A Progress that reports each stage, with its time, and what it has found out."""

    def __init__(self, options: Options, report: Report) -> None:
        super().__init__(options.deadline, options.verbosity, strict=options.is_strict)
        self._report = report
        self._name = ""
        self._where = ""  # its place
        self._seconds = 0.0  # of the stages of this name
        self._detail = ""
        self._logged_in = Event()  # by ssh, at the present hop

    def at(self, place: str, *, hushed: bool = False) -> None:
        """The next stages belong to this place."""
        super().at(place, hushed=hushed)
        if place:
            self._report.begin(place)

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins: report the one before, unless both have one name."""
        name, detail = next(
            (
                (name, doing[len(words) :] if is_detailed else "")
                for words, (name, is_detailed) in _NAMES.items()
                if doing.startswith(words)
            ),
            (doing, ""),
        )
        if self.doing:
            self._seconds += self.taken()
        if self._name and name != self._name:
            self.end()
        if detail or name != self._name:
            self._detail = detail
        self._name, self._where = name, self.place
        super().stage(doing, hint=hint)

    def end(self, *, ok: bool = True) -> None:
        """Report the present stage: it has ended, well or not."""
        if self._name:
            self.speak()
            detail = printable(self._detail, 400)
            self._report.stage(self._where, self._name, self._seconds, ok=ok, detail=detail)
        self._name, self._seconds, self._detail = "", 0.0, ""

    def failed(self) -> None:
        """The present stage has failed."""
        if self.doing:
            self._seconds += self.taken()
            self.doing = ""
        self.end(ok=False)

    def planned(self, legs: Value) -> None:
        """The plan is known, and with it the addresses."""
        self._report.plan(legs)  # type: ignore[arg-type]  # run/ does not know what a plan is

    def learn(self, what: str, value: str) -> None:
        """A fact of the present place."""
        self.speak()
        self._report.fact(self.place, what, value)

    def by_program(self, *, seen: bool) -> None:
        """A program carries what follows."""
        self._logged_in.clear()
        super().by_program(seen=seen)

    def heard(self) -> None:
        """The server has spoken. If that is a login by ssh, ssh's words about it are to be in its report."""
        if self._name == BY_SSH:
            self._logged_in.wait(_LAST_WORD)
        super().heard()

    def hear(self, line: str) -> None:
        """Read what ssh says under -v, and note what it would print without. A thread calls it."""
        words = line.removeprefix("debug1: ")
        for begin, (what, before) in _SSH_SAYS.items():
            if words.startswith(begin):
                self.learn(what, before + words.removeprefix(begin).partition(" MAC: ")[0])
                return
        if words.startswith(_LOGGED_IN):
            method = words.rpartition(" using ")[2].strip('".')
            self.learn("login", f"by {method}")
            self._logged_in.set()
        elif words.startswith("Warning: Permanently added"):
            self.learn("host_key_is_new", "")
        elif words == line and not line.startswith(_NOISE):
            self._report.note(f"{self.place}: {printable(line, 400)}")

    def entered(self, hop: Hop) -> None:
        """Measure the round trip to a hop."""
        self.stage("round trip")
        seconds = hop.round_trip(self.left(_ANSWER))
        if seconds is None:
            self._name = self.doing = ""
            self._report.unmeasured(self.place)
        else:
            self._seconds = seconds - self.taken()
            self.stage("")


def run(options: Options, parent: int, secret: Mapping[str, str]) -> int:
    """Check the route of the options; print the report on stdout; return the exit status.

    parent, secret: as for cli.relay. Raises RelayError if the report cannot be written.
    """
    from relay.run import Run, guard
    from relay.run.children import Children

    children = Children(secret=secret)
    report = Report(printable(options.destination), as_json=options.json, write=put)
    try:
        way, notes = _route(options, children)
        report.route = str(way)
        for text in notes:
            report.note(text)
        lookup = _look_up(way, options, children)
    except RelayError as error:
        children.end()
        report.fail(error)
        report.finish()
        return EXIT_FAILED
    if options.share is not None:
        report.note("--share is without effect: a check logs in by itself")
    progress = Recorder(options, report)
    around = Run(options, progress, children=children)
    end = guard.clean_up_on_signals(around.end)
    around.survive_stops()
    try:
        guard.watch(lambda: _dial(way, around, lookup), progress, STDIN, STDOUT, parent)
    except guard.Gone:
        return EXIT_FAILED
    except RelayError as error:
        progress.failed()
        report.fail(error)
    finally:
        end()
    if not report.ok:
        children.hear_out(_LAST_WORD)  # ssh may have said why
    report.finish()
    return 0 if report.ok else EXIT_FAILED


def _route(options: Options, children: Children) -> tuple[Route, list[str]]:
    """Return the route that ssh's relay would take, and what may surprise about how ssh takes its name.

    HOST may be an alias, and begin with user@, as for ssh. Raises RelayError.
    """
    from relay.dial import explain
    from relay.dial.explain import surprises, typed

    try:
        name = typed.ask(options, children)
    except RelayError:  # there is no ssh, which a route without hops does not need
        way = route.parse(options.destination, options.port, options.delimiters)
        return route.behind(route.parse_jump(options.jump), way) if options.jump else way, []
    way = explain.route_of(name, options)
    return way, [*surprises.of_name(name, options), *surprises.of_way(name, way, options, children)]


def _look_up(way: Route, options: Options, children: Children) -> Lookup | None:
    """Begin to look up the names of a route; None if it has no hops. Raises RelayError if there is no ssh."""
    if not way.hops:
        return None
    from relay.config.lookup import look_up

    return look_up(way, options, children)


def _dial(way: Route, run: Run, lookup: Lookup | None) -> None:
    """Connect to the target, and read its ident. Raises RelayError."""
    from relay import dial

    if way.hops and run.options.engine != "ssh":
        from relay.run.limits import check_memory

        check_memory()
        import relay.ssh.enter  # noqa: F401  (now: else the time that it takes would count as a stage's)
    progress = run.progress
    if not way.hops:
        from relay.dial import explain

        progress.planned(explain.plan_of_target(way, run))
    stream = dial.dial(way, run, lookup=lookup)
    try:
        progress.stage("waiting for the server's ident")
        ident = _ident(stream)
        progress.heard()
        progress.learn("ident", printable(ident))
        progress.stage("")
    except RelayError as error:
        raise error.at(progress.place) from error.__cause__
    finally:
        stream.close()


def _ident(stream: Stream) -> str:
    """Say who we are, as ssh does, and return the target's ident (RFC 4253 section 4.2). Raises RelayError."""
    data = b""
    failure: Exception = EOFError()
    try:
        stream.sendall(IDENT)
        while len(data) < _MOST and (more := stream.recv(4096)):
            data += more
            for line in data.split(b"\n")[:-1]:
                if line.startswith(b"SSH-"):
                    return line.rstrip(b"\r").decode(errors="replace")
    except OSError as error:
        failure = error
    from relay.ssh.wire.causes import no_ident  # most targets say their ident

    if len(data) >= _MOST:
        failure = RelayError(f"more than {_MOST} bytes before its ident")
    elif b"\0" in data:
        failure = UnicodeError()
    else:
        stream.check(heard=bool(data))
    lines = [line.decode(errors="replace").strip() for line in data.partition(b"\0")[0].split(b"\n")[:-1]]
    raise no_ident(failure, next(filter(None, lines), ""), stream.carrier) from failure
