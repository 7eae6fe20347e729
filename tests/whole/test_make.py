"""What the Makefile promises: install and uninstall, staged and in earnest, and what a release has in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from lab import ROOT
from peers import missing, need

from relay import __version__

# Where each file is found by what reads it.
SHARED = {
    "share/man/man1/pyrelay.1": "man/pyrelay.1",
    "share/bash-completion/completions/pyrelay": "completions/bash/pyrelay",
    "share/zsh/site-functions/_pyrelay": "completions/zsh/_pyrelay",
    "share/zsh/site-functions/_pyrelay_ssh": "completions/zsh/_pyrelay_ssh",
    "share/fish/vendor_completions.d/pyrelay.fish": "completions/fish/pyrelay.fish",
    "share/fish/vendor_conf.d/pyrelay-ssh.fish": "completions/fish/pyrelay-ssh.fish",
    "etc/bash_completion.d/pyrelay": "completions/bash/pyrelay",
    "etc/fish/completions/pyrelay.fish": "completions/fish/pyrelay.fish",
    "etc/fish/conf.d/pyrelay-ssh.fish": "completions/fish/pyrelay-ssh.fish",
}
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"


def make(*arguments: str) -> str:
    done = subprocess.run([need("make"), "-C", ROOT, "-s", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if not path.is_dir() or path.is_symlink()]


def test_install_and_uninstall(tmp_path: Path) -> None:
    make("install", f"PREFIX={tmp_path}")
    program = tmp_path / "bin" / "pyrelay"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert version == f"pyrelay {__version__}\n"
    for installed, source in SHARED.items():
        assert (tmp_path / installed).read_text() == (ROOT / source).read_text()
    printed = subprocess.run([program, "--ssh-config"], capture_output=True, text=True, check=True).stdout
    assert f"    ProxyCommand {program} " in printed
    make("uninstall", f"PREFIX={tmp_path}")
    assert files(tmp_path) == []


def test_what_is_installed_works_on_where_a_new_installation_fails(tmp_path: Path) -> None:
    make("install", f"PREFIX={tmp_path}")
    program, before = tmp_path / "bin" / "pyrelay", sorted(files(tmp_path))
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\nexit 1  # as Python 3.10, which is asked whether it is an older one\n")
    old.chmod(0o755)
    (tmp_path / "pip.conf").write_text("[install]\nno-index = true\n")  # nothing that it needs is found
    for words, environ, said in (
        ([f"PYTHON={old}"], {}, "pyrelay needs Python 3.11 or later"),
        ([], {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}, "ERROR: "),
    ):
        done = subprocess.run(
            [need("make"), "-C", ROOT, "-s", "install", f"PREFIX={tmp_path}", *words],
            capture_output=True, text=True, check=False, env={**os.environ, **environ},
        )  # fmt: skip
        assert done.returncode == 2
        assert said in done.stderr
        assert subprocess.run([program, "--version"], capture_output=True, check=True).stderr == b""
    assert sorted(files(tmp_path)) == sorted([*before, old, tmp_path / "pip.conf"])


def test_a_staged_installation_names_only_its_final_path(tmp_path: Path) -> None:
    stage, prefix = tmp_path / "stage", tmp_path / "prefix"
    make("install", f"DESTDIR={stage}", f"PREFIX={prefix}")
    for path in files(stage):
        assert not path.is_symlink() or not os.readlink(path).startswith(str(stage)), path
        assert path.is_symlink() or str(stage).encode() not in path.read_bytes(), path
        assert path.is_symlink() or f"{prefix}/lib/pyrelay.new".encode() not in path.read_bytes(), path
    assert not prefix.exists()
    # What a package manager does: the files go where they say they are.
    shutil.move(f"{stage}{prefix}", prefix)
    shutil.rmtree(stage)
    done = subprocess.run([prefix / "bin/pyrelay", "h1+"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("pyrelay: ")


def test_a_target_installs_no_more_than_it_runs() -> None:
    """The packages that it names when it is run, but those of the environment."""
    for target, packages in (("check", "mandoc"), ("dist", "openssh-client openssh-server")):
        printed = make("-n", target)
        named = [line.partition("install-packages ")[2] for line in printed.splitlines() if "install-packages" in line]
        assert [names for names in named if names != "python3-venv"] == [packages]


def built(kind: str, source: Path, out: Path) -> Path:
    """What setuptools makes of a source."""
    out.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", BUILD, kind, out], cwd=source, capture_output=True, check=True)
    (made,) = out.iterdir()
    return made


def test_the_sdist_has_all_and_its_wheel_the_manual_and_the_completions(tmp_path: Path) -> None:
    listed = subprocess.run([need("git"), "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:  # an sdist is no repository
        missing("the list of the files is git's")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    for name in tracked:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    sdist = built("sdist", tmp_path / "source", tmp_path / "sdist")
    assert sdist.name == f"ssh_pyrelay-{__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert tracked - names <= {".git-blame-ignore-revs"}
    wheel = built("wheel", tmp_path / "unpacked" / f"ssh_pyrelay-{__version__}", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist() if ".data/" in name
        }
    wanted = {name: (ROOT / source).read_bytes() for name, source in SHARED.items() if name.startswith("share/")}
    assert found == wanted
