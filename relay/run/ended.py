"""How a program that carries a stream has ended, where that is not the cause of the stream's end for certain."""

from __future__ import annotations

from relay.errors import RelayError


class Ended(RelayError):
    """A ProxyCommand has ended with another status than 0.

    Bytes of the server had come through it: it may have failed, or have noticed that the server has closed.
    """
