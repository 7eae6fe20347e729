"""Where descriptors or memory run out: one line in words that names the cause."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from peers import until
from shared import AGAIN, control

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
    words = ("too many open files", "the process that holds the shared hops does not answer")
    for most in range(5, 16) if not share else (8, 12, 20, 30):
        fails_in_words(limited(lab, resource.RLIMIT_NOFILE, most, *share, "h1/h2"), words)
        if not share:
            port = str(lab["h2"].port)
            fails_in_words(limited(lab, resource.RLIMIT_NOFILE, most, "127.0.0.1", port), words)


def test_memory(lab: Lab) -> None:
    lab.servers("h1", "h2")
    for most in (100, 120, 150, 200):
        words = ("out of memory", "cannot allocate memory")
        fails_in_words(limited(lab, resource.RLIMIT_AS, most * MIB, "h1/h2"), words)


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
