"""The contract: what every kind of stream and of hop can do. No code of ours asks which kind it has.

A stream carries bytes both ways, with half-close. Its bytes are moved in one of three ways; the stream says which:

    descriptor   a socket IS the stream: it may be polled, spliced, and handed to another process
    attach       its bytes pass through this process, which encrypts them: the caller polls a Flow's connection
    serve        another process has the stream, and moves its bytes itself

A hop is a host where we have logged in. It opens streams to the next hop or the target.

This module has types only, and is not imported when the program runs. tests/contract.py checks every kind against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import TypeAlias

    from relay.errors import RelayError, TimedOut

    # Makes a new stream to a hop each time. It returns the stream and, if that is TCP to the hop, the hop's address.
    Reach: TypeAlias = Callable[[], tuple["Stream", str]]


class Progress(Protocol):
    """The part of relay/run/progress.py that hops need: the clock of a set-up, and its messages."""

    place: str
    verbosity: int

    def by_program(self, *, seen: bool) -> None:
        """A program that may write on the terminal, and wait for a person, carries what follows, until `heard`."""

    def heard(self) -> None:
        """The server at the end of that has spoken."""

    def hear(self, line: str) -> None:
        """A line of what ssh prints under -v; --check learns from it."""

    def learn(self, what: str, value: str) -> None:
        """The present stage has found out a fact; --check prints it."""

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins."""

    def failed(self) -> None:
        """The present stage has failed, and another way will be tried."""

    def note(self, level: int, text: str, *, place: str = "") -> bool:
        """Print text if -v was given `level` times or more; return whether it was printed."""

    def tell(self, text: str, *, place: str = "") -> None:
        """Print text."""

    def left(self, most: float | None = None) -> float:
        """Seconds left until the deadline, at most `most`. Raises TimedOut."""

    def timed_out(self) -> TimedOut:
        """The error to raise when the deadline has passed."""

    def pause(self) -> None:
        """Stop the clock: a person is asked something."""

    def resume(self) -> None:
        """Let the clock go on: the person has answered."""


class Received(Protocol):
    """Bytes that have arrived and wait to be delivered (relay/ssh/wire/buffer.py)."""

    def __len__(self) -> int:
        """How many bytes wait."""

    def waiting(self) -> memoryview:
        """The bytes that wait."""

    def drop(self, size: int) -> None:
        """Drop the first size bytes: they are delivered."""


class Connection(Protocol):
    """Carries a flow. The caller polls it, and reads and writes it without waiting."""

    @property
    def fd(self) -> int:
        """The descriptor to poll: for reading while `reading`, for writing while `sending`; -1 once it is closed."""

    @property
    def wake_fd(self) -> int:
        """A second descriptor to poll for reading: when it is ready, call `look_round`. -1: there is none."""

    @property
    def reading(self) -> bool:
        """Whether there is room for more bytes; always true if windows limit what the far side sends."""

    @property
    def sending(self) -> bool:
        """Whether bytes wait for the socket to take more."""

    @property
    def patient(self) -> bool:
        """Whether `rest` may wait for GRACE seconds (relay/pump/rules.py): it is likely not to be needed then."""

    def receive(self) -> None:
        """Read once what has arrived, and pass it on to the flows."""

    def flush(self) -> None:
        """Send as many bytes as the socket takes now."""

    def look_round(self) -> None:
        """Do what other threads have left to do for this one."""

    def rest(self) -> None:
        """Do what is due before the caller waits again. The caller calls this before each wait, but see `patient`."""

    def close(self) -> None:
        """Close the connection."""


class ManyFlows(Connection, Protocol):
    """A connection that carries many flows. changed: the caller puts a set here; flows with news are added to it.

    turn: how many packets one call may see to, 0 for all that have come; a caller with other connections sets it.
    """

    changed: set[Any] | None
    turn: int

    @property
    def behind(self) -> bool:
        """Whether packets have come that the last call has not seen to: call `receive` again."""

    def release(self) -> None:
        """The connection is closed, and the caller polls `wake_fd` no more."""


class Flow(Protocol):
    """A stream whose bytes pass through this process, as a mover uses it.

    received: the far side's bytes that wait to be delivered. over: no bytes follow them. closed: the far side takes
    nothing more. error: why the stream was lost, if it was. status_due: seconds after the last byte in which the far
    side may still report how it has ended.
    """

    status_due: float

    @property
    def closed(self) -> bool:
        """Whether the far side takes nothing more."""

    @property
    def error(self) -> BaseException | None:
        """Why the stream was lost; None if it was not."""

    @property
    def received(self) -> Received:
        """The far side's bytes that wait to be delivered."""

    @property
    def connection(self) -> Connection:
        """The connection that carries this flow; the caller drives it."""

    @property
    def over(self) -> bool:
        """Whether no bytes follow those in `received`, and the reason is known."""

    def room(self) -> int:
        """How many bytes `read_from` may read now; 0 while the far side has no room."""

    def read_from(self, read: Callable[[list[memoryview]], int]) -> int:
        """Call `read` (as os.readv) for as many bytes as there is room for, and send them; return its result.

        It returns -1 if there is no room.
        """

    def delivered(self, size: int) -> None:
        """So many bytes were delivered, and dropped from `received`: let the far side send as many more."""

    def end(self) -> None:
        """Tell the far side that no more bytes follow."""

    def close(self) -> None:
        """Tell the far side that this stream is closed."""


