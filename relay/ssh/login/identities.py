"""Which keys are offered to a hop, in which order, and what signs with them.

After pubkey_prepare in OpenSSH's sshconnect2.c and load_public_identity_files
in its ssh.c: certificates that ssh_config names, the agent's keys that
identity files name, the agent's others, the files' own. Reads files; sends
nothing and asks nobody.
"""

from __future__ import annotations

from relay.ssh.login import foreign
from relay.ssh.login.keyfile import BadFile, PrivateFile, WrongPassphrase, read_private, read_public
from relay.ssh.pubkey import BadKey, PublicKey, Reader
from relay.ssh.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.config.settings import HopSettings
    from relay.ssh.login.agent import AgentKey

_USER_CERTIFICATE = 1  # PROTOCOL.certkeys, SSH_CERT_TYPE_USER


class Identity(Record):
    """A key or certificate to log in with.

    name: the file's, or the agent's comment. public: what is offered; None
    when the file does not show it before it is unlocked. agent: the agent's
    key that signs. private: what signs where the agent does not, read from path.
    """

    name: str
    public: PublicKey | None
    agent: PublicKey | None = None
    private: PrivateFile | None = None
    path: str = ""

    @property
    def costs(self) -> bool:
        """Whether a signature may cost a person something: a passphrase, a touch, a confirmation."""
        return self.private is None or self.private.encrypted

    def __str__(self) -> str:
        """For messages: type, fingerprint and name, as ssh has them."""
        return self.name if self.public is None else f"{self.public.short} {self.public.fingerprint()} {self.name}"


class Found(Record):
    """The identities in the order in which they are offered, and what cannot be used, in words."""

    identities: list[Identity]
    problems: list[str]


class _File(Record):
    """An IdentityFile: what it holds, or what is wrong with it ("" when the file does not exist)."""

    path: str
    public: PublicKey | None
    private: PrivateFile | None
    problem: str


def gather(settings: HopSettings, held: Sequence[AgentKey]) -> Found:
    """What there is to log in with; held: what the agent has."""
    found = Found([], [])
    named = tuple(dict.fromkeys(settings.paths("certificatefile")))
    must_exist = settings.chosen("identityfile")
    files = [_read(path, must_exist) for path in dict.fromkeys(settings.paths("identityfile"))]
    _add_certificates(found, named, files, held)
    # The certificate beside a key counts only if ssh_config names no certificate. It goes behind its key
    # (load_public_identity_files, ssh.c).
    listed: list[tuple[_File, PublicKey | None]] = []
    for file in files:
        beside = None if settings.all("certificatefile") else _certificate(f"{file.path}-cert")
        listed.append((file, file.public))
        listed += [(file, beside)] if beside is not None else []
    _add_agents(found, listed, held, others=not settings.yes("identitiesonly"))
    _add_files(found, listed, held)
    return found


def _add_certificates(found: Found, named: Sequence[str], files: Sequence[_File], held: Sequence[AgentKey]) -> None:
    """The certificates that ssh_config names, each with the holder of its private key."""
    for path in named:
        certificate = _certificate(path)
        if certificate is None:
            found.problems.append(f"{path}: not a user certificate")
            continue
        identity = _by_agent(path, certificate, held) or _by_file(path, certificate, files)
        if identity is None:
            found.problems.append(f"{path}: there is no private key for this certificate")
        else:
            found.identities.append(identity)


def _add_agents(
    found: Found, listed: Sequence[tuple[_File, PublicKey | None]], held: Sequence[AgentKey], others: bool
) -> None:
    """The agent's keys that identity files name, then its others."""
    paths = {public.blob: file.path for file, public in reversed(listed) if public is not None}
    offered = _blobs(found)
    news = [key for key in held if key.public.blob not in offered]
    for key in news:
        if key.public.blob in paths:
            found.identities.append(Identity(paths[key.public.blob], key.public, key.public))
    for key in news:
        if key.public.blob not in paths and others:
            found.identities.append(Identity(key.comment, key.public, key.public))


def _add_files(found: Found, listed: Sequence[tuple[_File, PublicKey | None]], held: Sequence[AgentKey]) -> None:
    """What identity files hold and is not offered yet."""
    offered = _blobs(found)
    of_use = {file.path for file, public in listed if public is not None and public.blob in offered}
    for file, public in listed:
        if public is not None and public.blob in offered:
            continue
        identity = None
        if public is not None and public.is_cert:
            identity = _by_agent(file.path, public, held)
            if identity is None and file.private is None:  # an IdentityFile that is a certificate itself
                identity = _by_file(file.path, public, [each for each, _ in listed])
        if identity is None and file.private is not None:
            identity = Identity(file.path, public, None, file.private, file.path)
        if identity is not None:
            found.identities.append(identity)
            of_use.add(file.path)
            offered = _blobs(found)
    problems = {file.path: file.problem for file, _ in listed if file.problem and file.path not in of_use}
    found.problems.extend(f"{path}: {problem}" for path, problem in problems.items())


