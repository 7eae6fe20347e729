"""The outcomes of all runs so far, one file for each version; several runs may add to it at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from typing import TYPE_CHECKING, Any

from regress.source import BUILD

if TYPE_CHECKING:
    from regress.suite import Outcome

Outcomes = dict[str, dict[str, dict[str, Any]]]  # test -> way -> an Outcome's fields


def load(suite: str) -> Outcomes:
    """What is kept of a version; nothing when it has not been run."""
    path = BUILD / f"outcomes-{suite}.json"
    outcomes: Outcomes = json.loads(path.read_text()) if path.exists() else {}
    return outcomes


def add(suite: str, test: str, way: str, outcome: Outcome) -> None:
    """Keep an outcome, in the place of the one before it."""
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcomes = load(suite)
        outcomes.setdefault(test, {})[way] = dataclasses.asdict(outcome)
        (BUILD / f"outcomes-{suite}.json").write_text(json.dumps(outcomes, indent=1))
