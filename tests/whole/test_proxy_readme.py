"""What docs/recipes.md says of proxies is run, the old line and the new one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import proxies
import pytest
from desk import Desk, parts, reaches, table
from lab import Lab
from proxies import RealProxy

RECIPES = [row for row in table("through a proxy")[1:] if row[0] != "Tor"]  # that one is in test_tor.py
OLD = [row for row in RECIPES if not re.search("connect -R|corkscrew", row[1])]  # programs that few systems have
PORTS = {"1080": "microsocks", "3128": "tinyproxy"}


@pytest.fixture
def desk(lab: Lab) -> Iterator[tuple[Desk, dict[str, RealProxy]]]:
    """The desk, and the proxies by the port that the document has for them."""
    with ExitStack() as ends:
        found = {}
        for port, name in PORTS.items():
            found[port] = proxies.start(name, lab)
            ends.callback(found[port].stop)
        yield Desk(lab), found


def goes_by_proxy(desk: tuple[Desk, dict[str, RealProxy]], cell: str, command: str) -> None:
    """Reach h3 by a cell's lines, and not without the proxies."""
    person, found = desk
    config, _ = parts(cell)
    # All at once: the port of one may hold the digits that stand for another.
    real = re.compile("|".join(found))
    config = [real.sub(lambda match: str(found[match[0]].port), line) for line in config]
    person.configure(config)
    reaches(person, command)
    for proxy in found.values():
        proxy.stop()
    assert person.run(f"{command} true").returncode != 0


@pytest.mark.parametrize(("recipe", "now", "then"), RECIPES, ids=[row[0] for row in RECIPES])
def test_the_line_with_pyrelay(desk: tuple[Desk, dict[str, RealProxy]], recipe: str, now: str, then: str) -> None:
    (command,) = parts(then)[1]
    goes_by_proxy(desk, then, command)


@pytest.mark.parametrize(("recipe", "now", "then"), OLD, ids=[row[0] for row in OLD])
def test_the_line_it_takes_the_place_of(
    desk: tuple[Desk, dict[str, RealProxy]], recipe: str, now: str, then: str
) -> None:
    goes_by_proxy(desk, now, "ssh h3")
