"""The relay's side: ask the holder for a stream, ask the person what it asks, hand it stdin and stdout, wait."""

from __future__ import annotations

import os
import select
from _socket import socketpair

from relay.dial.stream import SocketStream
from relay.errors import RelayError, TimedOut, Unserved
from relay.pump.way import show_end
from relay.run.guard import Waiting, leave_terminal, read_alarm
from relay.run.prompt import Cancelled, NobodyToAsk
from relay.share import call, place
from relay.share.wire import BadMessage, Ended, has_come, pack, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from relay.config.settings import HopSettings
    from relay.contract import Flow
    from relay.dial.plan import Names
    from relay.run import Run
    from relay.run.progress import Progress
    from relay.run.prompt import Notice
    from relay.share.carry import Carrying
    from relay.share.wire import Wire
    from relay.spec.options import Options

LOOK_ROUND = 0.5  # seconds between two looks at the parent's process id
LAST_WORDS = 1.0  # seconds that the holder has to say why a stream has ended
# What the holder says of the clock, and what does it here.
_WAITS: dict[str, Callable[[Progress], object]] = {
    "asking": lambda progress: progress.pause(),
    "heard": lambda progress: progress.heard(),
    "asked": lambda progress: progress.resume(),
    "waiting": lambda progress: progress.be_patient(),
    "waited": lambda progress: progress.end_patience(),
}
_ERRORS = {kind.__name__: kind for kind in (TimedOut,)}


class Share:
    """One relay's connection to the holder, which is found or started. Make it before there is a second thread.

    argv: our own arguments; `chosen` holds them parsed. called: a connection to a holder that has our command line
    already. wait_on: whether to go on waiting for a holder that does not answer. Raises RelayError; Unserved when the
    relay must go by itself.
    """

    def __init__(
        self,
        argv: Sequence[str],
        chosen: Options,
        environ: Mapping[str, str],
        called: Wire | None,
        *,
        wait_on: Callable[[], bool],
    ) -> None:
        self._linger = chosen.share
        self._detached = chosen.fdpass
        try:
            if called is None:
                raise place.Gone
            self._wire = place.welcomed(called, wait_on)
        except place.Gone:
            self._wire = _find_or_start(place.directory(environ), lambda wire: call.say(wire, argv, environ), wait_on)

    def close(self) -> None:
        """Close the connection: the holder is not needed."""
        self._wire.close()

    def ask(self, names: Names, places: Sequence[str], run: Run) -> SharedStream:
        """Return the stream through the hops to the target, or to the first hop that only the system's ssh can enter.

        places: what messages call each name of the route. Raises RelayError; Unserved when the hops cannot be shared.
        """
        packed = [
            pack((place, settings.name, settings.lines(), pack(settings.words)))
            for place, settings in zip(places, names.found, strict=True)
        ]
        try:
            self._wire.send("route", str(self._linger), int(names.master), *packed)
            leads_to, unserved = _Conversation(self._wire, run, names.found[0]).run()
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error
        return SharedStream(self._wire, run.progress, leads_to, unserved, detached=self._detached)


def _find_or_start(path: str, say: Callable[[Wire], None], wait_on: Callable[[], bool]) -> Wire:
    def hold(listener: socket, lock: int) -> NoReturn:
        import gc

        try:
            from relay.share import holder  # only the holder's process needs it

            gc.enable()  # main turned it off for a relay's start; this process lives long
            holder.run(listener, lock, path)
        except Exception as error:  # nobody would see it: stderr is /dev/null
            place.start_failed(error)

    return place.find_or_start(path, say, hold, wait_on)


