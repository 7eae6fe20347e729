"""HTTP CONNECT: RFC 9110 section 9.3.6.

This is our own code, since PySocks reads beyond the header and so loses bytes of
the target. A proxy that wants a login answers 407. We then ask again over a new
connection: squid and tinyproxy close the first one, and so the body of the 407
need not be read.
"""

from __future__ import annotations

from relay.dial.proxy.message import authority, request, response
from relay.errors import RelayError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.contract import Stream
    from relay.dial.proxy.login import Login
    from relay.dial.proxy.message import Head
    from relay.dial.proxy.who import Who
    from relay.dial.proxy.wire import Wire

MOST = 4  # requests; a login takes two, or three when a nonce was stale


def connect(reach: Callable[[], Wire], host: str, port: int, who: Who) -> Stream:
    """Return a connection to host through a proxy. reach: makes a new connection to the proxy. Raises RelayError."""
    wanted = authority(host, port)
    headers = who.headers()
    login: Login | None = None
    if who.proxy.manner.auth is not None:
        login = _login(wanted, who)
        login.begin()
    for _ in range(MOST):
        with reach() as wire:
            said = [f"Proxy-Authorization: {login.answer}"] if login is not None and login.answer else []
            wire.send(request(wanted, [*headers, *said]))
            head = response(wire)
            while 100 <= head.status < 200:  # an interim response may come at any time (RFC 9110 section 15.2)
                head = response(wire)
            if 200 <= head.status < 300:  # any 2xx opens the tunnel, even if its headers promise a body
                return wire.leave()
        if head.status != 407:
            break
        login = login or _login(wanted, who)
        if not login.take(head.all("proxy-authenticate") or ["Basic"]):  # some name none (nc, too, tries Basic then)
            break
    raise _refused(head, login, who)


def _login(wanted: str, who: Who) -> Login:
    from relay.dial.proxy.login import Login  # few proxies want a login

    return Login(wanted, who)


def _refused(head: Head, login: Login | None, who: Who) -> RelayError:
    """Return the error for a status that opens no tunnel."""
    from relay.dial.proxy.causes import refusal  # only a refusal needs it

    said, hint = refusal(head, login=login)
    return RelayError(f"{who.proxy} refuses: {said}", hint=hint)
