"""A hop that has been logged in to, and the streams that it opens.

It turns paramiko's exceptions into words; it must not know argv, stdio, or how a route is folded.
"""

from __future__ import annotations

import time

from relay.errors import RelayError, sentence
from relay.ssh.memory import Shown
from relay.ssh.wire.causes import in_words
from relay.ssh.wire.channel import ChannelStream
from relay.ssh.wire.library import paramiko
from relay.ssh.wire.opening import Refused
from relay.ssh.wire.takeover import take_over
from relay.ssh.wire.transport import Disconnected, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay import contract
    from relay.contract import ManyFlows, Netcat, Stream
    from relay.ssh.wire.opening import Opening

OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_FAILED_UNKNOWN_CHANNEL_TYPE = 1, 3  # RFC 4254 section 5.1
_PROBES = 3  # questions for a round trip
# What a server means that gives no text with its refusal (the same section).
OPEN_FAILURES = {2: "connection failed", 3: "direct-tcpip is unknown to the server", 4: "the server lacks resources"}


class Session:
    """One hop, logged in to (contract.Hop).

    transport: its own. place: what messages call the hop. opening: what was asked for along with the login.
    shown: what the hop has shown to take. warns: whether its LogLevel shows warnings. denied: called when the hop may
    not forward.
    """

    def __init__(self, transport: Transport, stream: Stream, place: str, jumps: str) -> None:
        """stream: what carries the transport. jumps: the hops up to this one, as ssh's -J has them."""
        self.transport = transport
        self.place = place
        self.stream = stream
        self.opening: Opening | None = None
        self.shown = Shown()
        self.warns = True
        self.denied: Callable[[], object] = lambda: None
        self._jumps = jumps

    @property
    def alive(self) -> bool:
        """Whether streams can be opened on it, as far as is known."""
        return bool(self.transport.is_active())

    def jumps(self) -> str:
        """The hops up to this one, as ssh's -J has them."""
        return self._jumps

    def ask(self, to: tuple[str, int] | None) -> Opening | None:
        """Ask for the stream that a `forward` will open; pass the result to it as `asked`.

        None if the hop cannot be asked, or the login has asked already: `forward` then does what is left, and says
        what fails.
        """
        if to is not None and self.opening is None:
            try:
                return self.transport.ask("direct-tcpip", *to)
            except (paramiko.SSHException, OSError, EOFError):
                pass
        return None

    def forward(
        self,
        host: str,
        port: int,
        progress: contract.Progress,
        netcat: Netcat | None = None,
        limit: float | None = None,
        *,
        asked: Opening | None = None,
    ) -> ChannelStream:
        """Open a stream from the hop to host and port. The hop resolves host (RFC 4254 section 7.2, direct-tcpip).

        progress: the caller's, which may not be the one that logged in.
        netcat: the command that may be run on a hop that denies forwarding,
        None for none. limit: seconds for the answer, where nothing else ends
        the wait for it. asked: what `ask` returned. Raises RelayError: when the
        hop may not forward, it is the hop that failed, else it is the place that
        could not be reached.
        """
        runs_none: RelayError | None = None
        if netcat is not None and netcat.named:  # a request to forward would be refused, and logged
            try:
                return self._cross(host, port, netcat.line, progress, limit=limit)
            except RelayError as error:
                if not self.alive:
                    raise
                runs_none = error
        progress.stage("waiting for the hop to connect")
        try:
            opening = asked or self._asked_by_login((host, port)) or self.transport.ask("direct-tcpip", host, port)
            channel = opening.wait(limit)
        except Refused as error:
            if _is_denied(error):
                if runs_none is not None:
                    raise runs_none from error
                if netcat is not None:
                    progress.failed()
                    progress.note(1, "it denies forwarding: crossing it by a netcat there", place=self.place)
                    return self._cross(host, port, netcat.line, progress, limit=limit)
                raise self._denied(host, port, error) from error
            cause = sentence(str(error)) or OPEN_FAILURES.get(error.reason, "no connection")
            raise RelayError(f"{self._name} cannot connect to {host} port {port}: {cause}") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            # What ended the transport says more than what fails once it has ended.
            raise self.lost(self.transport.saved_exception or error) from error
        return ChannelStream(channel, self.lost)

    def _asked_by_login(self, to: tuple[str, int]) -> Opening | None:
        """What the login has asked for, if it leads there; the first `forward` that looks for it takes it."""
        opening, self.opening = self.opening, None
        if opening is not None and opening.to != to:
            opening.drop()
            return None
        return opening

    @property
    def _name(self) -> str:
        """The hop as the route has it, without its user: "h1" of "hop 1 of 2 (u1@h1)"."""
        return self.place.partition("(")[2].rpartition(")")[0].rpartition("@")[2] or self.place

    def _denied(self, host: str, port: int, error: Refused) -> RelayError:
        """The hop lets us log in and not go on."""
        self.denied()
        words = sentence(str(error)) or OPEN_FAILURES.get(error.reason, "administratively prohibited")
        hint = "--netcat goes by a command on the hop instead, where you may, and --netcat=HOP does so on that hop only"
        if "openssh" in self.transport.remote_version.lower():
            hint = (
                "AllowTcpForwarding and PermitOpen in its sshd_config decide that, and a password that has expired "
                f"forbids it, too; {hint}"
            )
        return RelayError(f"the server does not forward to {host} port {port}: {words}", hint=hint, place=self.place)

    def _cross(
        self, host: str, port: int, template: str, progress: contract.Progress, *, limit: float | None
    ) -> ChannelStream:
        """Open a stream without forwarding, by a command on the hop."""
        from relay.ssh import netcat  # few hops need it

        hop = netcat.Hop(self.transport, self.place, self.lost, self.warns)
        return netcat.cross(hop, (host, port), template, progress, limit=limit)

    def quiet_for(self) -> float:
        """Seconds since something has come from it, infinite when that is not known."""
        return self.transport.quiet_for()

    def probe(self, seconds: float) -> bool:
        """Whether it shows a sign of life within so many seconds."""
        return self.transport.probe(seconds)

    def round_trip(self, seconds: float) -> float | None:
        """Seconds that the hop takes to answer, the shortest of some; None if it does not within `seconds`."""
        times = []
        for _ in range(_PROBES):
            began = time.monotonic()
            if not self.probe(seconds):
                break
            times.append(time.monotonic() - began)
        return min(times, default=None)

    def park(self) -> None:
        """Prepare for `take_over`: its own thread reads no more. May wait."""
        self.transport.packetizer.park()

    def take_over(self) -> ManyFlows | None:
        """Hand the connection over to the caller, which polls and drives it from now on. None: it has ended."""
        link = take_over(self.transport)
        return link.connection if link is not None else None

    def close(self) -> None:
        """Close the session and its streams. Once taken over, only the connection's driver may call this."""
        link = self.transport.packetizer.link
        if link is not None:
            link.leave()
            link.fail(EOFError())
        else:
            self.transport.leave()
            self.transport.close()

    def lost(self, error: BaseException | None = None) -> RelayError:
        """Why the link is lost. This names the outermost hop that failed: the others fell with it."""
        error = error or self.transport.saved_exception
        if isinstance(error, Disconnected):
            return RelayError(f"the server disconnected: {error}", place=self.place)
        try:
            self.check_stream()
        except RelayError as cause:  # what carried it has failed
            return cause
        reason = f": {in_words(error)}" if error is not None and in_words(error) else ""
        return RelayError(f"the connection was lost{reason}", place=self.place)

    def forget_relay(self) -> None:
        """Tell the relay that has logged in nothing more: others use the hop, too."""
        if self.transport.update is not None:
            self.transport.update.say = lambda _: None

    def check_stream(self, *, heard: bool = False) -> None:
        """Raise RelayError when what carries the transport knows why it has ended.

        heard: whether something has come from it before the server's ident.
        """
        self.stream.check(heard=heard or bool(self.transport.remote_version))


def _is_denied(error: Refused) -> bool:
    """Whether a refusal is the hop's own: no target can be at fault for it.

    Twisted Conch does not know the type of the channel, and Erlang's server says "forwarding disabled" under the code
    of a connection that failed.
    """
    denials = (OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_FAILED_UNKNOWN_CHANNEL_TYPE)
    return error.reason in denials or "forwarding disabled" in str(error).lower()