class _Conversation:
    """What the holder says, and asks, until the stream is open."""

    def __init__(self, wire: Wire, run: Run, first: HopSettings) -> None:
        self._wire = wire
        self._progress = run.progress
        self._prompt = run.prompt
        self._first = first
        self._run = run
        self._carrying: Carrying | None = None
        self._notice: Notice | None = None

    def run(self) -> tuple[int, str]:
        """Do what the holder says until the stream is open.

        It returns the number of the name that the stream leads to, and why it goes no further ("" at the target).
        Raises RelayError, Ended and BadMessage.
        """
        while True:
            kind, fields = self._wire.receive()
            if kind == "opened":
                if self._carrying is not None:
                    self._carrying.leave()
                return int(fields[0]), text(fields[1])
            if kind == "unserved":
                raise Unserved(text(fields[0]))
            if kind == "failed":
                raise failure(fields)
            self._do(kind, list(map(text, fields)))

    def _do(self, kind: str, words: list[str]) -> None:
        if self._carrying is not None and kind in {"ask", "tell", "notify"}:
            self._carrying.take_back()
        if kind == "stage":
            self._progress.place, self._progress.doing, self._progress.hint, hushed = words
            self._progress.hushed = hushed == "1"
        elif kind == "say":
            self._progress.tell(words[1], place=words[0])
        elif kind in _WAITS:
            _WAITS[kind](self._progress)
        elif kind == "carry":
            self._carry()
        elif kind == "ask":
            question, mark, echo, batch, askpass, confirm = words
            self._prompt.batch = batch == "1"
            self._ask(question, mark, echo=echo == "1", askpass=askpass, confirm=confirm == "1")
        elif kind in {"tell", "notify", "sees"}:
            self._prompt.batch = words[1] == "1"
            self._wire.send("told", int(self._tell(kind, words[0])))
        elif kind == "noticed" and self._notice is not None:
            self._notice.end()
        else:
            raise BadMessage(kind)

    def _carry(self) -> None:
        """Run the first hop's ProxyCommand for the holder."""
        from relay.share.carry import Carrying  # few hops have a ProxyCommand

        self._progress.by_program(seen=False)  # the holder says when somebody may be waited for
        self._carrying = self._carrying or Carrying(self._run)
        try:
            pid, fds = self._carrying.start(self._first)
        except RelayError as error:
            self._wire.send("failed", error.cause, error.hint)
            return
        try:
            self._wire.send("carried", pid, fds=fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _tell(self, kind: str, words: str) -> bool:
        """Say something to the person, or nothing; whether somebody sees it."""
        if kind == "tell":
            return self._prompt.tell(words)
        if kind == "sees":
            return self._prompt.sees(on_stderr=words == "1")
        self._notice = self._prompt.notify(words)
        return self._notice.seen

    def _ask(self, question: str, mark: str, *, echo: bool, askpass: str, confirm: bool) -> None:
        try:
            answer = self._prompt.ask(question, mark=mark, echo=echo, askpass=askpass, confirm=confirm)
        except Cancelled as error:
            self._wire.send("cancelled", error.cause, error.hint)
        except NobodyToAsk as error:
            self._wire.send("nobody", error.cause, error.hint)
        else:
            self._wire.send("answer", answer)


class SharedStream:
    """A stream that the holder has, and whose bytes the holder moves.

    leads_to: the number of the name that the stream leads to. unserved: "" when that is the target; otherwise why
    it stops at a hop, which the system's ssh must enter. detached: this process does not wait for the stream's end.
    """

    carrier = ""
    channel = None
    descriptor = None

    def __init__(self, wire: Wire, progress: Progress, leads_to: int, unserved: str, *, detached: bool) -> None:
        self.leads_to = leads_to
        self.unserved = unserved
        self._detached = detached
        self._progress = progress
        self._wire = wire
        self._lent: LentStream | None = None

    def lend(self) -> LentStream:
        """Return this stream as a socket, for our own code to read and write. Raises RelayError."""
        if self._lent is not None:
            return self._lent
        near, far = socketpair()
        try:
            self._wire.send("serve", 0, fds=(far.fileno(), far.fileno()))
        except Ended as error:
            raise _holder_gone() from error
        finally:
            far.close()
        self._lent = LentStream(near, self._wire, self._progress)
        return self._lent

    def recv(self, size: int, /) -> bytes:
        """At most size bytes, waited for; b"" at the end. Raises RelayError and OSError."""
        return self.lend().recv(size)

    def sendall(self, data: bytes, /) -> None:
        """All of data, waited for. Raises RelayError and OSError."""
        self.lend().sendall(data)

    def shutdown_write(self) -> None:
        """Tell the far side that nothing follows."""
        self.lend().shutdown_write()

    def attach(self) -> Flow | None:
        """None: the holder moves the stream's bytes."""
        return None

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the stream did not end in good order. Call it when its end has been read."""
        if self._lent is not None:
            self._lent.check(heard=heard)

    def loss(self, _flow: Flow) -> RelayError | None:
        """None: this stream is never attached."""
        return None

    def close(self) -> None:
        """Give the stream up: the holder sees that this relay has gone."""
        if self._lent is not None:
            self._lent.close()
        self._wire.close()

    def serve(self, stdin: int, stdout: int, *, parent: int, alarm: int) -> int:
        """Hand stdin and stdout to the holder, and wait for the end; return the exit status. Raises RelayError.

        parent: the process that started this one. If the parent changes, ssh
        has gone; after the target's first byte is delivered, that no longer counts.
        """
        try:
            self._wire.send("serve", int(self._detached), fds=(stdin, stdout))
            return 0 if self._detached else self._wait(stdin, stdout, parent, alarm)
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error

    def _wait(self, stdin: int, stdout: int, parent: int, alarm: int) -> int:
        watched = select.poll()
        watched.register(self._wire.socket, select.POLLIN)
        watched.register(stdout, 0)  # poll reports unasked that its reader has gone
        if alarm >= 0:
            watched.register(alarm, select.POLLIN)
        link_up = False
        waiting: Waiting | None = None  # once all bytes are moved
        while True:
            happened = [fd for fd, _ in watched.poll(None if link_up and waiting is None else LOOK_ROUND * 1000)]
            if alarm in happened:
                read_alarm(alarm)
            elif self._wire.socket.fileno() in happened:
                if (kind := _hear(self._wire, self._progress)) == "ended":
                    return 0
                link_up = link_up or kind == "up"
                if kind == "closing":
                    waiting = Waiting(stdin, parent)
                self._heed(kind, stdout, watched)
            elif happened or (not link_up and os.getppid() != parent) or (waiting is not None and waiting.over):
                return 0  # ssh has gone; when this process ends, the holder sees it

    def _heed(self, kind: str, stdout: int, watched: select.poll) -> None:
        """Do what the holder says while it moves the bytes."""
        if kind == "up":
            leave_terminal()
        elif kind == "eof":
            watched.unregister(stdout)
            show_end(stdout)


class LentStream(SocketStream):
    """A socket; the holder serves its other end."""

    def __init__(self, descriptor: socket, wire: Wire, progress: Progress) -> None:
        super().__init__(descriptor)
        self._wire = wire
        self._progress = progress
        self._over = False

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream did not end in good order. Call it when its end has been read."""
        try:
            while not self._over and has_come(self._wire.socket.fileno(), LAST_WORDS):
                self._over = _hear(self._wire, self._progress) == "ended"
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error


def _hear(wire: Wire, progress: Progress) -> str:
    """Read the holder's next message about a stream that it serves; return the message's kind.

    Raises RelayError when the message says that the stream has failed; also Ended and BadMessage.
    """
    kind, fields = wire.receive()
    if kind == "failed":
        raise failure(fields)
    if kind == "say":
        progress.tell(text(fields[1]), place=text(fields[0]))
    return kind


def failure(fields: Sequence[bytes]) -> RelayError:
    """The error that the holder reports."""
    kind, cause, hint, place = map(text, fields)
    return _ERRORS.get(kind, RelayError)(cause, hint=hint, place=place)


def _holder_gone() -> RelayError:
    return RelayError("the process that holds the shared hops has ended")
