"""Run OpenSSH's suite in all ways, and write the table: `make regress`.

    python -m regress [--suite bookworm] [--way NAME]... [--jobs N] [TEST]...

Outcomes are kept in build/regress/outcomes-SUITE.json: whatever is run again takes the place of what
was there, and docs/regress.md is written from all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import Lab
from sshd import privilege_separation

from regress import kept, page, suite
from regress.reasons import FIXED_PORTS
from regress.source import BUILD, SUITES, Source, prepared
from regress.ways import WAYS, Hops, Way


def run_all(source: Source, tests: list[str], ways: list[Way], jobs: int, again: bool) -> None:
    """Run the tests in these ways, so many at once; keep each outcome as it comes. again: those that have one, too."""
    outcomes = kept.load(source.suite)
    with tempfile.TemporaryDirectory(prefix="pyrelay-regress-") as top, privilege_separation():
        Path(top).chmod(0o755)
        lab = Lab(Path(top))
        hops = Hops(lab, source.top / "ssh")

        def one(test: str, way: Way) -> None:
            outcome = suite.run(source, test, way, hops, BUILD / "run" / source.suite / way.directory / test)
            kept.add(source.suite, test, way.name, outcome)
            print(f"{source.suite}  {test:22} {way.name:16} {outcome.verdict:8} {outcome.seconds:6} s", flush=True)

        def run(some: list[tuple[str, Way]]) -> None:
            for test, way in some:
                one(test, way)

        try:
            with ThreadPoolExecutor(jobs) as pool:
                wanted = [(test, way) for test in tests for way in ways if page.applies(test)]
                if not again:
                    wanted = [(test, way) for test, way in wanted if way.name not in outcomes.get(test, {})]
                # Those that take ports of their own choosing take the same ones: they are one job.
                alone = [each for each in wanted if each[0] in FIXED_PORTS]
                together = [[each] for each in wanted if each[0] not in FIXED_PORTS]
                for done in [pool.submit(run, some) for some in (alone, *together)]:
                    done.result()
        finally:
            lab.stop()


def main() -> int:
    """Run what was asked for; the status is 1 where pyrelay does worse than ssh in the same place."""
    parser = argparse.ArgumentParser(prog="make regress ARGS=...")
    parser.add_argument("--suite", action="append", choices=SUITES, help="Debian's release; all when not given")
    parser.add_argument("--way", action="append", choices=WAYS, help="all when not given")
    # A test waits more than it works.
    jobs = 2 * (os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="tests at once (two for each processor)")
    parser.add_argument("--missing", action="store_true", help="only what has no outcome yet")
    parser.add_argument("--page", action="store_true", help="run nothing, write the table only")
    parser.add_argument("tests", nargs="*", help="all when not given")
    asked = parser.parse_args()
    suites = asked.suite or list(SUITES)
    if not asked.page:
        for name in suites:
            source = prepared(name)
            run_all(
                source,
                asked.tests or source.tests(),
                [WAYS[way] for way in asked.way or WAYS],
                asked.jobs,
                not asked.missing,
            )
    return page.write()


if __name__ == "__main__":
    sys.exit(main())
