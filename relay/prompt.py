"""Asking a person: the terminal or askpass."""

from __future__ import annotations

import getpass

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.progress import Progress


class NobodyToAsk(RelayError):
    """There is no terminal and no askpass, or BatchMode forbids to ask."""


class Prompt:
    """Asks for what a hop needs."""

    def __init__(self, progress: Progress, batch: bool) -> None:
        self._progress = progress
        self._batch = batch

    def ask(self, question: str, *, echo: bool = False) -> str:  # noqa: ARG002
        """The answer of a person. Raises NobodyToAsk."""
        if self._batch:
            raise NobodyToAsk("nobody may be asked (BatchMode)")
        self._progress.pause()
        try:
            return getpass.getpass(question)
        finally:
            self._progress.resume()
