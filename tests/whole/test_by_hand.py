"""pyrelay as a person runs it, without ssh: what it says of itself, and what it says of its own faults."""

from __future__ import annotations

import re
import subprocess
import sys

from lab import ROOT, Lab
from terminal import Terminal


def test_on_a_terminal_it_says_what_it_is_and_goes_on(lab: Lab) -> None:
    lab.servers("h1", "h2")
    with Terminal(lab, lab.program, "-F", lab.config, "h1/h2") as terminal:
        terminal.expect("pyrelay: this is what ssh runs as its ProxyCommand")
        terminal.expect("hint: to log in, type ssh h1/h2, with what `pyrelay --ssh-config` prints")
        terminal.expect("SSH-2.0-")


def test_not_under_q_and_not_where_only_one_of_both_is_a_terminal(lab: Lab) -> None:
    port = lab.server("h1").port
    for words in (f"-q 127.0.0.1 {port}", f"127.0.0.1 {port} </dev/null", f"127.0.0.1 {port} | cat"):
        with Terminal(lab, "sh", "-c", f"{lab.program} {words}") as terminal:
            terminal.expect("SSH-2.0-")
            assert "ProxyCommand" not in terminal.shown


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from relay import cli; {program}; sys.exit(cli.run(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_a_fault_of_our_own_has_a_traceback() -> None:
    fault = "from relay.spec import route; route.parse = lambda *_: 1 / 0"
    for verbosity, shown in (("-v", 0), ("-vv", 1)):
        done = run(fault, verbosity, "h1/h2")
        assert (done.returncode, done.stdout, done.stderr.count("Traceback")) == (255, "", shown)
        assert done.stderr.endswith(
            "pyrelay: internal error: ZeroDivisionError: division by zero\nhint: -vv shows where\n"
        )
    done = run("pass", "-vv", "h1//h2")
    assert done.returncode == 2
    assert re.fullmatch(r"pyrelay: .*\n(hint: .*\n)?", done.stderr)
