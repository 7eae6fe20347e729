"""The soak, as short as it can be: some connections, 100 MB, and every party stopped once and killed once."""

from __future__ import annotations

import random
import sys

import pytest
from lab import Lab
from peers import missing
from soak import Soak

pytestmark = pytest.mark.alone


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak(lab: Lab) -> None:
    if sys.platform != "linux":
        missing("the soak looks for processes in /proc")
    said: list[str] = []
    Soak(lab, 0, random.Random(7), said.append).run()
    assert len(said) == 4
