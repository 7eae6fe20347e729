"""Between a stream and stdin and stdout. Here is the door: the right mover for a stream, by the contract.

What ends a relay is in rules.py. How bytes are moved is in way.py where a socket is the stream, and in channels.py
where they pass through this process. Where the stream came from is not known here.
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

SIZE = 64 * 1024  # bytes delivered at once of a stream that has ended


def relay(stream: contract.Stream, stdin: int, stdout: int, *, parent: int, alarm: int = -1) -> int:
    """Relay until it is over; return the exit status.

    alarm: a descriptor that says that a signal has come (guard.alarm), or -1.
    parent: the process that started this one. Another parent means that ssh
    has gone, but only until a byte of the target has been delivered.

    Raises RelayError when the link is lost, once what had arrived is delivered.
    """
    if (descriptor := stream.descriptor) is not None:
        drive(_between(descriptor, Stdio(stdin), Stdio(stdout), stream.check), parent=parent, alarm=alarm)
        return 0

    if (status := stream.serve(stdin, stdout, parent=parent, alarm=alarm)) is not None:
        return status

    from relay.pump.channels import ChannelRelay  # a raw relay has none

    if (flow := stream.attach()) is not None:
        ChannelRelay(stream, flow, Stdio(stdin), Stdio(stdout), parent).run(alarm)
        return 0

    # It has ended before anybody could move its bytes: what had come is delivered; recv raises why, if it was lost.
    try:
        while data := memoryview(stream.recv(SIZE)):
            while data:
                data = data[os.write(stdout, data) :]
    except BrokenPipeError:
        pass  # ssh has gone
    return 0


def _between(descriptor: socket, stdin: Stdio, stdout: Stdio, check: Callable[[], None]) -> Mover:
    """The mover for a socket that is the stream. check: as for Mover."""
    net = Stream(descriptor)
    return Mover(CarriedWay(stdin, net), CarriedWay(net, stdout), check)
