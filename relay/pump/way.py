"""One direction of a relay: takes bytes from one end and gives them to the other, and never waits for either.

It takes more bytes only when it has given all that it holds. So a slow reader
slows its sender down, and memory stays bounded.

On Linux, splice moves the bytes between a pipe and the stream; they never come
into this process: small messages from end to end, more by way of a pipe between.
The splice must not wait: the kernel would hold the pipe's lock meanwhile, and
ssh's own read of that pipe would hang. All other bytes are read and written.

Other processes share the open files stdin and stdout (the shell has the same
terminal): if O_NONBLOCK were set here, it would be set for them, too. So each
call is told not to wait, or the pipe is opened anew. A file's flags are changed
only where neither is possible (`Stdio.do_not_wait`).

A Way does not know which of the two directions it is, nor what ends a relay.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
from _socket import MSG_DONTWAIT, SHUT_WR
from errno import EINVAL, ENOSYS, EOPNOTSUPP, EPERM, EPIPE
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT

CHUNK = 64 * 1024  # bytes read at once where splice cannot be used
LITTLE = 4096  # bytes; what moves no more at once is a conversation, and no transfer
PIPE_SIZE = 256 * 1024  # bytes; all pipes of a user may hold 64 MiB together (pipe-user-pages-soft)
DEVICE_CHUNK = 4096  # bytes; a write to a terminal may wait after all, so it is kept short
_NO_SPLICE = {EINVAL, ENOSYS, EOPNOTSUPP, EPERM}  # errors of a kernel, or a sandbox, that cannot splice these files
_FAULT = POLLERR | POLLHUP | POLLNVAL  # poll reports these unasked; the next move finds out what they mean


class Way:
    """One direction: from a source to a sink.

    waits_for, event: the file descriptor and the event to poll for before the next move.
    """

    def __init__(self, source: End, sink: End) -> None:
        self.source = source
        self.sink = sink
        self.wait_for(source)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at the end of the source, None when either end is not ready.

        Raises ReadError and WriteError.
        """
        raise NotImplementedError

    def is_ready(self, happened: dict[int, int]) -> bool:
        """Whether the next move can do something. happened: events by file descriptor, as poll returns them."""
        return bool(happened.get(self.waits_for, 0) & (self.event | _FAULT))

    def wait_for(self, end: End) -> None:
        """Wait for this end of the way before the next move."""
        self.waits_for = end.fd
        self.event = POLLIN if end is self.source else POLLOUT

    def close(self) -> None:
        """Free what the moves needed."""


