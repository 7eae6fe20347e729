"""Entering a hop: ident, key exchange, host key and login, in this order; and what is remembered from one to the next.

paramiko's exceptions become words here; argv, stdio and how a route is folded are not known.
"""

from __future__ import annotations

import time
from functools import partial

from relay.errors import CommandFailed, RelayError, TimedOut, Unserved, in_seconds, printable
from relay.ssh import announced, quantum
from relay.ssh.login.auth import AheadRefused, login
from relay.ssh.login.methods import OURS
from relay.ssh.memory import CHANNEL, GUESS, KEXINIT, KEY, Shown, name_of
from relay.ssh.pubkey import key_type
from relay.ssh.session import Session
from relay.ssh.trust.trust import Trust
from relay.ssh.wire.causes import in_words, no_ident
from relay.ssh.wire.exchanges import EXCHANGES, is_post_quantum
from relay.ssh.wire.library import paramiko
from relay.ssh.wire.negotiation import OnlySsh, Weaker
from relay.ssh.wire.transport import Disconnected, Transport
from relay.ssh.wire.userauth import LinkLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence

    from relay.config.settings import HopSettings
    from relay.contract import Stream
    from relay.run.progress import Progress
    from relay.ssh.login.client import Client

# The algorithms that ssh_config chooses: each keyword's attribute of the Transport, and what the Transport knows.
CHOICES = {
    "kexalgorithms": ("_preferred_kex", tuple(Transport._kex_info)),
    "ciphers": ("_preferred_ciphers", tuple(Transport._cipher_info)),
    "macs": ("_preferred_macs", tuple(Transport._mac_info)),
}


class _Refused(Exception):
    """The login has failed. error: what the user is told."""

    def __init__(self, error: RelayError) -> None:
        self.error = error


class _TooEarly(_Refused):
    """The link has ended, most likely at a thing that was sent ahead, and before a login was refused on it.

    thing: what not to send ahead any more. sure: whether once is enough to say so. A server that has not said its ident
    may turn everybody away just now. key: the name of a key that was refused: it says nothing of another one.
    """

    def __init__(self, error: RelayError, thing: str, *, sure: bool = True, key: str = "") -> None:
        super().__init__(error)
        self.thing, self.sure, self.key = thing, sure, key

    def lesson(self, known: Shown) -> tuple[frozenset[str], str]:
        """Return what is sent ahead in vain from now on, and what may be. known: what was known of the hop before."""
        if not self.key and (self.sure or known.doubt == self.thing):
            return known.in_vain | {self.thing}, ""
        return known.in_vain, "" if self.key else self.thing


def log_in(
    client: Client,
    reached: tuple[Stream, str],
    settings: HopSettings,
    *,
    jumps: str = "",
    following: tuple[str, int] | None = None,
    again: Callable[[], tuple[Stream, str]] | None = None,
) -> Session:
    """Key exchange, host key, login, over a stream that reaches a hop: the hop, logged in to.

    reached: the stream, and the hop's own address when the stream is a TCP connection to it. jumps: the hops before it,
    as ssh's -J has them. following: the host and port of the first `forward`, which one thread must call as soon as
    this is done. again: makes another stream, for a hop that does not take any more what it has taken before.
    Raises RelayError in the words of the stage that failed.
    """
    hop = name_of(settings, jumps)
    shown = client.memory.recall(hop)
    known = shown or Shown()
    in_vain, doubt = known.in_vain, ""
    session: Session | None = None
    client.stays = known.by_ssh in OURS  # ssh has got in, and by what our client has, too
    client.skips = ""
    if not known.method:
        shown = None  # nobody has got in since it last refused: it is met as at first
    try:
        session = _log_in(client, reached, settings, jumps, following=following, shown=shown)
    except _TooEarly as failure:
        client.skips = failure.key
        in_vain, doubt = failure.lesson(known)
        client.memory.forget(hop, shown, in_vain)
        if again is None:
            raise failure.error from failure.__cause__
    except Unserved as refusal:
        if isinstance(cause := refusal.__cause__, OnlySsh):
            client.memory.keep(hop, known.but(ident=known.ident or cause.ident, ssh_only=cause.algorithm))
        raise
    except _Refused as failure:
        got_in = known if known.method or known.by_ssh else None
        client.memory.forget(hop, got_in, in_vain)  # what the hop accepted before may be the cause
        raise failure.error from failure.__cause__
    # Not from within the except: Python would take that failure for the cause of what fails now.
    session = session or _log_in_anew(client, again, settings, jumps, following=following)
    if is_post_quantum(known.own_kex) and not is_post_quantum(session.shown.own_kex):
        in_vain |= {GUESS}  # two servers take turns there: no guess is to keep one of them from its better key exchange
    in_vain |= session.shown.in_vain
    session.opening = session.opening or session.ask(following)  # the server works while the file is written
    client.memory.keep(hop, session.shown.but(in_vain=in_vain, doubt=doubt, by_ssh=known.by_ssh))
    if session.shown.refused:  # the hop may take one of those by now, and let that one go on
        session.denied = partial(client.memory.forget, hop, session.shown, in_vain)
    return session


