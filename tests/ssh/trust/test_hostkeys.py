"""What known keys say of a server's key, in which order algorithms are asked for, and what a key exchange must show."""

from __future__ import annotations

import base64
import socket
import threading

import paramiko
import pytest
from test_known_hosts import ECDSA, ED25519, OTHER_ED25519, rsa

from relay.run.progress import Progress
from relay.ssh.pubkey import BadKey, PublicKey, string
from relay.ssh.trust.hostkeys import (
    ALGORITHMS,
    CHANGED,
    IS_REVOKED,
    KNOWN,
    PLAIN_ALGORITHMS,
    UNKNOWN,
    HostKeys,
    check_proof,
)
from relay.ssh.trust.known_hosts import CA, REVOKED, Entry
from relay.ssh.wire.transport import Transport

CERT = "-cert-v01@openssh.com"


def key(line: bytes) -> PublicKey:
    return PublicKey(base64.b64decode(line.split()[1]))


ED, ED2, EC, RSA = key(ED25519), key(OTHER_ED25519), key(ECDSA[0]), key(rsa(2048))


def known(*entries: tuple[str, PublicKey]) -> HostKeys:
    return HostKeys(Entry("file", number, marker, each) for number, (marker, each) in enumerate(entries, 1))


@pytest.mark.parametrize(
    ("entries", "verdict", "line"),
    [
        ([], UNKNOWN, 0),
        ([("", ED)], KNOWN, 1),
        ([("", ED2), ("", ED)], KNOWN, 2),
        ([("", ED2)], CHANGED, 1),
        ([("", RSA)], CHANGED, 1),
        # Of several others, one of the same type is shown.
        ([("", RSA), ("", ED2), ("", EC)], CHANGED, 2),
        ([("", RSA), ("", EC)], CHANGED, 1),
        ([(CA, ED)], UNKNOWN, 0),
        ([(CA, ED), ("", ED2)], CHANGED, 2),
        ([("", ED), (REVOKED, ED)], IS_REVOKED, 2),
        ([(REVOKED, ED)], IS_REVOKED, 1),
        ([("", ED), (REVOKED, ED2)], KNOWN, 1),
    ],
)
def test_a_plain_key(entries: list[tuple[str, PublicKey]], verdict: str, line: int) -> None:
    said, entry = known(*entries).check(ED)
    assert (said, entry.number if entry else 0) == (verdict, line)


@pytest.mark.parametrize(
    ("entries", "verdict", "line"),
    [
        ([], UNKNOWN, 0),
        ([(CA, RSA)], KNOWN, 1),
        ([(CA, ED2), (CA, RSA)], KNOWN, 2),
        ([(CA, ED2)], CHANGED, 1),
        ([("", RSA)], UNKNOWN, 0),
        ([("", ED)], UNKNOWN, 0),
        ([(CA, RSA), (REVOKED, RSA)], IS_REVOKED, 2),
        ([(CA, RSA), (REVOKED, ED)], IS_REVOKED, 2),
        ([(CA, RSA), (REVOKED, EC)], KNOWN, 1),
    ],
)
def test_a_certified_key(entries: list[tuple[str, PublicKey]], verdict: str, line: int) -> None:
    said, entry = known(*entries).check(ED, issuer=RSA)
    assert (said, entry.number if entry else 0) == (verdict, line)


CERTS = [name + CERT for name in PLAIN_ALGORITHMS]
RSAS = ["rsa-sha2-512", "rsa-sha2-256"]


@pytest.mark.parametrize(
    ("entries", "first"),
    [
        ([], []),
        ([("", ED)], []),  # the key that is asked for first in any case
        ([("", RSA), ("", ED)], []),
        ([("", RSA)], [*(name + CERT for name in RSAS), *RSAS]),
        ([("", EC)], ["ecdsa-sha2-nistp256" + CERT, "ecdsa-sha2-nistp256"]),
        (
            [("", EC), ("", RSA)],
            [f"ecdsa-sha2-nistp256{CERT}", *(f"{name}{CERT}" for name in RSAS), "ecdsa-sha2-nistp256", *RSAS],
        ),
        ([(CA, EC)], CERTS),
        ([(CA, EC), ("", RSA)], [*CERTS, *RSAS]),
        ([(REVOKED, RSA)], []),
        ([("", RSA), (REVOKED, RSA)], []),
        ([("", ED2), (REVOKED, ED)], []),
        ([("", ED), ("", RSA), (REVOKED, ED)], [*(name + CERT for name in RSAS), *RSAS]),
    ],
)
def test_known_types_are_asked_for_first(entries: list[tuple[str, PublicKey]], first: list[str]) -> None:
    ordered = known(*entries).order(ALGORITHMS)
    assert ordered[: len(first)] == first
    assert ordered[len(first) :] == [name for name in ALGORITHMS if name not in first]


