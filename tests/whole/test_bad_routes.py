"""Names that cannot be read: exit 2, one line and at most one hint; nothing is dialled and nothing is run."""

from __future__ import annotations

import re

import pytest
from lab import Lab
from peers import need

BAD = {
    "an option": "h1+-oProxyCommand=x+h3",
    "a command": "h1+$(id)+h3",
    "a back-tick": "h1+`id`+h3",
    "white space": "h1+h 2+h3",
    "a control character": "h1+h\x1b[2J+h3",
    "nothing in the middle": "h1++h3",
    "nothing before": "+h3",
    "nothing behind": "h1+",
    "nothing at all": "",
    "port 0": "h1+h2:0+h3",
    "port 70000": "h1+h2:70000+h3",
    "no port": "h1+h2:+h3",
    "a bare IPv6 address as hop": "h1+2001:db8::1+h3",
    "an open bracket": "h1+[h2+h3",
    "a user at the target": "h1+u%h3",
    "10,000 characters": "h" * 10_000,
    "10,000 characters of hops": "h1+" * 3_333 + "h3",
}


@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_nothing_is_done_for_a_bad_name(lab: Lab, name: str) -> None:
    trace = lab.top / "trace"
    lab.write_config()
    seen = ["-f", "-qq", "-o", str(trace), "-e", "trace=execve,connect,sendto,fork,vfork"]
    ran = lab.run(need("strace"), *seen, lab.program, "-F", str(lab.config), "--", name, "22")
    assert (ran.returncode, ran.stdout) == (2, "")
    lines = ran.stderr.splitlines()
    assert re.match("pyrelay: .", lines[0])
    assert len(lines[0]) < 500
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert ran.stderr.isascii() or ran.stderr.replace("…", "").isprintable()
    # pyrelay itself is run, and that is all.
    assert re.findall(r"(\w+)\(", trace.read_text()) == ["execve"]


@pytest.mark.parametrize("port", ["0", "70000", "x", ""])
def test_nothing_is_done_for_a_bad_port(lab: Lab, port: str) -> None:
    ran = lab.pyrelay("h1/h3", port)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no HOST is given"),
        (["h1", "22", "more"], "one word too many"),
        (["--no-such-option", "h1"], "unknown option"),
    ],
)
def test_a_command_line_that_cannot_be_read(lab: Lab, arguments: list[str], said: str) -> None:
    ran = lab.pyrelay(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 2
