"""What ends a relay: its states, and the events that lead from one state to the next. Only this module decides that.

It does not read, write or wait. A driver reports an event, and does what the table decides. There are three drivers:
poll on descriptors (mover.py), a flow's connection (channels.py), and the loop that holds shared hops
(share/served.py).

A relay has two ways: out, from stdin to the target, and back, from the target to stdout. Each state says which of them
are open:

    STARTING    both; no byte of the target has been delivered yet. If the parent changes, ssh has gone
    ASKED       back only; no byte of the target has been delivered yet
    RELAYING    both; from here on a change of parent means nothing: `ssh -f` and ControlPersist change the parent of
                a living session
    ANSWERING   back only: stdin has ended, or the target takes nothing more
    LINGERING   out only: the target sends nothing more. It may have gone, or still listen; TCP does not tell which.
                ssh -W assumes at once that it has gone. We still send it what stdin has
    OVER        neither: all bytes that came were delivered
    GONE        neither: ssh has gone
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STARTING, ASKED, RELAYING, ANSWERING = "starting", "asked", "relaying", "answering"
LINGERING, OVER, GONE = "lingering", "over", "gone"

# Events
DELIVERED = "a byte of the target is delivered"
STDIN_ENDED = "stdin has ended"
TARGET_ENDED = "the target has said its last, and that is delivered"
TARGET_DEAF = "the target takes nothing more"
TARGET_HUNG_UP = "its socket says that the target has gone"  # heeded when all is read: before, data may be unread
SILENCE = "nothing has happened for as long as PATIENCE says"
PARENT_CHANGED = "the process that started this one is not its parent any more"
SSH_LEFT = "nobody reads stdout any more, or the terminal has hung up, or the relay's process has ended"

# Decisions
NOTHING = ""
TELL_TARGET = "tell the target that nothing follows"
END_STDOUT = "show the end of file to ssh"
LEAVE_TERMINAL = "leave the terminal: closing it must not end a session that may outlive it"
LAST_WORDS = "send what ssh has left on stdin, its goodbye, as far as that needs no waiting"

# For each state: an event, the next state, and the decision. An event that a state does not name changes nothing.
TABLE: Mapping[str, Mapping[str, tuple[str, str]]] = {
    STARTING: {
        DELIVERED: (RELAYING, LEAVE_TERMINAL),
        STDIN_ENDED: (ASKED, TELL_TARGET),
        TARGET_DEAF: (ASKED, NOTHING),
        TARGET_ENDED: (LINGERING, END_STDOUT),
        PARENT_CHANGED: (GONE, LAST_WORDS),
        SSH_LEFT: (GONE, LAST_WORDS),
    },
    ASKED: {
        DELIVERED: (ANSWERING, LEAVE_TERMINAL),
        TARGET_ENDED: (OVER, END_STDOUT),
        PARENT_CHANGED: (GONE, NOTHING),
        SSH_LEFT: (GONE, NOTHING),
    },
    RELAYING: {
        STDIN_ENDED: (ANSWERING, TELL_TARGET),
        TARGET_DEAF: (ANSWERING, NOTHING),
        TARGET_ENDED: (LINGERING, END_STDOUT),
        SSH_LEFT: (GONE, LAST_WORDS),
    },
    ANSWERING: {
        TARGET_ENDED: (OVER, END_STDOUT),
        SSH_LEFT: (GONE, NOTHING),
    },
    LINGERING: {
        STDIN_ENDED: (OVER, TELL_TARGET),
        TARGET_DEAF: (OVER, NOTHING),
        TARGET_HUNG_UP: (OVER, NOTHING),
        SILENCE: (OVER, NOTHING),
        SSH_LEFT: (GONE, LAST_WORDS),
    },
    OVER: {},
    GONE: {},
}
OUT = frozenset({STARTING, RELAYING, LINGERING})  # the states in which stdin is read
BACK = frozenset({STARTING, ASKED, RELAYING, ANSWERING})  # the states in which the target is read

# Seconds without an event, after which the driver looks at the parent and reports SILENCE. In LINGERING they count only
# while the relay waits for stdin, and not for the target to take bytes.
PATIENCE: dict[str, float] = {STARTING: 0.5, ASKED: 0.5, LINGERING: 1.0}
GRACE = 0.001  # seconds that a connection's `rest` may wait; poll knows no shorter time
GOODBYE = 16  # moves of last words; they move more than ssh can have left in a pipe or a socket
LAST_WORDS_PASS = 0.05  # seconds for the server to pass them on, when a signal ends the process
CLOSING = 1.0  # seconds for the server to pass the last bytes on to the target, once ssh has gone


class Rules:
    """The state of one relay. out, back: whether that way is open. over: neither is, so no bytes are to be moved.

    row: the events that the state names.
    """

    def __init__(self) -> None:
        self.state = STARTING
        self.row = TABLE[STARTING]
        self.out = self.back = True
        self.over = False

    def heed(self, event: str) -> str:
        """Go to the state that the event leads to; return the decision: what the driver must do."""
        change = self.row.get(event)
        if change is None:
            return NOTHING
        self.state, decision = change
        self.row = TABLE[self.state]
        self.out, self.back = self.state in OUT, self.state in BACK
        self.over = not (self.out or self.back)
        return decision
