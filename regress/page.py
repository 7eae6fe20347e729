"""docs/regress.md, written from the outcomes that are kept; where pyrelay does otherwise than ssh it needs a reason."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from regress import kept
from regress.kept import Outcomes
from regress.reasons import DIFFERS, LOGINS, NO_CONNECTION
from regress.source import BUILD, ROOT, SUITES
from regress.ways import IN_PLACE, PLAIN, THROUGH

PAGE = ROOT / "docs" / "regress.md"
HEAD = Path(__file__).with_name("head.md")


def applies(test: str) -> bool:
    """Whether a test says anything here."""
    return test not in NO_CONNECTION


def write() -> int:
    """Write the page; return 1 when something differs from ssh without a reason, else 0."""
    unexplained: list[str] = []
    parts = [HEAD.read_text()]
    for suite in SUITES:
        outcomes = {test: ways for test, ways in kept.load(suite).items() if test not in NO_CONNECTION}
        if outcomes:
            parts += [f"## {_version(suite)}\n", *_through(outcomes, unexplained), *_in_place(outcomes, unexplained)]
    parts += ["## Tests that say nothing here\n", *_left_out()]
    PAGE.write_text("\n".join(parts))
    for line in unexplained:
        print(f"unexplained: {line}")
    return 1 if unexplained else 0


def _version(suite: str) -> str:
    (source,) = (BUILD / suite).glob("openssh-*/")
    return f"OpenSSH {source.name.removeprefix('openssh-')} of {SUITES[suite]}"


def _through(outcomes: Outcomes, unexplained: list[str]) -> list[str]:
    """The table of the ways through a hop: the tests that do not go well everywhere; the others are named."""
    ways = [way.name for way in (PLAIN, *THROUGH) if any(way.name in ran for ran in outcomes.values())]
    rows, well = [], []
    for test, ran in sorted(outcomes.items()):
        verdicts = [ran[way]["verdict"] if way in ran else "-" for way in ways]
        if set(verdicts) <= {"ok", "-"}:
            well.append(test)
            continue
        rows.append(f"| {test} | {' | '.join(verdicts)} | {_why(test, ran)} |")
        ssh = ran.get(THROUGH[0].name, {}).get("verdict")
        unexplained += [
            f"{test}, {way.name}: {ran[way.name]['verdict']}, where ssh -W is {ssh}"
            for way in THROUGH[1:]
            if way.name in ran and ran[way.name]["verdict"] != ssh
        ]
        if not _why(test, ran):
            unexplained.append(f"{test}: no reason says why it does not go well")
    carried = Counter({way: sum(ran[way]["carried"] for ran in outcomes.values() if way in ran) for way in ways[1:]})
    counts = [f"{way} {sum(ran.get(way, {}).get('verdict') == 'ok' for ran in outcomes.values())}" for way in ways]
    return [
        "### Through a hop\n",
        f"Tests that went well: {', '.join(counts)}.\n",
        f"Connections carried: {', '.join(f'{way} {count}' for way, count in carried.items())}.\n",
        f"Well in all of these ways: {', '.join(well)}.\n",
        *([_table(["test", *ways, "why"], rows)] if rows else []),
    ]


def _why(test: str, ran: dict[str, dict[str, Any]]) -> str:
    if test in DIFFERS:
        return DIFFERS[test]
    skipped = next((outcome["said"] for outcome in ran.values() if outcome["verdict"] == "skipped"), None)
    return f"the suite leaves it out: {skipped[0]}" if skipped else ""


def _in_place(outcomes: Outcomes, unexplained: list[str]) -> list[str]:
    """The table of logins in ssh's place: how many each test makes, and those in which the two differ."""
    rows = []
    total: Counter[str] = Counter()
    for test, ran in sorted(outcomes.items()):
        if not all(way.name in ran and ran[way.name]["logins"] for way in IN_PLACE):
            continue
        ssh, ours = _aligned(*(_logins(ran[way.name]["logins"]) for way in IN_PLACE))
        same = Counter(verdict for (verdict, _), (other, _) in zip(ssh, ours, strict=True) if verdict == other)
        differ = [one for one, other in zip(ssh, ours, strict=True) if one[0] != other[0]]
        total.update(same)
        total["differ"] += len(differ)
        why = LOGINS.get(test, "")
        verdicts = " | ".join(ran[way.name]["verdict"] for way in IN_PLACE)
        if differ and not why:
            unexplained += [f"{test}: ssh has {verdict} {line}" for verdict, line in differ]
        counts = f"{same['accepted']} | {same['refused']} | {len(differ)}"
        unlike = differ or len({ran[way.name]["verdict"] for way in IN_PLACE}) > 1
        rows.append(f"| {test} | {verdicts} | {counts} | {why if unlike else ''} |")
    if not rows:
        return []
    return [
        "### In ssh's place\n",
        f"Logins: both accept {total['accepted']}, both refuse {total['refused']}, they differ in {total['differ']}.\n",
        _table(["test", "ssh -W", "pyrelay", "both accept", "both refuse", "differ", "why"], rows),
    ]


Login = tuple[str, str]  # accepted or refused, and the arguments


def _logins(lines: list[str]) -> list[Login]:
    """What a test logged in to, without names that differ from run to run."""
    split = [line.split(None, 1) for line in lines]
    return [(verdict, re.sub(r"^-E\S+ |/tmp/ssh-\S+|\b\d{5}\b", "", line)) for verdict, line in split]


def _aligned(one: list[Login], other: list[Login]) -> tuple[list[Login], list[Login]]:
    """The logins that both runs of a test have made, in order: a test may go another way after one that failed."""
    matcher = difflib.SequenceMatcher(None, [line for _, line in one], [line for _, line in other], autojunk=False)
    blocks = matcher.get_matching_blocks()
    return (
        [each for block in blocks for each in one[block.a : block.a + block.size]],
        [each for block in blocks for each in other[block.b : block.b + block.size]],
    )


def _left_out() -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for test, reason in NO_CONNECTION.items():
        by_reason.setdefault(reason, []).append(test)
    return [_table(["tests", "why"], [f"| {', '.join(tests)} | {reason} |" for reason, tests in by_reason.items()])]


def _table(heading: list[str], rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}", *rows, ""])
