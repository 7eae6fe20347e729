"""Host certificates: ssh-keygen makes them, and judges those that are made by hand."""

from __future__ import annotations

import base64
import subprocess
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from peers import need

from relay.ssh.pubkey import BadKey, PublicKey, string
from relay.ssh.trust.hostcert import Certificate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOUR = 3600
BEFORE, PATTERNS, NONE = (10, 2), (10, 3), (0, 0)  # versions of OpenSSH
ANY = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ecdsa-sha2-nistp256")


def certify(top: Path, *options: str, ca: tuple[str, ...] = ("-t", "ed25519")) -> bytes:
    """The blob of a new certificate."""
    keygen = need("ssh-keygen")
    if not (top / "ca").exists():
        subprocess.run([keygen, "-q", "-N", "", "-f", top / "ca", *ca], check=True)
        subprocess.run([keygen, "-q", "-N", "", "-t", "ed25519", "-f", top / "key"], check=True)
    subprocess.run([keygen, "-q", "-s", top / "ca", "-I", "id", *options, top / "key.pub"], check=True)
    return base64.b64decode((top / "key-cert.pub").read_text().split()[1])


def read(blob: bytes) -> Certificate:
    return Certificate(PublicKey(blob))


@pytest.mark.parametrize(
    ("ca", "options", "algorithm"),
    [
        (("-t", "ed25519"), (), "ssh-ed25519"),
        (("-t", "ecdsa", "-b", "256"), (), "ecdsa-sha2-nistp256"),
        (("-t", "ecdsa", "-b", "384"), (), "ecdsa-sha2-nistp384"),
        (("-t", "ecdsa", "-b", "521"), (), "ecdsa-sha2-nistp521"),
        (("-t", "rsa", "-b", "2048"), (), "rsa-sha2-512"),
        (("-t", "rsa", "-b", "2048"), ("-t", "rsa-sha2-256"), "rsa-sha2-256"),
        (("-t", "rsa", "-b", "2041"), ("-t", "ssh-rsa"), "ssh-rsa"),
    ],
)
def test_every_type_of_issuer(tmp_path: Path, ca: tuple[str, ...], options: tuple[str, ...], algorithm: str) -> None:
    certificate = read(certify(tmp_path, "-h", "-n", "h1", *options, ca=ca))
    assert certificate.algorithm == algorithm
    assert certificate.issuer.text.split() == (tmp_path / "ca.pub").read_text().split()[:2]
    assert certificate.objection("h1", time.time(), (algorithm,), lambda: BEFORE) == ""
    assert "disallowed algorithm" in certificate.objection("h1", time.time(), ("other",), lambda: BEFORE)


def test_what_a_certificate_is_good_for(tmp_path: Path) -> None:
    blob = certify(tmp_path, "-h", "-n", "h1,*.example.com", "-V", "20300101000000Z:20300102000000Z", "-z", "7")
    certificate = read(blob)
    begin = 1893456000  # 2030-01-01 00:00 UTC
    listed = "not a listed principal"
    assert (certificate.after, certificate.before) == (begin, begin + 24 * HOUR)
    for host, now, version, words in (
        ("h1", begin, BEFORE, ""),
        ("h1", begin + 24 * HOUR - 1, BEFORE, ""),
        ("h1", begin - 1, BEFORE, "not yet valid"),
        ("h1", begin + 24 * HOUR, BEFORE, "expired"),
        ("a.example.com", begin, BEFORE, listed),
        ("a.example.com", begin, NONE, listed),
        ("*.example.com", begin, BEFORE, ""),
        ("a.example.com", begin, PATTERNS, ""),
        ("a.b.example.com", begin, PATTERNS, ""),
        ("example.com", begin, PATTERNS, listed),
        ("h", begin, PATTERNS, listed),
        ("h11", begin, PATTERNS, listed),
    ):
        objection = certificate.objection(host, now, ANY, lambda version=version: version)  # type: ignore[misc]
        assert words in objection
        assert bool(words) == bool(objection)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-n", "h1"), "not a host certificate"),
        (("-h", "-n", "h1", "-O", "critical:a=b"), "unsupported critical options"),
        (("-h", "-n", "h1", "-O", "extension:a=b"), ""),
        (("-h", "-n", "h1", "-O", "extension:a"), ""),
    ],
)
def test_what_makes_it_good_for_nobody(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    objection = read(certify(tmp_path, *options)).objection("h1", time.time(), ANY, lambda: BEFORE)
    assert words in objection
    assert bool(words) == bool(objection)


def test_one_without_a_name_was_good_for_every_host(tmp_path: Path) -> None:
    certificate = read(certify(tmp_path, "-h"))
    assert certificate.objection("h1", time.time(), ANY, lambda: BEFORE) == ""
    for version in (PATTERNS, NONE):
        objection = certificate.objection("h1", time.time(), ANY, lambda version=version: version)  # type: ignore[misc]
        assert objection == "Certificate lacks principal list"


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return certify(tmp_path_factory.mktemp("cert"), "-h", "-n", "h1")


@given(data=st.data())
def test_no_byte_of_it_may_change(blob: bytes, data: st.DataObject) -> None:
    changed = bytearray(blob)
    changed[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadKey):
        read(bytes(changed))


@given(data=st.data())
def test_it_may_neither_end_early_nor_go_on(blob: bytes, data: st.DataObject) -> None:
    with pytest.raises(BadKey):
        read(blob[: data.draw(st.integers(0, len(blob) - 1))])
    with pytest.raises(BadKey):
        read(blob + data.draw(st.binary(min_size=1)))


@given(st.binary())
def test_any_bytes_are_no_certificate(rest: bytes) -> None:
    head = string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"nonce") + string(bytes(32))
    with pytest.raises(BadKey):
        read(head + rest)
    with pytest.raises(BadKey, match="no certificate"):
        read(string(b"ssh-ed25519") + string(bytes(32)))


