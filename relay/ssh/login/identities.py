"""Which keys are offered to a hop, in which order, and what signs with them.

After pubkey_prepare in OpenSSH's sshconnect2.c and load_public_identity_files
in its ssh.c: certificates that ssh_config names, the agent's keys that
identity files name, the agent's others, the files' own. Reads files; sends
nothing and asks nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.ssh.login.keyfile import BadFile, PrivateFile, read_private, read_public
from relay.ssh.pubkey import BadKey, PublicKey, Reader
from relay.ssh.record import Record

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
    """An IdentityFile: what it holds, or what is wrong with it ("" when it just does not exist)."""

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
    # The certificate beside a key counts only if ssh_config names no certificate. It goes before its key, since
    # a user with a certificate is expected to use it (order_identities_by_prio).
    listed: list[tuple[_File, PublicKey | None]] = []
    for file in files:
        beside = None if named else _certificate(f"{file.path}-cert.pub")
        listed += [(file, beside)] if beside is not None else []
        listed.append((file, file.public))
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
        identity = _by_agent(file.path, public, held) if public is not None and public.is_cert else None
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
    """A certificate whose key an identity file holds: by the key, else by the name (id_filename_matches)."""
    unread = None
    for file in files:
        if file.private is None:
            continue
        if file.public is not None and file.public.has_same_key(certificate):
            return Identity(name, certificate, None, file.private, file.path)
        if file.public is None and name in {file.path, f"{file.path}.pub", f"{file.path}-cert.pub"}:
            unread = Identity(name, certificate, None, file.private, file.path)
    return unread


def _read(path: str, must_exist: bool) -> _File:
    """What an IdentityFile says without a passphrase: itself, or the .pub beside it (sshkey_load_public)."""
    private = None
    problem = ""
    only_public = read_public(path)
    if only_public is None:
        try:
            private = read_private(path)
        except FileNotFoundError:
            only_public = read_public(f"{path}.pub")
            problem = "no such identity file" if must_exist else ""
        except BadFile as error:
            problem = str(error)
        except (OSError, ValueError) as error:  # (ValueError: a NUL in the name)
            problem = getattr(error, "strerror", None) or str(error)
    if only_public is not None:
        problem = "a public key only, which the agent does not hold"
    # The .pub beside a key goes before what the key itself says: it may be a certificate (sshkey_load_public).
    public = only_public or read_public(f"{path}.pub") or (private and private.public)
    if public is not None and public.plain.startswith("sk-"):
        private, problem = None, "a security key signs through the agent only; `ssh-add` adds it"
    elif private is not None:
        try:
            private.check()
        except BadFile as error:  # nobody is asked for its passphrase; its public half names a key of the agent's
            private, problem = None, str(error)
    return _File(path, public, private, problem)


def _certificate(path: str) -> PublicKey | None:
    """The user certificate in a file, or in the one of that name with .pub behind it."""
    public = read_public(path) or read_public(f"{path}.pub")
    if public is None or not public.is_cert:
        return None
    reader = Reader(public.body)  # PROTOCOL.certkeys: serial, type
    try:
        reader.number(8)
        return public if reader.number() == _USER_CERTIFICATE else None
    except BadKey:
        return None
