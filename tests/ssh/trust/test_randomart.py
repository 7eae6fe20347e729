"""The picture of a fingerprint; ssh-keygen draws it beside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from peers import need

from relay.ssh.login.keyfile import read_public
from relay.ssh.pubkey import PublicKey, string
from relay.ssh.trust.randomart import draw


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "521"), ("rsa", "1024")])
def test_ssh_keygen_draws_the_same(tmp_path: Path, kind: str, bits: str) -> None:
    path = tmp_path / "key"
    subprocess.run([need("ssh-keygen"), "-q", "-t", kind, "-b", bits, "-N", "", "-f", path], check=True)
    key = read_public(f"{path}.pub")
    assert key is not None
    for digest in ("sha256", "md5"):
        argv = [need("ssh-keygen"), "-l", "-v", "-E", digest, "-f", path]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert draw(key, digest) == shown.splitlines()[1:]


def test_a_thousand_keys_are_drawn_as_ssh_keygen_draws_them(tmp_path: Path) -> None:
    """Every symbol and both walls are met."""
    keys = [PublicKey(string(b"ssh-ed25519") + string(number.to_bytes(32, "big"))) for number in range(1000)]
    path = tmp_path / "keys"
    path.write_text("".join(f"{key.text}\n" for key in keys))
    argv = [need("ssh-keygen"), "-l", "-v", "-f", str(path)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in shown if line[:1] in "+|"] == [line for key in keys for line in draw(key)]
