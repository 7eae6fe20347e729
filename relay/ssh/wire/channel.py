"""A channel of a hop as a stream. The pump or the next hop's session reads and writes it."""

from __future__ import annotations

from relay.ssh.wire.library import paramiko
from relay.ssh.wire.takeover import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from relay import contract
    from relay.errors import RelayError
    from relay.ssh.wire.flow import Flow

    Lost: TypeAlias = Callable[[BaseException | None], RelayError]  # says why a link ended; the error, if any, ended it

_LOST = (paramiko.SSHException, EOFError)  # paramiko raises these when it can no longer send a message


class ChannelStream:
    """Two-way bytes with half-close over one direct-tcpip channel (contract.Stream).

    lost: says why the link has ended.
    """

    carrier = ""
    descriptor = None

    def __init__(self, channel: paramiko.Channel, lost: Lost) -> None:
        self.channel = channel
        self._lost = lost

    def recv(self, size: int) -> bytes:
        """Receive at most size bytes; b"" is the end. Raises RelayError when the link is lost."""
        try:
            data: bytes = self.channel.recv(size)
        except _LOST as error:  # the WINDOW_ADJUST could not be sent
            raise self._lost(self.channel.transport.saved_exception or error) from error
        if not data and not self.channel.eof_received and not self.channel.transport.is_active():
            raise self.lost()
        return data

    def sendall(self, data: bytes) -> None:
        """Send all of data. It waits for room in the window. Raises RelayError when the link is lost."""
        try:
            self.channel.sendall(data)
        except OSError as error:
            if self.channel.transport.is_active():
                raise BrokenPipeError("the channel is closed") from error
            raise self.lost() from error
        except _LOST as error:
            raise self._lost(self.channel.transport.saved_exception or error) from error

    def shutdown_write(self) -> None:
        """Send EOF. The far side may still send."""
        self.channel.shutdown_write()

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """None: this process itself moves the stream's bytes."""
        return None

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError if the link is lost. Call it after reading the end."""
        if not self.channel.transport.is_active():
            raise self.lost()

    def close(self) -> None:
        """Close the channel; the session lives on."""
        self.channel.close()

    def attach(self) -> Flow | None:
        """Hand the channel over to the caller, which from now on drives the Flow's connection.

        None if the stream has ended: what had come before is still to be read. After a Flow has been returned, the
        methods above must not be used any more. Raises Busy, as contract.Stream.
        """
        return attach(self.channel)

    def lost(self) -> RelayError:
        """Why the link has ended."""
        return self._lost(None)

    def loss(self, flow: contract.Flow) -> RelayError | None:
        """Why an attached stream has ended; None if it ended in order."""
        return self._lost(flow.error) if flow.error is not None else None
