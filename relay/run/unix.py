"""Unix sockets: connecting; which user is at the other end; sending and receiving descriptors (unix(7))."""

from __future__ import annotations

import os
import sys
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Sequence

_FD = 4  # bytes of a descriptor's number in a control message: a C int
_KNOCK_AGAIN = 0.02  # seconds, when the queue of the other side's listen() is full


def connect(sock: socket, path: str, left: Callable[[], float]) -> None:
    """Connect to the socket at path. left: returns the seconds that are left, and raises when there are none.

    Where the queue there is full, ssh and nc wait in the system's call. A socket with a time limit is told EAGAIN in
    place of that, and has to ask again. Raises OSError, and what `left` raises.
    """
    while True:
        sock.settimeout(left())
        try:
            return sock.connect(path)
        except BlockingIOError:
            sleep(min(_KNOCK_AGAIN, left()))


def peer_uid(sock: socket) -> int:
    """The user at the other end of a connected socket. Raises OSError."""
    if sys.platform == "linux":
        from _socket import SO_PEERCRED  # only Linux has it

        credentials = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    else:
        credentials = sock.getsockopt(0, 1, 8)  # SOL_LOCAL, LOCAL_PEERCRED: struct xucred, version and uid first
    return int.from_bytes(credentials[4:8], sys.byteorder)


def peer_pid(sock: socket) -> int:
    """The process at the other end of a connected socket, 0 where the system does not tell. Raises OSError."""
    if sys.platform != "linux":
        return 0
    from _socket import SO_PEERCRED

    return int.from_bytes(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 4), sys.byteorder)


def send(sock: socket, data: bytes, fds: Sequence[int]) -> int:
    """Send some of data (at least one byte), with descriptors; return how many bytes. Raises OSError."""
    return sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, b"".join(fd.to_bytes(_FD, sys.byteorder) for fd in fds))])


def receive(sock: socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive at most size bytes, and at most `most` descriptors, which the caller must close. Raises OSError.

    Programs that are started do not inherit them. Python itself makes only the descriptors that it opens
    non-inheritable, not those that are received.
    """
    data, control, _, _ = sock.recvmsg(size, CMSG_SPACE(most * _FD))
    fds: list[int] = []
    for level, kind, numbers in control:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            whole = len(numbers) - len(numbers) % _FD
            fds += [int.from_bytes(numbers[at : at + _FD], sys.byteorder) for at in range(0, whole, _FD)]
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, fds