def _log_in_anew(
    client: Client,
    again: Callable[[], tuple[Stream, str]] | None,
    settings: HopSettings,
    jumps: str,
    *,
    following: tuple[str, int] | None,
) -> Session:
    """Connect once more, and log in with nothing sent ahead. Raises RelayError."""
    assert again is not None  # noqa: S101  (for the type checker: the caller has seen to it)
    client.progress.failed()
    client.progress.note(1, "it does not accept what was sent ahead: connecting once more, without that")
    reached = again()
    try:
        return _log_in(client, reached, settings, jumps, following=following, shown=None)
    except _Refused as failure:
        raise failure.error from failure.__cause__


def _log_in(
    client: Client,
    reached: tuple[Stream, str],
    settings: HopSettings,
    jumps: str,
    *,
    following: tuple[str, int] | None,
    shown: Shown | None,
) -> Session:
    """Log in, with one attempt. shown: what the hop has shown before. Raises RelayError, _Refused and _TooEarly."""
    stream, address = reached
    progress = client.progress
    rekey_limit = settings.rekey_limit()
    trust = Trust(settings, progress, client.prompt, address=address, jumps=jumps, children=client.children)
    trust.writes, trust.straight = client.writes, client.straight
    progress.stage("waiting for the server's ident")
    transport = Transport(_descriptor(stream), stream.channel, progress, direct=bool(address))
    transport.early = shown is not None and shown.takes(KEXINIT)
    session = Session(transport, stream, progress.place, settings.jumps(jumps))
    session.warns = settings.shows_banners
    try:
        own = _order(transport, trust, settings, shown)
        _exchange_keys(session, settings, progress)
        quantum.report(transport, settings, progress)
        progress.stage("host key")
        _verify(transport, trust, own)
        announced.expect(transport, trust, progress)
        progress.stage("login")
        _authenticate(client, session, settings, following, shown)
    except BaseException:
        transport.close()  # a process that goes on would otherwise keep the connection until the server ends it
        raise
    transport.limit_keys(*rekey_limit)  # not before: sshd does not accept a KEXINIT during a login, and ssh sends none
    interval = settings.seconds("serveraliveinterval")
    if interval:
        transport.keep_alive(interval, settings.number("serveralivecountmax", 3))
    return session


def _descriptor(stream: Stream) -> socket | None:
    """The socket that carries a transport; None where a channel does."""
    if stream.descriptor is not None or stream.channel is not None:
        return stream.descriptor
    from relay.ssh.wire.adapter import as_socket  # few streams need it

    return as_socket(stream)


