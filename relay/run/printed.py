"""What is printed on stdout where nothing is relayed: help, plans, lists."""

from __future__ import annotations

import os

from relay.errors import RelayError, words

STDOUT = 1


def put(data: bytes) -> None:
    """Write all of the data on stdout. A reader that has gone is not an error. Raises RelayError for any other."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(STDOUT, rest) :]
    except BrokenPipeError:
        pass
    except OSError as error:
        raise RelayError(words(error), place="stdout") from error
