"""Logging in to real sshds: keys of every type and format, certificates, several methods, refusals in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab import Lab

KINDS = {
    "ed25519": ("-t", "ed25519"),
    "ecdsa-256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"),
    "rsa-2048": ("-t", "rsa", "-b", "2048"),
    "rsa-3072": ("-t", "rsa", "-b", "3072"),
}


def public(path: Path) -> str:
    return Path(f"{path}.pub").read_text()


@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", KINDS)
def test_key_file(lab: Lab, kind: str, form: str) -> None:
    _, name, *size = KINDS[kind]
    key = lab.keygen("key", name, *size, "-m", form)
    lab.server("h1", authorized_keys=public(key), IdentityFile=key)
    lab.server("h2")
    Path(f"{key}.pub").unlink()
    done = lab.ssh("h1/h2", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h2\n", "")
    assert lab["h1"].logins() == [lab.user]
