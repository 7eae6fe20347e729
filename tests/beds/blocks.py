"""Much data for a stream, of which no block can be lost, doubled or swapped unseen."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

MEBIBYTE = 1 << 20


def blocks(count: int = 100) -> Iterator[bytes]:
    """Blocks of a mebibyte, of which no two are alike."""
    body = os.urandom(MEBIBYTE - 8)
    for number in range(count):
        yield number.to_bytes(8) + body


def send(stream: IO[bytes], digest: hashlib._Hash, count: int = 100) -> None:
    with stream:
        for block in blocks(count):
            digest.update(block)
            stream.write(block)


def echo_blocks(client: subprocess.Popen[bytes], count: int = 100) -> None:
    """So many mebibytes go to a client that ends in `cat`, and come back whole; it ends by itself and well."""
    assert client.stdin
    assert client.stdout
    sent, received, length = hashlib.sha256(), hashlib.sha256(), 0
    sender = threading.Thread(target=send, args=(client.stdin, sent, count))
    sender.start()
    while data := client.stdout.read(MEBIBYTE):
        received.update(data)
        length += len(data)
    sender.join()
    assert client.wait(30) == 0
    assert length == count * MEBIBYTE
    assert received.digest() == sent.digest()
