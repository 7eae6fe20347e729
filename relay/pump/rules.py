"""What ends a relay: its states, and what leads from each to the next. The one place that decides it.

Nothing is read, written or waited for here. A driver says what has happened (an event), and does what is decided. There
are three: poll on descriptors (mover.py), a flow's connection (channels.py), and the loop that holds shared hops
(share/served.py).

A relay has two ways: out, from stdin to the target, and back, from the target to stdout. Its states, by which of them
are open:

    STARTING    both; no byte of the target has been delivered: if the parent changes, ssh has gone
    ASKED       back alone, and no byte of the target has been delivered
    RELAYING    both; from here on another parent means nothing: `ssh -f` and ControlPersist change a living session's
    ANSWERING   back alone: stdin has ended, or the target takes nothing more
    LINGERING   out alone: the target has said its last. Has it gone, or does it still listen? TCP does not tell;
                ssh -W takes it to have gone, at once. Here it is given what stdin still has to say
    OVER        neither: all that came was delivered
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
TARGET_HUNG_UP = "its socket says that the target has gone"  # while it can be read from, it says so with data unread
SILENCE = "nothing has happened for as long as PATIENCE says"
PARENT_CHANGED = "the process that started this one is not its parent any more"
SSH_LEFT = "nobody reads stdout any more, or the terminal has hung up, or the relay's process has ended"

# Decisions
NOTHING = ""
TELL_TARGET = "tell the target that nothing follows"
END_STDOUT = "show the end of file to ssh"
LEAVE_TERMINAL = "leave the terminal: closing it must not end a session that may outlive it"
LAST_WORDS = "send what ssh has left on stdin, its goodbye, as far as that needs no waiting"

# From each state: the event, the next state, and what is to be done. What a state does not name changes nothing.
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
BACK = frozenset({STARTING, ASKED, RELAYING, ANSWERING})  # those in which the target is

# Seconds without an event after which there is one all the same: a look at the parent, or SILENCE. In LINGERING they
# count only while nothing but stdin is waited for.
PATIENCE: dict[str, float] = {STARTING: 0.5, ASKED: 0.5, LINGERING: 1.0}
GOODBYE = 16  # moves of last words; more than ssh can have left behind in a pipe or a socket
CLOSING = 1.0  # seconds that the way to the target has to pass on the last bytes once ssh has gone


class Rules:
    """One relay's state. out, back: whether that way is open."""

    def __init__(self) -> None:
        self.state = STARTING
        self.out = self.back = True

    @property
    def over(self) -> bool:
        """Whether neither way is open: nothing more is to be moved."""
        return not (self.out or self.back)

    def heed(self, event: str) -> str:
        """What is to be done now that this has happened."""
        row = TABLE[self.state].get(event)
        if row is None:
            return NOTHING
        self.state, decision = row
        self.out, self.back = self.state in OUT, self.state in BACK
        return decision
