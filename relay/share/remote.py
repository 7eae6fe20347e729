"""A person who sits at another process: what they are told and asked goes to the relay, and comes back from there.

Nothing of an answer is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.run.progress import Progress
from relay.run.prompt import Cancelled, NobodyToAsk, Notice, Prompt
from relay.run.status import StatusLine
from relay.share.hops import Abandoned
from relay.share.wire import BadMessage, Ended, text

if TYPE_CHECKING:
    from relay.run.children import Children
    from relay.share.wire import Wire


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


def _say(wire: Wire, *message: str) -> None:
    """Say something to a relay that may have gone."""
    try:
        wire.send(*message)
    except Ended:
        pass