class CarriedWay(Way):
    """A way between two file descriptors. held: bytes that the carrier has taken and not yet given.

    While it holds some, it waits for the sink, else for the source.
    """

    def __init__(self, source: End, sink: End) -> None:
        super().__init__(source, sink)
        self.held = 0
        self.carrier: _Pipe | _Buffer = _carrier(source, sink)
        self._past_carrier = False  # the next bytes are most likely few: try to move them without the carrier

    def move(self) -> int | None:
        """Move some bytes; as Way.move."""
        if self._past_carrier and (moved := self._move_past_carrier()) is not None:
            return moved
        try:
            if not self.held:
                self.held = self.carrier.take(self.source)
                if not self.held:
                    return 0
            given = self.carrier.give(self.sink, self.held)
        except BlockingIOError:
            given = None
        except OSError as error:
            if isinstance(self.carrier, _Pipe) and error.errno in _NO_SPLICE:
                self.carrier = self.carrier.as_buffer(self.held)
                self.source.do_not_wait()
                self.sink.do_not_wait()
                return self.move()
            raise (WriteError if self.held else ReadError)(error) from error
        if given:
            self.held -= given
        if self.held or self.event == POLLOUT:
            self.wait_for(self.sink if self.held else self.source)
        elif given and given < LITTLE:
            self._past_carrier = isinstance(self.carrier, _Pipe)
        return given

    def _move_past_carrier(self) -> int | None:
        """Move a few bytes by one splice between the pipe and the stream; None: the carrier is to do it."""
        try:
            moved = os.splice(self.source.fd, self.sink.fd, LITTLE, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            self._past_carrier = False
            if isinstance(error, BlockingIOError) or error.errno in _NO_SPLICE:
                return None  # one of the two is not ready: the carrier finds out which
            # A pipe knows no error but that its reader has gone. The stream says its own only once.
            raise (ReadError if self.sink.is_pipe and error.errno != EPIPE else WriteError)(error) from error
        self._past_carrier = moved < LITTLE
        return moved

    def close(self) -> None:
        """Close the carrier's pipe, if it has one."""
        self.carrier.close()


class _Buffer:
    """Carries bytes through this process."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = memoryview(data)

    def take(self, source: End) -> int:
        """Read some bytes; return how many, 0 at the end. Raises OSError."""
        self.data = memoryview(source.read(CHUNK))
        return len(self.data)

    def give(self, sink: End, _held: int) -> int:
        """Write some of the held bytes; return how many. Raises OSError."""
        written = sink.write(self.data[: sink.chunk])
        self.data = self.data[written:]
        return written

    def close(self) -> None:
        """Do nothing: a buffer has nothing to close."""


class _Pipe:
    """Carries bytes past this process, through a pipe of its own, by splices that never wait.

    Between a pipe and a socket, one splice would do. But it holds the pipe's lock
    as long as TCP takes, and the process at the pipe's other end waits for that
    lock. Two splices are a fifth faster and cost less: the one between the two
    pipes only moves pages.
    """

    def __init__(self) -> None:
        self.outlet, self.inlet = os.pipe()
        _widen(self.inlet)

    def take(self, source: End) -> int:
        """Splice some bytes in; return how many, 0 at the end. Raises OSError."""
        return os.splice(source.fd, self.inlet, PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK)

    def give(self, sink: End, held: int) -> int:
        """Splice some of the held bytes out; return how many. Raises OSError."""
        return os.splice(self.outlet, sink.fd, held, flags=os.SPLICE_F_NONBLOCK)

    def as_buffer(self, held: int) -> _Buffer:
        """Close the pipe, and return a buffer with the held bytes: the system turns out not to splice these files."""
        data = os.read(self.outlet, held) if held else b""
        self.close()
        return _Buffer(data)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.outlet)
        os.close(self.inlet)


def _carrier(source: End, sink: End) -> _Pipe | _Buffer:
    """The carrier between two ends: a pipe where splice can be used (between the stream and a pipe), else a buffer.

    With other kinds of stdin and stdout, some splices wait although they are told
    not to (to a socket in older kernels, from a terminal), and some are refused (to
    a file opened to append).
    """
    if hasattr(os, "splice") and (source.is_pipe or sink.is_pipe):
        try:
            return _Pipe()
        except OSError:
            pass  # no more file descriptors
    source.do_not_wait()
    sink.do_not_wait()
    return _Buffer()


class End:
    """One end of a way. Its calls never wait, except for devices and files.

    is_pipe: whether it is a pipe, so that splice can be used. is_device: a terminal, /dev/null and the like.
    chunk: bytes to write at once.
    """

    fd: int
    is_pipe = False
    is_device = False
    chunk = CHUNK

    def read(self, size: int) -> bytes:
        """Read some bytes; b"" at the end. Raises OSError, and BlockingIOError when there are none yet."""
        return os.read(self.fd, size)

    def write(self, data: memoryview) -> int:
        """Write some of data; return how many bytes. Raises OSError, and BlockingIOError when there is no room."""
        return os.write(self.fd, data)

    def do_not_wait(self) -> None:
        """Prepare for read and write where splice cannot be used."""

    def end(self) -> None:
        """Show the end of file to the reader of this end."""

    def restore(self) -> None:
        """Leave the open file as it was."""


class Stream(End):
    """The network's end: a socket that no other process has."""

    def __init__(self, stream: _socket.socket) -> None:
        stream.setblocking(False)
        self.fd = stream.fileno()
        self.stream = stream

    def end(self) -> None:
        """Tell the target that nothing follows."""
        try:
            self.stream.shutdown(SHUT_WR)
        except OSError:
            pass  # the target has gone: the next read finds that out, too


class Stdio(End):
    """stdin or stdout: any kind of open file; other processes may share it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.was_blocking = False
        self.socket: _socket.socket | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            self.is_pipe = True
            _widen(fd)
        elif stat.S_ISSOCK(mode):
            self.socket = _socket.socket(fileno=fd)
        elif stat.S_ISCHR(mode):
            self.is_device = True
            self.chunk = DEVICE_CHUNK

    def read(self, size: int) -> bytes:
        """Read some bytes; b"" at the end. Raises OSError."""
        return self.socket.recv(size, MSG_DONTWAIT) if self.socket else os.read(self.fd, size)

    def read_into(self, views: list[memoryview]) -> int:
        """Read into one view after the other; return how many bytes, 0 at the end. Raises OSError."""
        return self.socket.recvmsg_into(views, 0, MSG_DONTWAIT)[0] if self.socket else os.readv(self.fd, views)

    def write(self, data: memoryview) -> int:
        """Write some of data; return how many bytes. Raises OSError."""
        return self.socket.send(data, MSG_DONTWAIT) if self.socket else os.write(self.fd, data)

    def do_not_wait(self) -> None:
        """See to it that a pipe has O_NONBLOCK: without splice, only that keeps a write from waiting.

        Where the pipe cannot be opened anew, its open file gets the flag, as ssh does it. A relay that has the same
        file then waits after all, once this one has ended.
        """
        if self.is_pipe and not _open_anew(self.fd) and os.get_blocking(self.fd):
            os.set_blocking(self.fd, False)
            self.was_blocking = True

    def end(self) -> None:
        """Show the end of file to the reader of this file."""
        if self.socket:
            try:
                self.socket.shutdown(SHUT_WR)
            except OSError:
                pass  # the reader has gone
            return
        self.restore()
        show_end(self.fd)

    def restore(self) -> None:
        """Leave the open file as it was."""
        if self.socket:
            self.socket.detach()
        if self.was_blocking:
            os.set_blocking(self.fd, True)
            self.was_blocking = False


class EndError(Exception):
    """Reading or writing an end of a way failed."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class ReadError(EndError):
    """Reading the source failed."""


class WriteError(EndError):
    """Writing the sink failed."""


def show_end(fd: int) -> None:
    """Show the end of file to the reader at the other end of a descriptor: it becomes /dev/null here.

    (If the descriptor were only closed, the next file to be opened would get its number, and become stdout.)
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def _open_anew(pipe: int) -> bool:
    """Give a pipe's descriptor an open file of its own, with O_NONBLOCK; return whether that was possible."""
    name = f"/proc/self/fd/{pipe}"
    try:
        if not os.readlink(name).startswith("pipe:"):
            return False  # a FIFO with a name: one that is opened after its writers have left does not report that
        anew = os.open(name, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_NONBLOCK)
    except OSError:
        return False  # there is no /proc, or the pipe is another user's
    os.dup2(anew, pipe, os.get_inheritable(pipe))
    os.close(anew)
    return True


def _widen(pipe: int) -> None:
    """Let a pipe hold PIPE_SIZE bytes, so that each splice moves more; it never fails."""
    try:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (OSError, AttributeError):
        pass  # EPERM: this user's pipes together may not hold more
