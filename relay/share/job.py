"""One request of a relay, in its own thread: it enters the hops and opens a channel.

It dials as relay/dial does, with the same plan and the same fold, but in the holder's process: the terminal is in the
relay's process (remote.py). Where relay/dial enters a hop of its own, a job holds a hop that many relays share.
"""

from __future__ import annotations

import gc
import threading
import time
from _socket import SHUT_RDWR
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from relay.config.lookup import Defaults
from relay.config.settings import HopSettings, parse
from relay.dial import entered
from relay.dial.engine import client_of, memory_of
from relay.dial.first import first_leg
from relay.dial.plan import COMMAND, MASTER, SSH, Plan, plan
from relay.errors import NoRoom, RelayError, TimedOut, Unserved
from relay.run import Run
from relay.run.children import Children
from relay.run.limits import check_memory
from relay.share.ahead import Ahead
from relay.share.hops import Abandoned, Dead, SharedHop, Stuck
from relay.share.key import digest, key, lasting
from relay.share.remote import RemoteProgress, RemotePrompt
from relay.share.wire import BadMessage, text, unpack
from relay.spec import PROXY_PASSWORD, options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.contract import Hop, Reach, Stream
    from relay.dial.plan import Leg
    from relay.share.holder_wire import HolderWire
    from relay.share.hops import Hops
    from relay.spec.options import Options
    from relay.ssh.login.client import Client


