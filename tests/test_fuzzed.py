"""Any bytes, for a moment, in what `make fuzz` gives them for ten minutes each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fuzzed
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "route": fuzzed.a_route,
    "settings": fuzzed.settings_of_a_hop,
    "known_hosts": fuzzed.a_known_hosts_file,
    "replies": fuzzed.replies_of_a_proxy,
}


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good one with a few bytes taken out, put in, or moved: what no good one is, but begins as one."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(at + 20, len(data))))
        data = data[:at] + draw(st.binary(max_size=6)) + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_a_value_or_an_error_of_our_own(name: str) -> None:
    seeds = [path.read_bytes() for path in sorted((FUZZ / "seeds" / name).iterdir())]
    assert seeds

    @settings(max_examples=300)
    @given(st.binary() | damaged(seeds))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


def test_each_has_its_target() -> None:
    """A file that gives it bytes for longer."""
    for name, check in TARGETS.items():
        assert f"from fuzzed import {check.__name__}\n" in (FUZZ / f"{name}.py").read_text()
