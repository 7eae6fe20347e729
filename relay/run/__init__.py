"""What every run needs: its clock, the person, the programs that it starts, the watch for ssh's leaving.

The entry point makes one Run and hands it down into every leg. Run does not have a file of its own, because every file
that a plain relay reads delays it.
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
    """options: what the user chose. progress: the clock. prompt: asks the person. children: the programs started."""

    __slots__ = ("children", "options", "progress", "prompt")
    options: Options
    progress: Progress
    prompt: Prompt
    children: Children

    def __init__(self, options: Options, progress: Progress, prompt: Prompt, children: Children) -> None:
        self._set(options=options, progress=progress, prompt=prompt, children=children)
