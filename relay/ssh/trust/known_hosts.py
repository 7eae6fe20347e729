"""The files known_hosts: which of their lines are about a host, and how a line is added.

`lines`, `about` and `matches` are pure. They follow OpenSSH's hostfile.c and match.c
(sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) byte by byte; `ssh-keygen -F` is the
oracle of the tests. Nothing here decides about trust.

    [@cert-authority | @revoked] names type base64 [comment]
    names = |1|salt|hash              HMAC-SHA1 of one name, hidden
          | pattern *( "," pattern )  * and ? match, ! denies, [name]:port for a port other than 22
"""

from __future__ import annotations

import os
import stat
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from time import sleep

from relay.config.settings import with_home
from relay.errors import RelayError, printable, words
from relay.ssh.mac import mac
from relay.ssh.pubkey import BadKey, PublicKey, TooShort, Unsupported, read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CA = "@cert-authority"
REVOKED = "@revoked"
SSH_PORT = 22
_MAX_MARKER = 31  # bytes; hostfile.c, check_markers: marker[32]
_MAX_PATTERN = 1022  # bytes; match.c, match_pattern_list: sub[1024]
_SALT = 20  # bytes: SHA-1's
_BLANK = b" \t"
# Characters that ssh does not write into a name (sshconnect.c, check_host_key), and others with a meaning in a line.
_UNWRITABLE = frozenset("@?*#[]|'\"\\!, \t")
_LOCK_PATIENCE = 40  # times
_LOCK_WAIT = 0.05  # seconds


class BadLine(ValueError):
    """A line that cannot be read, and why."""


class Line:
    """One line of a file: number (from 1), marker ("", CA or REVOKED), names, and the rest, its tabs as spaces."""

    __slots__ = ("error", "marker", "names", "number", "rest")

    def __init__(self, number: int, marker: str = "", names: bytes = b"", rest: bytes = b"", error: str = "") -> None:
        self.number = number
        self.marker = marker
        self.names = names
        self.rest = rest
        self.error = error  # why the line cannot be read, or ""

    def key(self) -> PublicKey:
        """The key. Raises BadKey, or Unsupported."""
        words = self.key_text().split(b" ")
        return read_key(words[0], words[1])

    def key_text(self) -> bytes:
        """Type and base64, one space between them. Raises BadKey when one is missing."""
        words = [word for word in self.rest.split(b" ") if word]
        if len(words) < 2:
            raise BadKey("no key")
        return b" ".join(words[:2])


class Entry:
    """A key that a file has for a name: where it stands, its marker, the key."""

    __slots__ = ("key", "marker", "number", "path")

    def __init__(self, path: str, number: int, marker: str, key: PublicKey) -> None:
        self.path = path
        self.number = number
        self.marker = marker
        self.key = key

    @property
    def place(self) -> str:
        """FILE:LINE, as ssh's messages have it."""
        return f"{self.path}:{self.number}"


def lines(data: bytes, asks: Callable[[bytes], bool] = bool) -> Iterator[Line]:
    """The lines of a file that are neither empty nor comments, bad ones with their error; any bytes give lines.

    asks: whether a line, as it stands there, is asked for.
    """
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not asks(raw):
            continue
        text = raw.partition(b"\0")[0].lstrip(_BLANK)  # OpenSSH's strings end at a NUL
        if not text or text.startswith(b"#"):
            continue
        try:
            yield _line(number, text)
        except BadLine as error:
            yield Line(number, error=str(error))


def about(data: bytes, host: bytes) -> Iterator[Line]:
    """The lines of a file that are about host, and bad ones of which nobody can tell; most others are not even read."""
    for line in lines(data, _may_be_about(data, host)):
        try:
            if line.names and not matches(line.names, host):
                continue
        except BadLine as error:
            line.error = str(error)
        yield line


def _may_be_about(data: bytes, host: bytes) -> Callable[[bytes], bool]:
    """Return what says of a line whether it may be about host, without reading it."""
    name = host.lower()
    marks = [mark for mark in (b"*", b"?", b"|", b"@") if mark in data]  # of a pattern, of a hash, of a marker

    def may_be(raw: bytes) -> bool:
        if raw.startswith(b"|") or name in raw.lower():
            return True
        for mark in marks:  # noqa: SIM110  (a generator would take longer than all of this)
            if mark in raw:
                return True
        return False

    return may_be


