"""Where relays and their holder meet: a directory of the user's own, a socket, and a lock.

The process that has the lock is the holder. It makes the socket under another
name, listens, and then renames the socket. So while the lock is held, somebody
listens at the socket, except in the moment between lock and rename. A holder of
another version has a socket and a lock of other names.

Several machines may have one home, and a socket is a way to a process of its
own machine only. The lock's file has the name of the holder's machine.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from _socket import AF_UNIX, socket
from errno import EPERM

from relay import __version__
from relay.errors import EXIT_FAULT, Forked, RelayError, Unserved, printable, shortage, words
from relay.run.unix import peer_pid, peer_uid
from relay.share.wire import BadMessage, Ended, Wire, has_come, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

ENDING = ".sock"
SOCKET, LOCK = f"{__version__}{ENDING}", f"{__version__}.lock"
SHORT = 85  # bytes; a path so long, and a file's name after it, fit in sun_path on every system
BACKLOG = 1024
_NAME_MOST = 256  # bytes of a machine's name
PATIENCE = 10.0  # seconds to wait for a holder that is just starting, or ending
SILENCE = 60.0  # seconds; a holder that sends no "welcome" within them is stopped or stuck. It takes milliseconds
LOOK_AGAIN = 0.005  # seconds
USED_UP = 64  # exit statuses of a holder that could not start begin here: what was used up, by its number in SHORTAGES
SHORTAGES = ("out of memory", "cannot allocate memory", "too many open files", "too many open files in system")
LOOK_ROUND = 0.25  # seconds between two calls of wait_on


class Gone(Exception):
    """There is no holder."""


def directory(environ: Mapping[str, str], *, make: bool = True) -> str:
    """The user's directory for sockets. Raises RelayError if other users have access.

    make: whether it is made if it does not exist; if not, Gone is raised.
    """
    base = environ.get("XDG_RUNTIME_DIR", "")
    home = ""
    if not (base and _is_ours(base)):
        home = environ.get("HOME") or os.path.expanduser("~")
        base = os.path.join(home, ".ssh")
    path = os.path.join(base, "pyrelay")
    if not os.path.isdir(path):
        if not make:
            raise Gone
        _make(path, home or base)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RelayError(f"--share: {path} must be a directory that is yours alone", hint=f"chmod 700 {path}")
    return path


def _make(path: str, below: str) -> None:
    """Make the directory; `below` must be there: nobody's home is made here. Raises RelayError."""
    from relay.run import private  # most often it is there

    try:
        os.stat(below)
        private.make(path)
    except OSError as error:
        hint = "`sudo -H` sets HOME" if error.errno == EPERM else ""
        raise RelayError(f"--share: {path}: {words(error)}", hint=hint) from error


def _is_ours(directory: str) -> bool:
    """Whether the directory exists and is the user's own. After `su`, XDG_RUNTIME_DIR names another user's."""
    try:
        found = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def others(path: str) -> list[tuple[str, int]]:
    """The holders of other versions with a socket in this directory: each version, and the process, 0 if unknown."""
    found = []
    for name in sorted(os.listdir(path)):
        if name.endswith(ENDING) and name != SOCKET:
            try:
                wire = connect(path, name)
            except (Gone, RelayError):
                continue
            found.append((name.removesuffix(ENDING), peer_pid(wire.socket)))
            wire.close()
    return found


def connect(path: str, name: str = "") -> Wire:
    """Connect to the process that listens at a socket in this directory, ours unless named. Raises Gone, RelayError.

    That process is the same user's, but it may be about to end. What is sent to it counts only after `welcomed`.
    """
    sock = socket(AF_UNIX)
    sock.settimeout(SILENCE)
    try:
        _near(path, lambda base: sock.connect(os.path.join(base, name or SOCKET)))
        _check_peer(sock, path)
    except OSError as error:
        sock.close()
        raise _no_answer(error) from error
    except BaseException:
        sock.close()
        raise
    return Wire(sock)


def welcomed(wire: Wire, wait_on: Callable[[], bool]) -> Wire:
    """Wait for the holder's "welcome", its first message, and return the wire: the holder now takes requests.

    wait_on: whether to go on waiting; called every LOOK_ROUND seconds. Raises Gone, and RelayError; Unserved when the
    holder has no room for another relay.
    """
    until = time.monotonic() + SILENCE
    try:
        while not has_come(wire.socket.fileno(), LOOK_ROUND):
            if time.monotonic() > until or not wait_on():
                raise TimeoutError
        kind, fields = wire.receive()
        if kind == "full":
            wire.close()
            raise Unserved(text(fields[0]))
        if kind != "welcome":
            raise BadMessage(kind)
    except (Ended, BadMessage, TimeoutError) as error:
        wire.close()
        raise _no_answer(error) from error
    wire.socket.settimeout(None)
    return wire


def find(path: str, say: Callable[[Wire], None], wait_on: Callable[[], bool]) -> Wire:
    """Connect to the holder that has its socket in this directory, say what we want, and wait for its "welcome".

    wait_on: as for `welcomed`. Raises Gone, RelayError and Unserved.
    """
    wire = connect(path)
    try:
        say(wire)
    except Ended:
        pass  # it may have no room for us: it says so
    return welcomed(wire, wait_on)


