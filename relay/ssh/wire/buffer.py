"""A queue of bytes in one piece of memory, which is used again."""

from __future__ import annotations

SLACK = 256 * 1024  # bytes that a large buffer has free after a move
NOTHING = memoryview(b"")


class Buffer:
    """Bytes that wait: data[start:end].

    view: a memoryview of data, for slices without a copy. It is replaced whenever the buffer grows.
    The buffer never shrinks. The caller limits how many bytes may wait.
    """

    def __init__(self, capacity: int) -> None:
        self.data = bytearray(capacity)
        self.view = memoryview(self.data)
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def waiting(self) -> memoryview:
        """The bytes that wait. The view is valid until something is put in."""
        return self.view[self.start : self.end]

    def room(self, size: int) -> memoryview:
        """Memory for at least size more bytes. The caller writes there, then says how many with `wrote`."""
        if len(self.data) - self.end < size:
            self._make_room(size)
        return self.view[self.end :] if self.end else self.view

    def wrote(self, size: int) -> None:
        """Count size bytes that the caller has written into `room`."""
        self.end += size

    def place(self, size: int) -> memoryview:
        """Memory for exactly size more bytes, which count as put there: the caller writes them at once."""
        start = self.end
        if len(self.data) - start < size:
            self._make_room(size)
            start = self.end
        self.end = start + size
        return self.view[start : start + size]

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
        start = self.start + size
        if start == self.end:
            self.start = self.end = 0
        else:
            self.start = start

    def take(self, size: int) -> bytes:
        """Remove and return the first size bytes."""
        taken = bytes(self.view[self.start : self.start + size])
        self.drop(len(taken))
        return taken

    def _make_room(self, size: int) -> None:
        """Move the waiting bytes to the front, and get more memory where too little is free: moves are to be rare."""
        waiting = self.end - self.start
        self.view[:waiting] = self.view[self.start : self.end]
        self.start, self.end = 0, waiting
        needed = waiting + size
        lacking = needed + min(needed, SLACK) - len(self.data)
        if lacking > 0:
            self.view = NOTHING
            try:
                self.data += bytes(lacking)  # in place, so that the waiting bytes are never held twice
            except BufferError:  # somebody still has a view of it
                self.data = self.data + bytes(lacking)
            self.view = memoryview(self.data)