def _line(number: int, text: bytes) -> Line:
    marker = ""
    if text.startswith(b"@"):
        # OpenSSH looks for a space first and for a tab only when there is none in the whole line.
        end = text.find(b" ")
        end = text.find(b"\t") if end < 0 else end
        marker = text[: max(end, 0)].decode(errors="replace")
        if end > _MAX_MARKER or marker not in {CA, REVOKED}:
            raise BadLine("unknown marker")
        text = text[end:].lstrip(_BLANK)
        if text.startswith(b"@"):
            raise BadLine("two markers")
    names, _, rest = text.replace(b"\t", b" ").partition(b" ")
    rest = rest.lstrip(b" ")
    if not rest or rest.startswith(b"#"):
        return Line(number, marker, names, error="no key")
    return Line(number, marker, names, rest)


def matches(names: bytes, host: bytes) -> bool:
    """Whether a line's names speak of host (in lower case; "[name]:port" for a port other than 22).

    Raises BadLine when they are a hash that cannot be read.
    """
    if names.startswith(b"|"):
        return _hash(host, _salt(names)) == names
    host = host.lower()
    found = False
    for pattern in names.lower().removesuffix(b",").split(b","):
        denies = pattern.startswith(b"!")
        pattern = pattern[1:] if denies else pattern  # noqa: PLW2901 - without its sign
        if len(pattern) > _MAX_PATTERN:
            return False
        if pattern == host or ((b"*" in pattern or b"?" in pattern) and match_pattern(host, pattern)):
            if denies:
                return False
            found = True
    return found


def match_pattern(text: bytes, pattern: bytes) -> bool:
    """Whether a pattern with * (any bytes) and ? (any byte) matches the whole text (match.c, match_pattern)."""
    at = here = 0
    star, resume = -1, 0  # the last * seen, and where the text it covers ends
    while at < len(text):
        if here < len(pattern) and pattern[here] == ord("*"):
            star, resume = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in (ord("?"), text[at]):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = resume, star + 1
        else:
            return False
    return not pattern[here:].strip(b"*")


def _salt(names: bytes) -> bytes:
    """The salt of a hashed name (hostfile.c, extract_salt). Raises BadLine."""
    magic, _, rest = names[1:].partition(b"|")
    encoded, bar, _ = rest.partition(b"|")
    try:
        salt = a2b_base64(encoded, strict_mode=True)
    except NotBase64:
        salt = b""
    if magic != b"1" or not bar or len(salt) != _SALT:
        raise BadLine("a hashed name that cannot be read")
    return salt


def _hash(host: bytes, salt: bytes) -> bytes:
    """A hashed name: |1|salt|HMAC-SHA1(salt, host)."""
    digest = mac(salt, host, "sha1")
    return b"|1|%s|%s" % (b2a_base64(salt, newline=False), b2a_base64(digest, newline=False))


def lookup(data: bytes, host: str, path: str) -> tuple[list[Entry], list[str], str]:
    """What a file's bytes hold for host, a complaint for each bad line that might be about it, and a foreign type.

    That is the type of a key of the host's own that is not known here, "" where there is none: a newer OpenSSH may
    know it, so it is nothing to complain about.
    """
    entries: list[Entry] = []
    complaints: list[str] = []
    foreign = ""
    for line in about(data, os.fsencode(host)):
        try:
            if line.error:
                raise BadLine(line.error)
            entries.append(Entry(path, line.number, line.marker, line.key()))
        except Unsupported as error:
            if not line.marker and not isinstance(error, TooShort):
                foreign = foreign or printable(line.key_text().partition(b" ")[0].decode(errors="replace"))
        except (BadLine, BadKey) as error:
            complaints.append(f"{path}:{line.number}: bad line skipped: {error}")
    return entries, complaints, foreign


def elsewhere(data: bytes, host: bytes, key: PublicKey) -> Iterator[Line]:
    """The lines of a file that have the same key under names that are not host's."""
    encoded = key.text.encode().partition(b" ")[2]  # looked for first, since to read each key would take long
    for line in lines(data, lambda raw: encoded in raw) if encoded in data else ():
        try:
            if not line.error and not matches(line.names, host) and line.key().is_same(key):
                yield line
        except (BadLine, BadKey):
            continue


