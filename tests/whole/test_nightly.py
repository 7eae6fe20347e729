"""The page of `make nightly`: what is read from what its parts say, and each figure beside the one before."""

from __future__ import annotations

import json
from pathlib import Path

import nightly
import pytest

from bench.compare import Goal, compare

# As each part prints it.
MATRIX = """\
installing debootstrap
| Debian 13 | 3.13.5 | OpenSSH 10.0p2 | passed | 66 skipped, 4900 passed |
| Debian 12 | `make install` | yes | yes | yes | NO | yes | yes | yes | yes |
"""
ELSEWHERE = """\
....                                                                     [100%]
FAILED tests/whole/test_chain.py::test_one - assert 3 passed in 4.5s
1 failed, 1200 passed, 34 skipped, 120 deselected, 2 errors in 723.39s (0:12:03)
============ 101 passed, 1 skipped, 1700 deselected in 200.01s (0:03:20) =============
"""
REGRESS = """\
# OpenSSH's own tests

## OpenSSH 9.2p1 of Debian 12

### Through a hop

Tests that went well: plain 46, ssh -W 44.

Connections carried: ssh -W 902.

### In ssh's place

Logins: both accept 465, both refuse 427, they differ in 3.

## OpenSSH 10.0p1 of Debian 13

Tests that went well: plain 15.
"""
SOAK = """\
soak: 60 seconds, seed 1
41 connections in a row: 9 s; to the first byte 201 ms (median; 200 ms for the last tenth), 400 ms at most
3.3 GB through two hops, new keys every 64 MiB: 14 s, 237 MB/s both ways together; descriptors 10, 10
soak: clean
"""
FUZZ = """\
messages
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED exec/s: 0
Done 123456 runs in 61 second(s)
aes128-ctr+hmac-sha2-256-etm@openssh.com
Done 7 runs in 61 second(s)
fuzz/seeds/route
SUMMARY: libFuzzer: timeout
"""


def test_systems() -> None:
    assert nightly.systems(MATRIX) == {
        "Debian 13, Python 3.13.5, OpenSSH 10.0p2": "demo passed; tests: 66 skipped, 4900 passed",
        "Debian 12, first hour by `make install`": "7 of 8 right",
    }


def test_counts_of_both_halves() -> None:
    assert nightly.counts(ELSEWHERE) == {
        "tests passed": "1,301",
        "tests failed": "1",
        "tests skipped": "35",
        "tests error": "2",
    }
    assert nightly.counts("") == {}


def test_outcomes_of_each_version() -> None:
    assert nightly.outcomes(REGRESS) == {
        "OpenSSH 9.2p1 of Debian 12: tests that went well": "plain 46, ssh -W 44",
        "OpenSSH 9.2p1 of Debian 12: connections carried": "ssh -W 902",
        "OpenSSH 9.2p1 of Debian 12: logins": "both accept 465, both refuse 427, they differ in 3",
        "OpenSSH 10.0p1 of Debian 13: tests that went well": "plain 15",
    }
    assert nightly.outcomes((nightly.ROOT / "docs" / "regress.md").read_text())


def test_ratios_and_goals() -> None:
    figures = {
        "MB/s": compare([300, 500], [200, 200], Goal(1.1, 2, "")),
        "memory, MB": compare([41], [10], Goal(40, 32, "", ours_alone=True)),
        "ms": compare([76.5]),
    }
    # As bench/__main__.py keeps them.
    kept = {name: {**figure._asdict(), "reached": figure.reached} for name, figure in figures.items()}
    rows = [
        {"group": "throughput", "title": "1 hop", "figures": kept},
        {"group": "throughput", "title": "2 hops", "failed": "no sshd"},
    ]
    assert nightly.ratios(json.dumps({"machine": "2 cores", "rows": rows})) == {
        "throughput: 1 hop": "MB/s 2.00 (aim); memory, MB 4.10 (not reached); ms 76.50",
        "throughput: 2 hops": "failed: no sshd",
    }
    assert nightly.ratios("") == {}


