"""Logging in to an HTTP proxy, by the strongest method that both sides have.

A refusal ends the login: another try could count as another failed login. If a
method cannot be begun (no ticket, no user), the next one is tried.
"""

from __future__ import annotations

import os

from relay.dial.proxy import digest
from relay.dial.proxy.auth import challenges
from relay.errors import RelayError
from relay.spec.proxy import BASIC, DIGEST, NEGOTIATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.dial.proxy.auth import Challenge
    from relay.dial.proxy.who import Who

STRONGEST = (NEGOTIATE, DIGEST, BASIC)  # the strongest first


class Login:
    """The state of a login.

    wanted: the authority that CONNECT asks for. answer: the next request's Proxy-Authorization, "" for none.
    offered: the schemes of the last 407. problem: why a method that was offered could not be begun, or None.
    """

    def __init__(self, wanted: str, who: Who) -> None:
        self.answer = ""
        self.offered: list[str] = []
        self.problem: RelayError | None = None
        self.has_user = who.user is not None
        self._wanted = wanted
        self._who = who
        self._stale = False

    @property
    def tried(self) -> str:
        """The scheme of our last answer; "" if there was none."""
        return self.answer.partition(" ")[0].lower()

    def begin(self) -> None:
        """Prepare an answer for the first request, if the user chose a method without challenge. Raises RelayError."""
        chosen = self._who.proxy.manner.auth
        if chosen == BASIC and self.has_user:
            self.answer = self._basic()
        elif chosen == NEGOTIATE:
            self.answer = self._negotiate()

    def take(self, lines: Sequence[str]) -> bool:
        """Prepare the answer to the challenges of a 407. Return whether there is one. Raises RelayError."""
        offers = challenges(lines)
        self.offered = list(dict.fromkeys(offer.scheme for offer in offers))
        if self.answer:
            if not (self.tried == DIGEST and not self._stale and digest.is_stale(offers)):
                return False
            self._stale = True
        chosen = self._who.proxy.manner.auth
        for scheme in STRONGEST if chosen is None else (chosen,):
            if found := [offer for offer in offers if offer.scheme == scheme]:
                self.answer = self._answer(scheme, found)
                if self.answer:
                    return True
        return False

    def _answer(self, scheme: str, offers: list[Challenge]) -> str:
        """Return the answer by one method; "" if it cannot be begun. Raises RelayError."""
        if scheme == NEGOTIATE:
            try:
                return self._negotiate()
            except RelayError as error:
                if self._who.proxy.manner.auth == NEGOTIATE:
                    raise
                self.problem = error
                self._who.note(f"no login by negotiate: {error.cause}")
                return ""
        if not self.has_user:
            return ""
        if scheme == BASIC:
            return self._basic()
        if (strongest := digest.strongest(offers)) is None:
            self.problem = RelayError(digest.objection(offers))
            return ""
        return digest.answer(strongest, self._who.user or "", self._who.password(), self._wanted)

    def _basic(self) -> str:
        """Return the answer of Basic (RFC 7617)."""
        from binascii import b2a_base64

        credentials = os.fsencode(f"{self._who.user}:{self._who.password()}")
        return f"Basic {b2a_base64(credentials, newline=False).decode()}"

    def _negotiate(self) -> str:
        """Return the answer of Negotiate (RFC 4559). One token is enough for Kerberos."""
        from binascii import b2a_base64

        from relay.dial.proxy import gss  # it imports ctypes

        token = self._who.begin_kerberos("HTTP", gss.SPNEGO, gss.MUTUAL | gss.REPLAY)[1]
        return f"Negotiate {b2a_base64(token, newline=False).decode()}"
