"""What a user's environment says to Python, and not to pyrelay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import ROOT

if TYPE_CHECKING:
    from lab import Lab

OTHER = "import os\nos.write(2, b'the other one\\n')\nos._exit(9)\n"
# What pip writes, in short.
SCRIPT = "#!{python}\nimport sys\nfrom ssh_pyrelay import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """pyrelay as pip installs it: a script, and its modules elsewhere."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "relay", site / "relay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ssh_pyrelay.py", site)
    script = tmp_path / "bin" / "pyrelay"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    return script


def version(program: Path, *path: Path) -> tuple[int, str, str]:
    env = {"PYTHONPATH": os.pathsep.join(map(str, (*path, program.parent.parent / "site"))), "PATH": os.environ["PATH"]}
    done = subprocess.run([program, "--version"], env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_another_package_of_that_name_is_not_taken_for_it(program: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "relay").mkdir(parents=True)
    for name in ("__init__", "cli"):
        (other / "relay" / f"{name}.py").write_text(OTHER)
    status, out, _ = version(program, other)
    assert (status, out[:8]) == (0, "pyrelay ")


def test_a_program_beside_it_is_no_module(program: Path) -> None:
    (program.parent / "select.py").write_text(OTHER)
    (program.parent / "paramiko.py").write_text(OTHER)
    status, out, _ = version(program)
    assert (status, out[:8]) == (0, "pyrelay ")


def test_one_that_python_has_imported_before_is_told_of(program: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "relay").mkdir(parents=True)
    (other / "relay" / "__init__.py").touch()
    (other / "sitecustomize.py").write_text("import relay\n")
    assert version(program, other) == (
        255,
        "",
        f"pyrelay: {other}/relay/__init__.py has been imported in the place of {tmp_path}/site/relay\n",
    )


@pytest.mark.parametrize("share", [[], ["--share", "10"]])
@pytest.mark.parametrize("words", ["error", "default", "error::ResourceWarning"])
def test_warnings_are_for_developers(lab: Lab, words: str, share: list[str]) -> None:
    lab.servers("h1", "h2")
    done = lab.run(lab.program, "-F", lab.config, *share, "h1/h2", env={"PYTHONWARNINGS": words, "PYTHONDEVMODE": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SSH-2.0-")
