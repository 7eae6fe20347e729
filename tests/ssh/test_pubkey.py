"""Public keys as bytes: ssh-keygen's fingerprints, and whatever else the bytes may be."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import need

from relay.ssh.pubkey import BadKey, PublicKey, Unsupported, key_type, read_key, string

if TYPE_CHECKING:
    from pathlib import Path

KINDS = [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]


def keygen(path: Path, *options: str) -> PublicKey:
    subprocess.run([need("ssh-keygen"), "-q", "-N", "", "-f", path, *options], check=True)
    return public(path)


def public(path: Path) -> PublicKey:
    words = path.with_name(f"{path.name}.pub").read_bytes().split()
    return read_key(words[0], words[1])


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_names_and_fingerprints_are_ssh_keygens(tmp_path: Path, kind: str, bits: str) -> None:
    key = keygen(tmp_path / "key", "-t", kind, "-b", bits)
    other = keygen(tmp_path / "other", "-t", kind, "-b", bits)
    for digest in ("sha256", "md5"):
        argv = [need("ssh-keygen"), "-l", "-E", digest, "-f", tmp_path / "key"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        assert [key.fingerprint(digest), f"({key.short})"] == [said[1], said[-1]]
    assert key.bits == (int(bits) if kind == "rsa" else 0)
    assert key.is_same(PublicKey(key.blob))
    assert not key.is_same(other)
    assert not key.has_same_key(other)
    assert key.certified() is key
    words = key.text.encode().split()
    assert read_key(words[0], words[1]).blob == key.blob


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_a_certificate_is_of_its_key(tmp_path: Path, kind: str, bits: str) -> None:
    key = keygen(tmp_path / "key", "-t", kind, "-b", bits)
    keygen(tmp_path / "ca")
    subprocess.run([need("ssh-keygen"), "-q", "-s", tmp_path / "ca", "-I", "x", "-h", tmp_path / "key.pub"], check=True)
    certificate = public(tmp_path / "key-cert")
    assert (certificate.is_cert, certificate.short) == (True, f"{key.short}-CERT")
    assert certificate.certified().blob == key.blob
    assert certificate.fingerprint() == key.fingerprint()
    assert certificate.has_same_key(key)
    assert not certificate.is_same(key)
    assert certificate.is_same(PublicKey(certificate.blob))


ED25519 = string(b"ssh-ed25519") + string(bytes(32))
RSA = string(b"ssh-rsa") + string(b"\3") + string(b"\0" + b"\xff" * 256)
POINT = b"\4" + bytes(64)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "too short"),
        (b"\xff\xff\xff\xffx", "too short"),
        (ED25519[:-1], "too short"),
        (ED25519 + b"\0", "bytes after the key"),
        (string(b"ssh-ed25519") + string(bytes(31)), "not 32 bytes"),
        (string(b"ssh-rsa") + string(b"\3") + string(b"\xff" * 256), "negative"),
        (string(b"ssh-rsa") + string(b"\3") + string(b"\1" + bytes(2048)), "too large"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp384") + string(POINT), "another curve"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(POINT[:-1]), "not a point"),
        (string(b"ecdsa-sha2-nistp256") + string(b"nistp256") + string(b"\2" + POINT[1:]), "not a point"),
        (string(b"ssh-\xff"), "not ASCII"),
        (string(b"ssh-ed25519\0"), "NUL"),
    ],
)
def test_what_is_no_key(blob: bytes, words: str) -> None:
    with pytest.raises(BadKey, match=words) as caught:
        PublicKey(blob)
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize(
    "blob",
    [
        string(b"ssh-dss") + string(b"\1"),
        string(b"ssh-mldsa44-ed25519@openssh.com") + string(b"\1"),
        string(b"ssh-rsa") + string(b"\3") + string(b"\0" + b"\xff" * 64),
    ],
)
def test_what_is_not_taken_is_no_broken_key(blob: bytes) -> None:
    with pytest.raises(Unsupported):
        PublicKey(blob)


def test_numbers_are_equal_however_many_zeros_they_have() -> None:
    longer = string(b"ssh-rsa") + string(b"\0\3") + string(b"\0\0" + b"\xff" * 256)
    assert PublicKey(RSA).is_same(PublicKey(longer))


@pytest.mark.parametrize(
    ("kind", "text", "good"),
    [
        (b"ssh-rsa", base64.b64encode(RSA), True),
        (b"rsa-sha2-512", base64.b64encode(RSA), True),
        (b"ssh-rsa", base64.b64encode(RSA) + b"\r", True),
        (b"ssh-ed25519", base64.b64encode(RSA), False),
        (b"ssh-rsa", base64.b64encode(RSA)[:-1], False),
        (b"ssh-rsa", base64.b64encode(RSA) + b"=", False),
        (b"ssh-rsa", b"!" + base64.b64encode(RSA), False),
        (b"ssh-rsa", base64.b64encode(RSA).replace(b"w==", b"x=="), False),  # bits after the end
        (b"ssh-ed25519", b"", False),
    ],
)
def test_the_key_on_a_line(kind: bytes, text: bytes, good: bool) -> None:
    if good:
        assert read_key(kind, text).blob == RSA
    else:
        with pytest.raises(BadKey):
            read_key(kind, text)


@given(
    st.one_of(st.binary(), st.binary().map(lambda end: ED25519[:-4] + end), st.binary().map(lambda end: RSA[:19] + end))
)
def test_any_bytes_are_a_key_or_none(blob: bytes) -> None:
    try:
        key = PublicKey(blob)
    except BadKey:
        return
    assert key.blob == blob
    assert key.certified().fields == key.fields


def test_the_type_of_an_algorithms_key() -> None:
    assert key_type("rsa-sha2-512-cert-v01@openssh.com") == "ssh-rsa-cert-v01@openssh.com"
    assert key_type("rsa-sha2-256") == "ssh-rsa"
    assert key_type("ssh-ed25519-cert-v01@openssh.com") == "ssh-ed25519-cert-v01@openssh.com"
    assert key_type("ecdsa-sha2-nistp256") == "ecdsa-sha2-nistp256"
