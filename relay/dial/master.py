"""A ControlMaster that lives: the user's own ssh, already logged in to the first hop, opens the stream to the next.

OpenSSH's multiplexing protocol (PROTOCOL.mux and mux.c), as far as one stream
needs it. The master is given two descriptors to read and write; what it opens
for them lives for as long as the connection to its control socket does.

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

(PROTOCOL.mux has the port as a string; mux.c reads a uint32.) A forward takes
part in nothing but its own channel; MUX_C_PROXY, the other way to share a
master, can end it when an open fails.

Knows control sockets; does not know what else reaches a hop, nor how a route
is folded. The login and the host key of this hop are the master's affair.
"""

from __future__ import annotations

import _socket
import os
from _socket import AF_UNIX, SOCK_STREAM
from time import monotonic, sleep

from relay.dial.stream import SocketStream
from relay.errors import RelayError, printable, sentence, words
from relay.run import unix
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.config.settings import HopSettings
    from relay.contract import Progress

VERSION = 4
HELLO = 0x00000001
NEW_STDIO_FWD = 0x10000008
PERMISSION_DENIED = 0x80000002
FAILURE = 0x80000003
SESSION_OPENED = 0x80000006

_REQUEST = 1  # one to a connection: a master forwards no second one over it
_LONGEST = 64 * 1024  # bytes of a packet; what a master has to say here is a line
# Seconds. A master greets at once: it has one loop, and nothing in it waits but a question to a person. One that does
# not is stopped, or stuck, and a login of our own gets there; that must not find its own time spent.
_GREETING = 3.0
_KNOCK_AGAIN = 0.02  # seconds, when more wait at the door than the master's listen() has places for (64)


# What is said


class Message(Value):
    """What a master says.

    number: the version in a HELLO, else the request that is answered. reason:
    why not, for a person.
    """

    __slots__ = ("kind", "number", "reason")
    kind: int
    number: int
    reason: str

    def __init__(self, kind: int, number: int, reason: str = "") -> None:
        self._set(kind=kind, number=number, reason=reason)


class Garbled(Exception):
    """What came is no message of the multiplexing protocol."""


def hello() -> bytes:
    """Our HELLO."""
    return _packet(HELLO, _uint32(VERSION))


def forward(host: str, port: int) -> bytes:
    """The request for a stream to host and port; the two descriptors follow it."""
    return _packet(NEW_STDIO_FWD, _uint32(_REQUEST), _string(b""), _string(os.fsencode(host)), _uint32(port))


def parse(packet: bytes) -> Message:
    """A packet without its length. Raises Garbled."""
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


# Who says it


class NoMaster(Exception):
    """Nobody is there who could be asked; the message says why, for -v."""


class Silent(NoMaster):
    """Somebody has taken the connection, and has not said a word."""


class Control:
    """A connection to the control socket of a master (`meet` makes one)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._end = float("inf")
        self._socket = _socket.socket(AF_UNIX, SOCK_STREAM)

    def greet(self, seconds: float) -> None:
        """Connect, and exchange greetings, within so many seconds. Raises NoMaster; nothing has been asked for then."""
        self.wait(seconds)
        try:
            self._connect()
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

    def _connect(self) -> None:
        while True:
            try:
                self._socket.settimeout(self._left())
                self._socket.connect(self.path)
                return
            except BlockingIOError:
                # Its queue is full. ssh would wait; logging in instead would make a hundred logins of a hundred relays.
                sleep(min(_KNOCK_AGAIN, self._left()))

    def _left(self) -> float:
        """Seconds that are left. Raises TimeoutError."""
        if (left := self._end - monotonic()) <= 0:
            raise TimeoutError
        return left

    def wait(self, seconds: float | None) -> None:
        """What follows may take so long, or, with None, for ever."""
        self._end = monotonic() + (float("inf") if seconds is None else seconds)

    def request(self, host: str, port: int, end: _socket.socket) -> None:
        """Ask for a stream, which the master is to carry between host and this end of a socket pair. Raises OSError."""
        self._socket.sendall(forward(host, port))
        for _ in ("its stdin", "its stdout"):  # a byte with each (mm_receive_fd, monitor_fdpass.c)
            unix.send(self._socket, b"\0", [end.fileno()])

    def receive(self) -> Message:
        """The next message, and no byte more. Raises OSError, EOFError, Garbled, TimeoutError."""
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
        """Close the connection; what was opened over it ends."""
        self._socket.close()


def meet(path: str, seconds: float) -> Control:
    """A connection to a master that lives: greetings have been exchanged within so many seconds. Raises NoMaster."""
    control = Control(path)
    try:
        control.greet(seconds)
    except BaseException:
        control.close()
        raise
    return control


def find(settings: HopSettings, progress: Progress) -> Control | None:
    """The master that a hop's ControlPath leads to, when it lives. -v says why it does not."""
    path = settings.get("controlpath")
    if path.lower() in {"", "none"}:
        return None
    progress.stage(f"looking for a master at {printable(path)}")
    if path.startswith("~") or "%" in path or "${" in path:  # what an ssh that is too old leaves is not where it looks
        progress.note(1, f"no master at {printable(path)}: ssh -G has not expanded it")
        return None
    try:
        control = meet(path, progress.left(_GREETING))
    except NoMaster as error:
        progress.note(1, f"no master at {printable(path)}: {error}")
        return None
    progress.stage("")
    return control


