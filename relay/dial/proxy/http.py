"""HTTP CONNECT: RFC 9110 section 9.3.6.

Own code, for PySocks reads beyond the header and loses what the server has said
already. A proxy that wants a login says so by a 407, and is asked again, by
another connection: squid and tinyproxy close theirs, and whatever else follows
a 407 need not be read.
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

MOST = 4  # requests; a login takes two, or three where it has grown stale


def connect(reach: Callable[[], Wire], host: str, port: int, who: Who) -> Stream:
    """A connection to host by a proxy that `reach` connects to, anew each time. Raises RelayError."""
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
            if 200 <= head.status < 300:  # any of them is the tunnel, whatever its headers say of a body
                return wire.leave()
        if head.status != 407 or not head.all("proxy-authenticate"):
            break
        login = login or _login(wanted, who)
        if not login.take(head.all("proxy-authenticate")):
            break
    raise _refused(head, login, who)


def _login(wanted: str, who: Who) -> Login:
    from relay.dial.proxy.login import Login  # few proxies want one

    return Login(wanted, who)


def _refused(head: Head, login: Login | None, who: Who) -> RelayError:
    """The error for a status that is no tunnel."""
    from relay.dial.proxy.causes import refusal  # only a refusal has any

    said, hint = refusal(head, login=login)
    return RelayError(f"{who.proxy} refuses: {said}", hint=hint)
