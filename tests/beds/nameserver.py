"""A small DNS server on loopback that remembers what it was asked: RFC 1035, as far as a resolver's library needs."""

from __future__ import annotations

import socket
import struct
import threading

from peers import LOOPBACK

ANSWER, NO_SUCH_NAME = 0x8180, 0x8183  # flags of a response: recursion wanted and available; and its code
A, IN = 1, 1


class NameServer:
    """Knows that every name under .test is at 127.0.0.1, and no other name.

    asked: the names of all queries, in lower case (resolvers mix the case, to be harder to fool).
    """

    def __init__(self, port: int = 0) -> None:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels = []
        at = 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        question = query[12 : at + 5]
        name = ".".join(labels)
        self.asked.append(name)
        known = name.endswith(".test")
        records = b""
        if known and question[-4:] == struct.pack("!HH", A, IN):
            # The name as a pointer to the question's; good for a minute; four bytes of address.
            records = struct.pack("!HHHIH", 0xC00C, A, IN, 60, 4) + socket.inet_aton(LOOPBACK)
        header = struct.pack("!HHHHHH", 0, ANSWER if known else NO_SUCH_NAME, 1, bool(records), 0, 0)
        return query[:2] + header[2:] + question + records

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (LOOPBACK, self.port))
        self._thread.join()
        self._socket.close()