# What it is asked for


class MasterHop:
    """A hop that the user's own ssh is logged in to."""

    def __init__(self, settings: HopSettings, control: Control, progress: Progress) -> None:
        self.place = progress.place
        self._settings = settings
        self._path = control.path
        self._greeted: Control | None = control

    alive = True  # as far as is known: each stream asks the master anew

    def jumps(self) -> str:
        """As Hop has it: the first hop alone."""
        return self._settings.jumps()

    def quiet_for(self) -> float:
        """As Hop has it: the master does not tell."""
        return float("inf")

    def probe(self, seconds: float) -> bool:
        """As Hop has it: whether the master greets. (Its own ServerAliveInterval says whether the hop lives.)"""
        try:
            meet(self._path, seconds).close()
        except Silent:
            return True  # busy
        except NoMaster:
            return False
        return True

    def park(self) -> None:
        """As Hop has it: there are no threads."""

    def take_over(self) -> None:
        """As Hop has it: the master drives its own connection."""

    def close(self) -> None:
        """As Hop has it: the master is the user's, and stays."""
        if self._greeted is not None:
            self._greeted.close()

    def forward(
        self,
        host: str,
        port: int,
        progress: Progress,
        netcat: str | None = None,  # noqa: ARG002  (a master does not tell why a hop would not forward)
        limit: float | None = None,  # noqa: ARG002  (the deadline ends the wait for the master)
    ) -> MasterStream:
        """A stream from the hop to host and port, a new one each time. Raises RelayError."""
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
            theirs.close()  # the master has its own: when those are closed, the stream ends
        progress.stage("")
        return stream

    def _control(self, progress: Progress) -> Control:
        """A connection to the master over which nothing has been asked for yet. Raises RelayError."""
        control, self._greeted = self._greeted, None
        if control is not None:
            return control
        try:
            return meet(self._path, progress.left(_GREETING))
        except NoMaster as error:
            raise self.gone() from error

    def _await(self, control: Control, host: str, port: int, progress: Progress) -> None:
        """Wait until the master has connected. Raises RelayError, and OSError and EOFError when it has ended."""
        asks = self._settings.get("controlmaster") in {"ask", "autoask"}  # a person, whose time is not counted
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
            raise RelayError("its master's answer is none to what it was asked for", place=self.place)

    def gone(self) -> RelayError:
        """Nobody is at the control socket any more."""
        return RelayError(f"its master at {printable(self._path)} is gone", place=self.place)


class MasterStream(SocketStream):
    """Two-way bytes that a master forwards: our end of the socket pair.

    Our end of the data is passed on by itself. The target's ends the whole
    stream, as with ssh -W: a master then reads no more (channels.c,
    channel_input_ieof, force_drain).
    """

    def __init__(self, ours: _socket.socket, control: Control, gone: Callable[[], RelayError]) -> None:
        super().__init__(ours)
        self._control = control
        self._gone = gone

    def close(self) -> None:
        """Give the stream up; the master ends what it opened for it."""
        super().close()
        self._control.close()

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has ended because the master has. For whoever has read its end.

        A target that has closed and a master that has died look the same here,
        so whoever is at its socket is asked. (After ssh -O stop nobody is; most
        masters then end themselves with their last stream.)
        """
        try:
            meet(self._control.path, _GREETING).close()
        except Silent:
            pass  # busy
        except NoMaster as error:
            raise self._gone() from error
