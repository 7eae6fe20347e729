"""What goes through a chain arrives unharmed: files by sftp, scp, rsync and git, and 300 MB both ways at once."""

from __future__ import annotations

import filecmp
import os
import subprocess
from pathlib import Path

import pytest
from blocks import echo_blocks
from lab import Lab
from peers import need

NAME = "h1+h2+h3"
SIZE = 100_000_000
MEBIBYTE = 1 << 20


@pytest.fixture
def servers(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 100 MB that no compression can shorten."""
    path = tmp_path_factory.mktemp("transfer") / "original"
    path.write_bytes(os.urandom(SIZE))
    return path


def there_and_back(lab: Lab, original: Path, *argvs: list[str]) -> None:
    """Run the commands, which take the file to `there` and back; nothing may have changed."""
    for argv in argvs:
        ran = lab.run(*argv)
        assert ran.returncode == 0, ran.stderr
    for copy in ("there", "back"):
        assert filecmp.cmp(original, lab.home / copy, shallow=False), copy
    for hop in ("h1", "h2"):
        assert len(lab[hop].forwards()) == len(argvs)


def test_scp(servers: Lab, original: Path) -> None:
    there, back = servers.home / "there", servers.home / "back"
    scp = [need("scp"), "-q", "-F", str(servers.config)]
    there_and_back(servers, original, [*scp, str(original), f"{NAME}:{there}"], [*scp, f"{NAME}:{there}", str(back)])


def test_sftp(servers: Lab, original: Path) -> None:
    there, back = servers.home / "there", servers.home / "back"
    batch = servers.top / "batch"
    batch.write_text(f"put {original} {there}\nget {there} {back}\n")
    there_and_back(servers, original, [need("sftp"), "-q", "-F", str(servers.config), "-b", str(batch), NAME])


def test_rsync(servers: Lab, original: Path) -> None:
    there, back = servers.home / "there", servers.home / "back"
    rsync = [need("rsync"), "--whole-file", "-e", servers.ssh_command]
    there_and_back(
        servers, original, [*rsync, str(original), f"{NAME}:{there}"], [*rsync, f"{NAME}:{there}", str(back)]
    )


def test_git_clone(lab: Lab) -> None:
    git = [need("git"), "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    # git's path is relative to where a session begins: that is to be the server's own home.
    lab.server("h3", extra='ForceCommand cd "$HOME" && eval "$SSH_ORIGINAL_COMMAND"')
    lab.servers("h1", "h2")
    repository = str(lab["h3"].home / "repo")
    for command in (["init", "-q", repository], ["-C", repository, "commit", "-q", "--allow-empty", "-m", "first"]):
        assert lab.run(*git, *command).returncode == 0
    ran = lab.run(*git, "clone", "-q", f"{NAME}:repo", env={"GIT_SSH_COMMAND": lab.ssh_command})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert lab.run(*git, "-C", "repo", "log", "--format=%s").stdout == "first\n"


# 300 MB under a real ssh, both ways at once: a relay that waits on one way sticks here. (Plain TCP: test_pump.)


def test_300_mb_both_ways_at_once(servers: Lab) -> None:
    echo_blocks(servers.start("ssh", "-F", servers.config, NAME, "cat", stdin=subprocess.PIPE), 300)
