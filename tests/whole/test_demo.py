"""The demo keeps its promises, and leaves nothing running and nothing behind."""

from __future__ import annotations

import sys

from lab import ROOT, Lab


def test_the_demo(lab: Lab) -> None:
    ran = lab.run(sys.executable, ROOT / "demo" / "demo.py", env={"TMPDIR": str(lab.home)})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "h1  demo logged in; passed " in ran.stdout
    assert 'h3  demo logged in; ran echo "hello from $SERVER"\n' in ran.stdout
    assert "pyrelay: hop 2 of 2 (h2): " in ran.stdout
    assert ran.stdout.endswith("All as promised; nothing is left running.\n")
    assert lab.remaining(2) == {}
    assert list(lab.home.iterdir()) == []
