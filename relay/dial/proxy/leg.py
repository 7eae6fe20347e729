"""Connects through a proxy: reach the proxy, then ask it for the host."""

from __future__ import annotations

from relay.dial import tcp
from relay.dial.proxy.who import Who
from relay.dial.proxy.wire import NoAnswer, NoMethod, Wire
from relay.errors import RelayError
from relay.spec.proxy import GSSAPI, HTTP, PROTECTIONS, SECURE, TOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from relay.contract import Stream
    from relay.run import Run
    from relay.spec.proxy import Proxy

TOR_ANSWER = 5.0  # seconds for the first two bytes of a Tor on this machine, if there is another place to try
METHOD_ANSWER = 5.0  # seconds for the answer of a SOCKS5 proxy that is asked only to word an error better
HINT_TORSOCKS = "torsocks lets nothing connect to this machine: call ssh without it, for pyrelay goes to Tor by itself"


def connect(proxy: Proxy, host: str, port: int, run: Run, terms: tcp.Terms = tcp.USUAL) -> Stream:
    """Return a stream to host that the proxy has made. The host is never looked up here.

    terms: for the connection to the proxy. Their timeout holds once more for its answer. Raises RelayError.
    """
    if "%" in host:  # a zone names an interface of this machine, which means nothing to the proxy
        raise RelayError(f"an address with a zone means nothing to {proxy}")
    who = Who(proxy, run)

    def reach(place: Proxy, first: float | None = None) -> Wire:
        """Connect to the proxy itself. first: seconds for its first answer."""
        wire = Wire(_reach(place, run, terms), place, host, run.progress, seconds=terms.timeout, first=first)
        if place.kind == SECURE:
            from relay.dial.proxy import tls  # it imports ssl

            run.progress.stage(f"TLS with {place}", hint=tls.HINT_PLAIN)
            tls.secure(wire, who.cacert)
        run.progress.stage(f"waiting for {place} to reach {host} port {port}")
        return wire

    if proxy.kind in HTTP:
        from relay.dial.proxy import http

        return http.connect(lambda: reach(proxy), host, port, who)
    if proxy.manner.auth == GSSAPI:
        return _by_gssapi(reach, host, port, who)

    if proxy.kind == TOR:
        who.isolate(host, port)
    user, password = who.credentials()

    def through(place: Proxy, first: float | None = None) -> Stream:
        """Connect to host through the proxy at one place."""
        try:
            with reach(place, first) as wire:
                # Only now: the connection reaches a far proxy meanwhile. (HTTP has no need of PySocks.)
                from relay.dial.proxy.handshake import negotiate

                negotiate(wire, host, port, user, password)
                return wire.leave()
        except NoMethod as error:
            run.progress.failed()
            raise _explained(error, reach, place, user) from error

    return _through_tor(through, run) if proxy.kind == TOR and not proxy.address else through(proxy)


def _by_gssapi(reach: Callable[[Proxy], Wire], host: str, port: int, who: Who) -> Stream:
    """Connect to host through a SOCKS5 proxy, with a login by GSS-API. Raises RelayError."""
    from relay.dial.proxy import gss, records
    from relay.dial.proxy.handshake import greet_gssapi, negotiate

    context, token = who.begin_kerberos("rcmd", gss.KERBEROS, records.FLAGS)
    with reach(who.proxy) as wire:
        greet_gssapi(wire)
        records.agree(wire, context, token, who.proxy.manner.protection or PROTECTIONS[-1])
        negotiate(wire, host, port, None, None, logged_in=True)
        return wire.leave()


def _explained(error: NoMethod, reach: Callable[[Proxy, float], Wire], place: Proxy, user: str | None) -> RelayError:
    """Return an error that says which login the proxy wants, if another connection finds it out; else return error."""
    from relay.dial.proxy.handshake import find_method  # the handshake has imported it already

    try:
        with reach(place, METHOD_ANSWER) as wire:
            return find_method(wire, user)
    except RelayError:
        return error


def _through_tor(through: Callable[[Proxy, float | None], Stream], run: Run) -> Stream:
    """Connect through the first place that answers like Tor's SOCKS port. Raises RelayError."""
    from relay.dial.proxy.tor import HOST_VARIABLE, PORT_VARIABLE, places

    causes = []
    hint = ""
    candidates = places(run.children.environ)
    for place in candidates:
        try:
            return through(place, None if place is candidates[-1] else TOR_ANSWER)
        except NoAnswer as error:
            causes.append(error.cause)
            hint = hint or error.hint
            if place is not candidates[-1]:
                run.progress.failed()
    if hint != HINT_TORSOCKS:
        hint = f"start tor, or say where it listens: {HOST_VARIABLE} and {PORT_VARIABLE}, -x HOST:PORT or -x PATH"
    raise RelayError(f"no Tor: {'; '.join(causes)}", hint=hint)


def _reach(proxy: Proxy, run: Run, terms: tcp.Terms) -> socket:
    """Connect to the proxy itself. Raises NoAnswer."""
    try:
        if proxy.path:
            return tcp.connect_unix(proxy.path, run.progress)
        return tcp.connect(proxy.host, proxy.port, run.progress, terms)
    except RelayError as error:
        hint = error.hint
        if "operation not permitted" in error.cause and "torsocks" in run.children.environ.get("LD_PRELOAD", ""):
            hint = HINT_TORSOCKS
        raise NoAnswer(f"{proxy}: {error.cause}", hint=hint) from error
