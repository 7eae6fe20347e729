"""An IdentityFile that is a certificate, as Vault's users have it, beside what ssh does with the same lines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import RealAgent, certify
from peers import need

if TYPE_CHECKING:
    from lab import Lab

FIRST, LAST = True, False
SERVER = "h1\n"


@pytest.fixture
def authority(lab: Lab) -> Path:
    """A certificate authority that h1 trusts; h1 knows no key."""
    made = lab.keygen("authority")
    lab.server("h1", authorized_keys="", extra=f"TrustedUserCAKeys {made}.pub")
    lab.server("h2")
    lab.identity = Path("none")
    return made


def signed(lab: Lab, authority: Path, key: Path, *options: str) -> Path:
    """A certificate under a name that says nothing of its key."""
    return certify(lab, authority, key, *options).rename(lab.top / "signed.pub")


def named(lab: Lab, *files: Path, **settings: object) -> None:
    """Give h1 these IdentityFiles, in this order."""
    lab.host("h1", IdentityFile="\n    IdentityFile ".join(map(str, files)), **settings)


def got_in(lab: Lab) -> bool:
    done = lab.pyrelay("h1/h2")
    return done.stdout.startswith("SSH-2.0-OpenSSH") and not done.stderr


def ssh_gets_in(lab: Lab) -> bool:
    return lab.ssh("h1", "echo $SERVER").stdout == SERVER


@pytest.mark.parametrize("first", [FIRST, LAST])
def test_a_certificate_and_its_key(lab: Lab, authority: Path, first: bool) -> None:
    key = lab.keygen("key")
    certificate = signed(lab, authority, key)
    named(lab, *((certificate, key) if first else (key, certificate)))
    assert got_in(lab)
    assert ssh_gets_in(lab)


def test_the_certificate_beside_a_key_is_tried_behind_it(lab: Lab) -> None:
    """As ssh has it: where each key costs one of MaxAuthTries, the first one decides."""
    key, ca = lab.keygen("key"), lab.keygen("ca")
    certify(lab, ca, key)
    lab.server("h1", authorized_keys=Path(f"{key}.pub").read_text(), extra="MaxAuthTries 1")
    lab.server("h2")
    named(lab, key)
    assert got_in(lab)
    assert ssh_gets_in(lab)


@pytest.mark.parametrize("suffix", ["-cert", "-cert.pub", "-cert.pub.pub"])
def test_what_the_certificate_beside_a_key_may_be_called(lab: Lab, authority: Path, suffix: str) -> None:
    key = lab.keygen("key")
    certify(lab, authority, key).rename(f"{key}{suffix}")
    named(lab, key)
    assert got_in(lab) == ssh_gets_in(lab) == (suffix != "-cert.pub.pub")


def test_certificatefile_none_keeps_back_the_one_beside_a_key(lab: Lab, authority: Path) -> None:
    key = lab.keygen("key")
    certify(lab, authority, key)
    named(lab, key)
    assert got_in(lab)
    named(lab, key, CertificateFile="none")
    assert not got_in(lab)
    assert not ssh_gets_in(lab)


def test_two_locked_keys_of_which_either_may_be_its_own(lab: Lab, authority: Path) -> None:
    """Nobody types a passphrase for a guess."""
    keys = [lab.keygen(name, "rsa", "-m", "PEM", "-N", "open sesame") for name in ("one", "other")]
    certificate = signed(lab, authority, keys[1])
    for key in keys:
        Path(f"{key}.pub").unlink()
    named(lab, *keys, CertificateFile=certificate)
    assert f"{certificate}: there is no private key for this certificate" in lab.pyrelay("-v", "h1/h2").stderr


def test_a_certificate_behind_another_key_is_remembered(lab: Lab, authority: Path) -> None:
    """It has its key's fingerprint, and the key is refused."""
    other, key = lab.keygen("other"), lab.keygen("key")
    certify(lab, authority, key)
    named(lab, other, key)
    failed = 2
    for _ in range(3):
        assert got_in(lab)
        assert lab["h1"].whole_log().count("Failed publickey") == failed  # the first time alone


@pytest.mark.parametrize("first", [FIRST, LAST])
def test_a_key_that_does_not_show_its_public_half(lab: Lab, authority: Path, first: bool) -> None:
    """Its file is looked into. (ssh would find it by its name only.)"""
    key = lab.keygen("key", "ecdsa", "-m", "PEM")
    certificate = signed(lab, authority, key)
    Path(f"{key}.pub").unlink()
    named(lab, *((certificate, key) if first else (key, certificate)))
    assert got_in(lab)


def test_the_agent_holds_the_key(lab: Lab, authority: Path) -> None:
    key = lab.keygen("key")
    certificate = signed(lab, authority, key)
    agent = RealAgent(lab)
    agent.add(key)
    key.unlink()
    named(lab, certificate, IdentityAgent=agent.path)
    assert got_in(lab)


def test_a_certificate_beside_keys_of_others(lab: Lab, authority: Path) -> None:
    """Its key is found among files, whatever their names."""
    others, key = [lab.keygen("other1"), lab.keygen("other2", "ecdsa")], lab.keygen("key")
    certificate = signed(lab, authority, key)
    named(lab, others[0], certificate, others[1], key)
    assert got_in(lab)
    assert ssh_gets_in(lab)


def test_no_key_for_it(lab: Lab, authority: Path) -> None:
    key, other = lab.keygen("key"), lab.keygen("other")
    certificate = signed(lab, authority, key)
    named(lab, certificate, other)
    assert not ssh_gets_in(lab)
    assert f"hint: {certificate}: there is no private key for this certificate" in lab.pyrelay("h1/h2").stderr


def test_a_host_certificate(lab: Lab, authority: Path) -> None:
    """It logs nobody in. Beside a key, it does not keep the key from being offered."""
    key = lab.keygen("key")
    certificate = signed(lab, authority, key, "-h")
    named(lab, certificate, key)
    assert not ssh_gets_in(lab)
    assert f"hint: {certificate}: no user certificate" in lab.pyrelay("h1/h2").stderr
    plain = Path(f"{key}.pub").read_text()
    lab["h1"].authorize(plain)
    certificate.rename(f"{key}.pub")
    named(lab, key)
    assert got_in(lab)


def test_the_passphrase_is_asked_for_once_the_certificate_is_taken(lab: Lab, authority: Path) -> None:
    """The only key in question is tried, though nothing shows beforehand that it is the right one."""
    key = lab.keygen("key", "ecdsa", "-m", "PEM")
    certificate = signed(lab, authority, key)
    subprocess.run([need("ssh-keygen"), "-q", "-p", "-P", "", "-N", "opens", "-m", "PEM", "-f", key], check=True)
    Path(f"{key}.pub").unlink()
    named(lab, certificate, key, BatchMode="no")
    askpass = lab.top / "askpass"
    askpass.write_text(f"#!/bin/sh\necho asked >> {lab.top}/asked\necho opens\n")
    askpass.chmod(0o755)
    done = lab.pyrelay_in({"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}, "h1/h2")
    assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr
    assert (lab.top / "asked").read_text() == "asked\n"
