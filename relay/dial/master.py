"""A live ControlMaster: the user's own ssh, already logged in to the first hop, opens the stream to the next name.

This is OpenSSH's multiplexing protocol (PROTOCOL.mux and mux.c), as far as one
stream needs it. We give the master two descriptors, one to read and one to
write. The channel that it opens for them lives as long as our connection to its
control socket.

    packet = uint32 length, uint32 type, body

    either side   HELLO           uint32 version, pairs of strings (extensions)
    we            NEW_STDIO_FWD   uint32 request, string "", string host, uint32 port; then two descriptors
    the master    SESSION_OPENED  uint32 request, uint32 session
                  PERMISSION_DENIED, FAILURE   uint32 request, string reason

    00000008 00000001 00000004                                  HELLO, version 4
    0000000c 80000006 00000001 00000002                         SESSION_OPENED
    00000010 80000003 00000001 00000004 "busy"                  FAILURE
    00000004 80000006                                           rejected: it ends before it should
    00000010 80000003 00000001 00000009 "busy"                  rejected: the string is longer than the packet

(In PROTOCOL.mux the port is a string; mux.c reads a uint32.) A forward touches
only its own channel. MUX_C_PROXY, the other way to share a master, can end the
master when an open fails.

This module knows control sockets. It does not know the other ways to reach a
hop, nor the order of a route. The master takes care of this hop's login and
host key.
"""

from __future__ import annotations

import _socket
import os
from _socket import AF_UNIX, SOCK_STREAM
from time import monotonic

from relay.dial.stream import SocketStream
from relay.errors import RelayError, printable, sentence, words
from relay.run import unix
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.config.settings import HopSettings
    from relay.contract import Netcat, Progress

VERSION = 4
HELLO = 0x00000001
NEW_STDIO_FWD = 0x10000008
PERMISSION_DENIED = 0x80000002
FAILURE = 0x80000003
SESSION_OPENED = 0x80000006

_REQUEST = 1  # the only request number: a master forwards one stream over each connection
_LONGEST = 64 * 1024  # bytes of a packet; a master's longest message here is a line of text
# Seconds. A master greets at once: it runs one loop, and only a question to a person makes that wait. A master that
# does not greet is stopped or stuck. Then we log in ourselves, so this wait must leave enough time for the login.
_GREETING = 3.0


# The messages


class Message(Value):
    """A message from a master.

    number: the version in a HELLO, else the number of the request that it
    answers. reason: why the master refuses, for a person.
    """

    __slots__ = ("kind", "number", "reason")
    kind: int
    number: int
    reason: str

    def __init__(self, kind: int, number: int, reason: str = "") -> None:
        self._set(kind=kind, number=number, reason=reason)


class Garbled(Exception):
    """The bytes are not a message of the multiplexing protocol."""


def hello() -> bytes:
    """Return our HELLO."""
    return _packet(HELLO, _uint32(VERSION))


def forward(host: str, port: int) -> bytes:
    """Return the request for a stream to host and port. The two descriptors are sent after it."""
    return _packet(NEW_STDIO_FWD, _uint32(_REQUEST), _string(b""), _string(os.fsencode(host)), _uint32(port))


def parse(packet: bytes) -> Message:
    """Parse a packet, given without its length. Raises Garbled."""
    kind, number = _number(packet, 0), _number(packet, 4)
    if kind not in {PERMISSION_DENIED, FAILURE}:
        return Message(kind, number)
    end = 12 + _number(packet, 8)
    if len(packet) < end:
        raise Garbled("the message is cut short")
    return Message(kind, number, printable(packet[12:end].decode(errors="replace")))


def _packet(kind: int, *fields: bytes) -> bytes:
    return _string(b"".join([_uint32(kind), *fields]))


def _string(data: bytes) -> bytes:
    return _uint32(len(data)) + data


def _uint32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _number(packet: bytes, at: int) -> int:
    if len(packet) < at + 4:
        raise Garbled("the message is cut short")
    return int.from_bytes(packet[at : at + 4], "big")


# The connection


class NoMaster(Exception):
    """There is no master to ask. The message says why, for -v."""


class Silent(NoMaster):
    """The connection was accepted, but no greeting came."""


