"""A hop that has been logged in to, and the streams that it opens.

It knows in which order a hop's stages follow each other, and turns paramiko's
exceptions into words; it must not know argv, stdio, or how a route is folded.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from relay.errors import RelayError, TimedOut, Unserved, plain, printable
from relay.ssh.login.auth import login
from relay.ssh.login.keyring import Keyring
from relay.ssh.trust.trust import Trust
from relay.ssh.wire.channel import ChannelStream
from relay.ssh.wire.library import paramiko
from relay.ssh.wire.opening import Refused
from relay.ssh.wire.takeover import take_over
from relay.ssh.wire.transport import Disconnected, Transport
from relay.ssh.wire.userauth import LinkLost

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping

    from relay import contract
    from relay.config.settings import HopSettings
    from relay.contract import Connection, Stream
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.ssh.wire.opening import Opening

OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED = 1  # RFC 4254 section 5.1
# What a server means that gives no text with its refusal (the same section).
OPEN_FAILURES = {2: "connection failed", 3: "direct-tcpip is unknown to the server", 4: "the server lacks resources"}

# The algorithms that ssh_config chooses: each keyword's attribute of the Transport, and what the Transport knows.
CHOICES = {
    "kexalgorithms": ("_preferred_kex", tuple(Transport._kex_info)),
    "ciphers": ("_preferred_ciphers", tuple(Transport._cipher_info)),
    "macs": ("_preferred_macs", tuple(Transport._mac_info)),
}


class Client:
    """Who logs in: what the sessions of one route share.

    prompt: who is asked, with `batch` as the hop in turn has it. children:
    where a hop's KnownHostsCommand is started.
    """

    def __init__(self, progress: Progress, prompt: Prompt, children: Children) -> None:
        self.progress = progress
        self.prompt = prompt
        self.children = children
        self.keyring = Keyring(prompt)
        _quiet(progress.verbosity)


def log_in(
    client: Client,
    stream: Stream,
    settings: HopSettings,
    address: str = "",
    *,
    jumps: str = "",
    following: tuple[str, int] | None = None,
) -> Session:
    """Key exchange, host key, login, over a stream that reaches a hop: the hop, logged in to.

    address: the hop's own, when the stream is a TCP connection to it. jumps: the hops before it, as ssh's -J has them.
    following: where `forward` is to lead to, the first time; by one thread, and as soon as this is done.
    Raises RelayError in the words of the stage that failed.
    """
    progress = client.progress
    rekey_limit = settings.rekey_limit()
    trust = Trust(settings, progress, client.prompt, address=address, jumps=jumps, children=client.children)
    progress.stage("waiting for the server's ident")
    transport = Transport(_descriptor(stream), stream.channel, progress, direct=bool(address))
    session = Session(transport, stream, progress.place, settings.jumps(jumps))
    try:
        _choose(transport, settings)
        transport._preferred_keys = tuple(trust.algorithms(transport._preferred_keys))
        _exchange_keys(session, settings, progress)
        progress.stage("host key")
        trust.verify(transport.host_key_blob)
        progress.stage("login")
        session.opening = _log_in(client, session, settings, following)
    except BaseException:
        transport.close()  # who lives on would else keep the connection until the server ends it
        raise
    transport.limit_keys(*rekey_limit)  # not before: sshd takes no KEXINIT amid a login, and ssh sends none
    interval = settings.seconds("serveraliveinterval")
    if interval:
        transport.keep_alive(interval, settings.number("serveralivecountmax", 3))
    return session


class Session:
    """One hop, logged in to (contract.Hop).

    transport: its own. place: what messages call the hop. opening: what was asked for ahead of the first `forward`.
    """

    def __init__(self, transport: Transport, stream: Stream, place: str, jumps: str) -> None:
        """stream: what carries the transport. jumps: the hops up to this one, as ssh's -J has them."""
        self.transport = transport
        self.place = place
        self.stream = stream
        self.opening: Opening | None = None
        self._jumps = jumps

    @property
    def alive(self) -> bool:
        """Whether streams can be opened on it, as far as is known."""
        return bool(self.transport.is_active())

    def jumps(self) -> str:
        """The hops up to this one, as ssh's -J has them."""
        return self._jumps

    def forward(
        self, host: str, port: int, progress: contract.Progress, netcat: str | None = None, limit: float | None = None
    ) -> ChannelStream:
        """A stream from the hop to host and port, which the hop looks up (RFC 4254 section 7.2, direct-tcpip).

        progress: of whoever wants it, who need not be the one that logged in.
        netcat: the command that may be run on a hop that denies forwarding,
        "" for one that finds a tool by itself, None for none. limit: seconds
        for the answer, where nothing else ends the wait for it. Raises
        RelayError: when the hop may not forward, it is the hop that failed,
        else it is the place that could not be reached.
        """
        progress.stage("waiting for the hop to connect")
        try:
            opening, self.opening = self.opening, None
            if opening is not None and opening.to != (host, port):
                opening.drop()
                opening = None
            opening = opening or self.transport.ask("direct-tcpip", host, port)
            channel = opening.wait(limit)
        except Refused as error:
            if error.reason == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                if netcat is not None:
                    return self._cross(host, port, netcat, progress, limit=limit)
                raise RelayError(
                    f"the server does not forward to {host} port {port}: {error or 'administratively prohibited'}",
                    hint="AllowTcpForwarding and PermitOpen in its sshd_config decide that; "
                    "--netcat goes by a command on the hop instead, where you may",
                    place=self.place,
                ) from error
            cause = _sentence(str(error)) or OPEN_FAILURES.get(error.reason, "no connection")
            raise RelayError(f"{cause} (says {self.place} of {host} port {port})") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            # What ended the transport says more than what fails once it has ended.
            raise self.lost(self.transport.saved_exception or error) from error
        return ChannelStream(channel, self.lost)

    def _cross(
        self, host: str, port: int, template: str, progress: contract.Progress, *, limit: float | None
    ) -> ChannelStream:
        """The same without forwarding, by a command on the hop."""
        from relay.ssh import netcat  # few hops need it

        progress.note(1, "it denies forwarding: crossing it by a netcat there", place=self.place)
        hop = netcat.Hop(self.transport, self.place, self.lost)
        return netcat.cross(hop, (host, port), template, progress, limit=limit)

    def quiet_for(self) -> float:
        """Seconds since something has come from it, infinite when that is not known."""
        return self.transport.quiet_for()

    def probe(self, seconds: float) -> bool:
        """Whether it shows a sign of life within so many seconds."""
        return self.transport.probe(seconds)

    def park(self) -> None:
        """Prepare for `take_over`: its own thread reads no more. May wait."""
        self.transport.packetizer.park()

    def take_over(self) -> Connection | None:
        """Leave its connection to the caller, who polls and drives it from then on; None when it has ended."""
        link = take_over(self.transport)
        return link.connection if link is not None else None

    def close(self) -> None:
        """Leave it; what was opened on it ends. Once it is taken over: for whoever drives the connection."""
        link = self.transport.packetizer.link
        if link is not None:
            link.fail(EOFError())
        else:
            self.transport.close()

    def lost(self, error: BaseException | None = None) -> RelayError:
        """Why the link is lost, told of the outermost hop that has failed: the others fell with it."""
        try:
            self.check_stream()
        except RelayError as cause:  # what carried it has failed
            return cause
        error = error or self.transport.saved_exception
        if isinstance(error, Disconnected):
            return RelayError(f"the server disconnected: {error}", place=self.place)
        reason = f": {_words(error)}" if error is not None and _words(error) else ""
        return RelayError(f"the connection was lost{reason}", place=self.place)

    def check_stream(self) -> None:
        """Raise RelayError when what carries the transport knows why it has ended."""
        self.stream.check(heard=bool(self.transport.remote_version))


