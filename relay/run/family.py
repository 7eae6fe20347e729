"""A process and its descendants. A run that has started no program does not import this."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in relay/run/children.py
import os

from relay.run.asked import Asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def signal_family(pid: int, signals: Sequence[int], *, hushed: bool) -> None:
    """Send signals to a process and to its descendants. hushed: send SIGKILL instead."""
    for each in _family(pid):
        for signal in (_signal.SIGKILL,) if hushed else signals:
            try:
                os.kill(each, signal)
            except OSError:  # the process has ended already, or belongs to another user
                pass


def _family(pid: int) -> list[int]:
    """A process and its descendants, such as the shell of a `Match exec`: a signal to the process does not reach them.

    Linux lists a process's children; elsewhere ps is asked for every process's parent.
    """
    if not os.path.isdir("/proc/self/task"):
        return _family_by_ps(pid)
    family = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                for child in file.read().split():
                    family += _family(int(child))
    except OSError:  # the process has ended meanwhile, or this kernel does not have the file
        pass
    return family


def _family_by_ps(pid: int) -> list[int]:
    """A process and its descendants, each before its own; the process alone where there is no ps."""
    try:
        listed, _ = Asked(("ps", "-A", "-o", "pid=", "-o", "ppid="), os.environ).communicate()
        pairs = [(int(child), int(parent)) for child, parent in map(bytes.split, listed.splitlines())]
    except (OSError, ValueError):
        return [pid]
    family = [pid]
    for each in family:  # it grows meanwhile
        family += [child for child, parent in pairs if parent == each]
    return family
