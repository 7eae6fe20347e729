"""A far network on one machine: python delay.py MS LISTEN:TARGET... puts a round trip of MS milliseconds between ports.

What connects to the port LISTEN reaches the port TARGET, and every byte takes
half a round trip, each way. A connection costs a round trip, too: the target
sees it after one and a half, and nothing that the client says arrives sooner.

What this is not: bandwidth has no limit, nothing is lost, and no congestion
window must grow first. The client's connect returns at once, and its first
bytes are held for that round trip instead; so it may do meanwhile what it would
else do after. Both ends of a line acknowledge at once (TCP_QUICKACK on
Linux), so nobody pays here for leaving Nagle's algorithm on, where a real network
would make it pay a round trip.
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
    """One end of a line: what is said here reaches the other end a trip later.

    trip: seconds, one way. opens: on the loop's clock; what is said before leaves then.
    """

    other: End

    def __init__(self, trip: float) -> None:
        self.trip = trip
        self.opens = 0.0
        self._transport: asyncio.Transport | None = None
        self._coming: deque[bytes | None] = deque()  # on the way to here; b"" is the end of the data, None that of all
        self._late = 0  # how much of it waits for a connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The end is connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._acknowledge()
        for _ in range(self._late):
            self._deliver()

    def data_received(self, data: bytes) -> None:
        """The end says something."""
        self._acknowledge()
        self._send(data)

    def eof_received(self) -> bool:
        """The end says no more, but listens."""
        self._send(b"")
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """The end has gone."""
        self._send(None)

    def _acknowledge(self) -> None:
        """Acknowledge without the kernel's delay of up to 40 ms, which it takes back by itself."""
        if QUICKACK and self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)

    def _send(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self.other._coming.append(data)
        loop.call_at(max(loop.time(), self.opens) + self.trip, self.other._deliver)

    def _deliver(self) -> None:
        """Deliver what has been on its way for longest: one call for each, so the order stays."""
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
    """The end that connects; the target is connected to when it would have seen that."""

    def __init__(self, trip: float, target: int) -> None:
        super().__init__(trip)
        self.other = End(trip)
        self.other.other = self
        self._target = target
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is connected, as far as it knows."""
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
    # select takes microseconds, where epoll would round up to milliseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(float(sys.argv[1]) / 2000, sys.argv[2:]))
