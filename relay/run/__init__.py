"""What every run has around it: its clock, the person, the programs that it starts, the watch over ssh's leaving.

The entry point makes one Run, and hands it down into every leg. It stands here and not in a file of its own, since
every file that a plain relay reads delays it.
"""

from __future__ import annotations

from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.spec.options import Options


class Run(Value):
    """options: what the user chose. progress: the clock. prompt: who is asked. children: the programs it starts."""

    __slots__ = ("children", "options", "progress", "prompt")
    options: Options
    progress: Progress
    prompt: Prompt
    children: Children

    def __init__(self, options: Options, progress: Progress, prompt: Prompt, children: Children) -> None:
        self._set(options=options, progress=progress, prompt=prompt, children=children)
