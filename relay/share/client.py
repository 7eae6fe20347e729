"""The relay's side: ask the holder for a stream, lend it a person, hand it stdin and stdout, and wait."""

from __future__ import annotations

import os
import select
from _socket import socketpair

from relay.dial.stream import SocketStream
from relay.errors import RelayError, TimedOut, Unserved
from relay.pump.way import show_end
from relay.run.guard import leave_terminal
from relay.run.prompt import Cancelled, NobodyToAsk
from relay.share import call, place
from relay.share.wire import BadMessage, Ended, has_come, pack, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from relay.contract import Flow
    from relay.dial.plan import Names
    from relay.run import Run
    from relay.run.progress import Progress
    from relay.run.prompt import Notice, Prompt
    from relay.share.wire import Wire
    from relay.spec.options import Options

LOOK_ROUND = 0.5  # seconds between two looks at who the parent is
LAST_WORDS = 1.0  # seconds that the holder has to say why a stream has ended
_ERRORS = {kind.__name__: kind for kind in (TimedOut,)}


class Share:
    """The holder, found or started, as one relay has it. For the main thread, before there is another.

    argv: our own arguments, which `chosen` is made of. called: a holder that has been told how we were called.
    wait_on: whether a holder that does not answer is to be waited for. Raises RelayError.
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
            self._wire = _find_or_start(place.directory(environ), wait_on)
            try:
                call.say(self._wire, argv, environ)
            except Ended as error:
                raise _holder_gone() from error

    def close(self) -> None:
        """Want nothing of it."""
        self._wire.close()

    def ask(self, names: Names, places: Sequence[str], run: Run) -> SharedStream:
        """The stream through the hops, to the last of the names, or the first that is for ssh.

        Raises RelayError, Unserved when it cannot be shared.

        places: what messages call the names of the route.
        """
        packed = [
            pack((place, settings.name, settings.lines(), pack(settings.words)))
            for place, settings in zip(places, names.found, strict=True)
        ]
        try:
            self._wire.send("route", str(self._linger), int(names.master), *packed)
            leads_to, unserved = _Conversation(self._wire, run.progress, run.prompt).run()
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error
        return SharedStream(self._wire, run.progress, leads_to, unserved, detached=self._detached)


def _find_or_start(path: str, wait_on: Callable[[], bool]) -> Wire:
    def hold(listener: socket, lock: int) -> NoReturn:
        import gc

        from relay.share import holder  # the relay has no use for it

        gc.enable()  # main turned it off for a relay's start; this process lives long
        holder.run(listener, lock, path)

    return place.find_or_start(path, hold, wait_on)


class _Conversation:
    """What the holder says until the stream is there."""

    def __init__(self, wire: Wire, progress: Progress, prompt: Prompt) -> None:
        self._wire = wire
        self._progress = progress
        self._prompt = prompt
        self._notice: Notice | None = None

    def run(self) -> tuple[int, str]:
        """Do what it says until it is done; where the stream leads to, and why no further.

        Raises RelayError, Ended and BadMessage.
        """
        while True:
            kind, fields = self._wire.receive()
            if kind == "opened":
                return int(fields[0]), text(fields[1])
            if kind == "unserved":
                raise Unserved(text(fields[0]))
            if kind == "failed":
                raise failure(fields)
            self._do(kind, list(map(text, fields)))

    def _do(self, kind: str, words: list[str]) -> None:
        if kind == "stage":
            self._progress.place, self._progress.doing, self._progress.hint = words
        elif kind == "say":
            self._progress.tell(words[1], place=words[0])
        elif kind == "status":
            self._progress.status.show(words[0])
        elif kind == "ask":
            self._ask(words[0], echo=words[1] == "1", batch=words[2] == "1")
        elif kind == "tell":
            self._prompt.batch = words[1] == "1"
            self._wire.send("told", int(self._prompt.tell(words[0])))
        elif kind == "notify":
            self._prompt.batch = words[1] == "1"
            self._notice = self._prompt.notify(words[0])
            self._wire.send("told", int(self._notice.seen))
        elif kind == "noticed" and self._notice is not None:
            self._notice.end()
        else:
            raise BadMessage(kind)

    def _ask(self, question: str, *, echo: bool, batch: bool) -> None:
        self._prompt.batch = batch
        try:
            answer = self._prompt.ask(question, echo=echo)
        except Cancelled as error:
            self._wire.send("cancelled", error.cause, error.hint)
        except NobodyToAsk as error:
            self._wire.send("nobody", error.cause, error.hint)
        else:
            self._wire.send("answer", answer)


class SharedStream:
    """A stream that the holder has, and whose bytes it moves itself.

    leads_to: the number of the name that it leads to. unserved: why that is a
    hop, which is for ssh, or "" for the target. detached: this process is not to wait for its end.
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
        """The same as a socket, for whoever is to speak with what it leads to. Raises RelayError."""
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
        """None: its bytes are moved by the holder."""
        return None

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the stream has ended in no good order. For whoever has read its end."""
        if self._lent is not None:
            self._lent.check(heard=heard)

    def loss(self, _flow: Flow) -> RelayError | None:
        """None: it is never attached."""
        return None

    def close(self) -> None:
        """Give it up: the holder sees that nobody is here any more."""
        if self._lent is not None:
            self._lent.close()
        self._wire.close()

    def serve(self, stdin: int, stdout: int, *, parent: int, alarm: int) -> int:
        """Hand stdin and stdout over, and wait for the end; return the exit status. Raises RelayError.

        parent: the process that started this one; another one says that ssh
        has gone, until a byte of the target has been delivered.
        """
        try:
            self._wire.send("serve", int(self._detached), fds=(stdin, stdout))
            return 0 if self._detached else self._wait(stdout, parent, alarm)
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error

    def _wait(self, stdout: int, parent: int, alarm: int) -> int:
        watched = select.poll()
        watched.register(self._wire.socket, select.POLLIN)
        watched.register(stdout, 0)  # that its reader has gone is said unasked
        if alarm >= 0:
            watched.register(alarm, select.POLLIN)
        link_up = False
        while True:
            happened = [fd for fd, _ in watched.poll(None if link_up else LOOK_ROUND * 1000)]
            if alarm in happened:
                os.read(alarm, 64)  # its handler has run by now
            elif self._wire.socket.fileno() in happened:
                if (kind := _hear(self._wire, self._progress)) == "ended":
                    return 0
                link_up = link_up or kind == "up"
                self._heed(kind, stdout, watched)
            elif happened or (not link_up and os.getppid() != parent):
                return 0  # ssh has gone; the holder sees that we have

    def _heed(self, kind: str, stdout: int, watched: select.poll) -> None:
        """What the holder says on the way."""
        if kind == "up":
            leave_terminal()
        elif kind == "eof":
            watched.unregister(stdout)
            show_end(stdout)


class LentStream(SocketStream):
    """A socket whose other end the holder serves."""

    def __init__(self, descriptor: socket, wire: Wire, progress: Progress) -> None:
        super().__init__(descriptor)
        self._wire = wire
        self._progress = progress
        self._over = False

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has ended in no good order. For whoever has read its end."""
        try:
            while not self._over and has_come(self._wire.socket.fileno(), LAST_WORDS):
                self._over = _hear(self._wire, self._progress) == "ended"
        except (Ended, BadMessage) as error:
            raise _holder_gone() from error


def _hear(wire: Wire, progress: Progress) -> str:
    """What the holder says of a stream that it serves: the kind of its message.

    Raises RelayError when that is why it has failed; Ended and BadMessage.
    """
    kind, fields = wire.receive()
    if kind == "failed":
        raise failure(fields)
    if kind == "say":
        progress.tell(text(fields[1]), place=text(fields[0]))
    return kind


def failure(fields: Sequence[bytes]) -> RelayError:
    """The error that the holder tells of."""
    kind, cause, hint, place = map(text, fields)
    return _ERRORS.get(kind, RelayError)(cause, hint=hint, place=place)


def _holder_gone() -> RelayError:
    return RelayError("the process that holds the shared hops has ended")
