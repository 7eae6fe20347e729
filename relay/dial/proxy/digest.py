"""The Digest scheme of HTTP, as a proxy's login for CONNECT: RFC 7616, by SHA-256 or MD5, with qop=auth. Pure.

It proves that the password is known without saying it. RFC 2069's form, which has no qop, is not answered: whoever
plays the proxy could have a dictionary ready for it.
"""

from __future__ import annotations

import hashlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from relay.dial.proxy.auth import Challenge

ALGORITHMS: dict[str, Callable[..., Any]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}  # the strongest first
COUNT = "00000001"  # each answer has a nonce of the client's own, so each is its first use


def strongest(offers: Sequence[Challenge]) -> Challenge | None:
    """The strongest of the Digest challenges that can be answered."""
    usable = [
        offer
        for offer in offers
        if _algorithm(offer) in ALGORITHMS and "auth" in _qop(offer) and "\r" not in "".join(offer.parameters.values())
    ]
    return min(usable, key=lambda offer: list(ALGORITHMS).index(_algorithm(offer)), default=None)


def is_stale(offers: Sequence[Challenge]) -> bool:
    """Whether the proxy has refused an answer for the age of its nonce alone (section 3.3)."""
    return any(offer.scheme == "digest" and offer.parameters.get("stale", "").lower() == "true" for offer in offers)


def answer(offer: Challenge, user: str, password: str, uri: str, *, method: str = "CONNECT", cnonce: str = "") -> str:
    """The value of Proxy-Authorization for a challenge (section 3.4). cnonce: the client's nonce, made unless given."""
    algorithm = _algorithm(offer)
    realm, nonce = offer.parameters.get("realm", ""), offer.parameters.get("nonce", "")
    cnonce = cnonce or os.urandom(16).hex()

    def digest(*parts: str) -> str:
        text = ":".join(parts).encode("utf-8", "surrogateescape")
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
