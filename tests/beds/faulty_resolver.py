"""A name server that has one of the faults: every name is at 127.0.0.1 (RFC 1035; RFC 7766 for TCP)."""

from __future__ import annotations

import select
import socket
import struct
import threading

from faults import GARBAGE, Peer, Wire
from peers import LOOPBACK

PORT = 53  # the only one that resolv.conf knows; so this is for a namespace of one's own
TRUNCATED, ANSWER, NO_SUCH_NAME = 0x8380, 0x8180, 0x8183  # flags of a response; after the first it is asked by TCP
A, IN = 1, 1
MANY = 4000  # addresses; about as many as fit into the 65,535 bytes that an answer can have


class Resolver:
    """A name server on a loopback of one's own. (Where there is none, a query is answered by what is "reset" in TCP.)

    reached: set when it was asked.
    """

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self.reached = threading.Event()
        self._peer = Peer(self._by_tcp, "name look-up" if fault == "drip" else "", fault, PORT)
        self._waker, self._end = socket.socketpair()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, PORT))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._waker not in select.select([self._socket, self._waker], [], [])[0]:
            query, client = self._socket.recvfrom(512)
            self.reached.set()
            for each in self._answers(query):
                self._socket.sendto(each, client)

    def _answers(self, query: bytes) -> list[bytes]:
        """The datagrams that answer a query."""
        right, none, truncated = answer(query), answer(query, NO_SUCH_NAME), answer(query, TRUNCATED)
        return {
            "refused": [none],
            "silence": [],
            "drip": [truncated],
            "garbage": [GARBAGE[:512]],
            "oversize": [truncated],
            "early end": [right[: len(right) // 2]],
            "late data": [none, right],
            "duplicate": [right, right],
        }[self._fault]

    def _by_tcp(self, wire: Wire) -> None:
        while True:  # for IPv4 and for IPv6
            said = answer(wire.hear(int.from_bytes(wire.hear(2))), addresses=MANY)
            wire.say("name look-up", len(said).to_bytes(2) + said)

    def stop(self) -> None:
        """Stop it."""
        self._end.close()  # which wakes the thread
        self._thread.join()
        self._waker.close()
        self._socket.close()
        self._peer.stop()


def answer(query: bytes, flags: int = ANSWER, addresses: int = 1) -> bytes:
    """An answer: that many addresses of 127.0.0.0/8, 127.0.0.1 first, when it is IPv4's that are asked for."""
    end = query.index(b"\0", 12) + 5
    if flags != ANSWER or query[end - 4 : end] != struct.pack("!HH", A, IN):
        addresses = 0
    header = query[:2] + struct.pack("!HHHHH", flags, 1, addresses, 0, 0)
    # The name as a pointer to the question's; good for a minute; four bytes of address.
    record = struct.pack("!HHHIH", 0xC00C, A, IN, 60, 4)
    first = int.from_bytes(socket.inet_aton(LOOPBACK))
    return header + query[12:end] + b"".join(record + (first + i).to_bytes(4) for i in range(addresses))
