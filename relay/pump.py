"""The relay: stdin and stdout against a stream, in both directions at once, with half-close in both."""

from __future__ import annotations

import os
import select
import socket
from _thread import start_new_thread

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.channel import ChannelStream

SIZE = 256 * 1024


def relay(stream: socket.socket | ChannelStream, stdin: int, stdout: int, *, parent: int) -> int:
    """Relay until both directions are done or ssh has gone; return the exit status. Raises RelayError."""
    done, at_end = os.pipe()
    failure: list[RelayError] = []

    def up() -> None:
        try:
            while data := os.read(stdin, SIZE):
                stream.sendall(data)
            if isinstance(stream, socket.socket):
                stream.shutdown(socket.SHUT_WR)
            else:
                stream.shutdown_write()
        except (OSError, RelayError):
            pass  # the other direction knows why

    def down() -> None:
        try:
            while data := stream.recv(SIZE):
                view = memoryview(data)
                while view:
                    view = view[os.write(stdout, view) :]
        except RelayError as error:
            failure.append(error)
        except OSError:
            pass
        os.close(at_end)

    start_new_thread(up, ())
    start_new_thread(down, ())
    poll = select.poll()
    poll.register(done, 0)
    poll.register(stdout, 0)
    poll.poll()
    if failure:
        raise failure[0]
    return 0
