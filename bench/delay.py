"""A far network on one machine: python delay.py MS LISTEN:TARGET... puts a round trip of MS milliseconds between ports.

A client that connects to the port LISTEN reaches the port TARGET. Every byte
takes half a round trip in each direction. Connecting costs a round trip, too: the
target sees the connection after one and a half, and no byte of the client's
arrives sooner.

A real network differs: here bandwidth has no limit, nothing is lost, and no
congestion window must grow first. The client's connect returns at once; its first
bytes are held for the round trip instead, so the client can use that time. Both
ends of a line acknowledge at once (TCP_QUICKACK on Linux). So a program that
leaves Nagle's algorithm on pays nothing here; on a real network it would pay a
round trip.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from collections import deque
from functools import partial
from typing import cast

HOST = "127.0.0.1"
QUICKACK: int = getattr(socket, "TCP_QUICKACK", 0)


class End(asyncio.Protocol):
    """One end of a line: its bytes reach the other end a trip later.

    trip: seconds, one way. opens: a time on the loop's clock; bytes sent before it leave at that time.
    """

    other: End

    def __init__(self, trip: float) -> None:
        self.trip = trip
        self.opens = 0.0
        self._transport: asyncio.Transport | None = None
        # On the way to this end. b"" is the end-of-file, None the loss of the connection.
        self._coming: deque[bytes | None] = deque()
        self._late = 0  # how many of these have arrived and wait for the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when this end is connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._acknowledge()
        for _ in range(self._late):
            self._deliver()

    def data_received(self, data: bytes) -> None:
        """Called when bytes come from this end."""
        self._acknowledge()
        self._send(data)

    def eof_received(self) -> bool:
        """Called at end-of-file from this end, which still reads."""
        self._send(b"")
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """Called when the connection of this end is lost."""
        self._send(None)

    def _acknowledge(self) -> None:
        """Acknowledge without the kernel's delay of up to 40 ms. The kernel resets this option by itself."""
        if QUICKACK and self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)

    def _send(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self.other._coming.append(data)
        loop.call_at(max(loop.time(), self.opens) + self.trip, self.other._deliver)

    def _deliver(self) -> None:
        """Deliver the bytes that left first. There is one call for each item, so the order stays."""
        if self._transport is None:
            self._late += 1
            return
        data = self._coming.popleft()
        if self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
        elif data is None:
            self._transport.close()
        else:
            try:
                self._transport.write_eof()
            except OSError:
                pass  # reset meanwhile: connection_lost follows


class Client(End):
    """The end that connects. We connect to the target at the time when it would have seen the client's connection."""

    def __init__(self, trip: float, target: int) -> None:
        super().__init__(trip)
        self.other = End(trip)
        self.other.other = self
        self._target = target
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the client is connected, as far as it knows."""
        super().connection_made(transport)
        self.opens = asyncio.get_running_loop().time() + 2 * self.trip
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.opens + self.trip - loop.time())
        try:
            await loop.create_connection(lambda: self.other, HOST, self._target)
        except OSError:
            self._coming.append(None)
            self._deliver()


async def serve(trip: float, lines: list[str]) -> None:
    """Serve lines, each LISTEN:TARGET, for ever."""
    loop = asyncio.get_running_loop()
    for line in lines:
        listen, target = map(int, line.split(":"))
        await loop.create_server(partial(Client, trip, target), HOST, listen)
    await loop.create_future()


if __name__ == "__main__":
    # select counts microseconds; epoll would round up to milliseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(float(sys.argv[1]) / 2000, sys.argv[2:]))
