"""Any bytes, for a moment, in what `make fuzz` gives them for ten minutes each."""

from __future__ import annotations

import re

import pytest
import sealing
from fuzzed import TARGETS
from fuzzed_wire import CLEAR, KINDS, WIRE
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab import ROOT

SEEDS = ROOT / "fuzz" / "seeds"
DATA = b"c\0\1\0^" + bytes(8)  # for a channel of a link's, which is rare among any bytes


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


@pytest.mark.parametrize("name", WIRE)
def test_any_bytes_on_the_wire(name: str) -> None:
    @settings(max_examples=100)
    @example(DATA)
    @given(st.binary(max_size=1000))
    def check(data: bytes) -> None:
        WIRE[name](data)

    check()


def test_each_has_seeds() -> None:
    """By whose directories `make fuzz` finds it."""
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)


def test_make_fuzz_names_those_that_have_none() -> None:
    named = re.findall(r"^SEEDLESS = ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    assert {name.replace("+", " ") for name in named.replace("\\\n", " ").split()} == set(WIRE)


def test_the_packets_are_of_each_sealer_and_opener() -> None:
    def made(kind: str) -> tuple[type, type, int]:
        return type(sealing.sealer(kind)), type(sealing.opener(kind)), sealing.shape(kind).tag

    assert {made(kind) for kind in KINDS if kind != CLEAR} == {made(kind) for kind in sealing.KINDS}
