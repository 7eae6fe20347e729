"""A hop that the system's ssh carries, by `ssh -W`: that hop alone, over the stream that already reaches it.

ssh gets that stream from its ProxyCommand (ProxyUseFdpass), so nothing is
connected twice, and no earlier hop is logged in to again. ssh gets the hop's
settings by the same words as `ssh -G` did. It asks questions on its own
terminal, and prints on our stderr. Its stdin and stdout are one socket, which
is relayed like any other.

ssh does not see the address of such a stream. So it connects by itself where
the address spares the hop the check of its host key.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, MSG_DONTWAIT, MSG_PEEK, socket, socketpair
from select import POLLIN, poll

from relay.dial.command import ChildStream
from relay.dial.only_ssh import can_be_overheard, has_ticket, without_kerberos
from relay.errors import CommandFailed, RelayError
from relay.run import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from relay.config.settings import HopSettings
    from relay.contract import Netcat, Progress, Reach, Stream
    from relay.dial.overheard import Overheard
    from relay.run import Run
    from relay.run.program import Program

# ssh closes all descriptors that it inherits but 0, 1 and 2. So its ProxyCommand, this program, connects to a socket of
# ours and fetches the stream there. It hands on the control message as it came: the number in that message is already
# the number of the descriptor that came with it. (The program holds no quote and no percent sign, since a shell and ssh
# read it first. An address that begins with @ is one of Linux's abstract addresses.)
_FETCH = (
    "import _socket as s,sys;"
    "c=s.socket(s.AF_UNIX);"
    "c.connect_ex(sys.argv[1].replace(chr(64),chr(0),1))and sys.exit(1);"  # our relay, and its socket, are gone
    "s.socket(s.AF_UNIX,s.SOCK_STREAM,0,1).sendmsg([bytes(1)],c.recvmsg(1,64)[1])"
)
_NOISE = 65536  # bytes that a shell's start-up files may print before our line


class OpensshHop:
    """One hop. ssh logs in to it when it forwards.

    reach: makes a stream to the hop. learn: is told by which method ssh has got in, if that is to be remembered.
    """

    learn: Callable[[str], None] | None = None

    def __init__(self, settings: HopSettings, reach: Reach, run: Run) -> None:
        self.place = run.progress.place
        self._settings = settings
        self._reach = reach
        self._children = run.children
        self._checks = run.options.checks
        self._seen = run.prompt.sees()

    alive = True  # each stream is a login of its own

    def jumps(self) -> str:
        """Return the hops up to this one for ssh's -J: none, since ssh logs in here and words its own messages."""
        return ""

    def quiet_for(self) -> float:
        """Seconds since the hop has sent something: not known, since it is not connected before it forwards."""
        return float("inf")

    def probe(self, seconds: float) -> bool:  # noqa: ARG002  (there is nothing to ask before it forwards)
        """Whether the hop shows a sign of life: nothing speaks against it, since each stream is a login of its own."""
        return True

    def round_trip(self, seconds: float) -> None:
        """Return None: ssh does not say it."""

    def park(self) -> None:
        """Do nothing: this hop has no threads to stop."""

    def take_over(self) -> None:
        """Return None: ssh drives its own connection."""

    def close(self) -> None:
        """Do nothing: this hop's streams are programs, which end with the run."""

    def ask(self, to: tuple[str, int]) -> None:
        """None: ssh logs in first."""

    def forward(
        self,
        host: str,
        port: int,
        progress: Progress,
        netcat: Netcat | None = None,
        limit: float | None = None,  # noqa: ARG002  (the run's deadline ends ssh)
        *,
        asked: None = None,  # noqa: ARG002
    ) -> SshStream:
        """Return a stream from the hop to host and port, once ssh has logged in. ssh asks the hop for it next.

        netcat changes only the hint: ssh does not tell us why a hop refuses to
        forward. Raises RelayError; ssh's own messages are on stderr.
        """
        following, progress.place = progress.place, self.place
        under, address = self._reach()
        progress.stage("login by ssh")
        progress.by_program(seen=self._seen)
        ours, theirs = socketpair()
        mark = f"pyrelay-{os.urandom(8).hex()}"
        with _Counter(under) as counter:
            connects = self._settings.exempts(address)
            way = _connecting(address) if connects else _fetching(counter.address)
            argv = _argv(_asking_nobody(self._settings, address), host, port, way, mark)
            argv[1:1], heard = self._overhearing(progress)
            stderr = heard.writer if heard is not None else None
            tell = progress.hear if self._checks else None
            try:
                child = self._children.connect(argv, theirs, tell=tell, stderr=stderr)
            finally:
                theirs.close()
            if heard is not None:
                heard.started()
            stream = SshStream(ours, child, counter.check, self.place)
            stream.is_quiet = self._settings.log_level == "quiet"
            stream.heard = heard
            if not connects:
                counter.serve(stream.descriptor)
        try:
            stream.skip_to(mark)
        except BaseException:
            stream.close()
            raise
        progress.heard()
        if self.learn is not None:
            self.learn(heard.method() if heard is not None else "")
        if netcat is not None:
            stream.hint = "--netcat has no effect on a hop that ssh carries"
        self._children.hush(child)
        progress.stage("")
        progress.place = following
        return stream

    def _overhearing(self, progress: Progress) -> tuple[list[str], Overheard | None]:
        """Return the options that make ssh speak, and who hears it; None: nothing is to be learnt."""
        if self._checks:
            return ["-v", *_writing_nothing(self._settings)], None
        loud = ["-v"] if progress.verbosity >= 3 else []
        if self.learn is None or not can_be_overheard(self._settings):
            return loud, None
        from relay.dial.overheard import Overheard  # only where something is to be learnt

        all_of_it = progress.verbosity >= 3 or self._settings.log_level == "verbose"
        return [*loud, "-o", "LogLevel=VERBOSE"], Overheard(all_of_it=all_of_it)


