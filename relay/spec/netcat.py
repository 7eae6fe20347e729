"""The command that may cross a hop which denies forwarding (--netcat, --netcat-command)."""

from __future__ import annotations

from relay.value import Value


class Netcat(Value):
    """What may run on a hop. line: the command line, "" for one that finds a tool by itself.

    named: whether the user has named the hop. It then needs the command, and is not asked to forward first.
    """

    __slots__ = ("line", "named")
    line: str
    named: bool

    def __init__(self, line: str, *, named: bool = False) -> None:
        self._set(line=line, named=named)
