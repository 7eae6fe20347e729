"""Crossing a hop that denies forwarding: a netcat that runs there carries the bytes.

Its stdin and stdout are an exec channel of the hop's session (RFC 4254 section
6.5). Only the carrier changes: what passes is the next leg's, encrypted as
before. It may go around a policy, so it is done for those who ask for it only.
"""

from __future__ import annotations

import os
import re
from threading import Thread, Timer

from relay.errors import NoRoom, RelayError, printable
from relay.ssh.record import Record
from relay.ssh.wire.channel import ChannelStream
from relay.ssh.wire.library import paramiko
from relay.ssh.wire.opening import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay import contract
    from relay.contract import Progress
    from relay.ssh.wire.channel import Lost
    from relay.ssh.wire.flow import Flow
    from relay.ssh.wire.transport import Transport

_LAST_WORDS = 2.0  # seconds that the status and stderr of a command are waited for that has said nothing else
_STATUS = 1.0  # seconds, of one whose last byte has come: it may go on listening
_MOST = 4096  # bytes of a line of stderr
_MOST_LINES = 20  # of stderr, kept until the command has failed

# What every shell takes for a plain word: sh, csh, fish and others, quoted or not.
_PLAIN = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9:_.%-]*", re.ASCII)

# Below: no single quote, new-line, or "!" without a space after it, since all of it stands in single quotes that csh
# and fish, too, must read as sh does; and in _PYTHON and _BASH, which stand in double quotes, nothing that these heed.

# Half-close both ways, and an end when the far side ends: the best there is.
_PYTHON = (
    "import os,socket,sys,_thread;"
    "sys.tracebacklimit=0;"
    "sys.unraisablehook=id;"  # the thread's errors show in the other direction, too
    "s=socket.create_connection(sys.argv[1:]);"
    "s.setsockopt(socket.IPPROTO_TCP,socket.TCP_NODELAY,1);"
    "o=sys.stdout.buffer;"
    "_thread.start_new_thread(lambda:("
    "any(s.sendall(b)for b in iter(lambda:os.read(0,65536),bytes())),"
    "s.shutdown(socket.SHUT_WR)),());"
    "any(o.write(b)and o.flush()for b in iter(lambda:s.recv(65536),bytes()))"
)
# bash cannot half-close; a minute after its input it ends, or a link that is lost would leave it there for ever.
_BASH = (
    r"exec 3<>/dev/tcp/\$1/\$2 4<&0 || exit; "
    r"cat <&3 & d=\$! ; "
    r"{ cat <&4 >&3; exec >/dev/null 3>&- 4<&-; sleep 60; kill \$d; } 2>/dev/null & u=\$! ; "
    r"exec 3>&- 4<&-; wait \$d; s=\$?; kill \$u 2>/dev/null; [ \$s = 143 ] || exit \$s"
)
# In the order of what they can. OpenBSD's nc half-closes when told so; it and ncat notice the far side's end
# only when they write again; the traditional one cannot half-close, and ends like bash.
_SCRIPT = f"""\
has() {{ command -v "$1" >/dev/null 2>&1; }}; \
if has python3; then exec python3 -ISc "{_PYTHON}" "$1" "$2"; fi; \
n="$(nc -h 2>&1 </dev/null)"; \
case $n in *-N*hutdown*EOF*) exec nc -N -- "$1" "$2";; esac; \
if has ncat; then exec ncat -- "$1" "$2"; fi; \
case $n in *-q*EOF*) exec nc -q 60 -- "$1" "$2";; esac; \
if has nc; then exec nc -- "$1" "$2"; fi; \
if has bash; then exec bash -c "{_BASH}" bash "$1" "$2"; fi; \
echo "python3, nc, ncat and bash are missing here, in $PATH" >&2; exit 127"""


def command(host: str, port: int, template: str = "") -> str:
    """What the hop's shell is told to run: template with %h and %p replaced, or a line that tries what is there.

    Host and port are plain words that no shell takes for anything else.
    Raises RelayError when the host cannot be one.
    """
    if not _PLAIN.fullmatch(host):
        raise RelayError(f"'{printable(host)}' cannot be handed to a shell, which --netcat needs on the hop")
    if not template:
        return f"sh -c '{_SCRIPT}' sh {host} {port}"  # (a restricted shell allows no exec)
    tokens = {"h": host, "p": str(port), "%": "%"}
    return re.sub("%([hp%])", lambda match: tokens[match[1]], template)


class Hop(Record):
    """The hop that is crossed.

    place: what messages call it. lost: says why the link to it has ended. warns: whether its LogLevel shows warnings.
    """

    transport: Transport
    place: str
    lost: Lost
    warns: bool


