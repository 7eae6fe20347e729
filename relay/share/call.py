"""A relay's first message to the holder: its command line, sent before the relay has parsed it.

Meanwhile the holder opens the channel that the relay most likely wants (ahead.py),
the relay imports its option parser, and ssh reads its files. So this module
imports next to nothing.
"""

from __future__ import annotations

import os

from relay.errors import RelayError
from relay.share import place
from relay.share.wire import Ended, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.share.wire import Wire


def early(argv: Sequence[str], environ: Mapping[str, str]) -> Wire | None:
    """Connect to the holder and send it the command line; do not wait for its answer.

    None when there is no holder, or the relay does not need one. Other errors are
    left for later: the options may turn out not to ask for shared hops.
    """
    if "--fdpass" in argv:  # such a relay may fork, and two processes must not have the same wire
        return None
    try:
        wire = place.connect(place.directory(environ))
        say(wire, argv, environ)
    except (place.Gone, RelayError, Ended):
        return None
    return wire


def say(wire: Wire, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Send the holder our arguments, environment and working directory. Raises Ended."""
    pairs = pack(f"{name}={value}" for name, value in environ.items())
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = "/"
    if not os.access(here, os.X_OK):  # as under `sudo -u` in a directory of one's own: the holder could not go there
        here = "/"
    wire.send("call", pack(argv), pairs, here)
