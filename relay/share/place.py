"""Where relays and their holder meet: a directory of the user's own, a socket, and a lock.

The holder is whoever has the lock. Who takes it makes the socket, under
another name, and gives it its own by rename: so there is a socket that
somebody listens to, or nobody has the lock, but for the moment between the
two. A holder of another version has other names.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from _socket import AF_UNIX, socket

from relay import __version__
from relay.errors import Forked, RelayError, words
from relay.run.unix import peer_uid
from relay.share.wire import BadMessage, Ended, Wire, has_come

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

SOCKET, LOCK = f"{__version__}.sock", f"{__version__}.lock"
SHORT = 90  # bytes of a path that fit in sun_path everywhere, with a suffix
BACKLOG = 1024
PATIENCE = 10.0  # seconds for a holder that is just beginning, or ending
SILENCE = 60.0  # seconds without a first word, after which a holder is stopped, or stuck; it takes milliseconds
LOOK_AGAIN = 0.005  # seconds
LOOK_ROUND = 0.25  # seconds from one look at whether it is to be waited for to the next


class Gone(Exception):
    """There is no holder."""


def directory(environ: Mapping[str, str]) -> str:
    """The user's directory for sockets, made when it is not there. Raises RelayError when others may get at it."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not (base and _is_ours(base)):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".ssh")
    path = os.path.join(base, "pyrelay")
    try:
        os.makedirs(base, 0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RelayError(f"--share: {path}: {words(error)}") from error
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RelayError(f"--share: {path} must be a directory that is yours alone", hint=f"chmod 700 {path}")
    return path


def _is_ours(directory: str) -> bool:
    """Whether there is such a directory and it is the user's, as XDG_RUNTIME_DIR must be; `su` leaves another's."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def connect(path: str) -> Wire:
    """A connection to whoever listens at the socket in this directory. Raises Gone, and RelayError.

    It is the same user, but may be about to end: until it is `welcomed`, nothing that it is told counts.
    """
    sock = socket(AF_UNIX)
    sock.settimeout(SILENCE)
    try:
        _near(path, lambda base: sock.connect(os.path.join(base, SOCKET)))
        _check_peer(sock, path)
    except OSError as error:
        sock.close()
        raise _no_answer(error) from error
    except BaseException:
        sock.close()
        raise
    return Wire(sock)


def welcomed(wire: Wire, wait_on: Callable[[], bool]) -> Wire:
    """The same, once the holder has said its first word: it takes requests.

    wait_on: whether it is to be waited for, asked now and then. Raises Gone, and RelayError.
    """
    until = time.monotonic() + SILENCE
    try:
        while not has_come(wire.socket.fileno(), LOOK_ROUND):
            if time.monotonic() > until or not wait_on():
                raise TimeoutError
        kind, _ = wire.receive()
        if kind != "welcome":
            raise BadMessage(kind)
    except (Ended, BadMessage, TimeoutError) as error:
        wire.close()
        raise _no_answer(error) from error
    wire.socket.settimeout(None)
    return wire


def find(path: str, wait_on: Callable[[], bool]) -> Wire:
    """A connection to the holder that has its socket in this directory: it takes requests. Raises Gone, RelayError.

    wait_on: as for `welcomed`.
    """
    return welcomed(connect(path), wait_on)


def find_or_start(path: str, hold: Callable[[socket, int], NoReturn], wait_on: Callable[[], bool]) -> Wire:
    """The same; when there is no holder, a process that this one forks becomes it, by calling `hold`.

    For the main thread, before there is another. Raises RelayError, and Forked in the process that becomes it.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return find(path, wait_on)
        except Gone as error:
            if time.monotonic() > deadline or not wait_on():
                raise RelayError("--share: the process that holds the shared hops does not answer") from error
        lock = _take_lock(path)
        if lock is None:
            time.sleep(LOOK_AGAIN)  # the holder is between lock and socket, or about to end: nothing tells of that
            continue
        try:
            listener = _listen(path)
            is_holder = os.fork() == 0
        except BaseException:
            os.close(lock)
            raise
        if is_holder:
            _leave_relay(listener, lock)
            raise Forked(lambda listener=listener, lock=lock: hold(listener, lock))  # type: ignore[misc]
        listener.close()
        os.close(lock)  # the child has it, too, and keeps it


def withdraw(path: str, lock: int) -> None:
    """Be found no more; for the holder, which still has the lock. One in a directory that was removed is not found."""
    try:
        mine, found = os.fstat(lock), os.stat(os.path.join(path, LOCK))
        if (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino):
            os.unlink(os.path.join(path, SOCKET))
    except FileNotFoundError:
        pass


def _no_answer(error: Exception) -> Gone | RelayError:
    """What it means when there is no first word: nobody is there, or who is there is stopped, or stuck."""
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return RelayError("--share: the process that holds the shared hops does not answer")
    return Gone()


def _check_peer(sock: socket, path: str) -> None:
    if peer_uid(sock) != os.geteuid():
        raise RelayError(f"--share: who listens in {path} is another user")


def _near(path: str, do: Callable[[str], None]) -> None:
    """Call `do` with a name of the directory that is short enough for sun_path: itself, or "." from within."""
    if len(os.fsencode(path)) <= SHORT:
        do(path)
        return
    here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    os.chdir(path)
    try:
        do(".")
    finally:
        os.fchdir(here)
        os.close(here)


def _take_lock(path: str) -> int | None:
    """The holder's lock, or None when somebody has it. Raises RelayError."""
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RelayError(f"--share: {path}: {words(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:  # a file system without locks
        os.close(lock)
        raise RelayError(f"--share: {path}: {words(error)}") from error
    return lock


def _listen(path: str) -> socket:
    """The holder's socket, in the place of one that a killed holder has left."""
    listener = socket(AF_UNIX)
    try:
        _near(path, lambda base: _bind(listener, os.path.join(base, SOCKET)))
    except OSError as error:
        listener.close()
        raise RelayError(f"--share: {path}: {words(error)}") from error
    return listener


def _bind(listener: socket, name: str) -> None:
    fresh = f"{name}.new"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    listener.bind(fresh)
    os.chmod(fresh, 0o600)
    listener.listen(BACKLOG)
    os.rename(fresh, name)


def _leave_relay(listener: socket, lock: int) -> None:
    """Leave everything of the relay behind but listener and lock: terminal, directory, stdio, all descriptors."""
    try:
        os.setsid()
        os.chdir("/")
        os.umask(0o077)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        kept = sorted((listener.fileno(), lock))
        for low, high in zip([2, *kept], [*kept, os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(low + 1, min(high, 65536))
    except BaseException:
        os._exit(1)
