"""Taking over the moving of data from transports, and from those that carry them.

A transport reads and writes by its own thread until it is taken over: then its
Link does so, and the caller that polls the connection drives all of it.
"""

from __future__ import annotations

from relay.ssh.wire.busy import Busy
from relay.ssh.wire.connection import Connection
from relay.ssh.wire.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.ssh.wire.flow import Flow
    from relay.ssh.wire.library import paramiko
    from relay.ssh.wire.packets import Packetizer


def attach(channel: paramiko.Channel) -> Flow | None:
    """Take over a channel. From then on, Connection.receive moves its data, and the caller calls that.

    Only that thread may attach more channels to the connection. None when
    `take_over` is. Raises Busy, as that does.
    """
    link = take_over(channel.transport)
    if link is None:
        return None
    _settle(link.packetizer)  # what has come about the channel is with the channel
    flow = link.flow(channel)
    if flow.began:
        link.connection.begins()
    return flow


def take_over(transport: paramiko.Transport) -> Link | None:
    """Take over the moving of all data from a transport and from those that carry it, where that is not done yet.

    None when it has ended. Raises Busy where a transport's thread computes, and
    the caller serves other connections, too.
    """
    chain, carriers = _chain(transport)
    packetizers: list[Packetizer] = [each.packetizer for each in chain]
    reader = packetizers[-1].reader
    if reader is None:
        return None
    for packetizer in packetizers:
        # From the innermost: the outer ones still work, so what it is about to send, and waits for, gets through.
        _settle(packetizer)
    if any(packetizer.closed for packetizer in packetizers):
        _end_what_is_carried(packetizers)
        return None
    outermost = _link_of(packetizers[-1]) or Link(Connection(reader), chain[-1], None)
    link = outermost
    for each, carrier in zip(reversed(chain[:-1]), reversed(carriers), strict=True):
        link = _link_of(each.packetizer) or Link(link.connection, each, link.flow(carrier))
    for each in chain:
        each.sock = GivenUp()
    outermost.take()  # what had come before; it brings the inner ones theirs
    for packetizer in reversed(packetizers[:-1]):
        inner = _link_of(packetizer)
        if inner is not None and inner.carrier is not None:
            inner.carrier.catch_up()
    return link if link.error is None else None


def _settle(packetizer: Packetizer) -> None:
    """Wait until its transport's thread is done. Raises Busy where others would have to wait, too."""
    link = _link_of(packetizer)
    if link is None or not link.connection.turn:
        packetizer.park()
    elif not packetizer.is_settled():
        raise Busy(link.connection)


def _link_of(packetizer: Packetizer) -> Link | None:
    """What reads and writes for it: only `take_over` makes these."""
    return packetizer.link  # type: ignore[return-value]


def _end_what_is_carried(packetizers: Sequence[Packetizer]) -> None:
    """A transport that is parked does not see that the one that carries it has ended. The innermost comes first."""
    ended = False
    for packetizer in reversed(packetizers):
        if ended and not packetizer.closed:
            packetizer.give_up(EOFError())
        ended = ended or packetizer.closed


def _chain(transport: paramiko.Transport) -> tuple[list[paramiko.Transport], list[paramiko.Channel]]:
    """A transport and those that carry it, the innermost first, and the channels by which they do."""
    chain = [transport]
    carriers: list[paramiko.Channel] = []
    while (channel := chain[-1].packetizer.channel) is not None:
        carriers.append(channel)
        chain.append(channel.transport)
    return chain, carriers


class GivenUp:
    """What a transport has for a socket once its Link has taken that over: closing it is the Link's business."""

    def close(self) -> None:
        """Do nothing."""