def other_names(data: bytes, host: str, key: PublicKey, path: str) -> list[str]:
    """Where the file has the same key under names that are not host's, in ssh's form: "FILE:LINE: names"."""
    found = []
    for line in elsewhere(data, os.fsencode(host), key):
        if not line.marker:
            names = "[hashed name]" if line.names.startswith(b"|") else printable(line.names.decode(errors="replace"))
            found.append(f"{path}:{line.number}: {names}")
    return found


def lowered(host: str) -> str:
    """A host in lower case, as ssh has it: only ASCII's letters, so that no byte of another becomes two."""
    return os.fsdecode(os.fsencode(host).lower())


def with_port(host: str, port: int) -> str:
    """A host as the files name it: "[host]:port" unless the port is 22 (misc.c, put_host_port)."""
    return host if port == SSH_PORT else f"[{host}]:{port}"


def read_files(own: Sequence[str], system: Sequence[str], note: Callable[[str], object]) -> list[tuple[str, bytes]]:
    """The bytes of the user's own and of the system's files, each with its name; b"" where there is no such file.

    A file that cannot be read may hold the very key that tells a changed key
    from a new one. ssh takes it for an empty file (hostfile.c, load_hostkeys);
    here the hop is refused. The system's file is an exception where the user may
    not read it: as for ssh it then says nothing, and `note` is told so.
    Raises RelayError.
    """
    files = []
    for path in (*own, *system):
        try:
            files.append((path, _read(path)))
        except OSError as error:
            if not isinstance(error, PermissionError) or path in own:
                raise RelayError(
                    f"{path} cannot be read: {words(error)}",
                    hint="without it nobody can tell whether a key has changed",
                ) from error
            note(f"{path} says nothing: {words(error)}")
    return files


def _read(path: str | int) -> bytes:
    """The bytes of a file, by its name or descriptor; b"" when there is no such file. Raises OSError."""
    try:
        with open(path, "rb", closefd=isinstance(path, str)) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def record(host: str, key: PublicKey, *, hashed: bool) -> bytes:
    """The line for a key, with its new-line (hostfile.c, format_host_entry); hashed: as HashKnownHosts asks."""
    name = os.fsencode(host).lower()
    if hashed:
        name = _hash(name, os.urandom(_SALT))
    return b"%s %s\n" % (name, key.text.encode())


def recordable(host: str) -> bool:
    """Whether a name may be written down: ssh refuses the characters that mean something in a line."""
    return bool(host) and host.isprintable() and not _UNWRITABLE & set(host)


def append(path: str, host: str, key: PublicKey, *, hashed: bool) -> None:
    """Add the key for host to the file, unless another process has added it meanwhile. Raises OSError.

    O_APPEND and one write, so that nobody's line is lost or broken, and under
    a lock, so that two of us do not both add the new-line that the file's last
    line may lack. Symbolic links are followed; nothing is ever rewritten.
    """
    _make_ssh_directory(path)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    try:
        _lock(fd)
        before = _read(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        if any(not entry.marker and entry.key.is_same(key) for entry in lookup(before, lowered(host), path)[0]):
            return
        line = record(host, key, hashed=hashed)
        if before and not before.endswith(b"\n"):
            line = b"\n" + line
        if os.write(fd, line) != len(line):
            raise OSError("the disk is full")  # the next writer begins a new line
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Wait for the lock, but not for ever: its holder may be stopped, or wait for a dead file server.

    ssh itself takes no lock; O_APPEND alone keeps the lines whole.
    """
    import fcntl

    for _ in range(_LOCK_PATIENCE):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sleep(_LOCK_WAIT)
        except OSError:
            return  # a file system without locks
        else:
            return


def _make_ssh_directory(path: str) -> None:
    """Create a missing ~/.ssh as ssh does (hostfile.c, hostfile_create_user_ssh_dir), and no other directory."""
    directory = os.path.dirname(path)
    if os.path.basename(directory) == ".ssh" and directory == with_home("~/.ssh") and not os.path.isdir(directory):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass  # another relay was first
