"""One direction of a relay: bytes taken from one end and given to the other, never waiting for either.

Nothing is taken before what was taken is given, so a slow reader holds its
sender up and memory stays bounded.

On Linux, bytes between a pipe and the stream are moved by splice and never
come into this process. Never by a splice that waits: the kernel holds the
pipe's lock meanwhile, and ssh's own read of that pipe sticks with it.
Everything else is read and written.

stdin and stdout are open files that other processes share (a terminal with the
shell): O_NONBLOCK set here would hold there, too. So each call is told not to
wait, and no file's flags are changed; `Stdio.do_not_wait` is the one exception.

Does not know which way it is, nor what ends a relay.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
from _socket import MSG_DONTWAIT, SHUT_WR
from errno import EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT

CHUNK = 64 * 1024  # bytes read at once where splice does not serve
PIPE_SIZE = 256 * 1024  # bytes; all pipes of a user may hold 64 MiB together (pipe-user-pages-soft)
DEVICE_CHUNK = 4096  # bytes; a write to a terminal may wait after all, so it is kept short
_NO_SPLICE = {EINVAL, ENOSYS, EOPNOTSUPP, EPERM}  # what a kernel or a sandbox says that does not splice this
_FAULT = POLLERR | POLLHUP | POLLNVAL  # these come without being asked for, and a move finds out what they mean


class Way:
    """One direction: from a source to a sink.

    open: there is more to come. waits_for, event: the file descriptor and the
    event to poll for before the next move.
    """

    def __init__(self, source: End, sink: End) -> None:
        self.source = source
        self.sink = sink
        self.open = True
        self.wait_for(source)

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at the end of the source, None when either end is not ready.

        Raises ReadError and WriteError.
        """
        raise NotImplementedError

    def is_ready(self, happened: dict[int, int]) -> bool:
        """Whether the next move may get on. happened: events by file descriptor, as poll has them."""
        return bool(happened.get(self.waits_for, 0) & (self.event | _FAULT))

    def wait_for(self, end: End) -> None:
        """Make an end of this way the one that is waited for."""
        self.waits_for = end.fd
        self.event = POLLIN if end is self.source else POLLOUT

    def close(self) -> None:
        """Give back what the moving needed."""


class CarriedWay(Way):
    """A way between two file descriptors, with a carrier between. held: bytes taken and not yet given."""

    def __init__(self, source: End, sink: End) -> None:
        super().__init__(source, sink)
        self.held = 0
        self.carrier: _Pipe | _Buffer = _carrier(source, sink)

    def move(self) -> int | None:
        """Move some bytes, as any Way does."""
        try:
            if not self.held:
                self.wait_for(self.source)
                self.held = self.carrier.take(self.source)
                if not self.held:
                    return 0
            self.wait_for(self.sink)
            given = self.carrier.give(self.sink, self.held)
        except BlockingIOError:
            return None
        except OSError as error:
            if isinstance(self.carrier, _Pipe) and error.errno in _NO_SPLICE:
                self.carrier = self.carrier.as_buffer(self.held)
                self.source.do_not_wait()
                self.sink.do_not_wait()
                return self.move()
            raise (WriteError if self.event == POLLOUT else ReadError)(error) from error
        self.held -= given
        if not self.held:
            self.wait_for(self.source)
        return given

    def close(self) -> None:
        """Give the carrier's pipe back."""
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
        """Write some of what is held; return how many bytes. Raises OSError."""
        written = sink.write(self.data[: sink.chunk])
        self.data = self.data[written:]
        return written

    def close(self) -> None:
        """There is nothing to close."""