@pytest.mark.parametrize(
    ("entries", "leads"),
    [
        ([], False),
        ([("", ED2)], True),
        ([("", RSA)], False),
        ([(CA, ED)], False),
        ([("", ED), (CA, RSA)], False),  # certificates come first
        ([("", ED), (REVOKED, ED)], False),
    ],
)
def test_which_algorithm_may_come_before_all_others(entries: list[tuple[str, PublicKey]], leads: bool) -> None:
    assert known(*entries).may_lead("ssh-ed25519") == leads


def test_algorithms_that_were_not_asked_for_stay_out() -> None:
    assert known(("", ED)).order(["rsa-sha2-512", "ssh-ed25519"]) == ["ssh-ed25519", "rsa-sha2-512"]
    assert known(("", ED)).order(["rsa-sha2-512"]) == ["rsa-sha2-512"]
    assert known().order([]) == []


@pytest.mark.parametrize(
    ("algorithm", "blob", "signed", "words"),
    [
        ("ssh-ed25519", ED.blob, b"ssh-ed25519", ""),
        ("rsa-sha2-512", RSA.blob, b"rsa-sha2-512", ""),
        ("rsa-sha2-512" + CERT, string(b"ssh-rsa-cert-v01@openssh.com"), b"rsa-sha2-512", ""),
        ("rsa-sha2-512", RSA.blob, b"rsa-sha2-256", "signed with rsa-sha2-256, not rsa-sha2-512 as agreed"),
        ("rsa-sha2-512", RSA.blob, b"ssh-rsa", "signed with ssh-rsa, not rsa-sha2-512 as agreed"),
        ("rsa-sha2-512", ED.blob, b"rsa-sha2-512", "is of type ssh-ed25519, not ssh-rsa as agreed"),
        ("ssh-ed25519" + CERT, ED.blob, b"ssh-ed25519", f"is of type ssh-ed25519, not ssh-ed25519{CERT} as agreed"),
        ("ssh-ed25519", b"", b"ssh-ed25519", "too short"),
    ],
)
def test_key_and_signature_are_of_the_kind_that_was_agreed_on(
    algorithm: str, blob: bytes, signed: bytes, words: str
) -> None:
    signature = string(signed) + string(b"x")
    if words:
        with pytest.raises(BadKey, match=words):
            check_proof(algorithm, blob, signature)
    else:
        check_proof(algorithm, blob, signature)


class OtherSigner(paramiko.RSAKey):  # type: ignore[misc]
    """A host key that signs by one algorithm whatever was agreed on; no real server does."""

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> paramiko.Message:
        signature: paramiko.Message = super().sign_ssh_data(data, "rsa-sha2-256")
        return signature


class Nobody(paramiko.ServerInterface):  # type: ignore[misc]
    """Lets nobody in."""


def test_a_server_that_signs_otherwise_than_was_agreed_on_is_not_believed() -> None:
    near, far = socket.socketpair()
    generated = paramiko.RSAKey.generate(2048)
    server = paramiko.Transport(far)
    server.add_server_key(OtherSigner(key=generated.key))
    serving = threading.Thread(target=server.start_server, kwargs={"event": threading.Event(), "server": Nobody()})
    serving.start()
    client = Transport(near, None, Progress())
    try:
        with pytest.raises(paramiko.SSHException, match="signed with rsa-sha2-256, not rsa-sha2-512 as agreed"):
            client.start_client(timeout=30)
    finally:
        client.close()
        server.close()
        for thread in (serving, client, server):
            thread.join()