def _fetching(address: str) -> dict[str, str]:
    """Return the options by which ssh fetches the stream to the hop. address: where."""
    fetch = " ".join(map(_quoted, (sys.executable, "-ISc", _FETCH, address))).replace("%", "%%")
    return {"ProxyCommand": fetch, "ProxyUseFdpass": "yes"}


def _quoted(word: str) -> str:
    """Return a word as a shell takes it for itself. (To import shlex takes as long as all of a plain relay.)"""
    return "'" + word.replace("'", """'"'"'""") + "'"


def _connecting(address: str) -> dict[str, str]:
    """Return the options by which ssh connects to the hop by itself, at an address of the same family."""
    return {"ProxyCommand": "none", "AddressFamily": "inet6" if ":" in address else "inet"}


def _asking_nobody(settings: HopSettings, address: str) -> HopSettings:
    """Return the settings by which ssh lets our resolver see no name of a hop that this machine has not looked up.

    address: that of a hop that it has. A login by Kerberos needs the name looked up; without a ticket there is none.
    """
    return settings if address or has_ticket(settings.environ) else without_kerberos(settings)


def _argv(settings: HopSettings, host: str, port: int, way: dict[str, str], mark: str) -> list[str]:
    """Return the command line of the ssh that carries a hop. If an option is given twice, ssh takes the first one.

    way: the options by which ssh reaches the hop. LocalCommand reports the end of the login: it prints the mark,
    before the first byte of the stream.
    """
    options = {
        **way,
        "VerifyHostKeyDNS": "no",  # it would show our resolver a name that only the proxy or Tor may see
        "ControlMaster": "no",
        "ControlPath": "none",
        "PermitLocalCommand": "yes",
        "LocalCommand": f"echo {mark}",
    }
    if settings.strictness == "no":  # a changed key is refused, whoever logs in
        options["StrictHostKeyChecking"] = "accept-new"
    for name in ("StdinNull", "ForkAfterAuthentication"):
        if settings.yes(name.lower()):  # an old ssh does not know the option, and does not print it
            options[name] = "no"
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ["ssh", *words, "-W", target, *settings.words]


def _writing_nothing(settings: HopSettings) -> list[str]:
    """Return options by which ssh knows the hosts that it knows otherwise, and writes nothing (--check).

    ssh writes to the user's files only. So here those count as the system's.
    """
    known = [*settings.paths("userknownhostsfile"), *settings.paths("globalknownhostsfile")]
    files = " ".join(f'"{path}"' for path in known) or "none"
    options = {
        "UserKnownHostsFile": os.devnull if settings.paths("userknownhostsfile") else "none",
        "GlobalKnownHostsFile": files,
        "UpdateHostKeys": "no",
        "AddKeysToAgent": "no",
    }
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