class _Pipe:
    """Carries bytes past this process, in a pipe of its own, by splices that never wait.

    Between a pipe and a socket one splice would do. It holds the pipe's lock
    for as long as TCP takes, though, and whoever is at the pipe's other end waits
    for it; two splices, of which the one at the pipe only moves pages, are
    a fifth faster and cost less.
    """

    def __init__(self) -> None:
        self.outlet, self.inlet = os.pipe()
        _widen(self.inlet)

    def take(self, source: End) -> int:
        """Splice some bytes in; return how many, 0 at the end. Raises OSError."""
        return os.splice(source.fd, self.inlet, PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK)

    def give(self, sink: End, held: int) -> int:
        """Splice some of what is held out; return how many bytes. Raises OSError."""
        return os.splice(self.outlet, sink.fd, held, flags=os.SPLICE_F_NONBLOCK)

    def as_buffer(self, held: int) -> _Buffer:
        """What is held, where the system turns out not to splice."""
        data = os.read(self.outlet, held) if held else b""
        self.close()
        return _Buffer(data)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.outlet)
        os.close(self.inlet)


def _carrier(source: End, sink: End) -> _Pipe | _Buffer:
    """A pipe where splice serves: between the stream and a pipe.

    Of the other kinds of stdin and stdout, some splices wait whatever they are
    told (to a socket in older kernels, from a terminal), and some are refused (to
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
    """What one end of a way can do. None of it waits, but for devices and files.

    is_pipe: splice serves it. is_device: a terminal, /dev/null and the like.
    chunk: bytes to write at once.
    """

    fd: int
    is_pipe = False
    is_device = False
    chunk = CHUNK

    def read(self, size: int) -> bytes:
        """Some bytes, b"" at the end. Raises OSError, BlockingIOError when there are none yet."""
        return os.read(self.fd, size)

    def write(self, data: memoryview) -> int:
        """Write some of data; return how many bytes. Raises OSError, BlockingIOError when there is no room."""
        return os.write(self.fd, data)

    def do_not_wait(self) -> None:
        """Prepare for read and write where splice does not serve."""

    def end(self) -> None:
        """Show the end of file to whoever reads this."""

    def restore(self) -> None:
        """Leave the open file as it was."""


class Stream(End):
    """The network's end: a socket that is nobody else's."""

    def __init__(self, stream: _socket.socket) -> None:
        stream.setblocking(False)
        self.fd = stream.fileno()
        self.stream = stream

    def end(self) -> None:
        """Tell the target that nothing follows."""
        try:
            self.stream.shutdown(SHUT_WR)
        except OSError:
            pass  # the target has gone: reading finds that out, too


class Stdio(End):
    """stdin or stdout: any kind of open file, and one that other processes may share."""

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
        """Some bytes, b"" at the end. Raises OSError."""
        return self.socket.recv(size, MSG_DONTWAIT) if self.socket else os.read(self.fd, size)

    def read_into(self, views: list[memoryview]) -> int:
        """Read into one view after the other; return how many bytes, 0 at the end. Raises OSError."""
        return self.socket.recvmsg_into(views, 0, MSG_DONTWAIT)[0] if self.socket else os.readv(self.fd, views)

    def write(self, data: memoryview) -> int:
        """Write some of data; return how many bytes. Raises OSError."""
        return self.socket.send(data, MSG_DONTWAIT) if self.socket else os.write(self.fd, data)

    def do_not_wait(self) -> None:
        """Set O_NONBLOCK on a pipe, as ssh does on its own: without splice, nothing else keeps a write from waiting."""
        if self.is_pipe and os.get_blocking(self.fd):
            os.set_blocking(self.fd, False)
            self.was_blocking = True

    def end(self) -> None:
        """Show the end of file to whoever reads this."""
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
    """An end of a way failed."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class ReadError(EndError):
    """The source failed."""


class WriteError(EndError):
    """The sink failed."""


def show_end(fd: int) -> None:
    """Show the end of file to whoever reads what is written to a descriptor, which becomes /dev/null.

    (If it were only closed, the next file that is opened would become stdout.)
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)


def _widen(pipe: int) -> None:
    """Let a pipe hold PIPE_SIZE bytes, so that each splice moves more; never an error."""
    try:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (OSError, AttributeError):
        pass  # EPERM: this user's pipes have used up what they may hold together
