"""Where descriptors or memory run out: one line in words that names the cause."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peers import until
from shared import AGAIN, control, program

if TYPE_CHECKING:
    from lab import Lab

pytestmark = pytest.mark.alone

MIB = 1 << 20


def limited(lab: Lab, limit: int, most: int, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """pyrelay under a limit."""
    lab.write_config()

    def set_limit() -> None:
        resource.setrlimit(limit, (most, most))

    return lab.start(lab.program, *arguments, "-F", lab.config, preexec_fn=set_limit, **options)


def fails_in_words(process: subprocess.Popen[bytes], words: tuple[str, ...]) -> None:
    """It has a banner and nothing to say, or says in one line, with a hint, what there is too little of."""
    out, err = process.communicate(timeout=60)
    said = err.decode()
    if process.returncode == 0:
        assert out.startswith(b"SSH-2.0-")
        assert said == ""
        return
    assert process.returncode == 1, said
    assert len(said.splitlines()) <= 2
    assert said.startswith("pyrelay: ")
    assert any(word in said for word in words), said


@pytest.mark.parametrize("share", [[], ["--share", "1"]])
def test_descriptors(lab: Lab, share: list[str]) -> None:
    """Below five, Python itself does not start."""
    lab.servers("h1", "h2")
    words = ("too many open files",)
    for most in range(5, 16) if not share else (*range(6, 24, 2), 30):
        fails_in_words(limited(lab, resource.RLIMIT_NOFILE, most, *share, "h1/h2"), words)
        if not share:
            port = str(lab["h2"].port)
            fails_in_words(limited(lab, resource.RLIMIT_NOFILE, most, "127.0.0.1", port), words)


@pytest.mark.parametrize("share", [[], ["--share", "1"]])
def test_memory(lab: Lab, share: list[str]) -> None:
    lab.servers("h1", "h2")
    for most in (100, 120, 150, 200):
        words = ("out of memory", "cannot allocate memory")
        fails_in_words(limited(lab, resource.RLIMIT_AS, most * MIB, *share, "h1/h2"), words)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))", "too many open files"),
        ("raise MemoryError", "out of memory"),
    ],
)
def test_a_holder_that_cannot_start(lab: Lab, lines: str, words: str) -> None:
    """The relay goes by itself, at once, and -v says why."""
    lab.servers("h1", "h2")
    program(
        lab,
        "import relay.share.place as place, resource",
        "before = place._leave_relay",
        "def leave(*fds):",
        "    before(*fds)",
        "    import relay.share as share, sys, types",
        "    def run(*_):",
        f"        {lines}",
        "        import socket, uvloop",
        "        uvloop.new_event_loop().run_forever()",
        "    sys.modules['relay.share.holder'] = share.holder = types.SimpleNamespace(run=run)",
        "place._leave_relay = leave",
    )
    done = lab.pyrelay(*AGAIN, "-v", "h1/h2")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert f"not shared: the process that was to hold the shared hops: {words}\n" in done.stderr
    assert lab.remaining(5) == {}


def test_more_relays_at_once_than_a_holder_has_room_for(lab: Lab) -> None:
    """All of them arrive; those without room are told at once, and -O is answered meanwhile."""
    lab.server("h1", extra="MaxStartups 1000")
    lab.server("h2", extra="MaxStartups 1000")
    count, most = (int(each) for each in os.environ.get("PYRELAY_CROWD", "24 80").split())
    first = limited(lab, resource.RLIMIT_NOFILE, most, *AGAIN, "h1/h2", stdin=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.read(8) == b"SSH-2.0-"
    argv: list[str | Path] = [lab.program, *AGAIN, "-F", lab.config, "-v", "h1/h2"]
    relays = [first, *(lab.start(*argv, stdin=subprocess.PIPE) for _ in range(count))]
    listings = []
    for relay in relays[1:]:
        assert relay.stdout is not None
        assert relay.stdout.read(8) == b"SSH-2.0-", relay.stderr and relay.stderr.read()
        listings.append(control(lab, "list"))
    assert all("relays" in each or "1 relay," in each for each in listings), listings
    said = [relay.communicate(timeout=60)[1].decode() for relay in relays]
    turned_away = sum("no descriptors left" in each for each in said)
    assert 0 < turned_away < count
    assert "does not answer" not in "".join(said)
    assert len(lab["h2"].logins()) == 0
    assert len(lab["h1"].logins()) == 1 + turned_away


def test_a_holder_with_no_more_descriptors_turns_relays_away_and_answers(lab: Lab) -> None:
    """Those that it has no room for go by themselves."""
    lab.servers("h1", "h2")
    relays = []
    for number in range(16):
        near, far = os.pipe()
        with (lab.top / f"said-{number}").open("wb") as said:
            process = limited(lab, resource.RLIMIT_NOFILE, 64, *AGAIN, "-v", "h1/h2", stdin=near, stderr=said)
        os.close(near)
        assert process.stdout is not None
        assert process.stdout.read(8) == b"SSH-2.0-", (lab.top / f"said-{number}").read_text()
        relays.append((process, far))
    unshared = [number for number in range(16) if "no descriptors left" in (lab.top / f"said-{number}").read_text()]
    assert 0 < len(unshared) < 16
    assert unshared == list(range(unshared[0], 16))
    assert f"{unshared[0]} relays" in control(lab, "list")
    for process, far in relays:
        os.close(far)
        process.wait(30)
    until(lambda: "0 relays" in control(lab, "list"), "end of the relays")
