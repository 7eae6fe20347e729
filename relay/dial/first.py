"""Makes the first connection of a route as the plan says: by TCP, a proxy, Tor, or the first hop's ProxyCommand."""

from __future__ import annotations

from relay.dial import tcp
from relay.dial.plan import COMMAND, TCP
from relay.dial.stream import SocketStream
from relay.errors import printable
from relay.spec.route import DEFAULT_DELIMITERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.contract import Stream
    from relay.dial.plan import Leg
    from relay.run import Run


def connect(kind: str, host: str, port: int, run: Run, terms: tcp.Terms, *, typed: bool = True) -> Stream:
    """Return a stream to host and port. Raises RelayError.

    kind: TCP, PROXY or TOR. typed: whether the name stands in ssh's command line so (tcp.connect).
    """
    if kind == TCP:
        return SocketStream(tcp.connect(host, port, run.progress, terms, typed=run.options if typed else None))
    from relay.dial.proxy import leg
    from relay.spec.proxy import TOR, Proxy

    proxy = run.options.proxy or Proxy(TOR)
    return leg.connect(proxy, host, port, run, terms)


def first_leg(leg: Leg, run: Run) -> tuple[Stream, str]:
    """Return a stream to the first name of a route, and the name's address if the stream is a TCP connection to it.

    The address is "" for any other stream. Raises RelayError.
    """
    hop, options = leg.settings, run.options
    if leg.reached.kind == COMMAND:
        from relay.dial import command  # few hops have a ProxyCommand

        run.progress.by_program(seen=run.prompt.sees())
        return command.run(hop.proxy_command(), hop, run.progress, run.children), ""
    direct = leg.reached.kind == TCP
    family, source, interface = 0, "", ""  # ssh_config sets these for the hop, not for a proxy
    if direct:
        family = tcp.FAMILIES.get(hop.get("addressfamily"), 0)
        source, interface = hop.get("bindaddress"), hop.get("bindinterface")
    terms = tcp.Terms(
        family=options.family or family,
        local=tcp.Local(options.source or source or None, interface=interface or None),
        timeout=hop.seconds("connecttimeout") or None,
        attempts=hop.number("connectionattempts", 1),
        keepalive=hop.yes("tcpkeepalive"),
        service=hop.service(),
    )
    run.prompt.batch = hop.yes("batchmode")
    typed = hop.hostname == hop.name and hop.name in options.destination  # in no -J, and in no ProxyJump
    try:
        stream = connect(leg.reached.kind, hop.hostname, hop.port, run, terms, typed=typed)
    except tcp.NoSuchHost as error:
        error.hint = error.hint or _jump_with_user(hop.name)
        raise
    if stream.descriptor is None or not direct:
        return stream, ""
    try:
        address, port = stream.descriptor.getpeername()[:2]
        run.progress.learn("address", f"{address} port {port}")
        return stream, address
    except OSError:  # reset at once: the first read will report it
        return stream, ""


def _jump_with_user(name: str) -> str:
    """Return the hint for a name of -J that has a user before it as a route has it, "" for any other name."""
    for mark in DEFAULT_DELIMITERS.user:
        user, found, host = name.partition(mark)
        if user and found and host and ":" not in user:  # not the zone of an address
            return printable(f"in -J and in ProxyJump a user is written {user}@{host}", 100)
    return ""
