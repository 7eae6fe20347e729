"""A first hop's ProxyCommand under --share: who is asked, what the keys do, and what ends the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract import SOON
from login_server import asking, passwords
from peers import LOOPBACK, need, until
from shared import AGAIN, control, relay, under_way
from terminal import Terminal, askpass

if TYPE_CHECKING:
    from lab import Lab
    from login_server import LoginServer

ASKS = 'printf "Code: " >/dev/tty; read -r code </dev/tty; echo "$code" >>{top}/codes; test "$code" = 4711 || exit 3; '
QUESTION = f"@{LOOPBACK}'s password: "
STAYS = """#!{python}
import signal, socket, threading
far = socket.create_connection(("{host}", {port}))
def copy(read, write):
    while data := read(65536):
        write(data)
threading.Thread(target=copy, args=(lambda n: __import__("os").read(0, n), far.sendall), daemon=True).start()
threading.Thread(target=copy, args=(far.recv, lambda d: __import__("os").write(1, d)), daemon=True).start()
while True:
    signal.pause()
"""


@pytest.fixture
def jump(lab: Lab) -> LoginServer:
    """h1 is behind `ssh -W` to h0, which takes a password."""
    lab.servers("h1", "h2")
    lab.options += AGAIN
    server = asking(lab, "h0", passwords("secret"))
    lab.host("h1", ProxyCommand=f"ssh -F {lab.config} -W %h:%p h0")
    lab.write_config()
    return server


def carrier(lab: Lab) -> list[int]:
    """The processes that carry the way to h1."""
    return [pid for pid, command in lab.processes().items() if " -W " in command]


def asks(lab: Lab, terminal: Terminal) -> None:
    """Wait until it reads the answer: ssh does not notice a signal that comes between its question and that."""
    terminal.expect(QUESTION)
    until(lambda: all(fields(pid)[0] == "S" for pid in carrier(lab)), "read")


def fields(pid: int) -> list[str]:
    """What /proc/PID/stat has behind the name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def stopped(lab: Lab) -> bool:
    """Whether the programs that carry the way to h1 are stopped, and the relay that has started them."""
    pids = carrier(lab)
    parents = [int(fields(pid)[1]) for pid in pids]
    return bool(pids) and all(fields(pid)[0] == "T" for pid in [*pids, *parents])


def test_it_asks_on_the_terminal_of_the_relay_that_needs_it(lab: Lab, jump: LoginServer) -> None:
    """Once; the hop then outlives that relay and its terminal, and the keys that are typed there."""
    with Terminal(lab, "ssh", "-F", lab.config, "h1/h2", "echo $SERVER; exec cat") as terminal:
        terminal.answer(QUESTION, "secret")
        terminal.expect("h2\n")
        assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"  # without a terminal
        terminal.type("\x03")
        terminal.wait()
        assert terminal.echo
        terminal.hang_up()
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert jump.requests.count("password") == 1
    control(lab, "exit")
    assert lab.remaining(SOON) == {}


def test_a_program_that_asks_on_dev_tty(lab: Lab) -> None:
    """A code for a second factor; its words on stderr are shown, and a status other than 0 is the error."""
    lab.servers("h1", "h2")
    lab.options += AGAIN
    script = lab.top / "proxy"
    script.write_text(f"#!/bin/sh\n{ASKS.format(top=lab.top)}echo well >&2; exec nc {LOOPBACK} {lab['h1'].port}\n")
    script.chmod(0o755)
    lab.host("h1", ProxyCommand=script)
    lab.write_config()
    with Terminal(lab, "ssh", "-F", lab.config, "h1/h2", "echo $SERVER") as terminal:
        terminal.expect("Code: ")
        terminal.type("1\n")
        terminal.expect("hop 1 of 1 (h1): its ProxyCommand ended with status 3\n")
        terminal.wait()
    with Terminal(lab, "ssh", "-F", lab.config, "h1/h2", "echo $SERVER") as terminal:
        terminal.expect("Code: ")
        terminal.type("4711\n")
        terminal.expect("pyrelay: hop 1 of 1 (h1): well\n")
        terminal.ends_well("h2\n")
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    assert (lab.top / "codes").read_text() == "1\n4711\n"