class Job:
    """What a relay asks for: a channel through some hops.

    held: the hops that the job holds; `close` lets go of them, or the holder does when the relay has ended.
    linger: seconds to keep the hops after that; None until the relay has said it.
    leads_to: the number of the name, in the order travelled, that the channel leads to. That is the target, or a hop
    that only the system's ssh can enter; unserved then says why.
    """

    def __init__(self, wire: HolderWire, fields: Sequence[bytes], hops: Hops, adopt: Callable[[Hop], None]) -> None:
        """The relay has sent its command line: fields. Raises ValueError when they are malformed."""
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
        self._secret = {name: self._environ.pop(name) for name in [PROXY_PASSWORD] if name in self._environ}
        self._directory = text(directory)
        chosen = self._options
        self._progress = RemoteProgress(chosen.deadline, chosen.verbosity, wire, strict=chosen.is_strict)
        self._prompt = RemotePrompt(self._progress, self._children(), wire)
        self._client: Client | None = None
        self._login_children = self._children()
        self._entering: SharedHop | None = None  # the hop that this job is logging in to
        self._stream: Stream | None = None  # the stream to that hop
        self._gone = False  # whether the relay has gone
        self._found: list[HopSettings] = []
        self._places: list[str] = []
        self._master = False
        self._keys: list[str] = []
        self._plan = Plan((), self._options.engine)
        self._ahead: Ahead | None = None
        same = [*lasting(self._environ), *self._secret.values()]
        self._call = digest([*map(text, unpack(argv)), "", *same, self._directory])
        if (before := hops.remembered(self._call)) is not None:
            self.held += before[0].path
            with suppress(RuntimeError):  # without a thread for it, the channel is opened when it is asked for
                self._ahead = Ahead(*before, self._options.netcat_for(before[0].name))

    def read(self, fields: Sequence[bytes]) -> None:
        """The relay has sent its route: fields. Raises ValueError when they are malformed."""
        linger, master, *names = fields
        self.linger = float(linger)
        self._master = master == b"1"
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
                    environ=self._environ,
                    directory=self._directory,
                )
            )
        self.leads_to = len(self._found) - 1
        if not self.leads_to:
            raise BadMessage("a route without hops")

    def open(self) -> Stream:
        """Open the channel and return it. Raises RelayError."""
        try:
            return self._open()
        except NoRoom as error:
            full = [hop for hop in self.held if hop.session is not None and hop.session.place == error.place]
            if any(hop.leads() for hop in full):
                raise Unserved(error.cause) from error  # other relays use all the sessions that the hop allows
            raise
        except RelayError as error:
            raise error.at(self._progress.place) from error.__cause__

    def close(self) -> None:
        """End the job: let go of the hops. A channel that was handed out stays open."""
        if self._ahead is not None:
            self._ahead.drop()
        self._hops.let_go(self.held, self.linger)

    def _open(self) -> Stream:
        self._keys = self._hop_keys()
        if (stream := self._take_ahead()) is not None:
            return stream
        try:
            return self._open_anew()
        except Dead:  # a hop that was there may turn out to be dead; the second time it is a new one
            return self._open_anew()

    def _open_anew(self) -> Stream:
        """Enter the hops and open the channel. Raises RelayError, Dead if a hop on the way is dead."""
        hop = self._enter_all()
        to = self._found[self.leads_to]
        self._at_next()
        stream = self._reach_from(hop, to)
        if not self.unserved:
            self._hops.remember(self._call, hop.key, (to.hostname, to.port))
        return stream

    def _enter_all(self) -> SharedHop:
        """Enter the hops; return the last one, or the last one before a hop that only the system's ssh can enter.

        Raises Unserved if the first hop is such a hop, or the only hop before it is a ControlMaster's: the loop cannot
        move the bytes of a master's stream. Hops that were held before, for a channel that could not be opened, are
        let go of at the end.
        """
        before, self.held = self.held, []
        self.leads_to, self.unserved = 0, ""
        run = Run(self._options, self._progress, self._prompt, self._login_children)
        self._plan = plan(
            self._places,
            self._found,
            self._options,
            master=self._master,
            is_held=lambda number: self._hops.has(self._keys[number]),
            memory=lambda first: memory_of(run, first, self._found[0].hostname),
        )
        try:
            for hop in entered(self._plan, self._reach_first, self._enter, run):
                last = hop
                self.leads_to += 1
        except Unserved as error:
            by_master = self.leads_to == 1 and self._is_master(self._plan.legs[0])
            if not self.leads_to or by_master or self._options.engine != "auto":
                raise
            self.unserved = error.cause
            for failed in self.held[self.leads_to :]:
                self._leave(failed)
        finally:
            self._hops.let_go(before, self.linger)
        return last

    def _at_next(self) -> None:
        """What follows is about the name that the channel leads to."""
        self._progress.at(self._places[self.leads_to], hushed=not self._found[self.leads_to].shows_banners)

    def _take(self, ahead: Ahead) -> Stream:
        """Wait for the channel and return it. Raises RelayError, Dead when a hop is dead; that one is then retired."""
        stream = ahead.take(self._progress)
        if stream is None:
            dead = self._hops.retire_dead(ahead.hop)
            self._progress.note(1, "the shared hop is dead: a new one is made", place=dead.place)
            raise Dead("the hop does not answer any more", place=dead.place)
        return stream

    def _take_ahead(self) -> Stream | None:
        """The channel that was opened ahead of time; None unless it has the right hops and the right target."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        target = self._found[-1]
        if ahead.hop.key != self._keys[-1] or ahead.to != (target.hostname, target.port):
            ahead.drop()
            return None
        self._at_next()
        with suppress(Dead):
            return self._take(ahead)
        return None

    def give_up(self) -> None:
        """The relay has gone: let the other relays stop waiting for its login. From any thread; returns at once.

        The login may wait for an answer that never comes. A thread cuts it off where that is possible; otherwise it
        ends at the relay's deadline. A relay that comes meanwhile makes a hop of its own.
        """
        if not self._gone:
            self._gone = True
            try:
                threading.Thread(target=self._cut_off, daemon=True).start()
            except RuntimeError:  # no more threads may be started: the next look tries again
                self._gone = False

    def end_programs(self) -> None:
        """End the programs that the login has started, a KnownHostsCommand, say. From any thread; it waits for them."""
        self._login_children.end()

    def _cut_off(self) -> None:
        hop, stream = self._entering, self._stream
        if hop is None:
            return
        self._hops.retire(hop)
        hop.give_up()
        self.end_programs()
        if stream is not None and stream.descriptor is not None:
            with suppress(OSError):
                stream.descriptor.shutdown(SHUT_RDWR)  # the thread that polls it then closes it
        elif stream is not None:
            stream.close()

    def _enter(self, leg: Leg, reach: Reach, outer: SharedHop | None, _following: Leg) -> SharedHop:
        """Enter one hop of the way: use the shared one, or log in. If the shared one is dead, make a new one.

        Raises RelayError.
        """
        assert leg.entered is not None  # noqa: S101  (for the type checker: it is a hop's)
        if leg.entered.kind == SSH:
            raise Unserved(leg.entered.why)
        name = self._keys[len(outer.path) if outer is not None else 0]
        while True:
            hop = self._hold(name, leg.settings, outer)
            if hop.session is None or (hop.alive and hop.responds()):
                try:
                    hop.enter(lambda hop=hop: self._log_in(hop, leg, reach), self._progress, self._began, self._is_own)  # type: ignore[misc]
                except Stuck:
                    pass
                else:
                    return hop
            else:
                self._progress.note(1, "the shared hop is dead: a new one is made")
                self._hops.retire(hop)
            self._leave(hop)

    def _is_own(self, error: RelayError) -> bool:
        """Whether the failure is this relay's own: its deadline, or nobody there to answer."""
        return isinstance(error, TimedOut) or self._prompt.unanswered

    def _hold(self, name: str, settings: HopSettings, outer: SharedHop | None) -> SharedHop:
        hop = self._hops.hold(name, lambda: SharedHop(name, settings.name, outer, self._children(self._progress.place)))
        self.held.append(hop)
        return hop

    def _leave(self, hop: SharedHop) -> None:
        """Let go of a hop that is of no use; it does not linger."""
        self.held.remove(hop)
        self._hops.let_go([hop], 0)

    def _log_in(self, hop: SharedHop, leg: Leg, reach: Reach) -> Hop:
        """Log in to a hop and return its session, which the loop drives from now on.

        Raises RelayError; Abandoned if the relay that asked has ended.
        """
        self._entering = hop
        try:
            if self._gone:
                raise Abandoned("the relay that asked has ended")
            session = self._meet(leg) if self._is_master(leg) else self._make_session(hop, leg, reach)
            session.place = hop.place
            self._adopt(session)
            return session
        except RelayError as error:
            if self._gone:  # this login was cut off: no other relay is to fail with its error
                raise Abandoned(error.cause) from error
            raise
        finally:
            self._entering = self._stream = None

    def _is_master(self, leg: Leg) -> bool:
        return leg.entered is not None and leg.entered.kind == MASTER

    def _meet(self, leg: Leg) -> Hop:
        """The first hop through its ControlMaster. Raises Unserved if that has ended: the relay then dials itself."""
        from relay.dial.master import MasterHop, find  # few have one

        control = find(leg.settings, self._progress)
        if control is None:
            raise Unserved("the ControlMaster of the first hop has ended")
        return MasterHop(leg.settings, control, self._progress)

    def _make_session(self, hop: SharedHop, leg: Leg, reach: Reach) -> Hop:
        def reach_it() -> tuple[Stream, str]:
            stream, address = reach() if hop.outer is None else (self._reach_from(hop.outer, leg.settings), "")
            self._stream = stream
            return stream, address

        check_memory()
        reached = reach_it()

        from relay.ssh.enter import log_in  # the connection can be made before that is imported

        if not gc.get_freeze_count():  # what is imported is never garbage: each search for garbage passes it over
            gc.freeze()
        if self._client is None:
            run = Run(self._options, self._progress, self._prompt, self._login_children)
            self._client = client_of(run, self._plan.legs[0])
        jumps = hop.outer.jumps if hop.outer else ""
        session = log_in(self._client, reached, leg.settings, jumps=jumps, again=reach_it)
        session.forget_relay()
        return session

    def _reach_from(self, hop: SharedHop, to: HopSettings) -> Stream:
        """Make a stream from a shared hop to the next name. Raises RelayError, Dead if the shared hop is dead."""
        netcat = self._options.netcat_for(hop.name)
        return self._take(Ahead(hop, to.hostname, to.port, netcat, self._progress))

    def _reach_first(self) -> tuple[Stream, str]:
        """Make a stream to the first hop. A program that carries the stream ends when the hop ends."""
        assert self._entering is not None  # noqa: S101  (for the type checker)
        children, leg = self._entering.children, self._plan.legs[0]
        if leg.reached.kind == COMMAND:  # it may ask, and the terminal is the relay's
            self._progress.stage(f"running {leg.settings.proxy_command()}")
            self._progress.by_program(seen=self._prompt.sees())
            return self._prompt.carry(children), ""
        return first_leg(leg, Run(self._options, self._progress, self._prompt, children))

    def _hop_keys(self) -> list[str]:
        """The keys of the route's hops (key.py)."""
        chosen = self._options
        way = [repr(each) for each in (chosen.proxy, chosen.family, chosen.source, self._master, self._secret)]
        keys: list[str] = []
        for settings in self._found[:-1]:
            keys.append(key(settings, keys[-1] if keys else "", [] if keys else way, self._directory))
        return keys

    def forget(self) -> None:
        """Drop what came from the relay: its environment, its options, the person's answers, the keys opened with them.

        Call it when the channel is open; after that only `close` works.
        """
        self._secret = {}
        for children in (self._login_children, *(hop.children for hop in self.held)):
            children.forget()
        self._login_children = Children()  # `end_programs` may still be called
        for name in ("_client", "_environ", "_found", "_options", "_plan", "_progress", "_prompt"):
            delattr(self, name)

    def _children(self, place: str = "") -> Children:
        """Programs for this relay. place: what messages call the hop that they carry."""
        return Children(self._environ, self._directory, partial(self._progress.tell, place=place), self._secret)
