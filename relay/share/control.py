"""-O list, check, stop and exit: show the user the shared hops, or end them."""

from __future__ import annotations

import time

from relay.errors import RelayError, Unserved, printable
from relay.share import place
from relay.share.wire import Ended, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.share.wire import Wire


NOTHING = "no hops are shared"
PATIENCE = 5.0  # seconds that the holder has to answer


def command(name: str, environ: Mapping[str, str]) -> str:
    """Have the user's holder carry out the command; return the text to print. Raises RelayError without a holder."""
    until = time.monotonic() + PATIENCE
    try:
        path = place.directory(environ, make=False)
    except place.Gone:
        raise RelayError(NOTHING) from None
    try:
        wire = _find(name, path, until)
    except place.Gone:
        raise _nothing(path) from None
    try:
        kind, fields = wire.receive()
        if kind != "lines":  # the holder was told to exit before it could answer
            raise Ended
    except Ended as error:
        raise RelayError("the process that holds the shared hops does not answer") from error
    finally:
        wire.close()
    return "".join(f"{text(line)}\n" for line in fields)


def _nothing(path: str) -> RelayError:
    """The error where no holder is: but one of another version may be, which speaks otherwise."""
    others = place.others(path)
    if not others:
        return RelayError(NOTHING)
    versions = " and ".join(version for version, _ in others)
    ends = "; ".join(f"kill {pid}" for _, pid in others if pid)
    return RelayError(
        f"this version shares no hops, and pyrelay {printable(versions, 60)} still does",
        hint="`pyrelay -O exit` of that version ends them" + (f", and so does `{ends}`" if ends else ""),
    )


def _find(name: str, path: str, until: float) -> Wire:
    """Connect to the holder, and tell it the command. Raises RelayError, and Gone when there is none."""
    while True:
        try:
            return place.find(path, lambda wire: wire.send(name), lambda: time.monotonic() < until)
        except Unserved:  # it has no room for relays, and has not waited until it knew that this is none
            if time.monotonic() > until:
                raise
        time.sleep(place.LOOK_ROUND)