def _blobs(found: Found) -> set[bytes]:
    """What is offered already."""
    return {identity.public.blob for identity in found.identities if identity.public is not None}


def _by_agent(name: str, certificate: PublicKey, held: Iterable[AgentKey]) -> Identity | None:
    """A certificate whose key the agent holds."""
    for key in held:
        if key.public.has_same_key(certificate) and (not key.public.is_cert or key.public.blob == certificate.blob):
            return Identity(name, certificate, key.public)
    return None


def _by_file(name: str, certificate: PublicKey, files: Iterable[_File]) -> Identity | None:
    """A certificate whose key an identity file holds.

    The file is found by its key (sign_and_send_pubkey in sshconnect2.c), else by its name (id_filename_matches). A file
    that does not show its key is read if it has no passphrase. If it has one, and no other file comes into question,
    the file is taken, and its key is compared once it is unlocked.
    """
    unread: dict[str, PrivateFile] = {}
    for file in files:
        if file.private is None:
            continue
        if file.public is not None and file.public.has_same_key(certificate):
            return Identity(name, certificate, None, file.private, file.path)
        if file.public is None:
            unread[file.path] = file.private
    for path, private in unread.items():
        if name in {path, f"{path}.pub", f"{path}-cert.pub"} or _holds(private, certificate):
            return Identity(name, certificate, None, private, path)
    locked = [path for path, private in unread.items() if private.encrypted]
    return Identity(name, certificate, None, unread[locked[0]], locked[0]) if len(locked) == 1 else None


def _holds(private: PrivateFile, certificate: PublicKey) -> bool:
    """Whether a private key file without a passphrase holds the key of a certificate."""
    if private.encrypted:
        return False
    try:
        return private.unlock().public.has_same_key(certificate)
    except (BadFile, WrongPassphrase):
        return False


def _read(path: str, must_exist: bool) -> _File:
    """What an IdentityFile says without a passphrase: itself, or the .pub beside it (sshkey_load_public)."""
    only_public = read_public(path)
    if only_public is None:
        private, problem = _private(path)
        if kind := _foreign_type(path, private):
            return _File(path, None, None, f"a key of the type {kind}, which our client lacks")
        if private is None and not problem:
            only_public = read_public(f"{path}.pub")
            problem = "no such identity file" if must_exist else ""
    else:
        private = None
    if only_public is not None:
        problem = "a public key only, which the agent does not hold"
        if only_public.is_cert:
            only_public, problem = _of_user(only_public), "there is no private key for this certificate"
            problem = problem if only_public is not None else "no user certificate"
    # The .pub beside a key goes before what the key itself says: it may be a certificate (sshkey_load_public).
    public = only_public or _of_user(read_public(f"{path}.pub")) or (private and private.public)
    if public is not None and public.plain.startswith("sk-"):
        private, problem = None, "a security key signs through the agent only; `ssh-add` adds it"
    elif private is not None:
        try:
            private.check()
        except BadFile as error:  # nobody is asked for its passphrase; its public half names a key of the agent's
            private, problem = None, str(error)
    return _File(path, public, private, problem)


def _foreign_type(path: str, private: PrivateFile | None) -> str:
    """The type of the key in an IdentityFile, or in the .pub beside one that is not there; "" if our client has it."""
    if private is not None and private.public is not None:  # most
        return ""
    return foreign.type_of(foreign.public_half(path)[0])


def _private(path: str) -> tuple[PrivateFile | None, str]:
    """A private key file, or why it cannot be used: "" when it does not exist."""
    try:
        return read_private(path), ""
    except FileNotFoundError:
        return None, ""
    except BadFile as error:
        return None, str(error)
    except (OSError, ValueError) as error:  # (ValueError: a NUL in the name)
        return None, getattr(error, "strerror", None) or str(error)


def _certificate(path: str) -> PublicKey | None:
    """The user certificate in a file, or in the one of that name with .pub behind it."""
    public = _of_user(read_public(path) or read_public(f"{path}.pub"))
    return public if public is not None and public.is_cert else None


def _of_user(public: PublicKey | None) -> PublicKey | None:
    """The same key, but None for a certificate that is not a user's."""
    if public is None or not public.is_cert:
        return public
    reader = Reader(public.body)  # PROTOCOL.certkeys: serial, type
    try:
        reader.number(8)
        return public if reader.number() == _USER_CERTIFICATE else None
    except BadKey:
        return None
