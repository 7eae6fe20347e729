"""ProxyUseFdpass: hand the connection itself to ssh, so that its bytes pass through no relay.

ssh starts the program with one socket as both stdin and stdout. It receives a
byte with a descriptor over that socket (SCM_RIGHTS), and waits until the process
that it started has ended: ssh_proxy_fdpass_connect in OpenSSH's sshconnect.c.

A plain TCP or proxied connection is handed over as it is. A stream through a hop
is not a descriptor. So ssh gets one end of a socket pair, and a background process
relays between the other end and the hop for as long as ssh keeps its end.

That background process is forked before any thread exists, and does all the work.
The process that ssh started only waits until the other is ready, or has failed.
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
    """Raise UsageError unless stdout is a socket that can pass descriptors."""
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
        "stdout is not a socket, so the connection cannot be handed over", hint="ProxyUseFdpass yes", place="--fdpass"
    )


def hand_over(stream: Stream, stdout: int) -> None:
    """Hand a connection to ssh, which then owns it. Raises RelayError when ssh does not take it."""
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
    """What the background process needs of its parent. parent: the process that ssh started, which forked this one."""

    def __init__(self, parent: int, control: socket, mine: socket) -> None:
        self.parent = parent
        self._control = control
        self._mine = mine

    def take_over(self, stdin: int, stdout: int) -> int:
        """The stream is open: have the parent hand ssh its end of the socket pair, and make our end stdin and stdout.

        It returns the new parent, when the old one has ended. From then on only
        ssh's end of the pair keeps this process running.
        """
        os.dup2(self._mine.fileno(), stdin)
        os.dup2(self._mine.fileno(), stdout)
        self._mine.close()
        # A persisted ControlMaster outlives its terminal: the terminal's hang-up must not end this process.
        os.setsid()
        self._control.send(READY)
        self._control.recv(1)  # the end of file, when the parent has ended
        self._control.close()
        return os.getppid()


def fork(stdout: int) -> Helper:
    """Fork the background process, and return in it only; the process that ssh started waits and ends in here."""
    control, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    mine, for_ssh = socketpair(AF_UNIX, SOCK_STREAM)
    parent = os.getpid()
    try:
        child = os.fork()
    except BlockingIOError as error:
        for end in (control, theirs, mine, for_ssh):
            end.close()
        raise RelayError("no process can be started for --fdpass", hint="ulimit -a shows the limits") from error
    if child:
        theirs.close()
        mine.close()
        _wait(child, control, for_ssh, stdout)
    control.close()
    for_ssh.close()
    return Helper(parent, theirs, mine)


def _wait(child: int, control: socket, for_ssh: socket, stdout: int) -> NoReturn:
    """Hand ssh its end of the socket pair when the child is ready; if the child fails, exit with its status."""
    status = 0
    try:
        if control.recv(1) == READY:
            _give(for_ssh, stdout)
        else:  # the child has printed why it failed
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os._exit(status)