# A security key as the issuer, which no test machine has: its signature is made by hand, and ssh-keygen judges it.


def ed25519_issuer() -> tuple[bytes, Callable[[bytes], bytes]]:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return string(b"sk-ssh-ed25519@openssh.com") + string(raw) + string(b"ssh:"), key.sign


def ecdsa_issuer() -> tuple[bytes, Callable[[bytes], bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    kind = string(b"sk-ecdsa-sha2-nistp256@openssh.com")

    def sign(data: bytes) -> bytes:
        numbers = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
        return b"".join(string(number.to_bytes(33, "big").lstrip(b"\0").rjust(33, b"\0")) for number in numbers)

    return kind + string(b"nistp256") + string(point) + string(b"ssh:"), sign


def by_security_key(issuer: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    body = string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"nonce") + string(bytes([1] * 32))
    body += (7).to_bytes(8, "big") + (2).to_bytes(4, "big") + string(b"id") + string(string(b"h1"))
    body += (0).to_bytes(8, "big") + b"\xff" * 8 + string(b"") * 3 + string(issuer)
    flags_and_counter = b"\1" + (5).to_bytes(4, "big")
    signature = sign(sha256(b"ssh:").digest() + flags_and_counter + sha256(body).digest())
    kind = PublicKey(issuer).type.encode()
    return body + string(string(kind) + string(signature) + flags_and_counter)


@pytest.mark.parametrize("make", [ed25519_issuer, ecdsa_issuer])
def test_a_security_key_as_the_issuer(
    tmp_path: Path, make: Callable[[], tuple[bytes, Callable[[bytes], bytes]]]
) -> None:
    issuer, sign = make()
    blob = by_security_key(issuer, sign)
    path = tmp_path / "cert.pub"
    for each, good in ((blob, True), (blob[:-1] + b"\6", False)):
        path.write_bytes(b"ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(each) + b"\n")
        judged = subprocess.run([need("ssh-keygen"), "-L", "-f", path], capture_output=True, check=False)
        assert (judged.returncode == 0) == good, judged.stderr
        if good:
            assert read(each).objection("h1", time.time(), (PublicKey(issuer).type,), lambda: BEFORE) == ""
        else:
            with pytest.raises(BadKey, match="its signature is not its issuer's"):
                read(each)


def made(
    issuer: Ed25519PrivateKey, *, key_id: bytes = b"id", names: bytes = string(b"h1"), signed_by: bytes | None = None
) -> bytes:
    """A host certificate that ssh-keygen would not make. signed_by: what it calls its issuer, whose key it is, too."""
    public = string(issuer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    body = string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"nonce") + public
    body += (7).to_bytes(8, "big") + (2).to_bytes(4, "big") + string(key_id) + string(names)
    body += (0).to_bytes(8, "big") + b"\xff" * 8 + string(b"") * 3
    body += string(signed_by or string(b"ssh-ed25519") + public)
    return body + string(string(b"ssh-ed25519") + string(issuer.sign(body)))


def judged_alike(top: Path, blob: bytes, good: bool, why: str) -> None:
    """ssh-keygen reads a certificate, or does not, and so do we. why: our words if not."""
    path = top / "cert.pub"
    path.write_bytes(b"ssh-ed25519-cert-v01@openssh.com " + base64.b64encode(blob) + b"\n")
    judged = subprocess.run([need("ssh-keygen"), "-L", "-f", path], capture_output=True, check=False)
    assert (judged.returncode == 0) == good, judged.stderr
    if good:
        assert read(blob).objection("h1", time.time(), ANY, lambda: BEFORE) == ""
    else:
        with pytest.raises(BadKey, match=why):
            read(blob)


@pytest.mark.parametrize(
    ("names", "by_certificate", "good"), [(256, False, True), (257, False, False), (1, True, False)]
)
def test_how_many_names_it_may_have_and_who_may_sign_it(
    tmp_path: Path, names: int, by_certificate: bool, good: bool
) -> None:
    """An issuer is a key, and no certificate of one."""
    issuer = Ed25519PrivateKey.generate()
    signed_by = made(issuer) if by_certificate else None
    judged_alike(
        tmp_path, made(issuer, names=string(b"h1") * names, signed_by=signed_by), good, "not a valid certificate"
    )


@pytest.mark.parametrize(
    ("key_id", "principal", "good"),
    [
        (b"id", b"h1", True),
        (b"id\0", b"h1\0", True),
        (b"i\0d", b"h1", False),
        (b"id", b"h1\0.example.com", False),
        (b"id", b"\0h1", False),
        (b"id", b"h1\0\0", False),
    ],
)
def test_a_nul_may_only_end_a_name(tmp_path: Path, key_id: bytes, principal: bytes, good: bool) -> None:
    """What follows it would be another name to whoever signs than to whoever reads C's strings."""
    blob = made(Ed25519PrivateKey.generate(), key_id=key_id, names=string(principal))
    judged_alike(tmp_path, blob, good, "a name with a NUL")
