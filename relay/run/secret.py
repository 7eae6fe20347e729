"""Takes the proxy's password out of the environment, so that no program that pyrelay starts inherits it by chance."""

from __future__ import annotations

import os

from relay.spec import PROXY_PASSWORD

_ENV_START, _ENV_END = 47, 48  # fields 50 and 51 of /proc/pid/stat (proc(5)), here counted from the third field


def take() -> dict[str, str]:
    """Take the variable out of this process's environment; return its name and value, {} when it is not set.

    On Linux, the value in /proc/self/environ is overwritten, too: forked processes would show it as well.
    """
    value = os.environ.pop(PROXY_PASSWORD, None)
    if value is None:
        return {}
    _overwrite(os.fsencode(PROXY_PASSWORD) + b"=")
    return {PROXY_PASSWORD: value}


def _overwrite(name: bytes) -> None:
    """Overwrite the value in the memory in which the kernel has handed over the environment."""
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
    except (OSError, ValueError, IndexError):  # the system has no such files, or forbids access
        pass
