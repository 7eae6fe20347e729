"""A relay's first word to the holder: how it was called, said before it knows itself what that means.

The holder opens what is most likely wanted (ahead.py) while the relay imports
what reads its options, and ssh its files. So this room imports next to nothing.
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
    """A holder that has been told, and has not answered yet; None when there is none, or no use for one.

    Whatever else is wrong is found when it is known that hops are to be shared.
    """
    if "--fdpass" in argv:  # who hands its stream over forks, and must not have a wire twice
        return None
    try:
        wire = place.connect(place.directory(environ))
        say(wire, argv, environ)
    except (place.Gone, RelayError, Ended):
        return None
    return wire


def say(wire: Wire, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Tell it: arguments, environment, and where we are. Raises Ended."""
    pairs = pack(f"{name}={value}" for name, value in environ.items())
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        here = "/"
    wire.send("call", pack(argv), pairs, here)
