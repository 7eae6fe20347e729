"""One request of a relay, in a thread of its own: the hops are entered, and a channel is opened.

It is the dialing of relay/dial/dial.py, leg by leg, in another process than the
one that has the terminal: what a person must be told or asked goes to the
relay, and comes back from there. Nothing of an answer is kept.
"""

from __future__ import annotations

import _socket
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from relay.config.lookup import Defaults
from relay.config.settings import HopSettings, parse
from relay.dial.dial import first_leg
from relay.dial.engine import objection
from relay.errors import NoRoom, RelayError, TimedOut, Unserved
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Cancelled, NobodyToAsk, Notice, Prompt
from relay.run.status import StatusLine
from relay.share.ahead import Ahead
from relay.share.hops import Abandoned, SharedHop, Stuck, digest, key
from relay.share.wire import BadMessage, Ended, text, unpack
from relay.spec import options
from relay.spec.proxy import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.dial.engine import Stream
    from relay.share.hops import Hops
    from relay.share.wire import Wire
    from relay.spec.options import Options
    from relay.ssh.session import Client, Session
    from relay.ssh.wire.channel import ChannelStream

# What else decides who and where a hop is, of the environment.
MATTERS = ("HOME", "SSH_AUTH_SOCK", "TOR_SOCKS_HOST", "TOR_SOCKS_IPC_PATH", "TOR_SOCKS_PORT")
GRACE = 5.0  # seconds after a relay's deadline, when it has ended itself, that its channel is still waited for
# What differs from terminal to terminal, and decides nothing.
PASSING = ("COLUMNS", "LINES", "OLDPWD", "PWD", "SHLVL", "SSH_TTY", "TERM", "WINDOWID", "_")


class RemoteProgress(Progress):
    """Progress whose words reach the relay that asked."""

    def __init__(self, seconds: float, verbosity: int, wire: Wire) -> None:
        super().__init__(seconds, verbosity)
        self.status = _RemoteStatus(wire)
        self._wire = wire

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins; the relay is told, whose deadline may pass in it."""
        super().stage(doing, hint=hint)
        _say(self._wire, "stage", self.place, doing, hint)

    def tell(self, text: str, *, place: str = "") -> None:
        """A line for the relay's stderr."""
        _say(self._wire, "say", place or self.place, text)


