"""Any bytes, for a moment, in what `make fuzz` gives them for ten minutes each."""

from __future__ import annotations

import pytest
from fuzzed import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import ROOT

SEEDS = ROOT / "fuzz" / "seeds"


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
    seeds = [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]
    assert seeds

    @settings(max_examples=300)
    @given(st.binary() | damaged(seeds))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


def test_each_has_seeds() -> None:
    """By whose directories `make fuzz` finds it."""
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
