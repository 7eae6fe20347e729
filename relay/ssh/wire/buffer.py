"""Bytes in the order in which they came, in one piece of memory that is used again."""

from __future__ import annotations


class Buffer:
    """Bytes that wait: data[start:end].

    view: of data, for slices that copy nothing; a new one whenever the buffer
    has had to grow. It never shrinks: who puts bytes in says how many may wait.
    """

    def __init__(self, capacity: int) -> None:
        self.data = bytearray(capacity)
        self.view = memoryview(self.data)
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def waiting(self) -> memoryview:
        """The bytes that wait; good until something is put in."""
        return self.view[self.start : self.end]

    def room(self, size: int) -> memoryview:
        """Where at least size more bytes can be written; `wrote` then says how many were."""
        if len(self.data) - self.end < size:
            self._make_room(size)
        return self.view[self.end :]

    def wrote(self, size: int) -> None:
        """So many bytes of `room` are bytes that wait now."""
        self.end += size

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Add a copy of data."""
        size = len(data)
        end = self.end
        if len(self.data) - end < size:
            self._make_room(size)
            end = self.end
        self.view[end : end + size] = data
        self.end = end + size

    def drop(self, size: int) -> None:
        """Forget the first size bytes."""
        self.start += size
        if self.start == self.end:
            self.start = self.end = 0

    def take(self, size: int) -> bytes:
        """The first size bytes, which wait no longer."""
        taken = bytes(self.view[self.start : self.start + size])
        self.drop(len(taken))
        return taken

    def _make_room(self, size: int) -> None:
        """Move what waits to the front; into new memory when it fills more than half, so that it is seldom moved."""
        waiting = self.end - self.start
        if 2 * (waiting + size) > len(self.data):
            data = bytearray(2 * (waiting + size))
            data[:waiting] = self.view[self.start : self.end]
            self.data, self.view = data, memoryview(data)
        else:
            self.view[:waiting] = self.view[self.start : self.end]
        self.start, self.end = 0, waiting
