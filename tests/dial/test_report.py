"""The report of --check, as a person reads it. What it says of real hops is in tests/whole/test_check.py."""

from __future__ import annotations

from relay.config.settings import with_home
from relay.dial.report import Report


def test_a_file_below_home_is_named_as_explain_names_it() -> None:
    said: list[bytes] = []
    report = Report("h1", as_json=False, write=said.append)
    report.stage("hop 1 of 1 (h1)", "host key", 0.01, ok=True, detail=f"known by {with_home('~/.ssh/known_hosts')}:1")
    assert b"".join(said).endswith(b"  host key      ok         10 ms  known by ~/.ssh/known_hosts:1\n")
