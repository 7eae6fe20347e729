"""What a stream and a hop can do, whatever kind they are; no code of ours asks which kind it has.

A stream is two-way bytes with half-close. Its bytes are moved in one of three ways, and the stream says which:

    descriptor   a socket IS the stream: it may be polled, spliced, and handed to another process
    attach       its bytes pass through this process, encrypted by it: a Flow is driven by whoever polls its connection
    serve        another process has the stream, and moves its bytes itself

A hop is a place that has been logged in to, and opens streams to what follows.

Types only: nothing of this is imported when the program runs. tests/contract.py holds every kind to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import TypeAlias

    from relay.errors import RelayError, TimedOut

    # Makes a stream to a hop, a new one each time; with the hop's own address, when the stream is TCP to it.
    Reach: TypeAlias = Callable[[], tuple["Stream", str]]


class Progress(Protocol):
    """The clock of a set-up, as far as hops need it (relay/run/progress.py)."""

    place: str
    verbosity: int

    def stage(self, doing: str, *, hint: str = "") -> None:
        """A stage begins."""

    def note(self, level: int, text: str, *, place: str = "") -> None:
        """Say something where -v was given so often."""

    def tell(self, text: str, *, place: str = "") -> None:
        """Say something."""

    def left(self, most: float | None = None) -> float:
        """Seconds left until the deadline, at most `most`. Raises TimedOut."""

    def timed_out(self) -> TimedOut:
        """The error of a deadline that has passed."""

    def pause(self) -> None:
        """A person is waited for: the clock stands still."""

    def resume(self) -> None:
        """It goes on."""


class Received(Protocol):
    """Bytes that have come and wait to be delivered (relay/ssh/wire/buffer.py)."""

    def __len__(self) -> int:
        """How many there are."""

    def waiting(self) -> memoryview:
        """The bytes."""

    def drop(self, size: int) -> None:
        """Forget the first size of them: they are delivered."""


class Connection(Protocol):
    """What carries a flow, read and written without waiting by whoever polls it."""

    @property
    def fd(self) -> int:
        """What to poll: for reading while `reading`, for writing while `sending`; -1 once it is closed."""

    @property
    def wake_fd(self) -> int:
        """What to poll for reading besides; when it says something, call `look_round`. -1 where there is none."""

    @property
    def reading(self) -> bool:
        """Whether there is room for what comes; always, where windows hold the far side up."""

    @property
    def sending(self) -> bool:
        """Whether bytes wait for the socket to take more."""

    def receive(self) -> None:
        """Read what has come, once, and pass it on to the flows."""

    def flush(self) -> None:
        """Send what the socket takes now."""

    def look_round(self) -> None:
        """See to what other threads have left to do."""

    def close(self) -> None:
        """Close it."""


class ManyFlows(Connection, Protocol):
    """One that carries many flows. changed: where whoever serves them puts a set: those with news."""

    changed: set[Any] | None


class Flow(Protocol):
    """A stream whose bytes pass through this process, as the mover sees it.

    received: the far side's bytes that wait to be delivered. over: nothing follows them. closed: the far side takes
    nothing more. error: why it ended before that. status_due: seconds after the last byte in which the far side may
    still say how it has ended.
    """

    status_due: float

    @property
    def closed(self) -> bool:
        """See above."""

    @property
    def error(self) -> BaseException | None:
        """See above."""

    @property
    def received(self) -> Received:
        """See above."""

    @property
    def connection(self) -> Connection:
        """What is to be driven."""

    @property
    def over(self) -> bool:
        """Whether nothing follows what is in `received`, and it is known why."""

    def room(self) -> int:
        """How many bytes `read_from` may read now; 0 while the far side has no room."""

    def read_from(self, read: Callable[[list[memoryview]], int]) -> int:
        """Let `read` (as os.readv) read what there is room for, and send it; what it returned, -1 without room."""

    def delivered(self, size: int) -> None:
        """So many bytes of `received` have gone on (and were dropped there): the far side may send as many more."""

    def end(self) -> None:
        """Tell the far side that nothing follows."""

    def close(self) -> None:
        """Tell the far side that this stream is done with."""


class Stream(Protocol):
    """Two-way bytes with half-close.

    carrier: what messages call a command that carries it ("the netcat on hop 1 of 2 (h1)"), "" for none.
    channel: the SSH channel that is the stream (paramiko's), None for another kind; our client carries a hop's
    transport over a descriptor or over a channel.
    """

    @property
    def carrier(self) -> str:
        """See above."""

    @property
    def channel(self) -> Any:
        """See above."""

    @property
    def descriptor(self) -> socket | None:
        """The socket that is the stream; None when there is none, or when more than the socket is needed."""

    def recv(self, size: int, /) -> bytes:
        """At most size bytes, waited for; b"" at the end. Raises RelayError or OSError when the stream is lost."""

    def sendall(self, data: bytes, /) -> None:
        """All of data, waited for. Raises RelayError or OSError when the stream is lost or takes no more."""

    def shutdown_write(self) -> None:
        """Tell the far side that nothing follows (half-close)."""

    def attach(self) -> Flow | None:
        """Leave the moving of bytes to the caller; None where `descriptor` is the way, or the stream has ended."""

    def serve(self, stdin: int, stdout: int, *, parent: int, alarm: int) -> int | None:
        """Have the process that has the stream move its bytes until the end; the exit status.

        None: it is this process. parent, alarm: as for pump.relay. Raises RelayError.
        """

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the stream has ended in no good order. For whoever has read its end.

        heard: whether anything has come before that end.
        """

    def loss(self, flow: Flow) -> RelayError | None:
        """The same of a stream that is attached, as far as its flow knows; nothing is waited for but its last words."""

    def close(self) -> None:
        """Give the stream up, from any thread; a recv or sendall that waits in another one returns or raises."""


class Forwards(Protocol):
    """What opens streams to what follows it: a hop, or a shared one."""

    def forward(
        self, host: str, port: int, progress: Progress, netcat: str | None = None, limit: float | None = None
    ) -> Stream:
        """A stream from the hop to host and port, which the hop looks up; a new one each time.

        netcat: the command that may be run there when it denies forwarding, "" for one that finds a tool by itself,
        None for none. limit: seconds for the answer, where nothing else ends the wait. Raises RelayError.
        """


class Hop(Forwards, Protocol):
    """A place that has been logged in to, or that will be when it forwards.

    place: what messages call it.
    """

    place: str

    @property
    def alive(self) -> bool:
        """Whether streams can be opened on it, as far as is known."""

    def jumps(self) -> str:
        """The hops up to this one, as ssh's -J has them."""

    def quiet_for(self) -> float:
        """Seconds since something has come from it, infinite when that is not known."""

    def probe(self, seconds: float) -> bool:
        """Whether it shows a sign of life within so many seconds."""

    def take_over(self) -> ManyFlows | None:
        """Leave its connection, once it is logged in to, to the caller, who polls and drives it from then on.

        None when there is nothing to drive. `park` comes first, in a thread that may wait.
        """

    def park(self) -> None:
        """Prepare for `take_over`: its own threads read no more. May wait."""

    def close(self) -> None:
        """Leave it; what was opened on it ends."""
