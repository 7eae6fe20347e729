"""How relays, shared hops and the process that holds them end, by themselves and by -O."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest
from contract import SOON
from lab import Lab
from peers import until
from shared import AGAIN, CLOSED, control, holder, holders, logins, program, relay, under_way

pytestmark = pytest.mark.alone


def without_threads(lab: Lab) -> Path:
    """A file; while it exists, the holder's loop can start no thread. Beside it, .refused shows that it has tried."""
    full = lab.top / "full"
    program(
        lab,
        "import os, threading",
        "from relay.share import place",
        "place.PATIENCE = 600.0  # the first look whether anything is left",
        "start = threading.Thread.start",
        "def refuse(thread):",
        f"    if threading.current_thread() is threading.main_thread() and os.path.exists({str(full)!r}):",
        f"        open({f'{full}.refused'!r}, 'w').close()",
        '        raise RuntimeError("can\'t start new thread")',
        "    start(thread)",
        "threading.Thread.start = refuse",
    )
    return full


# What ends what


def test_a_relay_that_is_killed_closes_its_channel(shared: Lab) -> None:
    ends, other = relay(shared), relay(shared)
    ends.process.kill()
    assert ends.far_receive() == b""
    other.send(b"still here")
    assert other.far_receive(10) == b"still here"
    ends.close()
    other.close()


def test_a_relay_that_is_killed_closes_its_channel_without_gcm(lab: Lab) -> None:
    """Its stdin and stdout are still open, in the holder and in the ssh that has started it."""
    lab.server("h1", Ciphers="aes128-ctr")
    ends = under_way(relay(lab))
    ends.process.kill()
    assert ends.far_receive() == b""
    ends.close()


def test_a_holder_that_is_killed_is_told_and_replaced(shared: Lab) -> None:
    ends = under_way(relay(shared))
    os.kill(holder(shared), signal.SIGKILL)
    assert ends.status() == 1
    assert ends.said() == "pyrelay: the process that holds the shared hops has ended\n"
    ends.close()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


def test_a_hop_that_dies_is_told_to_its_relays_and_made_anew(shared: Lab) -> None:
    all_ends = [under_way(relay(shared)) for _ in range(3)]
    for connection in shared["h1"].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)
    for ends in all_ends:
        assert ends.status() == 1
        assert "shared hop (h1): the connection was lost" in ends.said()
        ends.close()
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert logins(shared)[0] == 2


@pytest.mark.parametrize("quiet", ["0.0", "60.0"])  # asked for a sign of life each time, or when it does not answer
@pytest.mark.parametrize("dead", ["h1", "h2"])
def test_a_hop_that_is_dead_without_a_word_is_made_anew(shared: Lab, dead: str, quiet: str) -> None:
    """Relays on it get the reason when ServerAlive notices; the next relay gets a new hop at its first try."""
    program(shared, "from relay.share import hops", f"hops.QUIET = {quiet}")
    shared.host(dead, ServerAliveInterval="1", ServerAliveCountMax="8")
    ends = under_way(relay(shared, "h1/h2"))
    with shared[dead].silenced():
        assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
        assert logins(shared) == ([2, 2, 1] if dead == "h1" else [1, 2, 1])
        assert ends.status() == 1
        assert ends.said() == (
            f"pyrelay: shared hop ({dead}): the connection was lost: no answer to 8 keepalives in 8 seconds\n"
        )
    ends.close()


def test_a_quiet_hop_is_asked_at_once_where_the_channel_is_opened_ahead(shared: Lab) -> None:
    """So it is for a command line that has been used before."""
    program(shared, "from relay.share import ahead, hops", "hops.QUIET, hops.ANSWER, ahead.ANSWER = 0.0, 0.5, 600.0")
    assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    with shared["h1"].silenced():
        assert shared.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
        assert logins(shared)[0] == 2


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_hop_that_is_dead_before_the_one_behind_it_is_logged_in_to(shared: Lab, number: signal.Signals) -> None:
    """It has been heard a moment ago, so nobody asks it for a sign of life before it is used."""
    program(shared, "from relay.share import hops", "hops.ANSWER = 0.5")
    assert shared.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"
    with shared["h1"].silenced(number):
        config = shared.write_config()
        relays = [shared.start("ssh", "-F", config, "h1/h2/h3", "echo $SERVER") for _ in range(5)]
        assert [each.communicate(timeout=SOON) for each in relays] == [(b"h3\n", b"")] * 5
        assert logins(shared) == [2, 2, 5]


def test_a_hop_without_gcm_that_is_dead_without_a_word_is_made_anew(lab: Lab) -> None:
    lab.server("h1", Ciphers="aes128-ctr")
    lab.server("h3")
    lab.options += AGAIN
    program(lab, "from relay.share import hops", "hops.ANSWER = 0.5")
    assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    with lab["h1"].silenced():
        assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
        assert logins(lab, "h1") == [2]


def test_the_holder_ends_with_its_last_hop(shared: Lab) -> None:
    shared.options[-1] = "1"
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    until(lambda: not holders(shared), "end of the holder")
    assert shared.remaining(SOON) == {}
    assert list((shared.home / ".ssh" / "pyrelay").glob("*.sock")) == []


def test_a_failed_login_leaves_no_holder(shared: Lab) -> None:
    shared.closed("gone")
    assert shared.pyrelay("gone/h3").returncode == 1
    until(lambda: not holders(shared), "end of the holder")


