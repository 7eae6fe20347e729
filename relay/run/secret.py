"""The password of a proxy, out of the environment: no program that pyrelay starts inherits it by chance."""

from __future__ import annotations

import os

from relay.spec import PROXY_PASSWORD

_ENV_START, _ENV_END = 47, 48  # proc(5), /proc/pid/stat: fields 50 and 51, here counted from the third


def take() -> dict[str, str]:
    """The variable and its value, which are no longer in this process's environment; {} where it is not set.

    What /proc/self/environ shows is overwritten as well, on Linux: a process that is forked shows the same.
    """
    value = os.environ.pop(PROXY_PASSWORD, None)
    if value is None:
        return {}
    _overwrite(os.fsencode(PROXY_PASSWORD) + b"=")
    return {PROXY_PASSWORD: value}


def _overwrite(name: bytes) -> None:
    """Write over the value in the block of memory that the environment was handed over in."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            block = b"\0" + (memory.read(end - start) or b"")
            at = block.find(b"\0" + name)
            if at >= 0:
                size = block.index(b"\0", at + 1) - at - 1 - len(name)
                memory.seek(start + at + len(name))
                memory.write(b"x" * size)
    except (OSError, ValueError, IndexError):  # another system, or one that forbids it
        pass
