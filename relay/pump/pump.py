"""The relay: stdin to the stream and the stream to stdout, until both are done.

One table of descriptors and one poll, after the model of OpenBSD nc's
readwrite. All that ends a relay is decided here; how bytes are moved is not
known here, nor where the stream came from.
"""

from __future__ import annotations

import os
from errno import EPIPE
from select import POLLERR, POLLHUP, POLLIN, poll

from relay.errors import RelayError, words
from relay.pump.way import CarriedWay, EndError, ReadError, Stdio, Stream, Way, WriteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from relay import contract

SIGNALS_MOST = 64  # read at once
CHECK_PARENT = 0.5  # seconds between two looks at who the parent is
LINGER = 1.0  # seconds without a word from stdin, after which a server that has said its last is taken to have gone
LAST_WORDS = 16  # moves; more than ssh can have left behind in a pipe or a socket


def relay(stream: contract.Stream, stdin: int, stdout: int, *, parent: int, alarm: int = -1) -> int:
    """Relay until it is over; return the exit status.

    alarm: a descriptor that says that a signal has come (guard.alarm).
    parent: the process that started this one. Another parent means that ssh
    has gone, but only until a byte of the target has been delivered: later,
    `ssh -f` and ControlPersist change the parent of a session that lives.

    Raises RelayError when the link is lost, once what had arrived is delivered.
    """
    if (descriptor := stream.descriptor) is not None:
        return _raw(descriptor, stdin, stdout, parent, stream.check).run(alarm)

    if (status := stream.serve(stdin, stdout, parent=parent, alarm=alarm)) is not None:
        return status

    from relay.pump.channels import ChannelRelay  # a raw relay has none

    if (flow := stream.attach()) is not None:
        return ChannelRelay(stream, flow, Stdio(stdin), Stdio(stdout), parent).run(alarm)

    from relay.pump.bridge import Bridge  # threads: only where there is no better way

    with Bridge(stream) as bridge:  # type: ignore[arg-type]
        whole = _raw(bridge.socket, stdin, stdout, parent, bridge.check)
        status = whole.run(alarm)
        bridge.check()
        bridge.send_the_rest(lambda: whole.gone)
        return status


def _raw(stream: socket, stdin: int, stdout: int, parent: int, check: Callable[[], None] | None = None) -> Relay:
    """The relay of a socket."""
    net, near, far = Stream(stream), Stdio(stdin), Stdio(stdout)
    return Relay(CarriedWay(near, net), CarriedWay(net, far), parent, check)


class Relay:
    """One stream against stdin and stdout, and everything that ends it.

    out: from stdin to the stream; back: from the stream to stdout.
    check: raises RelayError when the end of the stream was the loss of its link.
    """

    def __init__(self, out: Way, back: Way, parent: int, check: Callable[[], None] | None = None) -> None:
        self.out = out
        self.back = back
        self.check = check
        self.stdin = out.source
        self.stdout = back.sink
        self.net = out.sink
        self.parent = parent
        self.gone = False  # ssh has
        self.link_up = False  # a byte of the target has been delivered
        self.lost: OSError | None = None  # why nothing more could be sent
        self.table: dict[int, int] = {}  # what is polled for, by file descriptor
        self.poll = poll()
        self.alarm = -1

    def run(self, alarm: int = -1) -> int:
        """Relay until it is over; return the exit status. alarm: see `relay`."""
        self.alarm = alarm
        try:
            while self.out.open or self.back.open:
                ready = self.wait()
                if self.is_over(ready):
                    break
                self.move(ready)
        except SshGone:
            self.gone = True
            self.send_last_words()
            return 0
        finally:
            self.out.close()
            self.back.close()
            self.stdin.restore()
            self.stdout.restore()
        if self.lost:
            raise _link_lost(self.lost)
        return 0

    def wait(self) -> dict[int, int]:
        """Wait until something can be done; what happened, by file descriptor; nothing when time is up."""
        table = self.interests()
        if table != self.table:
            self.table = table
            self.poll = poll()
            for fd, events in table.items():
                self.poll.register(fd, events)
            if self.alarm >= 0:
                self.poll.register(self.alarm, POLLIN)
        seconds: float | None = None
        if not self.back.open:
            seconds = LINGER if self.out.waits_for == self.stdin.fd else None
        elif not self.link_up:
            seconds = CHECK_PARENT
        while True:
            ready = dict(self.poll.poll(seconds if seconds is None else seconds * 1000))
            if ready.pop(self.alarm, None) is None:
                return ready
            os.read(self.alarm, SIGNALS_MOST)  # its handler has run by now

    def interests(self) -> dict[int, int]:
        """What to poll for, by file descriptor."""
        # The events that nobody asks for, POLLERR and POLLHUP, say that stdout has no reader, or that
        # the target takes nothing more. (While it can be read from, the same come with data unread.)
        table = {self.stdout.fd if self.back.open else self.net.fd: 0}
        for way in (self.out, self.back):
            if way.open:
                table[way.waits_for] = table.get(way.waits_for, 0) | way.event
        return table

    def move(self, ready: dict[int, int]) -> None:
        """Do what can be done. Raises RelayError and SshGone."""
        if self.back.open and self.back.is_ready(ready):
            self.receive()
        if self.out.open and self.out.is_ready(ready):
            self.send()

    def is_over(self, ready: dict[int, int]) -> bool:
        """Whether the target takes nothing more. Raises SshGone when ssh does not."""
        if self.back.open:
            if ready.get(self.stdout.fd, 0) & (POLLERR | POLLHUP):
                raise SshGone
            if not self.link_up and not ready and os.getppid() != self.parent:
                raise SshGone
            # The hang-up of a pipe or socket is the end of its data, and read as such: whoever made
            # them may still read stdout. That of a terminal is the user's.
            if self.stdin.is_device and ready.get(self.stdin.fd, 0) & POLLHUP:
                raise SshGone
            return False
        # The target has said its last. Has it gone, or does it still listen? TCP does not tell;
        # ssh -W takes it to have gone, at once. Here it is given what stdin still has to say.
        return not ready or bool(ready.get(self.net.fd, 0) & (POLLERR | POLLHUP))

    def receive(self) -> None:
        """From the target to stdout. Raises RelayError and SshGone."""
        try:
            moved = self.back.move()
        except ReadError as failure:
            if self.check:
                self.check()  # a program that carries the stream, and has ended, may know better
            raise _link_lost(failure.error) from failure.error
        except WriteError as failure:
            if isinstance(failure.error, ConnectionError):
                raise SshGone from failure
            raise RelayError(f"cannot write to stdout: {words(failure.error)}") from failure.error
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
        except ReadError:
            moved = 0
        except WriteError as failure:
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
        except EndError:
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


class SshGone(Exception):
    """Nobody reads stdout any more."""


def _link_lost(error: OSError) -> RelayError:
    return RelayError(f"the link was lost: {words(error)}")
