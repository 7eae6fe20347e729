"""Fixtures that several files of tests share."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import hypothesis
import paramiko  # noqa: F401  (all of it, for the servers here, before relay brings in what a client needs)
import pytest
from explained import HOST_KEY
from lab import Lab
from scripted_proxy import Line, Peer
from sshd import privilege_separation

if TYPE_CHECKING:
    from kerberos import Realm
    from pair import Pair

# A shell that starts the tests in its background has them ignore SIGINT, and so all that they start would, too.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("pyrelay", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("pyrelay")

SLOWEST = 10  # files whose time is printed at the end
LAST = 1000  # characters of what is said of a failure
spent: defaultdict[str, float] = defaultdict(float)  # seconds of each test file, with its fixtures


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    spent[report.nodeid.partition("::")[0]] += report.duration  # (its location may be a suite's)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The slowest files, where more than one has run: `make test` shows where its time goes. And what failed, into
    the file of that name, for whoever runs the tests in more than one go."""
    path = os.environ.get("PYRELAY_FAILED")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:  # the workers' failures are told by whom they work for
        failed = terminalreporter.getreports("failed") + terminalreporter.getreports("error")
        with Path(path).open("a") as said:
            said.writelines(f"{each.longreprtext[-LAST:]}\nFAILED {each.nodeid}\n" for each in failed)
    if len(spent) > 1:
        terminalreporter.section(f"the slowest of {len(spent)} files")
        for file, seconds in sorted(spent.items(), key=lambda item: -item[1])[:SLOWEST]:
            terminalreporter.line(f"{seconds:7.1f} s  {file}")


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_remembered_at_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor is anything taken from the memory of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def _sshd_can_start() -> Iterator[None]:
    with privilege_separation():
        yield


Made = TypeVar("Made", "Lab", "Realm")


def _in_a_place_of_its_own(prefix: str, make: Callable[[Path], Made]) -> Iterator[Made]:
    """Make something in a new directory, and stop it and remove that in the end."""
    # Not tmp_path: that is too long for unix sockets, and closed to the accounts that log in.
    top = Path(tempfile.mkdtemp(prefix=prefix))
    top.chmod(0o755)
    try:
        made = make(top)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(top)


@pytest.fixture
def lab(_sshd_can_start: None) -> Iterator[Lab]:
    """An empty lab; its servers and clients end with the test."""
    yield from _in_a_place_of_its_own("pyrelay-", Lab)


@pytest.fixture
def target(lab: Lab) -> Lab:
    """A lab with a target h2, which takes a key."""
    lab.server("h2")
    return lab


@pytest.fixture
def h3(lab: Lab) -> Lab:
    """A lab with one server, h3, by a name that somebody has to look up."""
    server = lab.server("h3", HostName="localhost", HostKeyAlias="h3")
    with lab.known_hosts.open("a") as file:
        file.writelines(f"h3 {key}\n" for key in server.host_keys)
    return lab


@pytest.fixture
def plan(lab: Lab) -> Lab:
    """Hops h1 and h2 and a target h3, none of which is there; a key is known for each hop."""
    lab.host("h1", Port=2201, User="u1")
    lab.host("h2", HostName="h2.example", Port=2202)
    lab.host("h3", HostName="h3.example")
    lab.known_hosts.write_text(f"[127.0.0.1]:2201,[h2.example]:2202,*/h3 {HOST_KEY}\n")
    return lab


@pytest.fixture
def shared(lab: Lab) -> Lab:
    """A lab with three servers, and relays that share their hops."""
    lab.servers("h1", "h2", "h3")
    lab.options += ("--share", "10m")
    return lab


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Our client and a server, both in this process."""
    from pair import Pair  # paramiko takes a while, and few tests want it

    with Pair() as made:
        yield made


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    """A Kerberos realm, one for all tests of a file."""
    from kerberos import Realm  # few tests want it

    yield from _in_a_place_of_its_own("pyrelay-krb-", Realm)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """Start scripted peers; they end with the test."""
    started: list[Peer] = []

    def start(script: Callable[[Line], None], path: Path | None = None) -> Peer:
        started.append(Peer(script, path))
        return started[-1]

    yield start
    for each in started:
        each.stop()
