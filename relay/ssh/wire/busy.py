"""What the thread that drives many connections is told instead of waiting for one of them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.contract import ManyFlows


class Busy(Exception):
    """The thread of a transport computes. The connection is woken when that thread is done: try again then."""

    def __init__(self, connection: ManyFlows) -> None:
        super().__init__()
        self.connection = connection
