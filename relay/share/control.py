"""-O list, check, stop and exit: what a user may know of the shared hops, and do to them."""

from __future__ import annotations

import os
import time

from relay.errors import RelayError
from relay.share import place
from relay.share.wire import Ended, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.share.holder import Holder
    from relay.share.wire import Wire


PATIENCE = 5.0  # seconds that the holder has to answer


def command(name: str, environ: Mapping[str, str]) -> str:
    """Have the user's holder do it; what is to be printed. Raises RelayError when there is none."""
    until = time.monotonic() + PATIENCE
    try:
        wire = place.find(place.directory(environ), lambda: time.monotonic() < until)
    except place.Gone:
        raise RelayError("no hops are shared") from None
    try:
        wire.send(name)
        kind, fields = wire.receive()
        if kind != "lines":  # it was told to exit before it came to this
            raise Ended
    except Ended as error:
        raise RelayError("the process that holds the shared hops does not answer") from error
    finally:
        wire.close()
    return "".join(f"{text(line)}\n" for line in fields)


def answer(holder: Holder, wire: Wire, name: str) -> None:
    """The holder's side of it."""
    if name == "list":
        wire.send("lines", *_listing(holder))
    elif name == "check":
        wire.send("lines", f"Master running (pid={os.getpid()})")
    elif name == "stop":
        holder.stop()
        wire.send("lines", "Stop listening request sent.")
    elif name == "exit":
        holder.stop()  # whoever comes once it is said finds a new one
        wire.send("lines", "Exit request sent.")
        holder.exit()


def _listing(holder: Holder) -> list[str]:
    """A line for each hop: the way to it, since when, relays on it, bytes."""
    lines = []
    now = dict(holder.relays)
    for hop in holder.hops.all():
        moved = hop.moved + sum(served.moved for served, hops in now.items() if hop in hops)
        way = "/".join(each.name for each in hop.path)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(hop.since))
        state = f"since {since}" if hop.session is not None else "logging in"
        relays = "1 relay" if hop.relays == 1 else f"{hop.relays} relays"
        lines.append(f"{way}: {state}, {relays}, {moved} bytes")
    return lines
