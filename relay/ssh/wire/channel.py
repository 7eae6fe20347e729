"""A channel of a hop as a stream: what the pump and the next hop's session read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.ssh.wire.library import paramiko
from relay.ssh.wire.takeover import attach

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from relay import contract
    from relay.errors import RelayError
    from relay.ssh.wire.flow import Flow

    Lost: TypeAlias = Callable[[BaseException | None], RelayError]  # says why a link has ended, if by this error

_LOST = (paramiko.SSHException, EOFError)  # what paramiko raises when a message cannot be sent any more


class ChannelStream:
    """Two-way bytes with half-close over one direct-tcpip channel (contract.Stream).

    lost: says why its link has ended.
    """

    carrier = ""
    descriptor = None

    def __init__(self, channel: paramiko.Channel, lost: Lost) -> None:
        self.channel = channel
        self._lost = lost

    def recv(self, size: int) -> bytes:
        """At most size bytes; b"" at the far side's end. Raises RelayError when the link is lost."""
        try:
            data: bytes = self.channel.recv(size)
        except _LOST as error:  # the refill of the window could not be sent
            raise self._lost(self.channel.transport.saved_exception or error) from error
        if not data and not self.channel.eof_received and not self.channel.transport.is_active():
            raise self.lost()
        return data

    def sendall(self, data: bytes) -> None:
        """All of data, when the far side's window has room. Raises RelayError when the link is lost."""
        try:
            self.channel.sendall(data)
        except OSError as error:
            if self.channel.transport.is_active():
                raise BrokenPipeError("the channel is closed") from error
            raise self.lost() from error
        except _LOST as error:
            raise self._lost(self.channel.transport.saved_exception or error) from error

    def shutdown_write(self) -> None:
        """No more will be sent; the far side may still send."""
        self.channel.shutdown_write()

    def wait_for_close(self, seconds: float) -> bool:
        """Whether the hop closes the channel within so long: it does once the target has got everything."""
        with self.channel.out_buffer_cv:
            return bool(self.channel.out_buffer_cv.wait_for(lambda: self.channel.closed, seconds))

    def serve(self, _stdin: int, _stdout: int, *, parent: int, alarm: int) -> int | None:  # noqa: ARG002
        """None: it is this process that has the stream."""
        return None

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the link is lost. For whoever has read the end."""
        if not self.channel.transport.is_active():
            raise self.lost()

    def close(self) -> None:
        """Close the channel; the session lives on."""
        self.channel.close()

    def attach(self) -> Flow | None:
        """Leave the moving of bytes to the caller, who from now on drives the Flow's connection.

        None when a hop's cipher or compression does not let it: then there are
        the methods above, which must not be used any more otherwise.
        """
        return attach(self.channel)

    def lost(self) -> RelayError:
        """Why the link has ended."""
        return self._lost(None)

    def loss(self, flow: contract.Flow) -> RelayError | None:
        """Why an attached stream has ended, when that was no orderly end."""
        return self._lost(flow.error) if flow.error is not None else None
