"""A person at the relay's terminal, as the holder reaches them: lines, questions and answers go over the wire.

The holder keeps no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.errors import RelayError
from relay.run.progress import Progress
from relay.run.prompt import Cancelled, NobodyToAsk, Notice, Prompt, presentable
from relay.share.carried import take
from relay.share.hops import Abandoned
from relay.share.wire import BadMessage, Ended, text

if TYPE_CHECKING:
    from relay.contract import Stream
    from relay.run.children import Children
    from relay.share.holder_wire import HolderWire

PATIENCE = 2.0  # seconds for a relay to say whether somebody sees what it shows; that takes it milliseconds


class RemoteProgress(Progress):
    """A Progress that sends its lines to the relay that asked."""

    def __init__(self, seconds: float, verbosity: int, wire: HolderWire, *, strict: bool) -> None:
        super().__init__(seconds, verbosity, strict=strict)
        self._wire = wire

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins. The relay is told too: its deadline may pass in this stage, and its error then names it."""
        super().stage(doing, hint=hint)
        self._wire.tell("stage", self.place, doing, hint, str(int(self.hushed)))

    def pause(self) -> None:
        """A person is asked something: the relay's clock stands still, too."""
        super().pause()
        self._wire.tell("asking")

    def resume(self) -> None:
        """The person has answered."""
        super().resume()
        self._wire.tell("asked")

    def heard(self) -> None:
        """The server has spoken: the relay, too, may write on its terminal again."""
        super().heard()
        self._wire.tell("heard")

    def be_patient(self) -> bool:
        """A person may be busy elsewhere: the relay's clock stands still, too."""
        patient = super().be_patient()
        if patient:
            self._wire.tell("waiting")
        return patient

    def end_patience(self) -> None:
        """Nobody needs to do anything elsewhere any more."""
        super().end_patience()
        self._wire.tell("waited")

    def tell(self, text: str, *, place: str = "") -> None:
        """Send a line for the relay's stderr."""
        self._wire.say(place or self.place, text)


class RemotePrompt(Prompt):
    """Asks on the relay's terminal, or by the relay's askpass. unanswered: whether a question has had no answer."""

    def __init__(self, progress: Progress, children: Children, wire: HolderWire) -> None:
        super().__init__(progress, children)
        self._wire = wire
        self.unanswered = False

    def ask(
        self, question: str, *, mark: str = "", echo: bool = False, askpass: str = "", confirm: bool = False
    ) -> str:
        """Have the relay ask, and return the person's answer. Raises NobodyToAsk, Cancelled and Abandoned."""
        question = presentable(question)
        self._progress.pause()
        try:
            kind, fields = self._call("ask", question, mark, int(echo), int(self.batch), askpass, int(confirm))
        finally:
            self._progress.resume()
        if kind == "answer":
            return text(fields[0])
        cause, hint = map(text, fields)
        self.unanswered = True
        raise (Cancelled if kind == "cancelled" else NobodyToAsk)(cause, hint=hint)

    def tell(self, text: str) -> bool:
        """Have the relay say something that a person must know; true when a terminal shows it."""
        return self._told("tell", presentable(text), int(self.batch))

    def notify(self, text: str) -> Notice:
        """Have the relay say what a person must do now."""
        return _RemoteNotice(self._told("notify", presentable(text), int(self.batch)), self._wire)

    def sees(self, *, on_stderr: bool = False) -> bool:
        """Whether somebody sits at the relay's terminal."""
        return self._told("sees", int(on_stderr), int(self.batch))

    def carry(self, children: Children) -> Stream:
        """Have the relay run its first hop's ProxyCommand; return the program's stream.

        children: the program ends with them. Raises RelayError; Abandoned when the relay has gone.
        """
        kind, fields = self._call("carry")
        if kind != "carried":
            cause, hint = map(text, fields)
            raise RelayError(cause, hint=hint)
        (pid,) = map(int, fields)
        try:
            return take(pid, self._wire.take_fds(1, 3, 4), children)
        except BadMessage as error:
            raise Abandoned("the relay that asked has ended") from error

    def _told(self, *message: str | int) -> bool:
        """Whether a person sees what the message says; not if the relay does not answer, since it may be stopped."""
        return self._call(*message, seconds=PATIENCE) == ("told", [b"1"])

    def _call(self, *message: str | int, seconds: float | None = None) -> tuple[str, list[bytes]]:
        try:
            self._wire.send(*message)  # type: ignore[arg-type]
            if seconds is None:
                return self._wire.receive()
            return self._wire.receive_within(seconds) or ("", [])
        except (Ended, BadMessage) as error:
            raise Abandoned("the relay that asked has ended") from error


class _RemoteNotice(Notice):
    def __init__(self, seen: bool, wire: HolderWire) -> None:
        super().__init__(seen)
        self._wire = wire

    def end(self) -> None:
        self._wire.tell("noticed")
