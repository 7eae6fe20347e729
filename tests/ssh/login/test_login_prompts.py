"""What may happen while a person is asked; nobody to ask; askpass."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from login_server import (
    asking,
    passwords,
)
from peers import need, until
from terminal import PATIENCE, Terminal, ssh

if TYPE_CHECKING:
    from lab import Lab
from terminal import askpass

# Ends


@pytest.mark.parametrize(
    ("key", "number"), [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)], ids=["Ctrl-C", "Ctrl-\\"]
)
def test_a_key_that_ends_all_at_a_prompt(target: Lab, key: str, number: signal.Signals) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        assert not terminal.echo
        terminal.type(f"sec{key}")
        assert terminal.wait() in {255, -number}
        terminal.wait_for_all()
        assert terminal.echo
    assert server.requests == ["none"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_at_a_prompt(target: Lab, number: signal.Signals) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.signal_all(number)
        terminal.wait()
        terminal.wait_for_all()
        assert terminal.echo


def test_ssh_is_killed_at_a_prompt(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait_for_all()
        assert terminal.echo


def test_end_of_file_at_a_prompt(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.type("\x04")
        terminal.expect("pyrelay: hop 1 of 1 (h1): the question was not answered\n")
        terminal.wait()
        assert terminal.echo
    assert server.requests == ["none"]


def test_the_terminal_is_closed_at_a_prompt(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("@h1's password: ")
        terminal.hang_up()
        terminal.wait_for_all()


@contextmanager
def stopped_at_a_prompt(target: Lab, typed: str, *shell: str) -> Iterator[Terminal]:
    """A shell whose ssh has been stopped by what was typed at a hop's prompt; it has its terminal back, with echo."""
    asking(target, "h1", passwords("secret"))
    target.write_config()
    with Terminal(target, *shell, env={"PS1": "$ "}) as terminal:
        terminal.type(f"ssh -F {target.config} h1/h2 'echo $SERVER'\n")
        terminal.expect("@h1's password: ")
        terminal.type(typed)
        terminal.expect("Stopped")
        terminal.expect("$ ")
        terminal.wait_for_stop()  # a read that is about to be stopped may still take a line, were it typed that fast
        assert terminal.echo
        yield terminal


def goes_on(terminal: Terminal) -> None:
    """`fg` puts the question again, with echo off, and the login goes on."""
    terminal.type("fg\n")
    terminal.expect("pyrelay: ")
    terminal.answer("@h1's password: ", "secret")
    terminal.expect("h2\n")
    terminal.expect("$ ")
    terminal.type("exit\n")
    terminal.wait()
    assert "secret" not in terminal.shown


def test_ctrl_z_at_a_prompt(target: Lab) -> None:
    """The shell gets a terminal with echo on; `bg` asks nothing, `fg` puts the question again, with echo off."""
    # With -b the shell says at once what it learns of its job, which alone tells that it knows.
    with stopped_at_a_prompt(target, "\x1a", need("bash"), "--norc", "--noediting", "-i", "-b") as terminal:
        terminal.type("bg\n")
        # The read goes on, from the background now, and SIGTTIN stops the job again.
        # A shell that does not know it yet gives a running job the terminal, and no SIGCONT.
        terminal.expect("Stopped")
        terminal.wait_for_stop()
        assert terminal.shown.count("password: ") == 1
        assert terminal.echo
        goes_on(terminal)


def test_ctrl_z_in_a_shell_that_sets_no_modes(target: Lab) -> None:
    """dash leaves the terminal as it finds it, so what is typed next would not be seen."""
    with stopped_at_a_prompt(target, "half a pass\x1a", need("dash"), "-i") as terminal:
        goes_on(terminal)
        assert "half a pass" not in terminal.shown


def test_nobody_is_asked_from_the_background(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    with Terminal(target, need("bash"), "--norc", "--noediting", "-i", env={"PS1": "$ "}) as terminal:
        terminal.type(f"ssh -F {target.config} h1/h2 & wait\n")
        terminal.expect("nobody was asked for a password: nobody can be asked from the background of a terminal\n")
    assert server.requests == ["none"]


def test_a_master_outlives_the_terminal_that_it_was_started_on(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    path = target.top / "master"
    master = ("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-o", f"ControlPath={path}")
    with ssh(target, *master, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "secret")
        terminal.ends_well("h2\n")
    assert target.ssh("-o", f"ControlPath={path}", "h1/h2", "echo again").stdout == "again\n"
    target.ssh("-o", f"ControlPath={path}", "-O", "exit", "h1/h2")


# Nobody to ask, and askpass


def test_batch_mode(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret", ("password", "keyboard-interactive")))
    target.host("h1", BatchMode="yes")
    with ssh(target, "h1/h2") as terminal:
        terminal.expect("the server takes password,keyboard-interactive; offered: nothing; ")
        terminal.expect("nobody was asked for a password: BatchMode\n")
        terminal.wait()
        assert "password: \n" not in terminal.shown
    assert server.requests == ["none"]


def test_no_terminal(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    done = target.pyrelay("h1/h2")
    assert "nobody was asked for a password: there is no terminal to ask on" in done.stderr
    assert "hint: askpass needs SSH_ASKPASS" in done.stderr
    assert server.requests == ["none"]


def test_askpass(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    done = target.run(
        "ssh", "-F", target.config, "h1/h2", "echo $SERVER", env=askpass(target, "echo secret; echo more")
    )
    assert (done.stdout, done.stderr) == ("h2\n", "")
    assert (target.top / "asked").read_text() == f"pyrelay: {target.user}@h1's password: \n"
    assert server.requests == ["none", "password"]


def test_askpass_goes_before_the_terminal_where_it_shall(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    env = {**askpass(target, "echo secret"), "SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}
    with ssh(target, "h1/h2", "echo $SERVER", env=env) as terminal:
        terminal.ends_well("h2\n")
        assert "password" not in terminal.shown


def test_askpass_is_cancelled(target: Lab) -> None:
    server = asking(target, "h1", passwords("secret"))
    target.write_config()
    done = target.run("pyrelay", "-F", target.config, "h1/h2", env=askpass(target, "exit 1"))
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): the question was cancelled\n"
    assert server.requests == ["none"]


def test_askpass_cannot_be_run(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    target.write_config()
    env = {"SSH_ASKPASS": "/nowhere/askpass", "SSH_ASKPASS_REQUIRE": "force"}
    done = target.run("pyrelay", "-F", target.config, "h1/h2", env=env)
    assert "the askpass program /nowhere/askpass cannot be run: No such file or directory" in done.stderr


def test_askpass_does_not_outlive_ssh(target: Lab) -> None:
    asking(target, "h1", passwords("secret"))
    target.write_config()
    started = target.top / "started"
    os.mkfifo(started)
    client = target.start("ssh", "-F", target.config, "h1/h2", env=askpass(target, f"echo >{started}; exec sleep 100"))
    started.read_text()
    client.kill()
    client.wait()
    until(lambda: not target.processes(), "the end of all", PATIENCE)
