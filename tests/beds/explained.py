"""What `pyrelay --explain` prints in a lab whose hops are not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab import Lab

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKOyVo3sWCnfMaGUm5Jd8ZDDCeB7hnlAbqsVVPlFSAcO"


def text(lab: Lab, *words: str, status: int = 0, **env: str) -> str:
    """What --explain prints."""
    done = lab.run(lab.program, "-F", lab.write_config(), "--explain", *words, env=env)
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


def explained(lab: Lab, *words: str, status: int = 0, **env: str) -> dict[str, Any]:
    """The same as JSON."""
    found = json.loads(text(lab, "--json", *words, status=status, **env))
    assert list(found) == ["route", "ok", "error", "hint", "legs", "ssh", "notes"]
    assert found["ok"] is (status == 0)
    return dict(found)
