"""A stream that is not its descriptor, for a hop, which is reached over one: two threads pass its bytes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.dial.stream import SocketStream
from relay.pump.bridge import Bridge

if TYPE_CHECKING:
    from relay.contract import Stream


class BridgedStream(SocketStream):
    """One end of a socket pair, whose other end is the stream."""

    def __init__(self, stream: Stream) -> None:
        self._bridge = Bridge(stream).__enter__()  # type: ignore[arg-type]  # it is no channel, but does what they do
        self._stream = stream
        super().__init__(self._bridge.socket)

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the stream has ended in no good order. For whoever has read its end."""
        self._bridge.check()
        self._stream.check(heard=heard)

    def close(self) -> None:
        """Give both up."""
        super().close()
        self._stream.close()