class Control:
    """A connection to the control socket of a master (`meet` makes one)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._end = float("inf")
        self._socket = _socket.socket(AF_UNIX, SOCK_STREAM)

    def greet(self, seconds: float) -> None:
        """Connect and exchange greetings within so many seconds. Raises NoMaster; no request has been sent then."""
        self.wait(seconds)
        try:
            # Its queue may be full. ssh waits, too: if each of a hundred relays logged in, that made 100 logins.
            unix.connect(self._socket, self.path, self._left)
            if unix.peer_uid(self._socket) not in {os.geteuid(), 0}:
                raise NoMaster("it belongs to another user")
            self._socket.sendall(hello())
            greeting = self.receive()
        except TimeoutError as error:
            raise Silent("nobody answers there") from error
        except OSError as error:
            raise NoMaster(words(error) if error.errno else "the path is too long for a socket") from error
        except (EOFError, Garbled) as error:
            raise NoMaster(str(error)) from error
        if greeting != Message(HELLO, VERSION):
            raise NoMaster(f"version {VERSION} of the multiplexing protocol is not spoken there")

    def _left(self) -> float:
        """Seconds that are left. Raises TimeoutError."""
        if (left := self._end - monotonic()) <= 0:
            raise TimeoutError
        return left

    def wait(self, seconds: float | None) -> None:
        """Set how long the calls that follow may wait; None: for ever."""
        self._end = monotonic() + (float("inf") if seconds is None else seconds)

    def request(self, host: str, port: int, end: _socket.socket) -> None:
        """Ask the master to carry a stream between host and this end of a socket pair. Raises OSError."""
        self._socket.sendall(forward(host, port))
        for _ in ("its stdin", "its stdout"):  # a byte with each (mm_receive_fd, monitor_fdpass.c)
            unix.send(self._socket, b"\0", [end.fileno()])

    def receive(self) -> Message:
        """Read the next message, and not a byte more. Raises OSError, EOFError, Garbled, TimeoutError."""
        length = int.from_bytes(self._exactly(4), "big")
        if length > _LONGEST:
            raise Garbled("what answers there speaks no multiplexing protocol")
        return parse(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            left = self._left()
            self._socket.settimeout(None if left == float("inf") else left)
            part = self._socket.recv(size - len(data))
            if not part:
                raise EOFError("it hung up")
            data += part
        return data

    def close(self) -> None:
        """Close the connection. The stream that was opened over it ends."""
        self._socket.close()


def meet(path: str, seconds: float) -> Control:
    """Connect to a master and exchange greetings within so many seconds. Raises NoMaster."""
    control = Control(path)
    try:
        control.greet(seconds)
    except BaseException:
        control.close()
        raise
    return control


def find(settings: HopSettings, progress: Progress) -> Control | None:
    """Return a connection to the master at a hop's ControlPath, or None if none is alive there; -v says why."""
    path = settings.named("controlpath")
    if not path:
        return None
    progress.stage(f"looking for a master at {printable(path)}")
    try:
        if path.startswith("~") or "%" in path or "${" in path:  # an ssh too old to expand these in -G looks elsewhere
            raise NoMaster("ssh -G has not expanded it")
        control = meet(path, progress.left(_GREETING))
    except NoMaster as error:
        said = f"no master at {printable(path)}: {error}"
        progress.note(1, said)
        progress.failed()
        progress.learn("remark", said)
        return None
    progress.stage("")
    return control


# The hop and its stream


