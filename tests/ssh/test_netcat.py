"""Hops that deny forwarding, crossed by a netcat that runs there."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab
from peers import Listener, need

from relay.errors import RelayError, UsageError
from relay.spec.netcat import Netcat
from relay.spec.options import parse
from relay.ssh.netcat import command

SIZE = 100 << 20  # bytes
SOME = 100000  # bytes
TOOLS = ("nc", "ncat", "bash", "python3")
HALF_CLOSE = ("nc", "ncat", "python3", "busybox")
ENDS = ("bash", "python3", "nc.traditional", "busybox")  # when the far side does, whatever stdin does
NC = {"busybox": "nc", "nc.traditional": "nc"}  # other programs of that name
BASE = ("cat", "sh", "sleep")  # what every POSIX system has
DENIED = (
    "the server does not forward to 127.0.0.1 port {port}: open failed\n"
    "hint: AllowTcpForwarding and PermitOpen in its sshd_config decide that, and a password that has expired "
    "forbids it, too; --netcat goes by a command on the hop instead, where you may, "
    "and --netcat=HOP does so on that hop only\n"
)


def deny(lab: Lab, name: str, *tools: str) -> None:
    """Start a server that denies forwarding, with these tools in PATH and what every system has."""
    path = lab.top / f"{name}-path"
    path.mkdir()
    for tool in (*BASE, *tools):
        program = os.path.realpath(need(tool))
        if tool == "python3":  # itself: a script that looks for it would not find it there
            program = sys.executable
        (path / NC.get(tool, tool)).symlink_to(program)
    lab.server(name, extra=f"AllowTcpForwarding no\nSetEnv PATH={path} HOME={lab.top}/{name}/home SERVER={name}")


def chain(lab: Lab, *tools: str) -> Lab:
    """h1, h2, h3, with forwarding denied on h2."""
    lab.servers("h1", "h3")
    deny(lab, "h2", *tools)
    return lab


def commands(lab: Lab, name: str) -> int:
    """How many commands a server was asked to run."""
    return lab[name].log().count("Starting session: command")


class Echo:
    """A host that says what it was told, once it has been told all; `said` ends then, too."""

    def __init__(self, *, until: int = -1) -> None:
        self._until = until  # bytes after which it does not wait for the end
        listener = Listener(self._serve)
        self.port = listener.port
        self.stop = listener.stop

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the sender may leave
            heard = b""
            while len(heard) != self._until and (data := connection.recv(4096)):
                heard += data
            connection.sendall(b"heard " + heard)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A host that answers at the end of what it is told."""
    host = Echo()
    yield host
    host.stop()


@pytest.fixture
def hasty() -> Iterator[Echo]:
    """A host that answers after five bytes, and ends."""
    host = Echo(until=5)
    yield host
    host.stop()


# What is carried