class _RemoteStatus(StatusLine):
    """The relay's status line."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def show(self, text: str) -> None:
        """Show it there."""
        _say(self._wire, "status", text)

    def erase(self) -> None:
        """The relay erases it itself when it says something."""

    def close(self) -> None:
        """And when all is done."""


class RemotePrompt(Prompt):
    """Asks where the relay is: its terminal, or its askpass. unanswered: whether a question has had no answer there."""

    def __init__(self, progress: Progress, children: Children, wire: Wire) -> None:
        super().__init__(progress, children)
        self._wire = wire
        self.unanswered = False

    def ask(self, question: str, *, echo: bool = False) -> str:
        """The answer of who sits there. Raises NobodyToAsk, Cancelled and Abandoned."""
        self._progress.pause()
        try:
            kind, fields = self._call("ask", question, int(echo), int(self.batch))
        finally:
            self._progress.resume()
        if kind == "answer":
            return text(fields[0])
        cause, hint = map(text, fields)
        self.unanswered = True
        raise (Cancelled if kind == "cancelled" else NobodyToAsk)(cause, hint=hint)

    def tell(self, text: str) -> bool:
        """Say something that a person must know; true when a terminal there shows it."""
        return self._call("tell", text, int(self.batch)) == ("told", [b"1"])

    def notify(self, text: str) -> Notice:
        """Say what a person must do now."""
        seen = self._call("notify", text, int(self.batch)) == ("told", [b"1"])
        return _RemoteNotice(seen, self._wire)

    def _call(self, *message: str | int) -> tuple[str, list[bytes]]:
        try:
            self._wire.send(*message)  # type: ignore[arg-type]
            return self._wire.receive()
        except (Ended, BadMessage) as error:
            raise Abandoned("the relay that asked has gone") from error


class _RemoteNotice(Notice):
    def __init__(self, seen: bool, wire: Wire) -> None:
        super().__init__(seen)
        self._wire = wire

    def end(self) -> None:
        _say(self._wire, "noticed")


class Job:
    """What a relay wants: a channel through some hops.

    held: the hops that it holds on to, and that it or its relay lets go of.
    linger: seconds that they are to be kept after that, once it has said so.
    leads_to: the number of the name, in the order travelled, that its channel leads to: the target, or a hop that is
    for ssh, and unserved says why.
    """

    def __init__(self, wire: Wire, fields: Sequence[bytes], hops: Hops, adopt: Callable[[Session], None]) -> None:
        """A relay has said how it was called. Raises ValueError when that is nonsense."""
        argv, environ, directory = fields
        self._began = time.monotonic()
        self._hops = hops
        self._adopt = adopt
        self.linger: float | None = None
        self.held: list[SharedHop] = []
        self.leads_to = -1
        self.unserved = ""
        self._options: Options = options.parse(list(map(text, unpack(argv))))
        self._environ = dict(text(pair).split("=", 1) for pair in unpack(environ))
        self._directory = text(directory)
        self._progress = RemoteProgress(self._options.deadline, self._options.verbosity, wire)
        self._prompt = RemotePrompt(self._progress, self._children(), wire)
        self._client: Client | None = None
        self._login_children = self._children()
        self._entering: SharedHop | None = None  # that is being logged in to
        self._stream: Stream | None = None  # to it
        self._gone = False  # the relay has
        self._found: list[HopSettings] = []
        self._places: list[str] = []
        self._ahead: Ahead | None = None
        same = sorted(f"{name}={value}" for name, value in self._environ.items() if name not in PASSING)
        self._call = digest([*map(text, unpack(argv)), "", *same, self._directory])
        if (before := hops.remembered(self._call)) is not None:
            self.held += before[0].path
            self._ahead = Ahead(*before, self._options.netcat_for(before[0].name))

    def read(self, fields: Sequence[bytes]) -> None:
        """It has said what that means. Raises ValueError when that is nonsense."""
        linger, *names = fields
        self.linger = float(linger)
        environ_kept = {name: value for name, value in self._environ.items() if name != VARIABLE}
        defaults = Defaults(self._children())
        for name in names:
            place, spelled, lines, words = unpack(name)
            self._places.append(text(place))
            self._found.append(
                HopSettings(
                    text(spelled),
                    parse(lines),
                    defaults,
                    list(map(text, unpack(words))),
                    environ=environ_kept,
                    directory=self._directory,
                )
            )
        self.leads_to = len(self._found) - 1

    def open(self) -> ChannelStream:
        """The channel. Raises RelayError."""
        try:
            return self._open()
        except NoRoom as error:
            full = [hop for hop in self.held if hop.session is not None and hop.session.place == error.place]
            if any(hop.has_led for hop in full):
                raise Unserved(error.cause) from error  # others have it all
            raise
        except RelayError as error:
            raise error.at(self._progress.place) from error.__cause__

    def close(self) -> None:
        """It is over: let go of everything, but for a channel that was handed out."""
        if self._ahead is not None:
            self._ahead.drop()
        self._hops.let_go(self.held, self.linger)

    def _open(self) -> ChannelStream:
        keys = self._keys()
        if not keys:
            raise BadMessage("a route without hops")
        if (stream := self._take_ahead(keys)) is not None:
            return stream
        for _ in range(2):  # a hop that was there before may be no more
            hop = self._enter_all(keys)
            to = self._found[self.leads_to]
            ahead = Ahead(hop, to.hostname, to.port, self._options.netcat_for(hop.name))
            if (stream := self._take(ahead)) is not None:
                if not self.unserved:
                    self._hops.remember(self._call, hop.key, ahead.to)
                return stream
        raise RelayError("the hop does not answer any more")

    def _enter_all(self, keys: list[str]) -> SharedHop:
        """The last hop of the way, or the last one before a hop that is for ssh; raises Unserved if that is the first.

        Those that were held before, for a channel that was none, are let go of then.
        """
        before, self.held = self.held, []
        self.leads_to, self.unserved = len(keys), ""
        hop: SharedHop | None = None
        try:
            for number, name in enumerate(keys):
                settings = self._found[number]
                self._progress.at(self._places[number])
                self._prompt.batch = settings.yes("batchmode")
                try:
                    self._check_engine(name, settings)
                    hop = self._enter(name, settings, hop)
                except Unserved as error:
                    if hop is None or self._options.engine != "auto":
                        raise
                    self.leads_to, self.unserved = number, error.cause
                    for failed in self.held[number:]:
                        self._leave(failed)
                    break
        finally:
            self._hops.let_go(before, self.linger)
        assert hop is not None  # noqa: S101  (for the type checker)
        return hop

    def _take(self, ahead: Ahead) -> ChannelStream | None:
        """The channel; None when its hop is dead, and retired now."""
        self._progress.at(self._places[self.leads_to])
        stream = ahead.take(self._progress)
        if stream is None:
            self._progress.note(1, "the shared hop is dead: a new one is made")
            self._hops.retire_dead(ahead.hop)
        return stream

    def _take_ahead(self, keys: list[str]) -> ChannelStream | None:
        """The channel that was opened ahead, when it is the right one."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        target = self._found[-1]
        if ahead.hop.key != keys[-1] or ahead.to != (target.hostname, target.port):
            ahead.drop()
            return None
        return self._take(ahead)

    def give_up(self) -> None:
        """The relay has gone: nobody is to wait for its login. From any thread, and at once.

        What that waits for may never come. It is cut off where it can be, and
        else ends at the relay's deadline; whoever comes meanwhile makes a hop of
        his own.
        """
        if not self._gone:
            self._gone = True
            threading.Thread(target=self._cut_off, daemon=True).start()

    def _cut_off(self) -> None:
        hop, stream = self._entering, self._stream
        if hop is None:
            return
        self._hops.retire(hop)
        hop.give_up()
        self._login_children.end()
        if isinstance(stream, socket.socket):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        elif stream is not None:
            stream.close()

    def _check_engine(self, name: str, settings: HopSettings) -> None:
        """Raise Unserved when a hop is for ssh, as far as that is known before it is connected to."""
        if self._options.engine == "auto" and not self._hops.has(name) and (reason := objection(settings)):
            raise Unserved(reason)

    def _enter(self, name: str, settings: HopSettings, outer: SharedHop | None) -> SharedHop:
        """A hop, which may be there already. One that has died meanwhile is made anew."""
        while True:
            hop = self._hold(name, settings, outer)
            if hop.session is None or (hop.alive and hop.responds()):
                try:
                    hop.enter(lambda hop=hop: self._log_in(hop, settings), self._progress, self._began, self._is_own)  # type: ignore[misc]
                except Stuck:
                    pass
                else:
                    return hop
            else:
                self._progress.note(1, "the shared hop is dead: a new one is made")
                self._hops.retire(hop)
            self._leave(hop)

    def _is_own(self, error: RelayError) -> bool:
        """Whether a login failed by what is this relay's alone: its deadline, or that nobody sits there who answers."""
        return isinstance(error, TimedOut) or self._prompt.unanswered

    def _hold(self, name: str, settings: HopSettings, outer: SharedHop | None) -> SharedHop:
        hop = self._hops.hold(name, lambda: SharedHop(name, settings.name, outer, self._children()))
        self.held.append(hop)
        return hop

    def _leave(self, hop: SharedHop) -> None:
        """One that is of no use is not kept for it."""
        self.held.remove(hop)
        self._hops.let_go([hop], 0)

    def _log_in(self, hop: SharedHop, settings: HopSettings) -> Session:
        """A session of a hop, which the loop drives from now on. Raises RelayError, Abandoned if the relay has gone."""
        self._entering = hop
        try:
            if self._gone:
                raise Abandoned("the relay that asked has gone")
            return self._make_session(hop, settings)
        except RelayError as error:
            if self._gone:  # this login was cut off: the error is no one else's
                raise Abandoned(error.cause) from error
            raise
        finally:
            self._entering = self._stream = None

    def _make_session(self, hop: SharedHop, settings: HopSettings) -> Session:
        if hop.outer is None:
            stream: Stream
            stream, address = first_leg(settings, self._options, self._progress, self._prompt, hop.children)
        else:
            stream, address = self._forward(hop.outer, settings), ""
        if type(stream) is _socket.socket:
            stream = socket.socket(fileno=stream.detach())  # which paramiko can close
        self._stream = stream

        from relay.ssh.session import Client, Session  # the connection can be made before that is imported

        if self._client is None:
            self._client = Client(self._progress, self._prompt, self._login_children)
        session = Session(self._client, stream, settings, hop.outer.session if hop.outer else None, address)
        session.place = f"shared hop ({hop.name})"  # which number it has depends on the route
        self._adopt(session)
        return session

    def _forward(self, hop: SharedHop, to: HopSettings) -> ChannelStream:
        """A channel from a hop to what follows it."""
        netcat = self._options.netcat_for(hop.name)
        return hop.forward(to.hostname, to.port, self._progress, netcat, self._progress.left() + GRACE)

    def _keys(self) -> list[str]:
        """What the hops are known by."""
        keys: list[str] = []
        for settings in self._found[:-1]:
            more = [f"{name}={self._environ.get(name)}" for name in MATTERS]
            if not keys:
                more += map(repr, (self._options.proxy, self._options.family, self._options.source))
                if settings.proxy_command():
                    more += sorted(f"{name}={value}" for name, value in self._environ.items() if name not in PASSING)
            keys.append(key(settings, keys[-1] if keys else "", more))
        return keys

    def _children(self) -> Children:
        return Children(self._environ, self._directory, self._progress.tell)


def _say(wire: Wire, *message: str) -> None:
    """Say something to a relay that may have gone."""
    try:
        wire.send(*message)
    except Ended:
        pass
