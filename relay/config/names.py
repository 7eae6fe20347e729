"""The names that ssh_config and known_hosts have, for the completion of a route.

It reads the files itself, since `ssh -G` tells of a name that is known already
and of no other. Nothing is decided by what it finds.
"""

from __future__ import annotations

import glob
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

USER, SYSTEM = "~/.ssh", "/etc/ssh"
MOST_INCLUDES = 16  # deep, as for ssh (READCONF_MAX_DEPTH)
_PATTERN = frozenset("*?!")
_ROUTE = frozenset("/+")  # the names of routes, which ssh files keys under


def names(config: str | None = None) -> list[str]:
    """Every name that a Host line or a line of known_hosts spells out, in order, each once.

    config: read in the place of the user's and the system's ssh_config. What cannot be read has no names.
    """
    configs = [(config, USER)] if config else [(f"{USER}/config", USER), (f"{SYSTEM}/ssh_config", SYSTEM)]
    found = {name for path, folder in configs for name in _hosts(os.path.expanduser(path), folder, MOST_INCLUDES)}
    for path in (f"{USER}/known_hosts", f"{SYSTEM}/ssh_known_hosts"):
        found.update(_known(os.path.expanduser(path)))
    return sorted(found)


def _lines(path: str) -> list[str]:
    """The lines of a text, none for one that cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _hosts(path: str, folder: str, depth: int) -> Iterator[str]:
    """The names on the Host lines of a file and of those that it includes; folder: where relative ones are."""
    for line in _lines(path):
        key, *words = line.replace("=", " ", 1).split() or [""]
        words = [word.strip('"') for word in words]
        if key.lower() == "host":
            yield from (word for word in words if _is_name(word))
        elif key.lower() == "include" and depth > 0:
            for word in words:
                for name in sorted(glob.glob(os.path.join(os.path.expanduser(folder), os.path.expanduser(word)))):
                    yield from _hosts(name, folder, depth - 1)


def _known(path: str) -> Iterator[str]:
    """The names of a known_hosts file; hashed ones cannot be read."""
    for line in _lines(path):
        first, *rest = line.split() or ["#"]
        if first.startswith("@") and rest:
            first = rest[0]
        if first.startswith(("#", "|", "@")):
            continue
        for name in first.split(","):
            plain = name[1:].partition("]")[0] if name.startswith("[") else name
            if _is_name(plain):
                yield plain


def _is_name(word: str) -> bool:
    return bool(word) and word.isprintable() and not _PATTERN & set(word) and not _ROUTE & set(word)
