"""The page of `make nightly`: what is read from what its parts say, and each figure beside the one before."""

from __future__ import annotations

from pathlib import Path

import nightly
import pytest

SOAK = """\
soak: 60 seconds, seed 1
41 connections in a row: 9 s; to the first byte 201 ms (median; 200 ms for the last tenth), 400 ms at most
1 connections at a time, 1 MiB there and back in each: 1 s
"""
FUZZ = """\
fuzz/messages.py
#2\tINITED exec/s: 0
Done 123456 runs in 61 second(s)
fuzz/seeds/route
SUMMARY: libFuzzer: timeout
"""
BENCH = """\
| one hop | pyrelay | ssh -W | ratio |
|---|---|---|---|
| first byte | 76 ms | 120 ms | 0.63 |
"""


def test_what_parts_say() -> None:
    assert nightly.counts("....\n3 passed, 1 skipped in 2.1s\n") == {"tests passed": "3", "tests skipped": "1"}
    assert nightly.counts("") == {}
    assert nightly.ratios(BENCH) == {"first byte": "76 ms; 120 ms; 0.63"}
    assert list(nightly.sentences(SOAK)) == [
        "n connections in a row",
        "n connections at a time, n MiB there and back in each",
    ]
    assert nightly.runs(FUZZ) == {
        "fuzz/messages.py": "123,456 runs in 61 s",
        "fuzz/seeds/route: found": "libFuzzer: timeout",
    }


def test_each_figure_stands_beside_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "PAGE", tmp_path / "nightly.md")
    assert nightly.read_page() == {}
    nightly.write_page({("soak", "speed"): "100 MB/s", ("fuzz", "runs"): "7"}, {})
    nightly.write_page({("soak", "speed"): "120 MB/s"}, nightly.read_page())
    page = (tmp_path / "nightly.md").read_text()
    assert "| soak | speed | 120 MB/s | 100 MB/s |\n" in page
    assert "| fuzz | runs | 7 | |\n" in page  # not run this time
    nightly.write_page({}, nightly.read_page())
    assert nightly.read_page() == {("soak", "speed"): "120 MB/s", ("fuzz", "runs"): "7"}
