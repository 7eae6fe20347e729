"""A ControlMaster: the user's own ssh, which is logged in to a server."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import Lab
from peers import until


def start_master(lab: Lab, name: str, path: Path, *options: str, **more: str) -> subprocess.Popen[bytes]:
    """The user's own ssh to a server, which listens at path."""
    process = lab.start("ssh", "-F", lab.config, "-M", "-S", path, "-N", *options, name, env=more)
    until(path.exists, "master")
    return process
