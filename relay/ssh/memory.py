r"""What hops have shown to take: a memory from one run to the next, so that round trips can be saved.

With a hop that is not known yet our client waits where ssh waits. With one that is remembered it sends ahead what that
hop has taken before. A memory saves time and decides nothing: host keys are checked as ever, and it holds no secret.

    $XDG_STATE_HOME/pyrelay/hops/salt    32 random bytes
    $XDG_STATE_HOME/pyrelay/hops/NAME    one small file for each hop; NAME is an HMAC under the salt of the user, the
                                         host, the port and the whole way to it, so that no name stands there in clear

    pyrelay-hop 1                                        the first line; whatever begins otherwise is not read
    ident SSH-2.0-OpenSSH_9.2p1
    method publickey                                     a word, then its value to the end of the line
    sent-in-vain channel                                 once for each thing
    used 2026-11-28
    ident                                                ignored: it has no value
    colour blue                                          ignored: an unknown word
    \xff\xfe                                             ignored, too

A file that is missing, broken, another's or unreadable counts as nothing remembered, and one that cannot be written is
left as it is: a memory is never an error.
"""

from __future__ import annotations

import os
import stat
import time

from relay.run import private
from relay.ssh.mac import mac
from relay.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.config.settings import HopSettings

HEAD = b"pyrelay-hop 1\n"
SALT = "salt"
SALT_SIZE = 32  # bytes
MOST = 1000  # hops that are remembered; the longest unused go
LONGEST = 24 * 1024  # bytes of a file
VALUE = 1500  # bytes of a value; a longer one is not kept, so that the file that was written can be read

# What may be sent before the server has said that it takes it.
KEXINIT, GUESS, KEY, CHANNEL = "kexinit", "guess", "key", "channel"
AHEAD = (KEXINIT, GUESS, KEY, CHANNEL)


class Shown(Value):
    """What a hop has shown.

    ident: the server's. kex, host_key: the first key exchange and the first host key algorithm of its KEXINIT.
    own_kex: the first key exchange of our own order that the server has.
    method: the one that got in. key: the fingerprint of the key that did, and algorithm how it signed, "" where it was
    no key. refused: the day, and what publickey.exactly calls those that it refused that day before that key, "" where
    there was none. sig_algs: the server's server-sig-algs, None when it sent none. hostbound: whether it takes
    publickey-hostbound. by_ssh: the method, or the type of the key, by which the system's ssh got in. ssh_only: an
    algorithm of ssh_config's choice that the hop has and only ssh knows. in_vain: what of
    AHEAD it once did not take. doubt: what of AHEAD went before a connection that has failed, for whatever reason.
    used: the day of the last use.
    """

    ident: str = ""
    kex: str = ""
    own_kex: str = ""
    host_key: str = ""
    method: str = ""
    key: str = ""
    algorithm: str = ""
    refused: str = ""
    sig_algs: str | None = None
    hostbound: bool = False
    by_ssh: str = ""
    ssh_only: str = ""
    in_vain: frozenset[str] = frozenset()
    doubt: str = ""
    used: str = ""

    def __init__(self, **given: object) -> None:
        self._set(**given)

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(cls.__annotations__)

    def but(self, **changed: object) -> Shown:
        """A copy with these values changed."""
        return Shown(**{**self.__dict__, **changed})

    def takes(self, thing: str) -> bool:
        """Whether a thing of AHEAD may be sent ahead, as far as is remembered."""
        return thing not in self.in_vain


_WORDS = {  # of a file, each with the attribute whose text it has
    "ident": "ident",
    "kex": "kex",
    "own-kex": "own_kex",
    "host-key": "host_key",
    "method": "method",
    "key": "key",
    "algorithm": "algorithm",
    "refused": "refused",
    "by-ssh": "by_ssh",
    "ssh-only": "ssh_only",
    "doubt": "doubt",
    "used": "used",
}


def write(shown: Shown) -> bytes:
    """A memory as a file has it."""
    values = shown.__dict__
    lines = [f"{word} {_one_line(values[name])}" for word, name in _WORDS.items() if values.get(name)]
    if shown.sig_algs is not None:
        lines.append(f"sig-algs {_one_line(shown.sig_algs)}")
    if shown.hostbound:
        lines.append("hostbound yes")
    lines = [line for line in lines if _fits(line.partition(" ")[2])]
    lines += [f"sent-in-vain {thing}" for thing in AHEAD if thing in shown.in_vain]
    return HEAD + "".join(f"{line}\n" for line in lines).encode(errors="replace")


def read(data: bytes) -> Shown | None:
    """What a file says; None when it is none of ours. Any bytes give one or the other."""
    if not data.startswith(HEAD) or len(data) > LONGEST:
        return None
    values: dict[str, list[str]] = {}
    for line in data[len(HEAD) :].decode(errors="replace").split("\n"):
        word, space, value = line.partition(" ")
        if space and _fits(value):
            values.setdefault(word, []).append(_one_line(value))
    if not values.get("ident", ["" if "by-ssh" not in values else "SSH-"])[0].startswith("SSH-"):
        return None
    return Shown(
        **{name: values[word][0] for word, name in _WORDS.items() if word in values},
        sig_algs=values["sig-algs"][0] if "sig-algs" in values else None,
        hostbound=values.get("hostbound") == ["yes"],
        in_vain=frozenset(values.get("sent-in-vain", ())) & frozenset(AHEAD),
    )


