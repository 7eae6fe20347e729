"""The Digest scheme of HTTP, as a proxy's login for CONNECT: RFC 7616, by SHA-256 or MD5, with qop=auth. Pure.

It proves that we know the password without sending it. Challenges without a qop (RFC 2069) are not answered: a false
proxy could prepare a dictionary of passwords for such an answer.
"""

from __future__ import annotations

import hashlib
import os

from relay.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from relay.dial.proxy.auth import Challenge

ALGORITHMS: dict[str, Callable[..., Any]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}  # the strongest first
COUNT = "00000001"  # uses of the client's nonce: each answer has a new one


def strongest(offers: Sequence[Challenge]) -> Challenge | None:
    """Return the Digest challenge with the strongest algorithm that we have, or None."""
    usable = [
        offer
        for offer in offers
        if _algorithm(offer) in ALGORITHMS and "auth" in _qop(offer) and "\r" not in "".join(offer.parameters.values())
    ]
    return min(usable, key=lambda offer: list(ALGORITHMS).index(_algorithm(offer)), default=None)


def objection(offers: Sequence[Challenge]) -> str:
    """Return why `strongest` has found none of these challenges to be usable."""
    algorithms = [_algorithm(offer) for offer in offers]
    if ALGORITHMS.keys().isdisjoint(algorithms):
        return f"its Digest is by {printable(', '.join(algorithms), 60)}; pyrelay has {' and '.join(ALGORITHMS)}"
    return "its Digest has no qop=auth, without which a false proxy could try passwords on the answer"


def is_stale(offers: Sequence[Challenge]) -> bool:
    """Whether the proxy has refused an answer only because its nonce was too old (section 3.3)."""
    return any(offer.scheme == "digest" and offer.parameters.get("stale", "").lower() == "true" for offer in offers)


def answer(offer: Challenge, user: str, password: str, uri: str, *, method: str = "CONNECT", cnonce: str = "") -> str:
    """Return Proxy-Authorization's value for a challenge (section 3.4). cnonce: the client's nonce; "": make one."""
    algorithm = _algorithm(offer)
    realm, nonce = offer.parameters.get("realm", ""), offer.parameters.get("nonce", "")
    cnonce = cnonce or os.urandom(16).hex()

    def digest(*parts: str) -> str:
        text = os.fsencode(":".join(parts))
        return str(ALGORITHMS[algorithm](text, usedforsecurity=False).hexdigest())

    secret = digest(user, realm, password)
    response = digest(secret, nonce, COUNT, cnonce, "auth", digest(method, uri))
    fields = [f"username={_quoted(user)}", f"realm={_quoted(realm)}", f"nonce={_quoted(nonce)}", f"uri={_quoted(uri)}"]
    fields += [f'cnonce="{cnonce}"', f"nc={COUNT}", "qop=auth", f'response="{response}"']
    if "algorithm" in offer.parameters:
        fields.append(f"algorithm={algorithm}")
    if "opaque" in offer.parameters:
        fields.append(f"opaque={_quoted(offer.parameters['opaque'])}")
    return f"Digest {', '.join(fields)}"


def _algorithm(offer: Challenge) -> str:
    return offer.parameters.get("algorithm", "MD5").upper()


def _qop(offer: Challenge) -> list[str]:
    return [each.strip().lower() for each in offer.parameters.get("qop", "").split(",")]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