def test_it_asks_by_the_relays_askpass(lab: Lab, jump: LoginServer) -> None:
    environ = askpass(lab, "echo secret")
    for _ in range(2):
        process = lab.start("ssh", "-F", lab.config, "h1/h2", "echo $SERVER", env=environ, stdin=subprocess.DEVNULL)
        assert process.communicate(timeout=SOON)[0] == b"h2\n"  # nothing of ours holds its stdout and stderr
    assert jump.requests.count("password") == 1


def test_our_own_question_follows_its(lab: Lab, jump: LoginServer) -> None:
    """The terminal is given back for it."""
    lab.host("h1", BatchMode="no", StrictHostKeyChecking="ask", UserKnownHostsFile=lab.top / "nothing")
    lab.write_config()
    with Terminal(lab, "ssh", "-F", lab.config, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer(QUESTION, "secret")
        terminal.expect("(yes/no/[fingerprint])? ")
        terminal.type("yes\n")
        terminal.ends_well("h2\n")
    assert jump.requests.count("password") == 1


def test_ctrl_c_at_its_question(lab: Lab, jump: LoginServer) -> None:
    """It ends ssh and all that is under it; no password is sent that nobody typed."""
    with Terminal(lab, "ssh", "-F", lab.config, "h1/h2", "echo $SERVER") as terminal:
        asks(lab, terminal)
        terminal.type("\x03")
        assert terminal.wait() != 0
        assert terminal.echo
    until(lambda: not carrier(lab), "end of the program")
    assert "password" not in jump.requests


def test_ctrl_z_at_its_question(lab: Lab, jump: LoginServer) -> None:
    """The job stops; `bg` asks nothing, and `fg` lets it ask again."""
    with Terminal(lab, need("bash"), "--norc", "--noediting", "-i", "-b", env={"PS1": "$ "}) as terminal:
        terminal.type(f"ssh -F {lab.config} h1/h2 'echo $SERVER'\n")
        asks(lab, terminal)
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("$ ")
        until(lambda: stopped(lab), "stop")
        assert terminal.echo
        terminal.type("bg\n")
        terminal.expect("Stopped")
        until(lambda: stopped(lab), "stop")
        terminal.type("fg\n")
        terminal.answer(QUESTION, "secret")
        terminal.expect("h2\n")
        terminal.expect("$ ")
        terminal.type("exit\n")
        terminal.wait()
        assert "secret" not in terminal.shown
    assert jump.requests.count("password") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_relay_that_is_ended_at_its_question(lab: Lab, jump: LoginServer, number: int) -> None:
    line = f"exec {lab.program} -F {lab.config} {' '.join(AGAIN)} h1/h2 </dev/zero | cat"
    with Terminal(lab, need("bash"), "-c", line) as terminal:
        terminal.expect(QUESTION)
        (ssh,) = carrier(lab)
        parent = int(fields(ssh)[1])
        os.kill(parent, number)
        terminal.wait()
        until(lambda: not carrier(lab), "end of the program")
    assert "password" not in jump.requests


def test_a_shell_that_cannot_be_run(lab: Lab, jump: LoginServer) -> None:
    said = lab.pyrelay_in({"SHELL": "/nonexistent/sh"}, *AGAIN, "h1/h2x").stderr
    assert "hop 1 of 1 (h1): its ProxyCommand cannot be run by /nonexistent/sh ($SHELL): no such file or dir" in said


def test_the_program_ends_with_the_hop(lab: Lab) -> None:
    """Also one that does not heed the end of its stdin: it is signalled, though its relay has gone."""
    lab.servers("h1", "h2")
    lab.options += AGAIN
    script = lab.top / "proxy"
    script.write_text(STAYS.format(python=sys.executable, host=LOOPBACK, port=lab["h1"].port))
    script.chmod(0o755)
    lab.host("h1", ProxyCommand=script)
    lab.write_config()
    for _ in range(2):
        under_way(relay(lab)).close()
    until(lambda: "0 relays" in control(lab, "list"), "end of the relays")
    assert len(lab.processes()) == 2
    control(lab, "exit")
    assert lab.remaining(SOON) == {}