@pytest.mark.parametrize("stage", ["key exchange", "host key", "login"])
def test_a_failed_login_leaves_nothing_in_a_holder_that_lives_on(shared: Lab, stage: str) -> None:
    ends = under_way(relay(shared))
    shared.at_end(ends.close)
    pid = holder(shared)

    def has() -> tuple[int, int]:
        """Its threads, and its sockets."""
        files = [os.path.realpath(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
        return len(os.listdir(f"/proc/{pid}/task")), sum("socket:" in file for file in files)

    before = has()
    if stage == "key exchange":
        shared.dying("h2", b"SSH-2.0-x\r\n")
    elif stage == "host key":
        shared.known_hosts.write_text("".join(shared["h1"].host_keys))
    else:
        shared.host("h2", PubkeyAuthentication="no")
    for _ in range(3):
        assert shared.pyrelay("h2/h3").returncode == 1
    until(lambda: all(map(int.__le__, has(), before)), "end of what they had", 5)


def test_idle_ends_and_new_relays_at_the_same_time(shared: Lab) -> None:
    """A relay that meets a holder which is just about to end gets another one."""
    shared.options[-1] = "1"
    for _ in range(12):
        before = holders(shared)
        if before:
            until(lambda before=before: holders(shared) != before or random.random() < 0.2, "end, or nearly", SOON)  # type: ignore[misc]
        done = shared.ssh("h1/h3", "echo $SERVER")
        assert done.stdout == "h3\n", done.stderr


def test_fdpass_leaves_no_process(shared: Lab) -> None:
    """Ssh has a socket to the holder itself."""
    shared.options.append("--fdpass")
    shared.head = "ProxyUseFdpass yes\n"
    assert shared.ssh("h1/h2/h3", "echo $SERVER; cat", stdin="hello").stdout == "h3\nhello"
    assert logins(shared) == [1, 1, 1]
    until(lambda: "0 relays" in control(shared, "list"), "end of the relay")


@pytest.mark.parametrize("how", ["idle", "SIGTERM"])
def test_the_holder_ends_where_it_can_start_no_thread(shared: Lab, how: str) -> None:
    full = without_threads(shared)
    ends = under_way(relay(shared, "h1/h2", "--share", "1"))
    full.touch()
    if how == "idle":
        ends.end()
        ends.far_end()
    else:
        os.kill(holder(shared), signal.SIGTERM)
    assert ends.status() == (0 if how == "idle" else 1)
    ends.close()
    assert shared.remaining(SOON) == {}


def test_a_login_is_given_up_as_soon_as_a_thread_can_be_started(shared: Lab) -> None:
    full = without_threads(shared)
    silent = shared.silent("mute")
    waiting = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "mute/h3")
    assert silent.reached.wait(SOON)
    full.touch()
    waiting.kill()
    until(Path(f"{full}.refused").exists, "a thread that cannot be started", SOON)
    full.unlink()
    assert shared.remaining(SOON) == {}


# -O


def test_list_check_stop_and_exit(shared: Lab) -> None:
    for name in ("list", "check", "stop", "exit"):
        done = shared.pyrelay("-O", name)
        assert (done.returncode, done.stderr) == (1, "pyrelay: no hops are shared\n")
    ends = relay(shared, "h1/h2")
    ends.send(b"12345")
    assert ends.far_receive(5) == b"12345"
    first, second = control(shared, "list").splitlines()
    assert re.fullmatch(r"h1: since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1 relay, 5 bytes", first)
    assert re.fullmatch(r"h1/h2: since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 1 relay, 5 bytes", second)
    assert control(shared, "check") == f"Master running (pid={holder(shared)})\n"
    assert control(shared, "stop") == "Stop listening request sent.\n"
    until(lambda: not holders(shared), "end of the listening")
    ends.send(b"on")
    assert ends.far_receive(2) == b"on"
    other = relay(shared, "h1/h2")
    assert logins(shared)[:2] == [2, 2]
    assert control(shared, "exit") == "Exit request sent.\n"
    assert other.status() == 1
    assert other.said() == f"pyrelay: {CLOSED}"
    ends.send(b"on")
    assert ends.far_receive(2) == b"on"
    ends.end()
    ends.far_end()
    assert ends.status() == 0
    ends.close()
    other.close()
    assert shared.remaining(SOON) == {}


def test_exit_is_told_to_who_waits_for_a_login(shared: Lab) -> None:
    silent = shared.silent("mute")
    waiting = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "mute/h3")
    assert silent.reached.wait(SOON)
    control(shared, "exit")
    assert waiting.communicate(timeout=SOON)[1].decode() == f"pyrelay: hop 1 of 1 (mute): {CLOSED}"
    assert waiting.returncode == 1
    assert shared.remaining(SOON) == {}


@pytest.mark.parametrize("how", ["exit", "SIGTERM"])
def test_exit_ends_the_programs_of_a_login(shared: Lab, how: str) -> None:
    script, started = shared.top / "script", shared.top / "started"
    script.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 1000\n")
    script.chmod(0o755)
    shared.host("h1", KnownHostsCommand=str(script))
    waiting = shared.start(shared.program, "-F", shared.write_config(), *AGAIN, "h1/h3")
    until(started.exists, "start of the KnownHostsCommand", SOON)
    if how == "exit":
        control(shared, "exit")
    else:
        os.kill(holder(shared), signal.SIGTERM)
    assert waiting.wait(SOON) == 1
    assert shared.remaining(SOON) == {}


def test_exit_is_told_to_a_relay_without_gcm(lab: Lab) -> None:
    lab.server("h1", Ciphers="aes128-ctr")
    ends = under_way(relay(lab))
    control(lab, "exit")
    assert (ends.status(), ends.said()) == (1, f"pyrelay: {CLOSED}")
    ends.close()
    assert lab.remaining(SOON) == {}