def _descriptor(stream: Stream) -> socket | None:
    """The socket that carries a transport; None where a channel does."""
    if stream.descriptor is not None or stream.channel is not None:
        return stream.descriptor
    from relay.ssh.wire.adapter import as_socket  # few streams need it

    return as_socket(stream)


def _exchange_keys(session: Session, settings: HopSettings, progress: Progress) -> None:
    """Idents and key exchange; ConnectTimeout bounds the wait for the ident. Raises RelayError."""
    transport = session.transport
    limit = settings.seconds("connecttimeout")
    if limit:
        transport.banner_timeout = limit
    began = time.monotonic()
    try:
        transport.start_client()
    except paramiko.IncompatiblePeer as error:
        raise _incompatible(transport, error) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        if not transport.remote_version and limit and time.monotonic() - began >= limit:
            raise TimedOut(f"no SSH ident within {limit:g} seconds (ConnectTimeout)") from error
        session.check_stream()  # what carries the transport may know why it has ended
        if not transport.remote_version:
            raise _no_ident(error, transport.packetizer.said, session.stream.carrier) from error
        if isinstance(error, EOFError):
            raise RelayError(f"the server closed the connection ({progress.doing})") from error
        raise session.lost(error) from error
    except Exception as error:  # what paramiko's parsers raise at bytes that are no message
        raise RelayError(f"the server's message cannot be read: {printable(str(error))}") from error


def _log_in(
    client: Client, session: Session, settings: HopSettings, following: tuple[str, int] | None
) -> Opening | None:
    """The login; the channel to what follows, if it has been asked for. Raises RelayError."""
    ask = None
    if following is not None and _may_ask_on_the_way(session.transport):
        ask = partial(session.transport.ask, "direct-tcpip", *following)
    try:
        return login(session.transport, settings, client.progress, client.prompt, client.keyring, ask=ask)
    except LinkLost:
        session.check_stream()  # what carries the transport may know why it has ended
        raise


