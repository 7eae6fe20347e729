"""Who logs in: what the logins of one route share."""

from __future__ import annotations

import sys

from relay.errors import plain
from relay.run.sparing import log
from relay.ssh.login.keyring import Keyring
from relay.ssh.memory import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt

    Held: TypeAlias = Callable[[], Sequence[tuple[bytes, str]]]
    Leave: TypeAlias = Callable[[HopSettings, Sequence[str], Sequence[str], Held], str]


class Client:
    """Who logs in to the hops of one route.

    prompt: who is asked, with `batch` as the hop in turn has it. children: where a hop's KnownHostsCommand is started.
    memory: of what hops have shown before. keyring: the keys that are unlocked.
    writes: whether known_hosts may get new lines, and the agent new keys; --check writes nothing.
    leave: says why a hop is left to ssh once it has said what it takes (relay/dial/only_ssh.py, knock).
    straight: whether ssh's own -J goes the same way: not where the route begins at a proxy or Tor.
    stays: whether the hop in turn is not left to ssh. skips: the name (publickey.name_of) of a key that the hop in turn
    has refused on a connection before this one, or "".
    """

    def __init__(
        self,
        progress: Progress,
        prompt: Prompt,
        children: Children,
        memory: Memory | None = None,
        *,
        writes: bool = True,
    ) -> None:
        self.progress = progress
        self.prompt = prompt
        self.children = children
        self.memory = memory or Memory()
        self.writes = writes
        self.leave: Leave | None = None
        self.straight = True
        self.stays = False
        self.skips = ""
        self.keyring = Keyring(prompt)
        if progress.verbosity >= 3:
            log.hears = _show


def _show(line: str) -> None:
    """Print a line that paramiko logs, which may be what a server says as it says it."""
    try:
        sys.stderr.write(plain(line).replace("\n", " ") + "\n")
    except (OSError, ValueError):
        pass  # a closed stderr is not an error
