"""Checks, before a login needs it, that the user's limits (ulimit) leave enough memory."""

from __future__ import annotations

from relay.errors import RelayError

LOGIN = 128  # MiB of address space: our client, its threads' stacks, the windows and buffers of some hops
OWN = 32  # MiB that this process has taken by then, where the system does not say
MIB = 1 << 20


def check_memory() -> None:
    """Raise RelayError when the address space that is left (RLIMIT_AS) is too small for our client.

    Without memory, most Python code raises a MemoryError, but the compiled part of a library may end the process.
    """
    import resource  # only hops need it

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):  # only Linux has this file
        used = OWN * MIB
    if most - used < LOGIN * MIB:
        raise RelayError(
            f"out of memory: the limit leaves {max(most - used, 0) // MIB} MiB, and a login takes up to {LOGIN}",
            hint="ulimit -v says what the limit is",
        )