def _may_ask_on_the_way(transport: Transport) -> bool:
    """Whether a channel may be asked for along with a login, which saves a round trip.

    To a server that lets us in it is a message after the login. To one that
    does not, it came too early: RFC 4252 section 6 has it disconnect, and
    another key, or another factor, would find it gone. OpenSSH says
    UNIMPLEMENTED instead (dispatch_protocol_error).
    """
    return bool(transport.remote_version.startswith("SSH-2.0-OpenSSH_"))


def _no_ident(error: BaseException, said: str, carrier: str) -> RelayError:
    """Why a server has not said that it speaks SSH.

    said: what it has said instead; sshd says why it lets nobody in. carrier: a command that carries the stream, or "".
    """
    cause = error.__context__ if isinstance(error, paramiko.SSHException) else error
    instead = f"; it said: {printable(said, 80)}" if said else ""
    if "\ufffd" in said:
        cause, instead = UnicodeError(), ""
    if isinstance(cause, (EOFError, ConnectionError)):
        forced = f"; so does a command that the hop forces (ForceCommand) in place of {carrier}" if carrier else ""
        return RelayError(
            f"the connection was closed before the server's SSH ident{instead}",
            hint=f"a server that is short of room for new logins does so (MaxStartups, PerSourcePenalties){forced}",
        )
    if isinstance(cause, OSError):
        return RelayError(_words(cause))
    if isinstance(cause, UnicodeError):
        return RelayError(
            f"this is no SSH server: what it says is no text{instead}",
            hint="start-up files of the hop's shell may say something first" if carrier else "",
        )
    return RelayError(f"this is no SSH server: {_words(cause or error)}")


def _choose(transport: Transport, settings: HopSettings) -> None:
    """The algorithms of ssh_config where somebody chose them, in their order. Raises RelayError when none is left."""
    for key, (attribute, known) in CHOICES.items():
        wanted = settings.algorithms(key)
        if wanted is None:
            continue
        names = tuple(name for name in wanted if name in known)
        if not names:
            raise RelayError(
                f"none of the {key} that ssh_config asks for is to be had: {','.join(wanted)}",
                hint=f"pyrelay has {','.join(known)}",
            )
        setattr(transport, attribute, names)


def _incompatible(transport: Transport, error: paramiko.SSHException) -> RelayError:
    """No algorithm in common: Unserved, which says of which kind, with both lists (RFC 4253 section 7.1).

    No lists at all: no version of the protocol in common, which ssh has no other of, either.
    """
    theirs: Mapping[str, list[str]] = transport.remote_lists
    if not theirs:
        return RelayError(f"the server speaks another version of the protocol: {printable(transport.remote_version)}")
    for word, ours, offered in (
        ("key exchange", transport.preferred_kex, "kex_algo_list"),
        ("host key", transport.preferred_keys, "server_key_algo_list"),
        ("cipher", transport.preferred_ciphers, "client_encrypt_algo_list"),
        ("MAC", transport.preferred_macs, "client_mac_algo_list"),
        ("compression", transport.preferred_compression, "client_compress_algo_list"),
    ):
        if not set(ours) & set(theirs.get(offered, ())):
            server = printable(",".join(theirs.get(offered, ())), 400)
            # At least one name (RFC 4253 section 7.1), of printable ASCII (RFC 4251 section 6).
            if not all(name and name.isascii() and name.isprintable() for name in theirs.get(offered, ("",))):
                return RelayError(f"the server's message cannot be read: its {word} algorithms are no names: {server}")
            return Unserved(f"no {word} algorithm in common: we have {','.join(ours)}; the server has {server}")
    return Unserved(f"no algorithm in common: {printable(str(error))}")


def _sentence(text: str) -> str:
    """A server's text as the end of a line of ours: no capital at its start."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _words(error: BaseException | None) -> str:
    """The cause in a library's exception, in words."""
    if isinstance(error, OSError) and error.strerror:
        return _sentence(error.strerror)
    return _sentence(printable(str(error))) if error is not None else ""


class _Plain(logging.Formatter):
    """paramiko logs what a server says as it says it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, as a terminal may have it."""
        return plain(super().format(record))


def _quiet(verbosity: int) -> None:
    """paramiko logs what we say ourselves, and without a handler logging prints it on stderr; -vvv shows it."""
    logger = logging.getLogger("paramiko")
    if logger.handlers:
        return
    logger.propagate = False
    if verbosity >= 3:
        handler = logging.StreamHandler()
        handler.setFormatter(_Plain())
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    else:
        logger.addHandler(logging.NullHandler())