def _order(transport: Transport, trust: Trust, settings: HopSettings, shown: Shown | None) -> tuple[str, ...]:
    """Put the algorithms in order; the host key algorithms as they would be in if nothing was remembered of the hop.

    Where the key exchange is to be guessed, our lists begin with what the server's began with, as far as ssh_config and
    known_hosts allow that. Raises RelayError.
    """
    _choose(transport, settings)
    own = tuple(trust.algorithms(transport.preferred_keys))
    transport.chosen["hostkeyalgorithms"] = trust.chosen
    transport._preferred_keys = own
    exchange = shown.kex if shown is not None and transport.early and shown.takes(GUESS) else ""
    exchanges = transport.preferred_kex
    if shown is None or exchange not in exchanges:
        return own
    if exchange != exchanges[0]:
        # A remembered server must not make the key exchange weaker than the one that it would come to without that.
        equal = exchange == shown.own_kex or all(map(is_post_quantum, (exchange, shown.own_kex)))
        if not equal or settings.chosen("kexalgorithms"):
            return own
    if shown.host_key != own[0]:
        leading = tuple(trust.led_by(shown.host_key, own))
        if leading[0] != shown.host_key:
            return own
        transport._preferred_keys = leading
    transport.unguessed = exchanges
    transport._preferred_kex = (exchange, *(name for name in exchanges if name != exchange))
    transport.guessing = True
    return own


def _verify(transport: Transport, trust: Trust, own: Sequence[str]) -> None:
    """Check the host key. Raises RelayError; _TooEarly if the guess alone has led to a key of that type.

    own: the host key algorithms in the order without a guess. What is known of another type may be out of date: ssh
    would not have looked at it.
    """
    try:
        trust.verify(transport.host_key_blob)
    except RelayError as error:
        offered = transport.remote_lists["server_key_algo_list"]
        usual = next(name for name in own if name in offered)
        if transport.guessing and key_type(usual) != key_type(transport.agreed.host_key):
            raise _TooEarly(error, GUESS) from error.__cause__
        raise


def _exchange_keys(session: Session, settings: HopSettings, progress: Progress) -> None:
    """Exchange idents and keys. Raises RelayError and _TooEarly."""
    try:
        _exchange(session, settings, progress)
    except (TimedOut, Unserved):
        raise
    except RelayError as error:
        transport = session.transport
        if isinstance(error.__cause__, Weaker):
            raise _TooEarly(error, GUESS, sure=False) from error.__cause__  # the next guess may be right
        if transport.early:
            guess = transport.guessing and not transport.packetizer.is_overdue
            sure = bool(transport.remote_version)
            raise _TooEarly(error, GUESS if guess else KEXINIT, sure=sure) from error.__cause__
        raise


def _exchange(session: Session, settings: HopSettings, progress: Progress) -> None:
    """Exchange idents and keys. ConnectTimeout limits the wait for the ident. Raises RelayError."""
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
            raise TimedOut(f"no SSH ident within {in_seconds(limit)} (ConnectTimeout)") from error
        said, ended = transport.packetizer.said, None
        if not isinstance(error, Disconnected):
            ended = _end_of_stream(session, heard=bool(said))
        if not transport.remote_version:
            raise no_ident(error, said, session.stream.carrier) from error
        # A program that ends with bytes unread, our KEXINIT, resets the connection by that.
        if not in_words(error) or (ended is not None and isinstance(error, ConnectionResetError)):
            hint = ended.cause if ended is not None else ""
            raise RelayError(f"the server closed the connection ({progress.doing})", hint=hint) from error
        raise session.lost(error) from error
    except Exception as error:  # paramiko's parsers raise anything at bytes that are not a message
        raise RelayError(in_words(error)) from error


def _end_of_stream(session: Session, *, heard: bool) -> CommandFailed | None:
    """Raise RelayError when the stream below knows why the transport has ended.

    heard: whether the server has said something before its ident. It returns what a ProxyCommand's end may mean where
    the server has been heard: it may have ended since the server had closed.
    """
    try:
        session.check_stream(heard=heard)
    except CommandFailed as ended:
        if heard or session.transport.remote_version:
            return ended
        raise
    return None


