"""ProxyUseFdpass: the connection itself is handed to ssh, and no relay is in its way.

ssh then gives one socket of its own as stdin and stdout, takes a byte with a
descriptor from it (SCM_RIGHTS), and waits until the process that it started has
ended: OpenSSH's ssh_proxy_fdpass_connect (sshconnect.c). A plain TCP or proxied
connection is handed over as it is. The stream through a hop is no descriptor, so
ssh is given one end of a socket pair, and a process in the background relays
between the other end and the hop for as long as ssh keeps its own.

That process is forked before any thread exists, and does all the work. The one
that ssh started only waits for it: to be ready, or to fail.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM, socket, socketpair

from relay.errors import RelayError, UsageError
from relay.run import unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from relay.contract import Stream

READY = b"\0"


def check(stdout: int) -> None:
    """Raise UsageError unless stdout is a socket over which a descriptor can be handed."""
    try:
        ssh = socket(fileno=os.dup(stdout))
    except OSError:
        pass
    else:
        unix = ssh.family == AF_UNIX
        ssh.close()
        if unix:
            return
    raise UsageError(
        "stdout is no socket that a connection could be handed over", hint="ProxyUseFdpass yes", place="--fdpass"
    )


def hand_over(stream: Stream, stdout: int) -> None:
    """Give a connection to ssh, which then has it for itself. Raises RelayError when ssh does not take it."""
    if stream.descriptor is None:
        raise RelayError(
            "the connection cannot be handed over: the proxy protects what passes, though that was not asked for",
            hint="ask for it, and the relay stays in the way: --proxy-protection integrity",
        )
    _give(stream.descriptor, stdout)


def _give(connection: socket, stdout: int) -> None:
    ssh = socket(fileno=os.dup(stdout))
    try:
        unix.send(ssh, READY, [connection.fileno()])
    except OSError as error:
        raise RelayError("ssh has gone") from error
    finally:
        ssh.close()


class Helper:
    """The process in the background, as it sees itself.

    parent: the process that ssh started, and that has forked this one.
    """

    def __init__(self, parent: int, control: socket, mine: socket) -> None:
        self.parent = parent
        self._control = control
        self._mine = mine

    def take_over(self, stdin: int, stdout: int) -> int:
        """The stream is there: ssh gets its end of the socket pair, and ours becomes stdin and stdout.

        Returns the new parent, once the old one has ended. From then on nothing
        but ssh's end of the pair holds this process.
        """
        os.dup2(self._mine.fileno(), stdin)
        os.dup2(self._mine.fileno(), stdout)
        self._mine.close()
        # The hang-up of the terminal would end it under a persisted ControlMaster, which outlives that.
        os.setsid()
        self._control.send(READY)
        self._control.recv(1)  # the end of file, when the parent has ended
        self._control.close()
        return os.getppid()


def fork(stdout: int) -> Helper:
    """Go on in a process of the background; the one that was started never comes back from here."""
    control, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    mine, for_ssh = socketpair(AF_UNIX, SOCK_STREAM)
    parent = os.getpid()
    child = os.fork()
    if child:
        theirs.close()
        mine.close()
        _wait(child, control, for_ssh, stdout)
    control.close()
    for_ssh.close()
    return Helper(parent, theirs, mine)


def _wait(child: int, control: socket, for_ssh: socket, stdout: int) -> NoReturn:
    """Hand the socket pair's end to ssh when the child is ready; else end as the child has ended."""
    status = 0
    try:
        if control.recv(1) == READY:
            _give(for_ssh, stdout)
        else:  # it has said why
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os._exit(status)
