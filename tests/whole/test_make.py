"""What the Makefile promises: install and uninstall, staged and in earnest, and the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab import ROOT
from peers import need


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
    assert version.startswith("pyrelay ")
    assert (tmp_path / "share/man/man1/pyrelay.1").read_text() == (ROOT / "man/pyrelay.1").read_text()
    make("uninstall", f"PREFIX={tmp_path}")
    assert files(tmp_path) == []


def test_a_staged_installation_names_only_its_final_path(tmp_path: Path) -> None:
    stage, prefix = tmp_path / "stage", tmp_path / "prefix"
    make("install", f"DESTDIR={stage}", f"PREFIX={prefix}")
    for path in files(stage):
        assert not path.is_symlink() or not os.readlink(path).startswith(str(stage)), path
        assert path.is_symlink() or str(stage).encode() not in path.read_bytes(), path
    assert not prefix.exists()
    # What a package manager does: the files go where they say they are.
    shutil.move(f"{stage}{prefix}", prefix)
    shutil.rmtree(stage)
    done = subprocess.run([prefix / "bin/pyrelay", "h1+"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("pyrelay: ")
