"""What can be asked for instead of a connection. A relay imports none of it."""

from __future__ import annotations

import os

from relay.errors import encoded
from relay.run.printed import put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from relay.spec.options import Options


def run(chosen: Options, argv: Sequence[str], secret: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Do what the options ask for instead of a connection; return the exit status.

    secret: the variables that were taken out of the environment. say: prints text on stderr. Raises RelayError.
    """
    if chosen.action == "ssh-config":
        from relay.config import block
        from relay.config.lookup import version
        from relay.run.children import Children

        written = block.text(block.program(), version(Children()), chosen, argv, block.keywords())
        put(encoded(written))
        for obstacle in block.obstacles(chosen.config, written):
            say(f"pyrelay: {obstacle}\n")
        return 0
    if chosen.action == "explain":
        from relay.dial import explain

        return explain.command(chosen, secret)
    if chosen.action == "check":
        from relay.dial import check

        return check.run(chosen, os.getppid(), secret)
    put(_output(chosen))
    return 0


def _output(chosen: Options) -> bytes:
    """Return what is printed where that is all there is to do. Raises RelayError."""
    if chosen.action == "help":
        from relay.spec import options

        return encoded(options.help_text())
    if chosen.action == "version":
        from relay import __version__

        return encoded(f"pyrelay {__version__}\n")
    if chosen.action == "names":
        from relay.config.names import names

        return b"".join(os.fsencode(f"{name}\n") for name in names(chosen.config))
    if chosen.known_hosts is not None:
        from relay.ssh.trust import target_key

        return target_key.lines(chosen)
    from relay.share import control

    return encoded(control.command(chosen.control, os.environ))
