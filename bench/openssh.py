"""The OpenSSH that the bench measures against: the system's own, or another installation (--openssh DIR)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import NamedTuple

# Where an installation, or the directory in which OpenSSH was built, has its programs.
FOLDERS = ("", "bin", "sbin", "usr/bin", "usr/sbin", "libexec", "usr/lib/openssh")
# sshd's own programs: they would else be looked for where OpenSSH is to be installed.
PARTS = {"SshdSessionPath": "sshd-session", "SshdAuthPath": "sshd-auth"}


class OpenSSH(NamedTuple):
    """ssh and sshd, by their full names.

    settings: lines for sshd_config that name sshd's parts. version: what `ssh -V` says. major: its number.
    knows_kex: whether the first key exchange that it offers is one of ours, so that it can be guessed.
    """

    ssh: str
    sshd: str
    settings: str
    version: str
    major: int
    knows_kex: bool


def find(directory: str = "") -> OpenSSH:
    """Return the OpenSSH in a directory; "": the system's. Raises FileNotFoundError, OSError and CalledProcessError."""
    from relay.ssh.wire.exchanges import EXCHANGES

    if directory:
        top = os.path.abspath(directory)
        ssh, sshd = _inside(top, "ssh"), _inside(top, "sshd")
        parts = {option: _inside(top, name) for option, name in PARTS.items()}
        settings = "".join(f"{option} {path}\n" for option, path in parts.items() if path)
    else:
        ssh = shutil.which("ssh")
        sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")  # not every PATH has sbin
        settings = ""
    if not ssh or not sshd:
        raise FileNotFoundError(f"no ssh and sshd in {directory or 'PATH'}")
    version = _said(ssh, "-V").partition(",")[0].strip()
    kex = re.search(r"^kexalgorithms ([^,\s]+)", _said(ssh, "-G", "-F", "none", "host"), re.MULTILINE)
    return OpenSSH(
        ssh,
        sshd,
        settings,
        version,
        int(re.findall(r"OpenSSH_(\d+)", version)[0]),
        kex is not None and kex[1] in EXCHANGES,
    )


def _inside(top: str, name: str) -> str | None:
    paths = (os.path.join(top, folder, name) for folder in FOLDERS)
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def _said(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
