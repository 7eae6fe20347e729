"""A wait for an agent, which may be asking its person: to unlock it, to confirm, to touch a key."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from relay.run.progress import Progress
    from relay.run.prompt import Notice, Prompt


class AgentWait:
    """What to do while an agent is silent (Agent.sign): tell the person, and stop the clock while they see it.

    words: what the person is told. unseen: returns how many seconds more the agent may take if nobody sees that.
    A context manager: at the end the notice is erased, and the clock runs again. Where the agent has failed and the
    deadline has passed, that is the cause, and nothing else is tried: it raises TimedOut.
    """

    def __init__(self, prompt: Prompt, progress: Progress, words: str, unseen: Callable[[], float]) -> None:
        self._prompt = prompt
        self._progress = progress
        self._words = words
        self._unseen = unseen
        self._notice: Notice | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self) -> float | None:
        """The agent has been silent: return how many seconds more it may take; None for no end."""
        if self._notice is None:
            self._notice = self._prompt.notify(self._words)
            if self._notice.seen:
                self._progress.pause()
        return None if self._notice.seen else self._unseen()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._notice is not None:
            self._notice.end()
            if self._notice.seen:
                self._progress.resume()
        if value is not None:
            self._progress.left()
