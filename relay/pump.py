"""The relay: stdin to the stream and the stream to stdout, until both are done.

One table of descriptors and one poll, after the model of OpenBSD nc's
readwrite. Nothing is read before what was read is written, so a slow reader
holds its sender up and memory stays bounded.

On Linux, bytes between a pipe and the stream are moved by splice and never
come into this process. Never by a splice that waits: the kernel holds the
pipe's lock meanwhile, and ssh's own read of that pipe sticks with it.
Everything else is read and written.

stdin and stdout are open files that other processes share (a terminal with the
shell): O_NONBLOCK set here would hold there, too. So each call is told not to
wait, and no file's flags are changed; `_Stdio` has the one exception.

Does not know where the stream came from.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
from _socket import MSG_DONTWAIT, SHUT_WR
from errno import EINVAL, ENOSYS, EOPNOTSUPP, EPIPE
from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll

from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from relay.bridge import Channel

CHUNK = 64 * 1024  # bytes read at once where splice does not serve
PIPE_SIZE = 256 * 1024  # bytes; all pipes of a user may hold 64 MiB together (pipe-user-pages-soft)
DEVICE_CHUNK = 4096  # bytes; a write to a terminal may wait after all, so it is kept short
CHECK_PARENT = 0.5  # seconds between two looks at who the parent is
LINGER = 1.0  # seconds without a word from stdin, after which a server that has said its last is taken to have gone
LAST_WORDS = 16  # moves; more than ssh can have left behind in a pipe or a socket


def relay(stream: _socket.socket | Channel, stdin: int, stdout: int, *, parent: int) -> int:
    """Relay until it is over; return the exit status.

    parent: the process that started this one. Another parent means that ssh
    has gone, but only until a byte of the target has been delivered: later,
    `ssh -f` and ControlPersist change the parent of a session that lives.

    Raises RelayError when the link is lost, once what had arrived is delivered.
    """
    if isinstance(stream, _socket.socket):
        return _Relay(stream, stdin, stdout, parent).run()

    from relay.bridge import Bridge  # noqa: PLC0415  (threads: a raw relay has none)

    with Bridge(stream) as bridge:
        status = _Relay(bridge.socket, stdin, stdout, parent, bridge.check).run()
        bridge.check()
        return status


class _Relay:
    """One stream against stdin and stdout, and everything that ends it.

    check: raises RelayError when the end of the stream was the loss of its link.
    """

    def __init__(
        self, stream: _socket.socket, stdin: int, stdout: int, parent: int, check: Callable[[], None] | None = None
    ) -> None:
        self.stream = stream
        self.check = check
        self.net = _Stream(stream)
        self.stdin = _Stdio(stdin)
        self.stdout = _Stdio(stdout)
        self.out = _Way(self.stdin, self.net)
        self.back = _Way(self.net, self.stdout)
        self.parent = parent
        self.link_up = False  # a byte of the target has been delivered
        self.lost: OSError | None = None  # why nothing more could be sent
        self.table: dict[int, int] = {}  # what is polled for, by file descriptor
        self.poll = poll()

    def run(self) -> int:
        """Relay until it is over; return the exit status."""
        try:
            while self.out.open or self.back.open:
                ready = self.wait()
                if self.is_over(ready):
                    break
                if self.back.open and self.back.waits_for in ready:
                    self.receive()
                if self.out.open and self.out.waits_for in ready:
                    self.send()
        except _SshGone:
            self.send_last_words()
            return 0
        finally:
            self.stdin.restore()
            self.stdout.restore()
        if self.lost:
            raise _link_lost(self.lost)
        return 0

    def wait(self) -> dict[int, int]:
        """Wait until something can be done; what happened, by file descriptor; nothing when time is up."""
        # The events that nobody asks for, POLLERR and POLLHUP, say that stdout has no reader, or that
        # the target takes nothing more. (While it can be read from, the same come with data unread.)
        table = {self.stdout.fd if self.back.open else self.net.fd: 0}
        for way in (self.out, self.back):
            if way.open:
                table[way.waits_for] = table.get(way.waits_for, 0) | way.event
        if table != self.table:
            self.table = table
            self.poll = poll()
            for fd, events in table.items():
                self.poll.register(fd, events)
        seconds: float | None = None
        if not self.back.open and self.out.waits_for == self.stdin.fd:
            seconds = LINGER
        elif not self.link_up:
            seconds = CHECK_PARENT
        return dict(self.poll.poll(seconds if seconds is None else seconds * 1000))

    def is_over(self, ready: dict[int, int]) -> bool:
        """Whether the target takes nothing more. Raises _SshGone when ssh does not."""
        if self.back.open:
            if ready.get(self.stdout.fd, 0) & (POLLERR | POLLHUP):
                raise _SshGone
            if not self.link_up and not ready and os.getppid() != self.parent:
                raise _SshGone
            # The hang-up of a pipe or socket is the end of its data, and read as such: whoever made
            # them may still read stdout. That of a terminal is the user's.
            if self.stdin.is_device and ready.get(self.stdin.fd, 0) & POLLHUP:
                raise _SshGone
            return False
        # The target has said its last. Has it gone, or does it still listen? TCP does not tell;
        # ssh -W takes it to have gone, at once. Here it is given what stdin still has to say.
        return not ready or bool(ready.get(self.net.fd, 0) & (POLLERR | POLLHUP))

    def receive(self) -> None:
        """From the target to stdout. Raises RelayError and _SshGone."""
        try:
            moved = self.back.move()
        except _ReadError as failure:
            raise _link_lost(failure.error) from failure.error
        except _WriteError as failure:
            if isinstance(failure.error, ConnectionError):
                raise _SshGone from failure
            raise RelayError(f"cannot write to stdout: {_words(failure.error)}") from failure.error
        if moved == 0:
            self.back.open = False
            if self.check:
                self.check()  # before stdout ends: ssh then ends this program, whatever it still has to say
            self.stdout.end()
        elif moved and not self.link_up:
            self.link_up = True
            self.leave_terminal()

    def send(self) -> None:
        """From stdin to the target."""
        try:
            moved = self.out.move()
        except _ReadError:
            moved = 0
        except _WriteError as failure:
            # What has arrived is still to be delivered, so reading goes on and finds out what this was:
            # EPIPE is how the kernel says that the target had closed before.
            self.out.open = False
            if failure.error.errno != EPIPE:
                self.lost = failure.error
            return
        if moved == 0:
            self.out.open = False
            self.net.end()

    def send_last_words(self) -> None:
        """ssh has gone; what it left on stdin (its goodbye) is sent as far as that needs no waiting."""
        if self.stdin.is_device:
            return
        try:
            for _ in range(LAST_WORDS):
                if not self.out.open or not self.out.move():
                    break
        except _EndError:
            pass

    def leave_terminal(self) -> None:
        """Now that the link is up, closing the terminal must not end it: it may carry a persisted master.

        ssh itself keeps its ProxyCommand in its own session. No prompt comes
        after this. A relay that a person runs by hand stays with the terminal.
        """
        if self.stdin.is_device or self.stdout.is_device:
            return
        try:
            os.setsid()
        except PermissionError:
            pass  # leader of a process group: started by a shell, which has its own ways


class _Way:
    """One direction: from a source to a sink, and what it waits for.

    open: there is more to come. waits_for, event: the file descriptor and the
    event to poll for before the next move.
    """

    def __init__(self, source: _End, sink: _End) -> None:
        self.source = source
        self.sink = sink
        self.open = True
        self.held = memoryview(b"")  # read and not yet written
        self.splice: Any = getattr(os, "splice", None) if source.is_pipe or sink.is_pipe else None
        self.waits_for = source.fd
        self.event = POLLIN

    def move(self) -> int | None:
        """Move some bytes; return how many, 0 at the end of the source, None when either end is not ready.

        Raises _ReadError and _WriteError.
        """
        try:
            if self.splice and (moved := self.spliced()) is not None:
                return moved
            return self.copied()
        except BlockingIOError:
            return None
        except OSError as error:
            raise (_WriteError if self.event == POLLOUT else _ReadError)(error) from error

    def spliced(self) -> int | None:
        """Have the kernel move bytes; None when it cannot, now or ever."""
        try:
            return int(self.splice(self.source.fd, self.sink.fd, PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK))
        except BlockingIOError:
            # Whichever end was not waited for was not ready.
            self.wait_for(self.source if self.event == POLLOUT else self.sink)
            raise
        except OSError as error:
            if error.errno in (EINVAL, ENOSYS, EOPNOTSUPP):  # not in this kernel or sandbox
                self.splice = None
                self.source.do_not_wait()
                self.sink.do_not_wait()
                return None
            # A pipe fails in one way only: by having no reader.
            self.wait_for(self.sink if self.source.is_pipe or error.errno == EPIPE else self.source)
            raise

    def copied(self) -> int:
        """Read when nothing is held, and write what is held."""
        if not self.held:
            self.wait_for(self.source)
            self.held = memoryview(self.source.read(CHUNK))
            if not self.held:
                return 0
        self.wait_for(self.sink)
        written = self.sink.write(self.held[: self.sink.chunk])
        self.held = self.held[written:]
        if not self.held:
            self.wait_for(self.source)
        return written

    def wait_for(self, end: _End) -> None:
        """Make an end of this way the one that is waited for."""
        self.waits_for = end.fd
        self.event = POLLIN if end is self.source else POLLOUT


class _End:
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


class _Stream(_End):
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


class _Stdio(_End):
    """stdin or stdout: any kind of open file, and one that other processes may share."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.was_blocking = False
        self.socket: _socket.socket | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode):
            self.is_pipe = True
            if hasattr(os, "splice"):
                _widen(fd)
            else:
                self.do_not_wait()
        elif stat.S_ISSOCK(mode):
            self.socket = _socket.socket(fileno=fd)
        elif stat.S_ISCHR(mode):
            self.is_device = True
            self.chunk = DEVICE_CHUNK

    def read(self, size: int) -> bytes:
        """Some bytes, b"" at the end. Raises OSError."""
        return self.socket.recv(size, MSG_DONTWAIT) if self.socket else os.read(self.fd, size)

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
        # Not only closed: the next file that is opened would become stdout.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fd)
        os.close(null)
        self.was_blocking = False

    def restore(self) -> None:
        """Leave the open file as it was."""
        if self.socket:
            self.socket.detach()
        if self.was_blocking:
            os.set_blocking(self.fd, True)


class _EndError(Exception):
    """An end of a way failed."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class _ReadError(_EndError):
    """The source failed."""


class _WriteError(_EndError):
    """The sink failed."""


class _SshGone(Exception):
    """Nobody reads stdout any more."""


def _widen(pipe: int) -> None:
    """Let a pipe hold PIPE_SIZE bytes, so that each splice moves more; never an error."""
    try:
        if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (OSError, AttributeError):
        pass  # EPERM: this user's pipes have used up what they may hold together


def _link_lost(error: OSError) -> RelayError:
    return RelayError(f"the link was lost: {_words(error)}")


def _words(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