def test_sentences() -> None:
    assert nightly.sentences(SOAK) == {
        "n connections in a row": SOAK.splitlines()[1],
        "n GB through two hops, new keys every n MiB": SOAK.splitlines()[2],
    }


def test_runs() -> None:
    assert nightly.runs(FUZZ) == {
        "messages": "123,456 runs in 61 s",
        "aes128-ctr+hmac-sha2-256-etm@openssh.com": "7 runs in 61 s",
        "fuzz/seeds/route: found": "libFuzzer: timeout",
    }


def test_each_figure_stands_beside_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly, "PAGE", tmp_path / "nightly.md")
    assert nightly.read_page() == {}
    nightly.write_page({"fuzz": {"runs": "7"}, "soak": {"speed": "100 MB/s"}}, {})
    nightly.write_page({"soak": {"speed": "120 MB/s"}}, nightly.read_page())
    page = (tmp_path / "nightly.md").read_text()
    assert page.endswith("| soak | speed | 120 MB/s | 100 MB/s |\n| fuzz | runs | 7 |  |\n")
    nightly.write_page({"fuzz": {"runs": "8"}}, nightly.read_page())  # what is left out keeps both of its own
    assert nightly.read_page() == {("soak", "speed"): ("120 MB/s", "100 MB/s"), ("fuzz", "runs"): ("8", "7")}


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A night whose parts are those of another Makefile; its log is for `make soak`."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "Makefile").write_text(
        'soak:\n\t@echo "7 connections in a row: $(ARGS)"\nfuzz:\n\t@exit 3\n'
        "regress:\n\t@echo '## OpenSSH 9' > docs/regress.md; echo 'Logins: $(ARGS).' >> docs/regress.md\n"
    )
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    monkeypatch.setattr(nightly, "LOGS", tmp_path / "build" / "nightly")
    monkeypatch.setattr(nightly, "PAGE", tmp_path / "docs" / "nightly.md")
    # `make nightly ARGS=...` hands these on.
    monkeypatch.setenv("ARGS", "--only soak")
    monkeypatch.setenv("MAKEFLAGS", " -- ARGS=--only\\ soak")
    return tmp_path


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, str]:
    """Run a night; what stands on its page by now, of each part and figure."""
    monkeypatch.setattr("sys.argv", ["nightly", *arguments])
    status = nightly.main()
    return {f"{part}: {what}": now for (part, what), (now, _) in nightly.read_page().items()} | {"status": str(status)}


def test_a_part_has_arguments_of_its_own(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ran(monkeypatch, "--only", "soak", "--only", "fuzz", "--soak", "60", "--fuzz", "1")
    assert page.pop("soak: outcome").endswith(': `make soak ARGS="--seconds 60"`')
    assert page.pop("fuzz: outcome").startswith("failed (status 2) in 0 s, ")
    assert page == {"soak: n connections in a row": "7 connections in a row: --seconds 60", "status": "1"}
    assert ran(monkeypatch, "--only", "regress")["regress: OpenSSH 9: logins"] == ""
    chosen = ran(monkeypatch, "--only", "regress", "--regress=--suite trixie")
    assert chosen["regress: OpenSSH 9: logins"] == "--suite trixie"
    # What was not run this time is as it was; what is read again is, too.
    assert set(ran(monkeypatch, "--only", "soak", "--read")) == {
        *("soak: outcome", "soak: n connections in a row", "fuzz: outcome"),
        *("regress: outcome", "regress: OpenSSH 9: logins", "status"),
    }
    assert (night / "build" / "nightly" / "soak.log").read_text().count("\n") == 3


def test_a_page_that_a_failed_part_has_not_written_is_not_read(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, "--only", "regress")
    (night / "Makefile").write_text("regress:\n\t@exit 1\n")
    assert "regress: OpenSSH 9: logins" not in ran(monkeypatch, "--only", "regress")
