"""pyrelay as a person runs it, without ssh: what it says of itself, and what it says of its own faults."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab import ROOT, Lab
from terminal import Terminal


def test_on_a_terminal_it_says_what_it_is_and_goes_on(lab: Lab) -> None:
    lab.servers("h1", "h2")
    with Terminal(lab, lab.program, "-F", lab.config, "h1/h2") as terminal:
        terminal.expect("pyrelay: this is what ssh runs as its ProxyCommand")
        terminal.expect("hint: to log in, type ssh h1/h2, with what `pyrelay --ssh-config` prints")
        terminal.expect("SSH-2.0-")


@pytest.mark.parametrize(
    ("words", "typed"), [("h1/h2 2022", "-p 2022 h1/h2"), ("-J h1,h2 h3", "h1/h2/h3"), ("h3", "h3")]
)
def test_what_to_type_instead(lab: Lab, words: str, typed: str) -> None:
    lab.write_config()
    with Terminal(lab, lab.program, "-F", lab.config, *words.split()) as terminal:
        terminal.expect(f"hint: to log in, type ssh {typed}, with what")


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


WORDS = ("--help", "--version", "--ssh-config", "--explain h1/h2", "--explain --json h1/h2")


def printed(lab: Lab, to: str, words: str, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    line = f"{lab.program} {words} {to}"
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, pass_fds=pass_fds, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk (macOS)")
@pytest.mark.parametrize("words", [*WORDS, "--names -F {config}", "--known-hosts -F {config} h1", "--check {target}"])
def test_a_page_that_cannot_be_written_is_not_a_fault_of_ours(lab: Lab, words: str) -> None:
    server = lab.server("h1")
    words = words.format(config=lab.write_config(), target=f"127.0.0.1 {server.port}")
    done = printed(lab, ">/dev/full", words)
    assert (done.returncode, done.stderr) == (1, "pyrelay: stdout: no space left on device\n")
    if "--check" in words:
        done = printed(lab, ">/dev/full", f"--json {words}")
        assert (done.returncode, done.stderr) == (1, "pyrelay: stdout: no space left on device\n")
        assert len(server.connections) == 2  # a check goes on to its end


@pytest.mark.parametrize("words", WORDS)
def test_a_page_that_nobody_reads_is_not_a_fault_of_ours(lab: Lab, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        for to in (">&-", f">&{gone.fileno()}"):
            done = printed(lab, to, words, pass_fds=[gone.fileno()])
            assert (done.returncode, "internal error" in done.stderr) == (0, False)


def test_a_check_whose_stdout_is_closed_goes_on(lab: Lab) -> None:
    done = printed(lab, ">&-", "--check 127.0.0.1 1")
    assert (done.returncode, done.stderr) == (1, "")  # what failed is part of the page