def today() -> str:
    """The day as a file has it."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def _fits(text: str) -> bool:
    """Whether a value is short enough to be kept."""
    return len(_one_line(text).encode(errors="replace")) <= VALUE


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


class Memory:
    """The memory of one run.

    directory: where it is kept, "" for nowhere. way: what the route begins with, as a plan's words have it.
    """

    def __init__(self, directory: str = "", way: str = "", *, writes: bool = True) -> None:
        self._directory = directory
        self._way = way
        self._salt: bytes | None = None
        self._writes = writes

    @property
    def keeps(self) -> bool:
        """Whether anything can be remembered."""
        return bool(self._directory)

    def recall(self, hop: Sequence[str]) -> Shown | None:
        """What is remembered of a hop: its user, host and port, and the hops before it."""
        if not self._directory:
            return None
        try:
            salt = self._read(SALT)
            return read(self._read(self._name(hop, salt))) if len(salt) == SALT_SIZE else None
        except OSError:
            return None

    def keep(self, hop: Sequence[str], shown: Shown) -> None:
        """Remember that a hop has shown this, today; a day is written once where nothing else is new."""
        if not self._directory or not self._writes:
            return
        now = write(shown.but(used=today()))
        try:
            if private.make(self._directory) & 0o022:
                raise PermissionError
            name = self._name(hop, self._make_salt())
            try:
                if self._read(name) == now:
                    return
            except OSError:
                self._make_room()
            self._write(name, now)
        except OSError:
            pass

    def forget(self, hop: Sequence[str], shown: Shown | None, in_vain: frozenset[str]) -> None:
        """Remember only what the hop did not accept. The next login is then a careful one.

        shown: what it has shown; None where nobody has got in, and there is nothing to forget.
        """
        if shown is not None:
            self.keep(hop, shown.but(in_vain=in_vain, method="", key="", algorithm="", refused="", by_ssh=""))

    def _name(self, hop: Sequence[str], salt: bytes) -> str:
        parts = [part.encode(errors="surrogateescape") for part in (self._way, *hop)]
        return mac(salt, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256").hex()

    def _read(self, name: str) -> bytes:
        """A file of ours. Raises OSError: when it is another's, too."""
        fd = os.open(os.path.join(self._directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
                raise PermissionError
            return file.read(LONGEST + 1)

    def _write(self, name: str, data: bytes) -> None:
        """A file in place of the one that may be there, at once. Raises OSError."""
        path = os.path.join(self._directory, name)
        fresh = self._fresh(data)
        try:
            os.rename(fresh, path)
        except OSError:
            os.unlink(fresh)
            raise

    def _fresh(self, data: bytes) -> str:
        """A new file under a name that nobody else has. Raises OSError: when the disk is full, too."""
        path = os.path.join(self._directory, f".{os.urandom(16).hex()}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
        except OSError:
            os.unlink(path)
            raise
        return path

    def _make_salt(self) -> bytes:
        """The salt. The first process that needs it makes it. Raises OSError."""
        try:
            salt = self._read(SALT)
            if len(salt) == SALT_SIZE:
                return salt
            if len(salt) > SALT_SIZE:
                raise FileExistsError  # no file of ours
            os.unlink(os.path.join(self._directory, SALT))  # it is cut short
        except FileNotFoundError:
            pass
        fresh = self._fresh(os.urandom(SALT_SIZE))
        try:
            os.link(fresh, os.path.join(self._directory, SALT))
        except FileExistsError:
            pass  # another relay was first
        finally:
            os.unlink(fresh)
        return self._read(SALT)

    def _make_room(self) -> None:
        """Forget the longest unused where there are too many, and with them what a killed run has left half-made."""
        names = [name for name in os.listdir(self._directory) if _is_ours(name)]
        if len(names) < MOST:
            return

        def last_use(name: str) -> float:
            try:
                return os.lstat(os.path.join(self._directory, name)).st_mtime
            except OSError:
                return 0.0

        for name in sorted(names, key=last_use)[: len(names) - MOST + 1]:
            try:
                os.unlink(os.path.join(self._directory, name))
            except OSError:
                pass


def _is_ours(name: str) -> bool:
    """Whether a file's name is of a kind that a memory gives; the directory may be one with other files in it."""
    digits = name.removeprefix(".")
    return len(digits) == (32 if digits != name else 64) and not set(digits) - set("0123456789abcdef")


def name_of(settings: HopSettings, jumps: str) -> tuple[str, ...]:
    """What a hop is remembered by. jumps: the hops before it, as ssh's -J has them."""
    return settings.user, settings.hostname, str(settings.port), jumps


def directory(environ: Mapping[str, str], chosen: str | None) -> str:
    """Where the memory is: what --memory says ("none" is nowhere), else the user's own place; "" when there is none."""
    if chosen is not None:
        try:
            return "" if chosen == "none" else os.path.abspath(os.path.expanduser(chosen))
        except OSError:  # it is relative to a directory that was removed
            return ""
    state = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # as the XDG Base Directory Specification has it
        home = environ.get("HOME", "")
        if not os.path.isabs(home) or not os.path.isdir(home):  # nobody's home is made here
            return ""
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "pyrelay", "hops")
