"""Much data for a stream, of which no block can be lost, doubled or swapped unseen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO

MEBIBYTE = 1 << 20
SIZE = 100  # MiB


def blocks() -> Iterator[bytes]:
    """Blocks of which no two are alike, so that none can be lost, doubled or swapped unseen."""
    body = os.urandom(MEBIBYTE - 8)
    for number in range(SIZE):
        yield number.to_bytes(8) + body


def send(stream: IO[bytes], digest: hashlib._Hash) -> None:
    with stream:
        for block in blocks():
            digest.update(block)
            stream.write(block)