class SshStream(ChildStream):
    """The stdin and stdout of an ssh.

    check_under: raises RelayError when the stream below, to the hop, has failed. place: what messages call the hop.
    is_quiet: whether LogLevel keeps ssh from saying why it fails. hint: what to try when ssh fails. heard: what passes
    ssh's words on, if they do not go to our stderr by themselves.
    """

    is_quiet = False
    hint = ""
    heard: Overheard | None = None

    def __init__(self, ours: socket, child: Program, check_under: Callable[[], None], place: str) -> None:
        super().__init__(ours, child)
        self._check_under = check_under
        self._place = place

    def status(self) -> int | None:
        """Return ssh's exit status; None while it still runs. What it printed has been shown by then."""
        status = super().status()
        if status is not None and self.heard is not None:
            self.heard.ended()
            self.heard = None  # waited for once: what ssh has started may have its stderr for longer
        return status

    def skip_to(self, mark: str) -> None:
        """Read up to the line that LocalCommand prints, and not a byte more. Raises RelayError if ssh has ended."""
        line = mark.encode() + b"\n"
        said = b""
        while not said.endswith(line):
            byte = self.recv(1)
            if not byte or len(said) > _NOISE:
                raise self._failure()
            said += byte

    def check(self, *, heard: bool = True) -> None:  # noqa: ARG002
        """Raise RelayError when the stream has ended because ssh has failed. Call it after reading the end."""
        if self.descriptor.fileno() >= 0 and not _has_ended(self.descriptor):
            return
        if self.status() not in (0, None):
            raise self._failure()

    def _failure(self) -> RelayError:
        """Return why ssh has ended: the fault of the stream below it, if that has failed."""
        hint = self.hint
        try:
            self._check_under()
        except CommandFailed as command:
            hint = hint or command.cause
        status = self.status()
        if status is not None and status < 0:
            return RelayError(f"ssh, which carries this hop, was killed by signal {-status}", place=self._place)
        ended = "ended" if status is None else f"ended with status {status}"
        why = "LogLevel QUIET keeps it from saying why" if self.is_quiet else "it says why itself"
        return RelayError(f"ssh, which carries this hop, {ended}; {why}", hint=hint, place=self._place)


def _has_ended(stream: socket) -> bool:
    """Whether the far side has sent end-of-file, and everything before it has been read."""
    try:
        return not stream.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except OSError as error:
        return not isinstance(error, BlockingIOError)


class _Counter:
    """The socket at which ssh's ProxyCommand fetches the stream to the hop. A context manager; it serves one customer.

    check: raises RelayError when the stream has failed. address: the socket's address, for _FETCH.
    """

    def __init__(self, stream: Stream) -> None:
        self.check: Callable[[], None] = stream.check
        descriptor = stream.descriptor
        if descriptor is None:
            from relay.ssh.wire.adapter import as_socket  # threads

            descriptor = as_socket(stream)
        self._socket = descriptor
        self._listener = socket(AF_UNIX)
        self._directory = ""
        if sys.platform == "linux":  # an abstract address leaves no file behind
            self.address = f"@pyrelay-{os.urandom(16).hex()}"
        else:
            from tempfile import mkdtemp

            self._directory = mkdtemp(prefix="pyrelay-")
            self.address = f"{self._directory}/stream"
        self._listener.bind(self.address.replace("@", "\0", 1))
        self._listener.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        os.close(self._socket.detach())  # ssh has it now; what it depends on stays open: a master's control connection
        if self._directory:
            os.unlink(self.address)
            os.rmdir(self._directory)

    def serve(self, ssh: socket) -> None:
        """Hand the stream over, unless ssh ends before it fetches it."""
        table = poll()
        table.register(self._listener, POLLIN)
        table.register(ssh, 0)  # to see it hang up
        while self._listener.fileno() in (fd for fd, _ in table.poll()):
            customer = socket(fileno=self._listener._accept()[0])  # type: ignore[attr-defined]  # accept, without more imports
            try:
                if unix.peer_uid(customer) == os.geteuid():  # anyone can connect to an abstract address (unix(7))
                    self._socket.setblocking(True)  # ssh expects a blocking socket
                    unix.send(customer, b"\0", [self._socket.fileno()])
                    return
            finally:
                customer.close()
