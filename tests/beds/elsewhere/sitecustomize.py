"""Hides from a Python program what only Linux has: on its PYTHONPATH, this runs before anything else does.

What is hidden: splice and the size of pipes, epoll, pidfds, TCP_QUICKACK, SO_PEERCRED, abstract unix
sockets, and /proc. sys.platform is "darwin". At the other end of a unix socket LOCAL_PEERCRED says who
is there, as on macOS and the BSDs. MIT's GSS-API stands where macOS has its own. What is not hidden, as it is not
Python's: libuv, which uvloop runs on.
"""

import _ctypes
import _socket
import builtins
import errno
import fcntl
import io
import os
import select
import sys
from pathlib import Path
from typing import Any

HIDDEN = {
    os: ("splice", "SPLICE_", "pidfd_open", "memfd_create", "eventfd", "pipe2", "posix_fadvise", "sched_"),
    fcntl: ("F_SETPIPE_SZ", "F_GETPIPE_SZ"),
    select: ("epoll", "EPOLL"),
    _socket: ("TCP_QUICKACK", "SO_PEERCRED", "SO_PASSCRED", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_USER_TIMEOUT"),
}
SOL_LOCAL, LOCAL_PEERCRED = 0, 1  # <sys/un.h> of macOS and the BSDs
SO_PEERCRED = _socket.SO_PEERCRED


class Socket(_socket.socket):
    """A socket of a system that has no abstract addresses, and says who is there as a BSD does."""

    __slots__ = ()  # as its base has none: socket.socket adds a weak reference of its own

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        if self.family == _socket.AF_UNIX and (level, option) == (SOL_LOCAL, LOCAL_PEERCRED):
            uid = super().getsockopt(_socket.SOL_SOCKET, SO_PEERCRED, 12)[4:8]
            return ((0).to_bytes(4, sys.byteorder) + uid)[:size]  # struct xucred: version, uid, more
        return super().getsockopt(level, option, size) if size else super().getsockopt(level, option)

    def bind(self, address: Any) -> None:
        super().bind(_in_the_file_system(self.family, address))

    def connect(self, address: Any) -> None:
        super().connect(_in_the_file_system(self.family, address))


def _in_the_file_system(family: int, address: Any) -> Any:
    if family == _socket.AF_UNIX and os.fsencode(address)[:1] == b"\0":
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return address


def _without_proc(function: Any) -> Any:
    """The same function of a path, on a system without /proc."""

    def without(path: Any, *more: Any, **named: Any) -> Any:
        if isinstance(path, str | bytes | Path) and os.fsencode(path).startswith(b"/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return function(path, *more, **named)

    return without


def _with_gssapi(dlopen: Any) -> Any:
    """The same function of a library's path, on a system that has GSS.framework."""

    def loaded(path: Any, *more: Any) -> Any:
        return dlopen("libgssapi_krb5.so.2" if str(path).endswith("/GSS.framework/GSS") else path, *more)

    return loaded


def _hide() -> None:
    """Hide it from this process."""
    for module, prefixes in HIDDEN.items():
        for name in [name for name in vars(module) if name.startswith(prefixes)]:
            delattr(module, name)
    _socket.socket = _socket.SocketType = Socket  # type: ignore[misc]
    builtins.open = io.open = _without_proc(open)
    for name in ("open", "listdir", "scandir", "stat", "lstat", "readlink"):
        setattr(os, name, _without_proc(getattr(os, name)))
    _ctypes.dlopen = _with_gssapi(_ctypes.dlopen)
    sys.platform = "darwin"
    here = os.uname()
    os.uname = lambda: os.uname_result(("Darwin", *here[1:4], "arm64"))  # (where structures are as on Linux)


# In an environment of its own, as the program under test is; borg, Ansible and others are the system's.
if sys.prefix != sys.base_prefix:
    _hide()
