"""The soak, as short as it can be: some connections, 100 MB, and every party stopped once and killed once."""

from __future__ import annotations

import random
import sys

import pytest
import soak_beside
from lab import Lab
from peers import missing
from soak import Soak
from soak_beside import Beside

pytestmark = pytest.mark.alone


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak(lab: Lab) -> None:
    if sys.platform != "linux":
        missing("the soak looks for processes in /proc")
    said: list[str] = []
    Soak(lab, 0, random.Random(7), said.append).run()
    assert len(said) == 4


@pytest.mark.slow
def test_a_short_soak_beside_hostile_hops(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred round trips have no 99th percentile: here it is a hop that stops all others that must be noticed."""
    if sys.platform != "linux":
        missing("the soak looks for processes in /proc")
    said: list[str] = []
    monkeypatch.setattr(soak_beside, "BOUND", 1.0)
    Beside(lab, 4, random.Random(7), said.append).run()
    assert len(said) == 1
