"""A host certificate: what it says, who signed it, and whether it is good for a host.

After OpenSSH's PROTOCOL.certkeys and sshkey.c (cert_parse,
sshkey_cert_check_host). Whether the signer is to be trusted is not decided
here.
"""

from __future__ import annotations

import os

from relay.ssh.pubkey import BadKey, PublicKey, Reader
from relay.ssh.trust.known_hosts import match_pattern
from relay.ssh.trust.signature import BadSignature, verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_USER, _HOST = 1, 2  # PROTOCOL.certkeys: SSH_CERT_TYPE_USER, SSH_CERT_TYPE_HOST
_PATTERNS = (10, 3)  # the first OpenSSH in which all of a host certificate's names are patterns
_MAX_PRINCIPALS = 256  # sshkey.h, SSHKEY_CERT_MAX_PRINCIPALS


class Certificate:
    """A certificate whose signature has been checked to be its issuer's.

    issuer: the key that signed it. algorithm: how. principals: the host names
    it is for. after, before: when it is valid, in seconds since 1970.
    Raises BadKey when it cannot be read or is not signed by the issuer it names.
    """

    def __init__(self, key: PublicKey) -> None:
        if not key.is_cert:
            raise BadKey("no certificate")
        reader = Reader(key.body)
        reader.number(8)  # serial
        self._type = reader.number()
        _c_string(reader.string())  # key id: read, so that a NUL in it is refused
        self.principals = tuple(map(_c_string, _strings(reader.string())))
        self.after = reader.number(8)
        self.before = reader.number(8)
        self._critical = _options(reader.string())
        _options(reader.string())  # extensions: read, so that a broken certificate is refused; none is for hosts
        reader.string()  # reserved
        self.issuer = PublicKey(reader.string())
        signed = key.blob[: len(key.blob) - len(key.body) + reader.offset]
        signature = reader.string()
        if reader.rest():
            raise BadKey("bytes after the certificate")
        if self._type not in (_USER, _HOST) or len(self.principals) > _MAX_PRINCIPALS or self.issuer.is_cert:
            raise BadKey("not a valid certificate")
        try:
            self.algorithm = verify(self.issuer, signature, signed)
        except BadSignature as error:
            raise BadKey("its signature is not its issuer's") from error

    def objection(
        self, host: str, now: float, algorithms: Collection[str], version: Callable[[], tuple[int, int]]
    ) -> str:
        """Why the certificate is not good for a host at that time, in OpenSSH's words, or "" when it is.

        algorithms: those that an issuer may sign with (CASignatureAlgorithms). version: that of the installed OpenSSH,
        whose rules these are: until 10.3 a name was no pattern, and a certificate without one was good for every host.
        """
        if self._type != _HOST:
            return "Certificate invalid: not a host certificate"
        if now < self.after:
            return "Certificate invalid: not yet valid"
        if now >= self.before:
            return "Certificate invalid: expired"
        if not self.principals and not (0, 0) < version() < _PATTERNS:
            return "Certificate lacks principal list"
        if self.principals and not self._is_for(os.fsencode(host), version):
            return "Certificate invalid: name is not a listed principal"
        if self._critical:
            return "Certificate contains unsupported critical options"
        if self.algorithm not in algorithms:
            return f"Certificate signed with disallowed algorithm ({self.algorithm})"
        return ""

    def _is_for(self, host: bytes, version: Callable[[], tuple[int, int]]) -> bool:
        if host in self.principals:
            return True
        return any(match_pattern(host, name) for name in self.principals) and version() >= _PATTERNS


def _c_string(text: bytes) -> bytes:
    """Text as ssh's C has it: a NUL may stand at its end only, and is not part of it (sshbuf_get_cstring)."""
    text = text.removesuffix(b"\0")
    if b"\0" in text:
        raise BadKey("a name with a NUL")
    return text


def _strings(data: bytes) -> list[bytes]:
    """Strings, one after another, to the end."""
    reader = Reader(data)
    found = []
    while reader.offset < len(data):
        found.append(reader.string())
    return found


def _options(data: bytes) -> list[bytes]:
    """The names of options: pairs of a name and data."""
    words = _strings(data)
    if len(words) % 2:
        raise BadKey("an option without its value")
    return words[::2]
