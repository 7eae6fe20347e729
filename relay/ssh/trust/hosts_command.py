"""Programs that know about host keys: a hop's KnownHostsCommand, and ssh-keygen for a key revocation list."""

from __future__ import annotations

import os

from relay.errors import RelayError, Unserved, printable, words
from relay.ssh.pubkey import BadKey, TooShort, Unsupported, read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.ssh.pubkey import PublicKey

_KRL_MAGIC = b"SSHKRL\n\0"  # PROTOCOL.krl


def known_hosts(
    settings: HopSettings,
    children: Children,
    what: str,
    host: str,
    key: PublicKey | None,
    *,
    warn: Callable[[str], object],
) -> bytes:
    """What KnownHostsCommand prints, as the bytes of a known_hosts file.

    what: ORDER before the key exchange, HOSTNAME or ADDRESS when the server
    has shown its key (KnownHostsCommand in ssh_config(5)). It runs without a
    shell. warn: is told of one that ssh, too, goes on without (subprocess,
    misc.c), and each line of its stderr, which ssh leaves to the terminal.
    Raises RelayError when it cannot be run or fails, as ssh ends then.
    """
    words = split(settings.get("knownhostscommand"))
    if not words:
        raise RelayError("KnownHostsCommand: a quotation mark is missing")
    if not os.path.isabs(words[0]):
        warn(f"KnownHostsCommand {printable(words[0])} is not run: its path is not absolute")
        return b""
    try:
        os.stat(words[0])
    except OSError as error:
        warn(f"KnownHostsCommand {printable(words[0])} is not run: {error.strerror}")
        return b""
    tokens = {"H": host, "I": what, "t": "NONE", "f": "NONE", "K": "NONE"}
    if key is not None:
        type_, base64 = key.text.split(" ")
        tokens |= {"t": type_, "f": key.fingerprint(settings.get("fingerprinthash", "sha256")), "K": base64}
    output, status, said = _run([words[0], *(settings.expand(word, tokens) for word in words[1:])], children)
    if status:
        raise RelayError(f"KnownHostsCommand failed{_last(said, status)}")
    for line in said:
        warn(f"KnownHostsCommand: {line}")
    return output


def split(command: str) -> list[str]:
    """The words of a command line that no shell reads (misc.c, argv_split); [] when a quotation mark is missing."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    characters = iter(range(len(command)))
    for at in characters:
        char, following = command[at], command[at + 1 : at + 2]
        if char == "\\" and following and (following in "'\"\\" or (following == " " and not quote)):
            word = (word or "") + following
            next(characters)
        elif not quote and char in " \t":
            if word is not None:
                words.append(word)
            word = None
        elif not quote and char in "'\"":
            quote = char
            word = word or ""
        elif char == quote:
            quote = ""
        else:
            word = (word or "") + char
    if quote:
        return []
    return words if word is None else [*words, word]


def is_revoked(path: str, key: PublicKey, issuer: PublicKey | None, children: Children) -> bool:
    """Whether a file of RevokedHostKeys revokes a key or, for a certificate, its issuer.

    The file is a key revocation list, which ssh-keygen reads, or a list of
    keys (authfile.c, sshkey_in_file: a line that is no key is an error). Raises RelayError when it cannot be read: ssh
    trusts no key then. Raises Unserved when ssh alone may be able to read it.
    """
    data = _data(path)
    if data.startswith(_KRL_MAGIC):
        return _krl_revokes(path, key, children)
    return any(
        revoked.has_same_key(key) or (issuer is not None and revoked.has_same_key(issuer))
        for revoked in _revoked(path, data)
    )


def check_readable(path: str, children: Children) -> None:
    """Raise RelayError, or Unserved, if a file of RevokedHostKeys cannot be read: ssh trusts no key then."""
    data = _data(path)
    if data.startswith(_KRL_MAGIC):
        _keygen(path, (), children)
    else:
        list(_revoked(path, data))


def _data(path: str) -> bytes:
    """Return the bytes of a file of RevokedHostKeys. Raises RelayError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RelayError(f"RevokedHostKeys {path}: {error.strerror}") from error


def _revoked(path: str, data: bytes) -> Iterator[PublicKey]:
    """Yield the keys of a list. Raises RelayError at a line that is no key; Unserved if it may be one to ssh."""
    for place, line in enumerate(data.split(b"\n"), 1):
        words = [word for word in line.partition(b"\0")[0].replace(b"\t", b" ").split(b" ") if word]
        if not words or words[0].startswith(b"#"):
            continue
        try:
            yield read_key(words[0], words[1] if len(words) > 1 else b"")
        except TooShort:
            continue  # not a key that a server could show us
        except Unsupported as error:  # it may be a key to ssh; if it is none, ssh trusts no key, either
            raise Unserved(f"RevokedHostKeys {path}:{place}: {error}") from error
        except BadKey as error:
            raise RelayError(f"RevokedHostKeys {path}:{place}: {error}") from error


def _krl_revokes(path: str, key: PublicKey, children: Children) -> bool:
    import tempfile  # few have such a list

    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(key.text.encode() + b"\n")
            file.flush()
            return _keygen(path, (file.name,), children) == 1
    except OSError as error:  # a full disk, or one that may only be read; ssh needs no file
        raise Unserved(f"RevokedHostKeys {path}: no file can be made for ssh-keygen: {words(error)}") from error


def _keygen(path: str, keys: Sequence[str], children: Children) -> int:
    """Ask ssh-keygen whether a key revocation list revokes one of these files of keys; return its status: 1 if so.

    Raises RelayError if it cannot read the list.
    """
    _, status, said = _run(["ssh-keygen", "-Q", "-f", path, *keys], children)
    if status not in (0, 1):
        raise RelayError(f"RevokedHostKeys {path}: ssh-keygen cannot read it{_last(said, status)}")
    return status


def _run(argv: Sequence[str], children: Children) -> tuple[bytes, int, list[str]]:
    """A program's output, its exit status, and the lines that it has said on stderr. Raises RelayError."""
    try:
        child = children.ask(argv)
    except OSError as error:
        raise RelayError(f"cannot run {printable(argv[0])}: {os.strerror(error.errno or 0)}") from error
    output, said = child.communicate()
    lines = said.decode(errors="replace").strip().split("\n")
    return output, child.returncode or 0, [printable(line) for line in lines if line]


def _last(said: list[str], status: int) -> str:
    return f": {said[-1]}" if said else f" (exit status {status})"
