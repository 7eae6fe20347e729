"""A wait for a person is not a time-out: while somebody can see what is wanted, the default deadline stands still.

Each run here has a default deadline of a few seconds, and something that waits until the test lets it go on. The runs
that nobody sees reach their deadline meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import EXTENSION, FAILURE, LIST, SIGN, SIGNATURE, ScriptedAgent, SecurityKey, listing
from lab import ROOT, Lab
from login_server import SUCCESS, Request, asking, banner
from terminal import Terminal

from relay.ssh.pubkey import Reader, string

if TYPE_CHECKING:
    import subprocess

DEADLINE = 4.0  # seconds, unless -w says another
SOON = 60.0  # seconds until what waits goes on by itself
PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
from relay.spec import options
options.Options.deadline = {deadline}
if "agent" in sys.argv[0]:
    from relay.ssh.login import publickey
    publickey._AGENT_SECONDS = 2.0
from relay.cli import main
main()
"""


@pytest.fixture
def impatient(lab: Lab) -> Path:
    """Pyrelay with a short default deadline."""
    return program(lab, "impatient")


def program(lab: Lab, name: str) -> Path:
    path = lab.top / name
    path.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT), deadline=DEADLINE))
    path.chmod(0o755)
    return path


@pytest.fixture
def released(lab: Lab) -> Iterator[threading.Event]:
    """Set when the person has done what was wanted."""
    event = threading.Event()
    lab.at_end(event.set)
    yield event
    event.set()


def started(lab: Lab, *argv: str | Path) -> subprocess.Popen[bytes]:
    """A run without a terminal."""
    return lab.start(*argv, stdin=-1)


def failed(run: subprocess.Popen[bytes]) -> str:
    """The error of a run that has failed."""
    out, err = run.communicate(timeout=SOON)
    assert (run.returncode, out) == (1, b"")
    return err.decode()


def test_a_proxy_command_and_a_banner(lab: Lab, impatient: Path, released: threading.Event) -> None:
    """A browser login of a first hop's ProxyCommand; a URL to visit, in the midst of a login."""
    port = lab.server("h3").port

    def script(_: Request) -> Iterator[bytes]:
        yield banner(b"To log in, visit https://login.example/123\n")
        released.wait(SOON)
        yield SUCCESS

    asking(lab, "visited", script)  # type: ignore[arg-type]  # one message after the other
    command = lab.top / "command"
    command.write_text(
        f"#!/bin/sh\necho Visit https://login.example >&2\n"
        f"until [ -e {lab.top}/done ]; do sleep 0.1; done\nexec pyrelay 127.0.0.1 {port}\n"
    )
    command.chmod(0o755)
    for name, batch, timeout in (("h1", "no", 0), ("batch", "yes", 0), ("quick", "no", 3)):
        lab.host(name, Port=port, ProxyCommand=command, BatchMode=batch, ConnectTimeout=timeout or "none")
        lab.know(name, port, lab["h3"].host_keys)
    base = (impatient, "-F", lab.config)
    lab.write_config()
    shared = f"{impatient} -F {lab.config} --share 1 h1/h3 </dev/null | cat"
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(Terminal(lab, *base, "h1/h3")),
            stack.enter_context(Terminal(lab, *base, "visited/h3")),
            stack.enter_context(Terminal(lab, "sh", "-c", shared)),
        ]
        late = {
            name: stack.enter_context(Terminal(lab, *base, *words))
            for name, words in {
                "-w": ("-w", "4", "h1/h3"),
                "-w, a banner": ("-w", "4", "visited/h3"),
                "BatchMode": ("batch/h3",),
                "ConnectTimeout": ("quick/h3",),
            }.items()
        }
        unseen = [started(lab, *base, "h1/h3"), started(lab, *base, "visited/h3")]
        for terminal in waiting:
            terminal.expect("isit https://login.example")
        for name, terminal in late.items():
            seconds = "SSH ident within 3" if name == "ConnectTimeout" else "answer within 4"
            terminal.expect(f"no {seconds} seconds")
        for run in unseen:
            assert "no answer within 4 seconds" in failed(run)
        assert all(terminal.shown.count("seconds") == 0 for terminal in waiting)
        (lab.top / "done").touch()
        released.set()
        for terminal in waiting:
            terminal.expect("SSH-2.0-")


class LockedAgent(ScriptedAgent):
    """An agent that lists its key when its person has unlocked it, as Bitwarden's does."""

    def __init__(self, lab: Lab, unlocked: threading.Event) -> None:
        self.token = SecurityKey()
        self._unlocked = unlocked
        super().__init__(lab.top / "agent", self._act)
        lab.at_end(self.stop)

    def _act(self, message: bytes) -> bytes:
        if message[0] == LIST:
            self._unlocked.wait(SOON)
            return listing((self.token.blob, b"token"))
        if message[0] == SIGN:
            request = Reader(message[1:])
            request.string()
            return SIGNATURE + string(self.token.sign(request.string()))
        assert message[0] == EXTENSION
        return FAILURE


def test_an_agent_that_asks_its_person_when_it_is_listed(lab: Lab, released: threading.Event) -> None:
    agent = LockedAgent(lab, released)
    lab.server("h1", authorized_keys=agent.token.line, IdentityAgent=agent.path, IdentitiesOnly="no", BatchMode="no")
    lab.server("h2")
    base = (program(lab, "agent-impatient"), "-F", lab.config)
    with Terminal(lab, *base, "h1/h2") as terminal:
        terminal.expect(
            "pyrelay: hop 1 of 1 (h1): the agent has not listed its keys yet: does it ask you to unlock it?\n"
        )
        lab.host("h1", PasswordAuthentication="no", KbdInteractiveAuthentication="no")
        error = failed(started(lab, *base, "h1/h2"))
        assert "the agent has not listed its keys yet" in error
        assert "the agent cannot be used: it does not answer" in error
        with Terminal(lab, *base, "-w", "3", "h1/h2") as limited:
            assert "seconds" not in terminal.shown
            released.set()
            terminal.expect("SSH-2.0-")
            limited.expect("SSH-2.0-")
