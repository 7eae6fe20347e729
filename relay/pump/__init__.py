"""Relays bytes between a stream and stdin and stdout. `relay` chooses the mover that the stream's contract asks for.

rules.py decides what ends a relay. way.py moves the bytes when a socket is the stream; channels.py does so when they
pass through this process. Nothing here knows where the stream came from.
"""

from __future__ import annotations

import os

from relay.pump.mover import Mover, drive
from relay.pump.way import CarriedWay, Stdio, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from relay import contract

SIZE = 64 * 1024  # bytes read at once from a stream that has ended


def relay(stream: contract.Stream, stdin: int, stdout: int, *, parent: int, alarm: int = -1) -> int:
    """Relay until neither way is open; return the exit status.

    alarm: a descriptor that can be read from once a signal has come (guard.alarm), or -1.
    parent: the process that started this one. If the parent changes, ssh has gone;
    after the target's first byte is delivered, that no longer counts.

    Raises RelayError when the link is lost, after it has delivered all bytes that arrived.
    """
    if (descriptor := stream.descriptor) is not None:
        drive(_between(descriptor, Stdio(stdin), Stdio(stdout), stream.check), parent=parent, alarm=alarm)
        return 0

    if (status := stream.serve(stdin, stdout, parent=parent, alarm=alarm)) is not None:
        return status

    from relay.pump.channels import ChannelRelay  # a raw relay does not need it

    if (flow := stream.attach()) is not None:
        ChannelRelay(stream, flow, Stdio(stdin), Stdio(stdout), parent).run(alarm)
        return 0

    # The stream ended before a mover could attach. Deliver what had arrived; recv raises the reason if it was lost.
    try:
        while data := memoryview(stream.recv(SIZE)):
            while data:
                data = data[os.write(stdout, data) :]
    except BrokenPipeError:
        pass  # ssh has gone
    return 0


def _between(descriptor: socket, stdin: Stdio, stdout: Stdio, check: Callable[[], None]) -> Mover:
    """The mover for a stream that is a socket. check: as for Mover."""
    net = Stream(descriptor)
    return Mover(CarriedWay(stdin, net), CarriedWay(net, stdout), check)