class MasterHop:
    """A hop that the user's own ssh is logged in to."""

    def __init__(self, settings: HopSettings, control: Control, progress: Progress) -> None:
        self.place = progress.place
        self._settings = settings
        self._path = control.path
        self._greeted: Control | None = control
        self.alive = True  # as far as we know: each stream asks the master anew

    def jumps(self) -> str:
        """Return the hops up to this one for ssh's -J: this hop alone, since it is the first."""
        return self._settings.jumps()

    def quiet_for(self) -> float:
        """Seconds since the hop has sent something: not known, since the master does not report it."""
        return float("inf")

    def round_trip(self, seconds: float) -> None:
        """Return None: the master does not say it."""

    def probe(self, seconds: float) -> bool:
        """Whether the master greets in time. (The master checks the hop itself, by its ServerAliveInterval.)"""
        try:
            meet(self._path, seconds).close()
        except Silent:
            return True  # busy
        except NoMaster:
            self.alive = False
        return self.alive

    def park(self) -> None:
        """Do nothing: this hop has no threads to stop."""

    def take_over(self) -> None:
        """Return None: the master drives its own connection."""

    def close(self) -> None:
        """Close a connection to the master that no stream has used. The master belongs to the user and stays."""
        if self._greeted is not None:
            self._greeted.close()

    def ask(self, to: tuple[str, int]) -> None:
        """None: a master is asked by `forward`, which may have to wait for a person."""

    def forward(
        self,
        host: str,
        port: int,
        progress: Progress,
        netcat: Netcat | None = None,  # noqa: ARG002  (a master does not say why a hop refuses to forward)
        limit: float | None = None,  # noqa: ARG002  (the deadline ends the wait for the master)
        *,
        asked: None = None,  # noqa: ARG002
    ) -> MasterStream:
        """Open a new stream from the hop to host and port. Raises RelayError."""
        progress.stage(
            f"waiting for the master of {self._settings.name} to connect",
            hint=f"the connection of a master may be dead: ssh -O exit {self._settings.name} ends it",
        )
        control = self._control(progress)
        ours, theirs = _socket.socketpair()
        stream = MasterStream(ours, control, self.gone)
        try:
            control.request(host, port, theirs)
            self._await(control, host, port, progress)
        except BaseException as error:
            stream.close()
            if isinstance(error, (OSError, EOFError)):
                raise self.gone() from error
            raise
        finally:
            theirs.close()  # the master has copies of it: the stream ends when the master closes them
        progress.stage("")
        return stream

    def _control(self, progress: Progress) -> Control:
        """Return a connection to the master that has not been used for a request yet. Raises RelayError."""
        control, self._greeted = self._greeted, None
        if control is not None:
            return control
        try:
            return meet(self._path, progress.left(_GREETING))
        except NoMaster as error:
            raise self.gone() from error

    def _await(self, control: Control, host: str, port: int, progress: Progress) -> None:
        """Wait until the master has connected. Raises RelayError; OSError or EOFError when the master has ended."""
        asks = self._settings.get("controlmaster") in {"ask", "autoask"}  # a person is asked: that time does not count
        if asks:
            progress.pause()
        try:
            control.wait(None if asks else progress.left())
            answer = control.receive()
        except TimeoutError as error:
            raise progress.timed_out() from error
        except Garbled as error:
            raise RelayError(f"its master: {error}", place=self.place) from error
        finally:
            if asks:
                progress.resume()
        if answer.kind == FAILURE:
            raise RelayError(
                f"the master of {self.place} cannot connect to {host} port {port}: {sentence(answer.reason)}",
                hint="a master does not pass on why: the port may be closed, or the hop may not forward "
                "(AllowTcpForwarding, PermitOpen); -o ControlPath=none shows it",
            )
        if answer.kind == PERMISSION_DENIED:
            raise RelayError(
                f"its master refused to connect to {host} port {port}: {sentence(answer.reason)}",
                hint="-o ControlPath=none logs in without the master",
                place=self.place,
            )
        if answer != Message(SESSION_OPENED, _REQUEST):
            raise RelayError("its master answered another request", place=self.place)

    def gone(self) -> RelayError:
        """Return the error for a control socket at which nobody listens any more."""
        self.alive = False
        return RelayError(f"its master at {printable(self._path)} is gone", place=self.place)


class MasterStream(SocketStream):
    """Two-way bytes that a master forwards: our end of the socket pair.

    When we send end-of-file, the master passes it on, and the other direction
    goes on. When the target sends it, the whole stream ends, as with ssh -W: a
    master then reads no more (channels.c, channel_input_ieof, force_drain).
    """

    def __init__(self, ours: _socket.socket, control: Control, gone: Callable[[], RelayError]) -> None:
        super().__init__(ours)
        self._control = control
        self._gone = gone

    def close(self) -> None:
        """Give the stream up. The master then closes the channel that it opened for it."""
        super().close()
        self._control.close()

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has ended because the master has. Call it after reading the end.

        A target that has closed and a master that has died look the same here,
        so this greets the master once more. (After ssh -O stop nobody listens
        at its socket; most masters then end with their last stream.)
        """
        try:
            meet(self._control.path, _GREETING).close()
        except Silent:
            pass  # busy
        except NoMaster as error:
            raise self._gone() from error
