"""When a chain cannot be made: exit 1 within the deadline, and a message that names the hop and the cause."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from lab import Lab
from peers import LOOPBACK, free_ports, need, until

ROUTE = "h1/h2/h3"
# What goes wrong may go wrong at any element of the route.
PLACES = {"h1": "hop 1 of 2 (h1)", "h2": "hop 2 of 2 (h2)", "h3": "target (h3)"}
hops = pytest.mark.parametrize("bad", ["h1", "h2"])
elements = pytest.mark.parametrize("bad", list(PLACES))


CHANGED = 5  # lines about a key that has changed: a fact in each, and a hint


def fail(lab: Lab, bad: str, *arguments: str, route: str = ROUTE, most: int = 3) -> str:
    """Run pyrelay, which must fail at that element; return what it says after its name, in so many lines at most."""
    ran = lab.pyrelay(*arguments, route, "22", stdin=None, timeout=30)
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    lines = ran.stderr.splitlines()
    begin = f"pyrelay: {PLACES[bad]}: "
    assert lines[0].startswith(begin), ran.stderr
    assert len(lines) <= most, ran.stderr
    return ran.stderr.removeprefix(begin)


NO_ROOM = (
    "hint: a server that has no room for new logins does so (MaxStartups), or one that has seen too many fail "
    "from this address (PerSourcePenalties); --share logs in once for many relays\n"
)
OTHER = "hint: this does not look like an SSH server: is the port right?\n"


@pytest.mark.parametrize("bad", ["h1", "h2"])
@pytest.mark.parametrize(
    ("line", "words", "hint"),
    [
        (b"Not allowed at this time\r\n", "Not allowed at this time", NO_ROOM),  # OpenSSH 10's words for both causes
        (b"Zugriff nur\tf\xfcr Befugte\r\n", "Zugriff nur f\ufffdr Befugte", OTHER),  # a device's, in Latin-1
        (b"HTTP/1.1 400 Bad Request\r\n\r\n<html>\r\n</html>\r\n", "HTTP/1.1 400 Bad Request", OTHER),
        (b"\r\n220 mail ESMTP\r\n500 what?\r\n", "220 mail ESMTP", OTHER),
    ],
    ids=["sshd", "device", "web", "mail"],
)
def test_what_is_said_in_place_of_an_ident(lab: Lab, bad: str, line: bytes, words: str, hint: str) -> None:
    servers(lab, bad)
    lab.dying(bad, line)
    said = f"the connection was closed before the server's SSH ident; it said: {words}\n"
    assert fail(lab, bad) == said + hint


@pytest.mark.parametrize("remembered", [False, True])
def test_what_the_installed_sshd_says_when_it_has_no_room(lab: Lab, tmp_path: Path, remembered: bool) -> None:
    """(ssh says that the connection was reset.)"""
    lab.server("h1").configure("MaxStartups 1\n")
    port, log = next(free_ports()), tmp_path / "sshd.log"
    config = tmp_path / "sshd_config"
    config.write_text(f"ListenAddress {LOOPBACK}:{port}\n" + (lab.top / "h1" / "sshd_config").read_text())
    lab.start(need("sshd"), "-D", "-f", config, "-E", log)
    until(lambda: log.exists() and "Server listening" in log.read_text(), "sshd")
    lab.host("h1", Port=port)
    lab.know("h1", port, lab["h1"].host_keys)
    if remembered:
        assert lab.pyrelay("h1/h1").stdout.startswith("SSH-")
    room: list[socket.socket] = []

    def takes_it() -> bool:  # the one login that there is room for, once the one before has been seen to be over
        room.append(socket.create_connection((LOOPBACK, port)))
        return room[-1].recv(8).startswith(b"SSH-")

    until(takes_it, "room for a login")
    said = fail(lab, "h1", route="h1/h3/h4")
    for connection in room:
        connection.close()
    assert re.search("Exceeded MaxStartups|Not allowed at this time", said)
    assert said.endswith(NO_ROOM)


def servers(lab: Lab, bad: str) -> None:
    """Start all servers of the route but the bad one."""
    lab.servers(*(name for name in PLACES if name != bad))


@hops
def test_a_wrong_host_key(lab: Lab, bad: str) -> None:
    lab.servers(*PLACES)
    known = lab.known_hosts.read_text().splitlines()
    line = next(number for number, text in enumerate(known) if f"]:{lab[bad].port}," in text)
    wrong = Path(f"{lab.keygen('wrong')}.pub").read_text().split()[1]
    known[line] = re.sub("ssh-ed25519 .*", f"ssh-ed25519 {wrong}", known[line])
    lab.known_hosts.write_text("\n".join(known) + "\n")
    said = fail(lab, bad, most=CHANGED)
    assert "host key" in said
    assert f"{lab.known_hosts}:{line + 1}" in said
    assert lab[bad].logins() == []


@hops
@pytest.mark.parametrize("checking", ["no", "accept-new"])
def test_a_wrong_host_key_is_refused_in_every_mode(lab: Lab, bad: str, checking: str) -> None:
    lab.servers(*PLACES)
    other = "h2" if bad == "h1" else "h1"
    text = lab.known_hosts.read_text()
    lab.known_hosts.write_text(text.replace(lab[bad].host_keys[0].split()[1], lab[other].host_keys[0].split()[1]))
    assert "host key" in fail(lab, bad, "-o", f"StrictHostKeyChecking={checking}", most=CHANGED)
    assert lab[bad].logins() == []


@hops
def test_an_unknown_host_key(lab: Lab, bad: str) -> None:
    lab.servers(*PLACES)
    lines = lab.known_hosts.read_text().splitlines(keepends=True)
    lab.known_hosts.write_text("".join(line for line in lines if f"]:{lab[bad].port}," not in line))
    said = fail(lab, bad)
    fingerprint = lab.run("ssh-keygen", "-l", "-f", lab.top / bad / "ed25519.pub").stdout.split()[1]
    assert fingerprint in said
    assert "StrictHostKeyChecking" in said  # how to accept it
    assert lab[bad].logins() == []


@pytest.mark.parametrize("checking", ["no", "accept-new"])
def test_an_unknown_host_key_is_learned_where_the_user_says_so(lab: Lab, checking: str) -> None:
    lab.servers("h1", "h2")
    known = lab.known_hosts.read_text()
    lab.known_hosts.write_text("".join(line for line in known.splitlines(keepends=True) if "*/h2" in line))
    lab.host("h1", StrictHostKeyChecking=checking)
    ran = lab.ssh("h1/h2", "true")
    assert ran.returncode == 0
    assert "Permanently added" in ran.stderr
    key = " ".join(lab["h1"].host_keys[0].split()[:2])
    assert f"[127.0.0.1]:{lab['h1'].port} {key}\n" in lab.known_hosts.read_text()
    assert lab.ssh("h1/h2", "true").stderr == ""  # it is known now


@hops
def test_a_refused_login(lab: Lab, bad: str) -> None:
    lab.servers(*PLACES)
    lab[bad].authorize("")
    said = fail(lab, bad)
    assert "publickey" in said  # what was tried, and what the server would take
    assert lab[bad].logins() == []


@elements
def test_a_closed_port(lab: Lab, bad: str) -> None:
    lab.closed(bad)
    servers(lab, bad)
    assert "connection refused" in fail(lab, bad).lower()


@elements
def test_a_name_that_does_not_resolve(lab: Lab, bad: str) -> None:
    servers(lab, bad)
    lab.host(bad, HostName="no-such-host.invalid")
    said = fail(lab, bad)
    assert "no-such-host.invalid" in said
    assert re.search("no such host|not known|resolution", said)


@hops
@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-Silent\r\n"])
def test_a_hop_that_accepts_and_stays_silent(lab: Lab, bad: str, greeting: bytes) -> None:
    silent = lab.silent(bad, greeting)
    servers(lab, bad)
    assert "no answer within 3 seconds" in fail(lab, bad, "-w", "3")
    assert silent.accepted == 1


def test_a_target_that_stays_silent_is_for_ssh_to_judge(lab: Lab) -> None:
    silent = lab.silent("h3")
    servers(lab, "h3")
    ran = lab.ssh("-o", "ConnectTimeout=2", ROUTE, "true")
    assert ran.returncode == 255
    assert "timed out" in ran.stderr
    assert "pyrelay" not in ran.stderr
    assert silent.accepted == 1


@hops
@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-Dying\r\n", b"220 mail.example ESMTP\r\n"])
def test_a_hop_that_hangs_up(lab: Lab, bad: str, greeting: bytes) -> None:
    lab.dying(bad, greeting)
    servers(lab, bad)
    fail(lab, bad)


@pytest.mark.parametrize("verbosity", ["-v", "-vv", "-vvv"])
@pytest.mark.parametrize("ident", [b"SSH-2.0-%b\r\n", b"SSH-9%b-x\r\n", b"%b\r\nSSH-2.0-x\r\n"])
def test_what_a_hop_says_before_its_keys_cannot_steer_a_terminal(lab: Lab, ident: bytes, verbosity: str) -> None:
    lab.dying("h1", ident % b"Evil\x1b]0;owned\x07")
    said = lab.pyrelay(verbosity, "--engine", "paramiko", "h1/h3").stderr
    assert all(c.isprintable() for c in said.replace("\n", ""))


@hops
def test_a_hop_with_another_version_of_the_protocol(lab: Lab, bad: str) -> None:
    lab.silent(bad, b"SSH-1.5-Cisco-1.25\n")
    servers(lab, bad)
    assert fail(lab, bad) == "the server speaks another version of the protocol: SSH-1.5-Cisco-1.25\n"


@hops
def test_a_hop_that_forwards_nothing(lab: Lab, bad: str) -> None:
    for name in PLACES:
        lab.server(name, extra="AllowTcpForwarding no" if name == bad else "")
    assert "does not forward" in fail(lab, bad)


def test_the_message_reaches_the_user_of_ssh(lab: Lab) -> None:
    lab.closed("h2")
    servers(lab, "h2")
    ran = lab.ssh(ROUTE, "true")
    assert ran.returncode == 255
    assert ran.stderr.startswith("pyrelay: hop 2 of 2 (h2): h1 cannot connect to 127.0.0.1 port ")


@pytest.mark.parametrize(("level", "says"), [("INFO", True), ("ERROR", False), ("QUIET", False), ("FATAL", False)])
def test_loglevel_of_a_hop_counts_for_all_that_is_no_error(lab: Lab, level: str, says: bool) -> None:
    """As in the blocks of Vagrant and Ansible, where ssh -J is silent, too."""
    lab.servers("h1", "h2")
    throwaway = {"UserKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "no", "LogLevel": level}
    lab.host("h1", **throwaway)
    (lab.top / "bad").write_text("h1 ssh-ed25519 AAAA\n[127.0.0.1]:* ssh-rsa nonsense\n")
    lab.host("h1", GlobalKnownHostsFile=lab.top / "bad")
    done = lab.ssh("h1/h2", "echo $SERVER")
    assert done.stdout == "h2\n"
    assert ("Permanently added" in done.stderr, "bad" in done.stderr) == (says, says)
    assert says or done.stderr == ""
    lab.host("h2", LogLevel="INFO", StrictHostKeyChecking="yes")
    lab.options = ["-v"]
    assert "Permanently added" in lab.ssh("h1/h2", "true").stderr  # as with `ssh -v`
    lab.options = []
    lab.host("h1", StrictHostKeyChecking="yes")
    assert "pyrelay: hop 1 of 1 (h1): no host key is known" in lab.ssh("h1/h2", "true").stderr  # errors stay


def test_many_keys_are_counted_and_named_only_by_v(lab: Lab) -> None:
    lab.server("h1", authorized_keys="")
    lab.server("h2")
    lab.host("h1", IdentityFile="\n    IdentityFile ".join(str(lab.keygen(f"k{number}")) for number in range(3)))
    said = lab.pyrelay("h1/h2").stderr
    assert f"login as {lab.user} refused: Permission denied; the server takes publickey" in said
    assert "offered: 4 keys (-v names them)" in said
    said = lab.pyrelay("-v", "h1/h2").stderr
    assert said.count(": offered: ED25519 SHA256:") == 4