@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_carries_every_byte_both_ways(lab: Lab, tool: str) -> None:
    chain(lab, tool).options += ["--netcat"]
    data = os.urandom(SIZE)
    process = lab.start("ssh", "-F", lab.config, "h1/h2/h3", "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data, 100)
    assert (process.returncode, err.decode()) == (0, "")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert lab["h2"].logins() == [lab.user]
    assert lab.remaining(10) == {}


def test_several_hops_that_deny_forwarding(lab: Lab) -> None:
    """What a netcat carries is a hop's session, too."""
    deny(lab, "h1", "python3")
    deny(lab, "h2", "nc")
    lab.server("h3")
    lab.options += ["--netcat"]
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert (commands(lab, "h1"), commands(lab, "h2")) == (1, 1)


@pytest.mark.parametrize("tool", HALF_CLOSE)
def test_half_close_where_the_tool_can(lab: Lab, echo: Echo, tool: str) -> None:
    deny(lab, "h1", tool)
    done = lab.pyrelay("--netcat", f"h1/127.0.0.1:{echo.port}", stdin="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("heard hello", "", 0)


@pytest.mark.parametrize("tool", ["bash", "nc.traditional"])
def test_what_cannot_half_close_still_takes_what_comes_soon(lab: Lab, hasty: Echo, tool: str) -> None:
    deny(lab, "h1", tool)
    done = lab.pyrelay("--netcat", f"h1/127.0.0.1:{hasty.port}", stdin="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("heard hello", "", 0)


@pytest.mark.parametrize("tool", ENDS)
def test_the_end_of_the_far_side_is_passed_on_while_stdin_is_open(lab: Lab, hasty: Echo, tool: str) -> None:
    deny(lab, "h1", tool)
    process = lab.start(lab.program, "-F", lab.config, "--netcat", f"h1/127.0.0.1:{hasty.port}", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello")
    process.stdin.flush()
    assert process.stdout.read() == b"heard hello"


@pytest.mark.parametrize("tool", HALF_CLOSE)
def test_nothing_stays_on_the_hop_when_the_program_is_killed(lab: Lab, echo: Echo, tool: str) -> None:
    deny(lab, "h1", tool)
    lab.server("h2")
    lab.options += ["--netcat"]
    process = lab.start(lab.program, "-F", lab.config, "--netcat", "h1/h2", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(4) == b"SSH-"
    process.send_signal(signal.SIGKILL)
    lab["h1"].connections[0].process.wait(20)
    lab["h2"].connections[0].process.wait(20)  # it has seen its end: whatever the hop ran has gone


# When


def test_it_is_off_unless_asked_for_and_the_hint_names_it(lab: Lab) -> None:
    chain(lab, "nc")
    done = lab.pyrelay("h1/h2/h3")
    assert done.returncode == 1
    assert done.stderr == "pyrelay: hop 2 of 2 (h2): " + DENIED.format(port=lab["h3"].port)
    assert commands(lab, "h2") == 0


def test_it_is_for_the_hops_that_were_named(lab: Lab) -> None:
    chain(lab, "nc")
    assert lab.pyrelay("--netcat=h1", "--netcat=h3", "h1/h2/h3").returncode == 1
    assert commands(lab, "h2") == 0
    lab.options += ["--netcat=h1", "--netcat=h2"]
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert commands(lab, "h2") == 1


def test_a_hop_that_forwards_is_asked_for_nothing_else(lab: Lab) -> None:
    chain(lab, "nc").options += ["--netcat"]
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert commands(lab, "h1") == 0


@pytest.mark.parametrize("way", [(), ("--share", "1s")], ids=["", "shared"])
@pytest.mark.parametrize("sessions", [1, 0])
def test_a_hop_that_it_is_named_for_is_not_asked_to_forward_first(
    lab: Lab, way: tuple[str, ...], sessions: int
) -> None:
    """Also when it is remembered; `ssh h1 nc` asks for nothing else, either. One that runs no command may forward."""
    lab.server("h1", extra=f"MaxSessions {sessions}\nAllowTcpForwarding {'yes' if sessions == 0 else 'no'}")
    lab.server("h3")
    for _ in range(2):
        done = lab.pyrelay(*way, "--netcat=h1", "h1/h3")
        assert done.stdout.startswith("SSH-2.0-"), done.stderr
    asked = lab["h1"].whole_log().count("server_request_direct_tcpip")
    assert asked == (0 if sessions else 2)


def test_a_refusal_for_another_reason_stays_one(lab: Lab) -> None:
    lab.server("h1")
    port = lab.closed("h3")
    done = lab.pyrelay("--netcat", "h1/h3")
    assert done.returncode == 1
    assert done.stderr == (f"pyrelay: target (h3): h1 cannot connect to 127.0.0.1 port {port}: connection refused\n")
    assert commands(lab, "h1") == 0


# What is said


def test_what_is_missing_on_the_hop_is_said(lab: Lab) -> None:
    deny(lab, "h1")
    lab.server("h3")
    done = lab.pyrelay("--netcat", "h1/h3", stdin=None)
    assert done.returncode == 1
    assert done.stderr == (
        f"pyrelay: hop 1 of 1 (h1): python3, nc, ncat and bash are missing here, in {lab.top}/h1-path\n"
        "pyrelay: the netcat on hop 1 of 1 (h1) ended with status 127; "
        f"nothing came from 127.0.0.1 port {lab['h3'].port}\n"
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_tool_says_is_told(lab: Lab, tool: str) -> None:
    deny(lab, "h1", tool)
    port = lab.closed("h3")
    done = lab.pyrelay("--netcat", "h1/h3", stdin=None)
    assert done.returncode == 1
    *said, last = done.stderr.splitlines()
    if tool != "nc":  # which says nothing
        assert "connection refused" in said[0].lower()
    assert all(line.startswith("pyrelay: hop 1 of 1 (h1): ") for line in said)
    assert (
        last == f"pyrelay: the netcat on hop 1 of 1 (h1) ended with status 1; nothing came from 127.0.0.1 port {port}"
    )


@pytest.mark.parametrize("way", [(), ("-o", "Ciphers=aes128-ctr"), ("--share", "1s")], ids=["", "ctr", "shared"])
@pytest.mark.parametrize(("end", "words"), [("exit 3", "ended with status 3"), ("kill -9 $$", "ended")])
def test_one_that_fails_after_some_bytes_is_no_clean_end(lab: Lab, way: tuple[str, ...], end: str, words: str) -> None:
    lab.server("h1", extra="AllowTcpForwarding no")
    line = f"head -c {SOME} /dev/zero; echo why >&2; {end}"
    done = lab.pyrelay(*way, "--netcat-command", line, "h1/127.0.0.1:1", stdin=None)
    place = "shared hop (h1)" if "--share" in way else "hop 1 of 1 (h1)"
    assert done.stdout == "\0" * SOME
    assert done.stderr == (f"pyrelay: {place}: why\npyrelay: the netcat on {place} {words}\n")
    assert done.returncode == 1


def test_bash_tells_that_what_has_read_the_answer_was_killed(lab: Lab, echo: Echo) -> None:
    deny(lab, "h1", "bash")
    cat = lab.top / "h1-path" / "cat"
    cat.unlink()
    cat.write_text("#!/bin/sh\nkill -9 $$\n")
    cat.chmod(0o755)
    done = lab.pyrelay("--netcat", f"h1/127.0.0.1:{echo.port}", stdin=None)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"the netcat on hop 1 of 1 (h1) ended with status 137; nothing came from 127.0.0.1 port {echo.port}\n"
    )


def test_bash_is_content_when_its_minute_is_over(lab: Lab, echo: Echo) -> None:
    deny(lab, "h1", "bash")
    line = command("127.0.0.1", echo.port)
    assert "sleep 60" in line
    done = lab.pyrelay("--netcat-command", line.replace("sleep 60", "sleep 0.1").replace("%", "%%"), "h1/h2", stdin="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert commands(lab, "h1") == 1


def test_a_command_that_the_hop_forces(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no\nForceCommand echo for sftp only")
    lab.servers("h2", "h3")
    done = lab.pyrelay("--netcat", "h1/h2/h3")
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: hop 2 of 2 (h2): the connection was closed before the server's SSH ident; it said: for sftp only\n"
        "hint: this does not look like an SSH server: "
        "is it a command that the hop forces (ForceCommand) in place of the netcat on hop 1 of 2 (h1)?\n"
    )


def test_what_stands_before_an_ident_in_its_line_is_no_reason_to_wait(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.servers("h2", "h3")
    done = lab.pyrelay("--netcat-command", "printf Welcome; exec nc -N %h %p", "h1/h2/h3")
    assert "not an SSH server: it sent binary data; it said: WelcomeSSH-2.0-OpenSSH" in done.stderr


def test_a_shared_hop_that_runs_no_more_commands_is_no_hop_for_all(lab: Lab) -> None:
    """The relay that finds no room makes a hop of its own, as ssh does with a ControlMaster."""
    lab.server("h1", extra="AllowTcpForwarding no\nMaxSessions 1")
    lab.servers("h2", "h3")
    lab.options += ["--share", "10m", "--netcat"]
    with lab.start("ssh", "-F", lab.write_config(), "h1/h2", "echo up; cat", stdin=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"up\n"
        assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
        assert lab.ssh("h1/h3/h2", "echo $SERVER").stdout == "h2\n"  # (a hop is what cannot be reached)
        assert len(lab["h1"].logins()) == 3
        first.communicate()


def test_relays_that_come_at_once_and_find_no_room_make_hops_of_their_own(lab: Lab) -> None:
    """All ask the new hop in the same moment; it has room for one, and has opened no channel before."""
    lab.server("h1", extra="AllowTcpForwarding no\nMaxSessions 1")
    lab.server("h2")
    lab.options += ["--share", "10m", "--netcat"]
    config = lab.write_config()
    for each in [lab.start("ssh", "-F", config, "h1/h2", "echo $SERVER; sleep 1") for _ in range(6)]:
        assert each.communicate(timeout=60) == (b"h2\n", b"")


def test_a_shared_hop_that_runs_none_is_not_logged_in_to_again(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no\nMaxSessions 0")
    lab.server("h2")
    config = lab.write_config()
    for each in [lab.start(lab.program, "-F", config, "--share", "10s", "--netcat", "h1/h2") for _ in range(4)]:
        assert b"neither forwards nor runs" in each.communicate(timeout=60)[1]
    assert len(lab["h1"].logins()) == 1


def test_a_hop_behind_it_that_cannot_be_reached(lab: Lab) -> None:
    chain(lab).options += ["--netcat"]
    deny(lab, "h0", "python3")
    port = lab.closed("h2")
    done = lab.pyrelay("h0/h2/h3")
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: hop 1 of 2 (h0): ConnectionRefusedError: [Errno 111] Connection refused\n"
        "pyrelay: hop 2 of 2 (h2): the netcat on hop 1 of 2 (h0) ended with status 1; "
        f"nothing came from 127.0.0.1 port {port}\n"
    )


def test_a_hop_that_runs_no_command_either(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no\nMaxSessions 0")
    lab.server("h3")
    done = lab.pyrelay("--netcat", "h1/h3")
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: hop 1 of 1 (h1): the server neither forwards nor runs a command: open failed\n"
        "hint: MaxSessions in its sshd_config says how many it runs over one connection\n"
    )


def test_v_says_that_a_netcat_is_used_and_q_hides_what_it_says(lab: Lab) -> None:
    deny(lab, "h1", "nc")
    lab.server("h3")
    line = "pyrelay: hop 1 of 1 (h1): it denies forwarding: crossing it by a netcat there\n"
    assert line in lab.pyrelay("-v", "--netcat", "h1/h3").stderr
    lab.closed("h3")
    assert "efused" not in lab.pyrelay("-q", "--netcat", "h1/h3", stdin=None).stderr


def hop(shared: bool) -> str:
    return "shared hop" if shared else "hop 1 of 1"


@pytest.mark.parametrize("shared", [False, True])
def test_loglevel_of_the_hop_hides_what_a_netcat_says_until_it_fails(lab: Lab, shared: bool) -> None:
    deny(lab, "h1", "nc")
    lab.server("h3")
    lab.options += ["--netcat-command", "echo chat >&2; test ! -e $HOME/broken || exit 3; exec nc -N %%h %%p"]
    lab.options += ["--share", "1m"] if shared else []
    assert lab.ssh("h1/h3", "true").stderr == f"pyrelay: {hop(shared)} (h1): chat\n"
    lab.host("h1", LogLevel="ERROR")
    assert lab.ssh("h1/h3", "true").stderr == ""
    (lab["h1"].home / "broken").touch()
    assert f"pyrelay: {hop(shared)} (h1): chat\npyrelay: the netcat on " in lab.ssh("h1/h3", "true").stderr


def test_what_a_netcat_says_late_is_shown(lab: Lab) -> None:
    """Also where the next hop's client, which is impatient, reads the command's output."""
    deny(lab, "h1", "nc")
    lab.server("h2")
    lab.server("h3")
    words = "echo early >&2; sleep 1; echo nc: no route >&2; exit 1"
    ran = lab.pyrelay("--netcat", "--netcat-command", words, "h1/h2/h3", stdin=None)
    assert "Traceback" not in ran.stderr
    said = [line.rpartition(": ")[2] for line in ran.stderr.splitlines() if "(h1): " in line]
    assert said[:2] == ["early", "no route"]


# A tool of the hop's own


def test_a_command_of_its_own(lab: Lab) -> None:
    chain(lab, "nc").options += [
        "--netcat-command",
        "echo %%%% >$HOME/ran; exec nc -N %%h %%p",
    ]  # ssh expands them, too
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert (lab["h2"].home / "ran").read_text() == "%\n"
    assert commands(lab, "h1") == 0


def test_a_command_is_for_the_hops_that_were_named_if_any_were() -> None:
    line = ["--netcat-command", "nc %h %p"]
    assert parse(["h1/h2"]).netcat_for("h1") is None
    assert parse(["--netcat", "h1/h2"]).netcat_for("h1") == Netcat("")
    assert parse(["--netcat=h2", "h1/h2"]).netcat_for("h1") is None
    assert parse([*line, "h1/h2"]).netcat_for("h1") == Netcat("nc %h %p")
    assert parse([*line, "--netcat=h2", "h1/h2"]).netcat_for("h1") is None
    assert parse([*line, "--netcat=h2", "h1/h2"]).netcat_for("h2") == Netcat("nc %h %p", named=True)
    assert parse([*line, "--netcat=h2", "--netcat", "h1/h2"]).netcat_for("h1") == Netcat("nc %h %p")


@pytest.mark.parametrize("words", [["--netcat="], ["--netcat=$(id)"], ["--netcat-command", ""]])
def test_the_options_of_nothing(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse([*words, "h1/h2"])


def test_the_route_is_not_taken_for_a_hop_that_is_named() -> None:
    assert parse(["--netcat", "h1/h2"]).destination == "h1/h2"


# Host and port are data

SHELLS = (["sh"], ["bash"], ["bash", "-r"], ["zsh"], ["tcsh"], ["fish"], ["busybox", "sh"])
CODE = ("$(id)", "`id`", "a;id", "a|id", "a'b", 'a"b', "a\\b", "a b", "a\nb", "a!b", "~root", "*", "?", "=ls", "-e", "",
        "a&b", "a>b", "{a,b}", "a#b", "%self", "ä")  # fmt: skip


@pytest.mark.parametrize("host", CODE)
@pytest.mark.parametrize("template", ["", "nc %h %p"])
def test_a_host_that_a_shell_could_take_for_code_is_handed_to_none(host: str, template: str) -> None:
    with pytest.raises(RelayError, match="cannot be handed to a shell"):
        command(host, 22, template)


@pytest.mark.parametrize("shell", SHELLS, ids="-".join)
@pytest.mark.parametrize("template", ["", "python3 -ISc - %h %p"])
def test_every_shell_hands_over_host_and_port_as_they_are(tmp_path: Path, shell: list[str], template: str) -> None:
    program = need(shell[0])
    stub = tmp_path / "python3"
    stub.write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}

    @given(
        st.from_regex(r"[A-Za-z0-9:_][A-Za-z0-9:_.%-]{0,40}", fullmatch=True, alphabet=st.characters(max_codepoint=126))
    )
    def check(host: str) -> None:
        argv = [program, *shell[1:], "-c", command(host, 65535, template)]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"{host}\n65535\n", ""), shlex.join(argv)

    check()
