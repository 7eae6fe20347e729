"""The bench works: every row runs, with next to nothing to move, and one that breaks is told. No figure is judged."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import ROOT
from peers import LOOPBACK, SYSTEM_PATH, close_listener, free_ports, need, until

from bench import picture, readme
from bench.__main__ import SMOKE
from bench.compare import Compared, Goal, compare
from bench.measure import CPU, MEMORY, OVER, THROUGHPUT, TIME, counted
from bench.openssh import OpenSSH, find
from bench.row import Scale
from bench.rows import rows
from bench.start import FIRST_BYTE, INSTRUCTION_COUNT
from bench.table import summary

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux", reason="the bench measures on Linux only"),
]

IS_ROOT = os.geteuid() == 0
PEER = OpenSSH("/ssh", "/sshd", "", "OpenSSH_9.2p1", 9, knows_kex=False)
GROUPS = list(dict.fromkeys(row.group for row in rows(SMOKE, PEER, is_root=IS_ROOT)))


def bench(*arguments: str, path: str = SYSTEM_PATH) -> subprocess.CompletedProcess[str]:
    need("microsocks", "nc", "ssh", "sshd", "ssh-keygen")
    command = [sys.executable, "-m", "bench", "--smoke", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.usefixtures("_sshd_can_start")
def test_every_row(group: str, tmp_path: Path) -> None:
    if group == INSTRUCTION_COUNT and not shutil.which("valgrind"):
        # `make test` does not install it for one group of rows; `make bench` runs them itself.
        pytest.skip("valgrind is not installed: make bench installs it")
    ran = bench("--only", f"{group}: ", "--json", str(tmp_path / "figures"))
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    kept = json.loads((tmp_path / "figures").read_text())
    assert [row["title"] for row in kept["rows"]] == [
        row.title for row in rows(SMOKE, PEER, is_root=IS_ROOT) if row.group == group
    ]
    for row in kept["rows"]:
        assert row["figures"]
        assert all(figure["ours"] > 0 for name, figure in row["figures"].items() if name != OVER), row
        for command in row["commands"]:
            assert command in ran.stdout


@pytest.mark.usefixtures("_sshd_can_start")
def test_a_row_that_breaks(tmp_path: Path) -> None:
    """The others are measured all the same."""
    (tmp_path / "nc").symlink_to(need("false"))
    ran = bench("--only", "plain TCP, ", "--json", str(tmp_path / "figures"), path=f"{tmp_path}:{SYSTEM_PATH}")
    assert ran.returncode == 1
    assert "FAILED: it ended and said nothing" in ran.stdout
    kept = json.loads((tmp_path / "figures").read_text())
    assert {command.split()[0] for row in kept["rows"] if "failed" in row for command in row["commands"]} >= {"nc"}


def test_pairs_are_compared_with_each_other() -> None:
    """A machine that is slow for a while is so for both."""
    assert compare([1, 20, 3], [2, 10, 6]) == Compared(3, 6, 0.5, 0.5, 2)


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal(1.1, 2, "why"), 1.0, ""),
        (Goal(1.1, 2, "why"), 1.1, "must"),
        (Goal(1.1, 2, "why"), 2.5, "aim"),
        (Goal(0.75, 0.5, "why"), 0.8, ""),
        (Goal(0.75, 0.5, "why"), 0.6, "must"),
        (Goal(0.75, 0.5, "why"), 0.5, "aim"),
    ],
)
def test_goals(goal: Goal, value: float, reached: str) -> None:
    assert goal.reached(value) == reached
    assert compare([value * 7], [7], goal).reached == reached
    assert compare([value], None, goal).reached == reached
    assert compare([value], [1000], goal._replace(ours_alone=True)).reached == reached


def test_what_is_not_reached_is_told_with_its_reason() -> None:
    goal = Goal(1.1, 2, "sshd is slow")
    told = summary(
        [("low", compare([1], [1], goal)), ("fair", compare([3], [2], goal)), ("high", compare([9], [3], goal))]
    )
    assert told.splitlines() == [
        "",
        '"must" reached: 2 of 3',
        "  not: low",
        "       sshd is slow",
        '"aim" reached: 1 of 3',
        "  not: low",
        "       sshd is slow",
        "  not: fair",
        "       sshd is slow",
    ]


def test_every_row_is_of_remembered_hops_or_says_first_contact() -> None:
    for row in rows(Scale(), PEER, is_root=IS_ROOT):
        if "first contact" in row.group:
            assert row.forget
        elif "hop" in row.ours or "dropbear" in row.ours:
            assert row.before or "--share" in row.ours, row
            assert not row.forget


def test_the_goals_of_a_start_depend_on_the_other_openssh() -> None:
    """A newer ssh starts faster; a first key exchange that is not ours costs a round trip."""

    def must(peer: OpenSSH, trip: int) -> list[float]:
        group = f"{FIRST_BYTE}, {trip} ms of round trip"
        found = rows(Scale(), peer, is_root=IS_ROOT)
        starts = [row for row in found if row.group == group and row.title.startswith(("1", "2"))]
        return [row.goals[TIME].must for row in starts if TIME in row.goals]

    newer = PEER._replace(major=10, knows_kex=True)
    assert (must(PEER, 0), must(newer, 0)) == ([0.44, 0.31], [0.62, 0.6])
    assert (must(PEER, 100), must(newer, 100)) == ([0.57, 0.48], [0.46, 0.42])


def test_the_openssh_of_another_directory(tmp_path: Path) -> None:
    """As it is built: all programs in one directory; sshd is told where its parts are."""
    real = need("ssh")
    for name in ("ssh", "sshd", "sshd-session"):
        (tmp_path / name).symlink_to(real)
    found = find(str(tmp_path))
    assert (found.ssh, found.sshd) == (f"{tmp_path}/ssh", f"{tmp_path}/sshd")
    assert found.settings == f"SshdSessionPath {tmp_path}/sshd-session\n"
    assert found.version.startswith(f"OpenSSH_{found.major}.")
    ran = bench("--openssh", str(tmp_path / "nowhere"))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error: --openssh: no ssh and sshd in " in ran.stderr


def test_a_count_of_instructions() -> None:
    assert counted("==7== \n==7== I   refs:      45,970,123\n") == 45_970_123
    with pytest.raises(RuntimeError, match="counted nothing"):
        counted("==7== Memcheck")


def test_no_goal() -> None:
    assert compare([1], [2]).reached == ""


def test_every_row_of_the_documents_is_one_of_the_bench() -> None:
    figure = compare([20.0], [10.0])._asdict()
    figures = dict.fromkeys((TIME, THROUGHPUT, CPU, MEMORY), figure)
    found = [
        {"group": row.group, "title": row.title, "figures": figures} for row in rows(Scale(), PEER, is_root=IS_ROOT)
    ]
    for wanted, below in ((readme.SHOWN, ""), (readme.STARTS, readme.NEWER)):
        made = readme.table(found, wanted).splitlines()
        shown = readme.shown(readme.SPEED.read_text(), below)
        assert [line.split(" | ")[0] for line in made] == [line.split(" | ")[0] for line in shown]


def test_the_readme_and_the_picture_have_the_figures_of_the_table() -> None:
    shown = readme.shown(readme.SPEED.read_text())
    assert readme.shown(readme.README.read_text()) == readme.few(shown)
    assert readme.PICTURE.read_text() == picture.draw(shown)


def test_new_figures_go_into_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("README", "SPEED", "PICTURE"):
        copy = tmp_path / name
        copy.write_text(getattr(readme, name).read_text())
        monkeypatch.setattr(readme, name, copy)
    lines = [line.replace(" 0.", " 7.") for line in readme.shown(readme.SPEED.read_text())]
    readme.write(lines)
    assert readme.shown(readme.SPEED.read_text()) == lines
    assert readme.shown(readme.README.read_text()) == readme.few(lines)
    assert readme.PICTURE.read_text() == picture.draw(lines)
    newer = [line.replace(" 0.", " 8.") for line in readme.shown(readme.SPEED.read_text(), readme.NEWER)]
    readme.write_newer(newer)
    assert readme.shown(readme.SPEED.read_text(), readme.NEWER) == newer != lines
    assert readme.shown(readme.SPEED.read_text()) == lines


# The delay line

TRIP = 0.1  # seconds, there and back


@contextmanager
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a delay line: who connects, and who listens."""
    listener = socket.create_server((LOOPBACK, 0))
    listener.settimeout(60)
    port = next(free_ports())
    command = [sys.executable, str(ROOT / "bench/delay.py"), str(TRIP * 1000), f"{port}:{listener.getsockname()[1]}"]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: _listens(port), "delay line")
            listener.accept()[0].close()  # that was the question
            with socket.create_connection((LOOPBACK, port), timeout=60) as near:
                far, _ = listener.accept()
                with far:
                    far.settimeout(60)
                    yield near, far
        finally:
            close_listener(listener)
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def test_a_delay_line_delays_connection_and_bytes() -> None:
    began = time.monotonic()
    with line() as (near, far):
        assert time.monotonic() - began >= 1.5 * TRIP  # the third part of the handshake arrives
        for one, other in ((far, near), (near, far)):
            began = time.monotonic()
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            assert time.monotonic() - began >= TRIP / 2


def test_a_delay_line_keeps_order_and_half_close() -> None:
    said = [b"%d\n" % number for number in range(500)]

    def say(sock: socket.socket) -> None:
        for word in said:
            sock.sendall(word)
        sock.shutdown(socket.SHUT_WR)

    with line() as (near, far):
        for one, other in ((near, far), (far, near)):
            speaker = threading.Thread(target=say, args=(one,))
            speaker.start()
            with other.makefile("rb") as heard:
                assert heard.readlines() == said
            speaker.join()
