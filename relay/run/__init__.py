"""What every run needs: its clock, the person, the programs that it starts, the watch for ssh's leaving.

The entry point makes one Run and hands it down into every leg. Run does not have a file of its own, because every file
that a plain relay reads delays it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module makes enums of it, which delays a raw relay
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.spec.options import Options


class Run:
    """What one run has around it. options: what the user chose. progress: the clock.

    prompt asks the person, and children are the programs started. They are made when they are first asked for, since a
    plain route asks nobody and starts nothing; or the caller has made them. secret: see Children.
    """

    def __init__(
        self,
        options: Options,
        progress: Progress,
        prompt: Prompt | None = None,
        children: Children | None = None,
        *,
        secret: Mapping[str, str] | None = None,
    ) -> None:
        self.options = options
        self.progress = progress
        self._prompt = prompt
        self._children = children
        self._secret = secret
        self._making = RLock()
        self._over = False

    @property
    def children(self) -> Children:
        """The programs that were started."""
        with self._making:
            if self._children is None:
                from relay.run.children import Children

                self._children = Children(secret=self._secret)
                if self._over:
                    self._children.end()
            return self._children

    @property
    def prompt(self) -> Prompt:
        """What asks the person."""
        with self._making:
            if self._prompt is None:
                from relay.run.prompt import Prompt

                self._prompt = Prompt(self.progress, self.children, batch=self.options.batch)
                if self._over:
                    self._prompt.restore()
            return self._prompt

    def survive_stops(self) -> None:
        """From now on, a question is asked again when the process goes on after Ctrl-Z; for the main thread."""

        def go_on(_number: int, _frame: object) -> None:
            if self._prompt is not None:
                self._prompt.go_on()

        _signal.signal(_signal.SIGCONT, go_on)

    def end(self) -> None:
        """Give the terminal back and end the programs that still run; for the main thread, and a signal's handler."""
        with self._making:
            self._over = True
        if self._prompt is not None:
            self._prompt.restore()
        self.progress.close()
        if self._children is not None:
            self._children.end()