def find_or_start(
    path: str, say: Callable[[Wire], None], hold: Callable[[socket, int], NoReturn], wait_on: Callable[[], bool]
) -> Wire:
    """Connect to the holder and say what we want. If there is none, fork a process that becomes it by calling `hold`.

    Call it in the main thread, before there is a second one. Raises RelayError, Unserved when the holder has no room
    for another relay or cannot start; Forked in the forked process.
    """
    deadline = time.monotonic() + PATIENCE
    holder = 0
    while True:
        try:
            return find(path, say, wait_on)
        except Gone as error:
            if holder and (status := _status(holder)):
                raise _did_not_start(status) from error
            if time.monotonic() > deadline or not wait_on():
                raise RelayError("--share: the process that holds the shared hops does not answer") from error
        lock = _take_lock(path)
        if lock is None:
            if machine := _other_machine(path):
                raise Unserved(f"{machine}, which has the same {path}, holds hops there")
            time.sleep(LOOK_AGAIN)  # the holder is between lock and rename, or about to end: no event reports either
            continue
        try:
            listener = _listen(path)
            holder = os.fork()
        except BlockingIOError as error:
            os.close(lock)
            raise Unserved("no process can be started to hold the hops") from error
        except BaseException:
            os.close(lock)
            raise
        if not holder:
            _leave_relay(listener, lock)
            raise Forked(lambda listener=listener, lock=lock: hold(listener, lock))  # type: ignore[misc]
        listener.close()
        os.close(lock)  # the child has it too, and keeps it


def start_failed(error: Exception) -> NoReturn:
    """End the holder's process, which could not start, with a status that tells the relay what was used up."""
    words = shortage(error)
    os._exit(USED_UP + SHORTAGES.index(words) if words in SHORTAGES else EXIT_FAULT)


def _status(child: int) -> int:
    """The status of a child that has ended, as waitpid has it; 0 while it runs, and for a child that ended well."""
    try:
        return os.waitpid(child, os.WNOHANG)[1]
    except ChildProcessError:  # it was reported before, or is not to be (SIGCHLD is ignored)
        return 0


def _did_not_start(status: int) -> RelayError:
    """The error for a holder that has ended before it was found, by its exit status."""
    code = os.waitstatus_to_exitcode(status)
    if 0 <= code - USED_UP < len(SHORTAGES):
        return Unserved(f"the process that was to hold the shared hops: {SHORTAGES[code - USED_UP]}")
    how = f"with status {code}" if code >= 0 else f"by signal {-code}"
    return RelayError(f"--share: the process that was to hold the shared hops ended {how}")


def withdraw(path: str, lock: int) -> None:
    """Remove the socket, so that relays no longer find the holder. For the holder, which still has the lock.

    If the directory was removed, or made anew, another holder may have its socket there: leave that alone.
    """
    try:
        mine, found = os.fstat(lock), os.stat(os.path.join(path, LOCK))
        if (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino):
            os.unlink(os.path.join(path, SOCKET))
    except FileNotFoundError:
        pass


def _no_answer(error: Exception) -> Gone | RelayError:
    """The error for a holder that sent no "welcome": Gone if nobody is there, RelayError if it is stopped or stuck."""
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return RelayError("--share: the process that holds the shared hops does not answer")
    return Gone()


def _check_peer(sock: socket, path: str) -> None:
    if peer_uid(sock) != os.geteuid():
        raise RelayError(f"--share: another user listens in {path}")


def _near(path: str, do: Callable[[str], None]) -> None:
    """Call `do` with a name of the directory that is short enough for sun_path: its path, or "." from inside it."""
    if len(os.fsencode(path)) <= SHORT:
        do(path)
        return
    here = os.open(".", (os.O_PATH if sys.platform == "linux" else os.O_RDONLY) | os.O_CLOEXEC)
    os.chdir(path)
    try:
        do(".")
    finally:
        os.fchdir(here)
        os.close(here)


def _take_lock(path: str) -> int | None:
    """Take the holder's lock and return its descriptor; None when another process has it. Raises RelayError."""
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RelayError(f"--share: {path}: {words(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, os.fsencode(os.uname().nodename))
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:  # a file system without locks, or without room
        os.close(lock)
        raise RelayError(f"--share: {path}: {words(error)}") from error
    return lock


def _other_machine(path: str) -> str:
    """The machine whose process has the lock, "" if that is this one."""
    try:
        with open(os.path.join(path, LOCK), "rb") as file:
            machine = os.fsdecode(file.read(_NAME_MOST))
    except OSError:
        return ""  # it was removed
    return "" if machine == os.uname().nodename else printable(machine)


def _listen(path: str) -> socket:
    """Make the holder's socket. It replaces one that a killed holder has left behind."""
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
    mask = os.umask(0o177)  # from the first moment on, and not by a second look at the name
    try:
        listener.bind(fresh)
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    os.rename(fresh, name)


def _leave_relay(listener: socket, lock: int) -> None:
    """Give up all that the relay had except listener and lock: terminal, directory, stdio, all descriptors."""
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
