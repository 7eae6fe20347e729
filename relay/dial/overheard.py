"""ssh's stderr, passed on as it comes; it says by which method ssh has got in.

ssh says so at the LogLevel VERBOSE only. What else it says at that level and not at INFO is left out.
"""

from __future__ import annotations

import os
import re
from threading import Event, Thread

from relay.ssh.login.methods import OURS

STDERR = 2
SIZE = 4096  # bytes read at once
PATIENCE = 2.0  # seconds; what ssh has said before it runs LocalCommand is in the pipe by then
# verbose() in sshconnect2.c; the second one is for a method that was not enough.
_GOT_IN = re.compile(rb'Authenticated to .* using "([a-z0-9@.-]+)"\.')
_PARTLY = re.compile(rb'Authenticated using "([a-z0-9@.-]+)" with partial success\.')
_LEFT_OUT = (
    *(b"Authenticated to ", b"Authenticated using ", b"Killed by signal "),
    *(b"Transferred: sent ", b"Bytes per second: sent "),
    *(b"Learned new hostkey: ", b"Adding new key for ", b"Deprecating obsolete hostkey: "),
)


class Overheard:
    """What one ssh says. writer: the descriptor to start it with as its stderr; `started` closes it here.

    all_of_it: whether nothing is left out, since the user wants to hear it.
    """

    def __init__(self, *, all_of_it: bool) -> None:
        self._reader, self.writer = os.pipe()
        self._all_of_it = all_of_it
        self._methods: list[str] = []
        self._known = Event()
        self._over = Event()
        Thread(target=self._listen, daemon=True).start()

    def started(self) -> None:
        """ssh has its stderr."""
        os.close(self.writer)

    def method(self) -> str:
        """Return by which method ssh has got in, "" if it has not said so: if there were several, one of ssh's own."""
        self._known.wait(PATIENCE)
        return next((name for name in self._methods if name not in OURS), self._methods[-1] if self._methods else "")

    def ended(self) -> None:
        """ssh has ended: wait until all that it has said is passed on."""
        self._over.wait(PATIENCE)

    def _listen(self) -> None:
        said = b""
        while data := os.read(self._reader, SIZE):
            *lines, said = (said + data).split(b"\n")
            for line in lines:
                self._hear(line + b"\n")
        if said:
            self._hear(said)
        os.close(self._reader)
        self._known.set()
        self._over.set()

    def _hear(self, line: bytes) -> None:
        got_in = _GOT_IN.match(line)
        if found := got_in or _PARTLY.match(line):
            self._methods.append(found[1].decode())
        if self._all_of_it or not line.startswith(_LEFT_OUT):
            try:
                os.write(STDERR, line)
            except OSError:
                pass  # nobody reads it
        if got_in:
            self._known.set()
