"""The names that ssh_config and known_hosts have, for the completion of a route.

It reads the files itself, since `ssh -G` answers for one given name and cannot
list names. Nothing but the completion depends on what it finds.
"""

from __future__ import annotations

import glob
import os
import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

USER, SYSTEM = "~/.ssh", "/etc/ssh"
MOST_INCLUDES = 16  # levels of Include, as in ssh (READCONF_MAX_DEPTH)
# What no name in a route has, outside brackets: the characters of a pattern, of a route, and of another spelling.
_NOT_IN_NAME = frozenset("*?!/+%=:~@,[] \t'\"\\")


def names(config: str | None = None) -> list[str]:
    """Return every name in full that a Host line or a line of known_hosts holds, in order, each once.

    config: read instead of the user's and the system's ssh_config. A file that cannot be read adds no names.
    """
    found = hosts(config)
    for path in (f"{USER}/known_hosts", f"{SYSTEM}/ssh_known_hosts"):
        found.update(_known(os.path.expanduser(path)))
    return sorted(found)


def hosts(config: str | None = None) -> set[str]:
    """Return every name in full that a Host line holds. config: as for `names`."""
    configs = [(config, USER)] if config else [(f"{USER}/config", USER), (f"{SYSTEM}/ssh_config", SYSTEM)]
    return {name for path, folder in configs for name in _hosts(os.path.expanduser(path), folder, MOST_INCLUDES)}


def with_other_capitals(name: str, config: str | None = None) -> list[str]:
    """Return the names of Host lines that differ from a name by their capitals only, none if one is that name itself.

    The patterns of a Host line are compared with capitals. config: as for `names`.
    """
    alike = sorted(known for known in hosts(config) if known.lower() == name.lower())
    return [] if name in alike else alike


def _lines(path: str) -> list[str]:
    """Return the lines of a file, none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _hosts(path: str, folder: str, depth: int) -> Iterator[str]:
    """Yield the names on the Host lines of a file and of its includes. folder: where relative includes are."""
    for line in _lines(path):
        try:
            key, *words = shlex.split(line.replace("=", " ", 1), comments=True) or [""]
        except ValueError:  # a quotation mark is missing: ssh ends at such a line
            continue
        if key.lower() == "host":
            yield from (word for word in words if _is_name(word))
        elif key.lower() == "include" and depth > 0:
            for word in words:
                for name in sorted(glob.glob(os.path.join(os.path.expanduser(folder), os.path.expanduser(word)))):
                    yield from _hosts(name, folder, depth - 1)


def _known(path: str) -> Iterator[str]:
    """Yield the names of a known_hosts file. Hashed names cannot be read."""
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
    return bool(word) and word.isprintable() and not _NOT_IN_NAME & set(word)