class Stream(Protocol):
    """Carries bytes both ways, with half-close.

    carrier: what messages call the command that carries the stream ("the netcat on hop 1 of 2 (h1)"); "": no command.
    channel: the SSH channel (paramiko's) that is the stream; None for other kinds. Our client carries a hop's
    transport over a descriptor or over a channel.
    """

    @property
    def carrier(self) -> str:
        """What messages call the command that carries the stream."""

    @property
    def channel(self) -> Any:
        """The SSH channel that is the stream, or None."""

    @property
    def descriptor(self) -> socket | None:
        """The socket that is the stream; None when there is none, or when the socket alone is not enough."""

    def recv(self, size: int, /) -> bytes:
        """Wait for bytes, at most size; b"" at the end. Raises RelayError or OSError when the stream is lost."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of data; may wait. Raises RelayError or OSError when the stream is lost or takes no more."""

    def shutdown_write(self) -> None:
        """Tell the far side that no more bytes follow (half-close)."""

    def attach(self) -> Flow | None:
        """Return a Flow: the caller moves the bytes. None: use `descriptor`, or the stream has ended.

        Raises Busy (relay/ssh/wire/busy.py) where its connection has a `turn`, and cannot take the flow just now.
        """

    def serve(self, stdin: int, stdout: int, *, parent: int, alarm: int) -> int | None:
        """Have another process, which has the stream, move its bytes until the end; return the exit status.

        None: this process has the stream. parent, alarm: as for pump.relay. Raises RelayError.
        """

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the stream did not end in good order. Call it when its end has been read.

        heard: whether any bytes came before that end.
        """

    def loss(self, flow: Flow) -> RelayError | None:
        """For an attached stream: return the error that `check` would raise, as far as the flow knows.

        It waits for nothing except the stream's last words.
        """

    def close(self) -> None:
        """Give the stream up. From any thread; a recv or sendall that waits in another thread returns or raises."""


class Netcat(Protocol):
    """A command that may be run on a hop to carry a stream (relay/spec/netcat.py)."""

    @property
    def line(self) -> str:
        """The command line; "" for one that finds a tool by itself."""

    @property
    def named(self) -> bool:
        """Whether the user has named the hop: the command is run without asking the hop to forward."""


class Forwards(Protocol):
    """Opens streams to the next hop or the target: a hop, or a shared hop."""

    def ask(self, to: tuple[str, int]) -> Any:
        """Ask for a stream to a host and port, without waiting for the answer; pass the result to `forward` as `asked`.

        None: the hop cannot be asked ahead, or that failed; `forward` then does all of it.
        """

    def forward(
        self,
        host: str,
        port: int,
        progress: Progress,
        netcat: Netcat | None = None,
        limit: float | None = None,
        *,
        asked: Any = None,
    ) -> Stream:
        """Open a new stream from the hop to host and port; the hop looks the host up.

        netcat: the command that may be run on the hop when it denies forwarding; None: no command. limit: seconds for
        the answer, if nothing else ends the wait. asked: what `ask` returned for this host and port. Raises
        RelayError.
        """


class Hop(Forwards, Protocol):
    """A host where we have logged in, or will log in when it forwards. place: what messages call it."""

    place: str

    @property
    def alive(self) -> bool:
        """Whether streams can be opened on the hop, as far as is known."""

    def jumps(self) -> str:
        """The hops up to this one, as an argument for ssh -J."""

    def quiet_for(self) -> float:
        """Seconds since the hop last sent something; infinite when that is not known."""

    def probe(self, seconds: float) -> bool:
        """Ask the hop for a sign of life; whether one comes within so many seconds."""

    def round_trip(self, seconds: float) -> float | None:
        """Seconds that the hop takes to answer; None if that cannot be measured, or none comes within `seconds`."""

    def take_over(self) -> ManyFlows | None:
        """Hand the connection of a hop that is logged in to the caller, which polls and drives it from then on.

        None: there is nothing to drive. Call `park` first, in a thread that may wait. Raises Busy, as Stream.attach.
        """

    def park(self) -> None:
        """Prepare for `take_over`: stop the hop's own threads from reading. It may wait."""

    def close(self) -> None:
        """Leave the hop; all streams that were opened on it end."""