def cross(hop: Hop, to: tuple[str, int], template: str, progress: Progress, *, limit: float | None) -> NetcatStream:
    """A stream to a host and port that a command on the hop carries.

    limit: as for Session.forward. Raises RelayError when the hop runs none; whether it connects is seen later.
    """
    line = command(*to, template)
    progress.stage("starting a netcat on the hop")
    try:
        channel = hop.transport.ask("session").wait(limit)
        _run(channel, line, limit)
    except Refused as error:
        raise NoRoom(
            f"the server neither forwards nor runs a command: {error or 'refused'}",
            hint="MaxSessions in its sshd_config says how many it runs over one connection",
            place=hop.place,
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if not hop.transport.is_active():
            raise hop.lost(error) from error
        raise RelayError("the server neither forwards nor runs a command", place=hop.place) from error
    return NetcatStream(channel, hop, "{} port {}".format(*to), progress)


def _run(channel: paramiko.Channel, line: str, limit: float | None) -> None:
    """Have the hop's shell run a line. Raises SSHException when it does not, or not within limit seconds."""
    if limit is None:
        channel.exec_command(os.fsencode(line))
        return
    giving_up = Timer(limit, channel.close)
    giving_up.start()
    try:
        channel.exec_command(os.fsencode(line))
    finally:
        giving_up.cancel()


class NetcatStream(ChannelStream):
    """The stdin and stdout of a command on a hop.

    Its stderr is shown at once; where the hop's LogLevel shows no warnings, only when the command fails.
    carrier: what messages call it. peer: where it leads to.
    """

    def __init__(self, channel: paramiko.Channel, hop: Hop, peer: str, progress: Progress) -> None:
        super().__init__(channel, hop.lost)
        self._peer = peer
        self._place = hop.place
        self.carrier = f"the netcat on {hop.place}"
        self._progress = progress
        self._shows = hop.warns or progress.verbosity > 0
        self._unshown: list[str] = []  # lines of stderr
        self._began = False
        self._flow: Flow | None = None
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def recv(self, size: int) -> bytes:
        """At most size bytes; b"" at the far side's end. Raises RelayError when the command has failed."""
        data = super().recv(size)
        if data:
            self._began = True
        elif failure := self.failure():
            raise failure
        return data

    def attach(self) -> Flow | None:
        """Leave the moving of bytes to the caller, as any ChannelStream does."""
        flow = self._flow = super().attach()
        if flow is not None:
            flow.status_due = _STATUS
        return flow

    def loss(self, flow: contract.Flow) -> RelayError | None:
        """Why an attached stream has ended, when that was not an orderly end.

        It does not wait for the server, since the caller may serve others:
        a command that has said nothing is only over once its status has come, or will not.
        """
        ours = self._flow
        if (loss := super().loss(flow)) or ours is None or (ours.began and not ours.closed):
            return loss
        self._began = ours.began
        self._listener.join(_LAST_WORDS)  # it has been told of the end
        if ours.began and self.channel.exit_status < 0 and not ours.killed:
            return None  # we have closed the channel before it had ended
        return self._verdict()

    def check(self, *, heard: bool = True) -> None:
        """Raise RelayError when the link is lost, or the command has failed. Call it after reading the end."""
        super().check(heard=heard)
        if self.channel.eof_received and (failure := self.failure()):
            raise failure

    def failure(self) -> RelayError | None:
        """Why the command failed, if it did. Call it after reading the end."""
        seconds = _STATUS if self._began else _LAST_WORDS
        self._listener.join(seconds)
        known = self.channel.status_event
        known.wait(seconds)
        if self.channel.exit_status < 0:
            # Whoever read the end may have closed the channel, which sets the event, too; the status is on its way.
            known.clear()
            if self.channel.exit_status < 0:
                known.wait(seconds)
        runs_on = self._began and not self.channel.closed and self.channel.exit_status < 0
        return None if runs_on else self._verdict()

    def _verdict(self) -> RelayError | None:
        status = self.channel.exit_status
        if status == 0:
            return None
        while self._unshown:  # why it failed
            self._progress.tell(self._unshown.pop(0), place=self._place)
        ended = f"{self.carrier} ended" + (f" with status {status}" if status > 0 else "")
        return RelayError(ended if self._began else f"{ended}; nothing came from {self._peer}")

    def _listen(self) -> None:
        buffer = b""
        while data := self._said():
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self._tell(line)
            buffer = buffer[-_MOST:]
        self._tell(buffer)

    def _said(self) -> bytes:
        """More of the command's stderr; b"" at its end, which the link's is, too."""
        while True:
            try:
                return bytes(self.channel.recv_stderr(4096))
            except TimeoutError:
                continue  # the transport of the next hop has set a limit for its own reads
            except (paramiko.SSHException, OSError, EOFError):
                return b""

    def _tell(self, line: bytes) -> None:
        text = printable(line.decode(errors="replace"))
        if not text or self._progress.verbosity < 0:
            return
        if self._shows:
            self._progress.tell(text, place=self._place)
        elif len(self._unshown) < _MOST_LINES:
            self._unshown.append(text)