def _authenticate(
    client: Client,
    session: Session,
    settings: HopSettings,
    following: tuple[str, int] | None,
    shown: Shown | None,
) -> None:
    """The login, and the channel to what follows where that may be asked for along with it.

    shown: what the hop has shown before. Raises RelayError, _Refused and _TooEarly.
    """
    transport = session.transport
    if shown is not None and shown.ident != transport.remote_version:
        shown = None  # it is another server now
    ask = None
    if following is not None and shown is not None and shown.takes(CHANNEL) and _may_ask_on_the_way(transport):
        ask = partial(transport.ask, "direct-tcpip", *following)
    try:
        session.opening, found = login(transport, settings, client, shown=shown, ask=ask)
    except AheadRefused as error:
        raise _TooEarly(error, KEY, sure=False, key=error.key) from error.__cause__
    except LinkLost as error:
        if not error.disconnected:
            ended = _end_of_stream(session, heard=True)
            error.hint = error.hint or (ended.cause if ended is not None else "")
        if shown is not None and not error.refused and (ask is not None or shown.method == "publickey"):
            raise _TooEarly(error, CHANNEL if ask is not None else KEY) from error.__cause__
        raise _Refused(error) from error.__cause__
    except (TimedOut, Unserved):
        raise
    except RelayError as error:
        raise _Refused(error) from error.__cause__
    lists = transport.remote_lists
    session.shown = found.but(
        ident=transport.remote_version,
        kex=next(iter(lists.get("kex_algo_list", ())), ""),
        own_kex=next((name for name in _own_exchanges(settings) if name in lists.get("kex_algo_list", ())), ""),
        host_key=next(iter(lists.get("server_key_algo_list", ())), ""),
    )


def _own_exchanges(settings: HopSettings) -> tuple[str, ...]:
    """The key exchanges in the order without a guess."""
    wanted = settings.algorithms("kexalgorithms")
    return tuple(EXCHANGES) if wanted is None else tuple(name for name in wanted if name in EXCHANGES)


def _may_ask_on_the_way(transport: Transport) -> bool:
    """Whether a channel may be asked for along with a login, which saves a round trip.

    To a server that lets us in it is a message after the login. To one that
    does not, it came too early: RFC 4252 section 6 has it disconnect, and
    another key, or another factor, would find it gone. OpenSSH says
    UNIMPLEMENTED instead (dispatch_protocol_error).
    """
    return bool(transport.remote_version.startswith("SSH-2.0-OpenSSH_"))


def _choose(transport: Transport, settings: HopSettings) -> None:
    """The algorithms of ssh_config where somebody chose them, in their order. Raises RelayError when none is left."""
    for key, (attribute, known) in CHOICES.items():
        wanted = settings.algorithms(key)
        if wanted is None:
            continue
        names = tuple(name for name in wanted if name in known)
        if not names:
            raise RelayError(
                f"pyrelay has none of the {key} that ssh_config asks for: {','.join(wanted)}",
                hint=f"pyrelay has {','.join(known)}",
            )
        setattr(transport, attribute, names)
        picked = settings.picked(key)
        transport.chosen[key] = tuple(name for name in wanted if name in known or name in picked)


def _incompatible(transport: Transport, error: paramiko.SSHException) -> RelayError:
    """No algorithm in common: Unserved, which says of which kind, with both lists (RFC 4253 section 7.1).

    No lists at all: no version of the protocol in common, which ssh has no other of, either.
    """
    if isinstance(error, OnlySsh):
        return Unserved(str(error))
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
            if not server:
                return RelayError(f"the server names no {word} algorithm")
            # At least one name (RFC 4253 section 7.1), of printable ASCII (RFC 4251 section 6).
            if not all(name and name.isascii() and name.isprintable() for name in theirs.get(offered, ("",))):
                return RelayError(f"the server's message cannot be read: its {word} algorithms are not names: {server}")
            return Unserved(f"no {word} algorithm in common: we have {','.join(ours)}; the server has {server}")
    return Unserved(f"no algorithm in common: {printable(str(error))}")
