"""How the first hop is reached: by what its own ssh_config says, and never in a circle."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys

import pytest
from lab import LACKS, Lab
from peers import until

from relay.config.lookup import version
from relay.config.settings import HopSettings
from relay.dial import tcp
from relay.run.children import Children
from relay.run.progress import Progress


@pytest.fixture
def hops(lab: Lab) -> Lab:
    lab.servers("gate", "h1", "h3")
    return lab


def answer(lab: Lab, name: str) -> str:
    done = lab.ssh(name, "echo $SERVER")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_its_proxyjump(hops: Lab) -> None:
    hops.host("h1", ProxyJump="gate")
    assert answer(hops, "h1/h3") == "h3"
    assert hops["gate"].forwards() == [("127.0.0.1", hops["h1"].port)]
    assert hops["h1"].forwards() == [("127.0.0.1", hops["h3"].port)]


def test_its_proxyjump_of_several_hops_and_their_own(hops: Lab) -> None:
    hops.server("g2")
    hops.host("g2", ProxyJump="gate")
    hops.host("h1", ProxyJump=f"g2,{hops.user}@127.0.0.1:{hops['gate'].port}")
    assert answer(hops, "h1/h3") == "h3"
    ports = [hops[name].port for name in ("g2", "gate", "h1")]
    assert hops["gate"].forwards() == [("127.0.0.1", ports[0]), ("127.0.0.1", ports[2])]
    assert hops["g2"].forwards() == [("127.0.0.1", ports[1])]


def test_its_proxyjump_leads_back(hops: Lab) -> None:
    hops.host("h1", ProxyJump="gate")
    hops.host("gate", ProxyJump="h1")
    done = hops.pyrelay("h1/h3", timeout=10)
    assert done.returncode == 1
    assert "the ProxyJump of gate leads back to h1" in done.stderr


def test_a_later_hop_is_reached_through_the_hop_before_it(hops: Lab) -> None:
    hops.host("h1", ProxyJump="nowhere")
    assert answer(hops, "gate/h1/h3") == "h3"


def test_its_proxycommand(hops: Lab) -> None:
    used = hops.top / "used"
    hops.host("h1", ProxyCommand=f"sh -c 'echo %n %h %p %r >{used}; exec nc %h %p'")
    assert answer(hops, "h1/h3") == "h3"
    assert used.read_text() == f"h1 127.0.0.1 {hops['h1'].port} {hops.user}\n"


@pytest.mark.parametrize("user", ["John Doe", "svc_app$,x", "CORP\\jdoe"])
def test_its_user_is_what_ssh_would_send(hops: Lab, user: str) -> None:
    """sshd knows none of them, and logs the name as it came."""
    hops.host("h1", User=f'"{user}"')
    assert f"login as {user} refused" in hops.pyrelay("h1/h3").stderr
    assert "Permission denied" in hops.ssh("h1", "true").stderr
    ours, its = re.findall(r"Invalid user (.*) from ", hops["h1"].whole_log())
    assert ours == its
    hops.host("h1", ProxyCommand=f"nc 127.0.0.1 {hops['h1'].port} # %r")
    assert "its ProxyCommand has %r" in hops.pyrelay("h1/h3").stderr


def test_its_proxycommand_hands_over_the_connection(hops: Lab) -> None:
    hops.host("h1", ProxyCommand="nc -F %h %p", ProxyUseFdpass="yes")
    assert answer(hops, "h1/h3") == "h3"


@pytest.mark.parametrize(
    ("use_fdpass", "cause"),
    [
        ("yes", "the ProxyCommand ended without handing over a connection (ProxyUseFdpass)"),
        ("no", "its ProxyCommand ended with status 3"),
    ],
)
@pytest.mark.parametrize("share", [(), ("--share", "1s")])
def test_its_proxycommand_fails(hops: Lab, use_fdpass: str, cause: str, share: tuple[str, ...]) -> None:
    hops.host("h1", ProxyCommand="sh -c 'exit 3'", ProxyUseFdpass=use_fdpass)
    done = hops.pyrelay(*share, "h1/h3")
    assert done.returncode == 1
    assert done.stderr == f"pyrelay: hop 1 of 1 (h1): {cause}\n"


def test_its_proxycommand_is_killed(hops: Lab) -> None:
    hops.host("h1", ProxyCommand="sh -c 'kill -9 $$'")
    done = hops.pyrelay("h1/h3")
    assert done.returncode == 1
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): its ProxyCommand ended by signal 9\n"


def test_its_proxycommand_ends_in_good_order_and_has_said_nothing(hops: Lab) -> None:
    hops.host("h1", ProxyCommand="true")
    done = hops.pyrelay("h1/h3")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "pyrelay: hop 1 of 1 (h1): its ProxyCommand ended with status 0 and said nothing",
        "hint: run it by hand: what it connected to has closed, or it connects to nothing",
    ]


def test_its_proxycommand_ends_in_good_order_and_has_said_something_else(hops: Lab) -> None:
    hops.host("h1", ProxyCommand="echo the door is locked")
    done = hops.pyrelay("h1/h3")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "pyrelay: hop 1 of 1 (h1): the connection was closed before the server's SSH ident; it said: the door is locked"
    )


def test_its_proxycommand_is_not_blamed_for_what_comes_later(hops: Lab) -> None:
    """Its failure is then only the effect of our hanging up."""
    hops.host("h1", ProxyCommand="sh -c 'nc %h %p; exit 3'", HostKeyAlias="unknown")
    done = hops.pyrelay("h1/h3")
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (h1): no host key is known for unknown, ")


FAILS = "sh -c 'nc %h %p; exit 1'"  # once the server has closed, as kubectl exec does


@pytest.mark.parametrize("times", [1, 2])  # the second time it is remembered
def test_its_proxycommand_fails_once_the_server_has_closed_and_the_hop_is_left_to_ssh(lab: Lab, times: int) -> None:
    lab.server("h1", ProxyCommand=FAILS)
    lab.server("h3")
    if times == 2:
        assert answer(lab, "h1/h3") == "h3"
    lab["h1"].configure(f"{LACKS}\n")
    assert answer(lab, "h1/h3") == "h3"


def test_its_proxycommand_fails_after_ssh_has_said_why_the_hop_cannot_be_entered(lab: Lab) -> None:
    lab.server("h1", extra="Ciphers 3des-cbc", ProxyCommand=FAILS)
    lab.server("h3")
    done = lab.pyrelay("h1/h3")
    assert "no matching cipher found. Their offer: 3des-cbc" in done.stderr
    assert done.stderr.endswith(
        "pyrelay: hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255; it says why itself\n"
        "hint: its ProxyCommand ended with status 1\n"
    )
    assert "no matching cipher found. Their offer: 3des-cbc" in lab.ssh("h1", "true").stderr


def test_its_proxycommand_fails_after_the_server_has_said_why_it_disconnects(lab: Lab) -> None:
    lab.server("h1", authorized_keys="", extra="MaxAuthTries 1", ProxyCommand=FAILS)
    lab.server("h3")
    told = "Too many authentication failures"
    assert f"the server ended the login as {lab.user}: {told}; " in lab.pyrelay("h1/h3").stderr
    asks_for_nothing = version(Children()) >= (10, 6)  # sshd does not count ssh's question about its key
    assert ("Permission denied" if asks_for_nothing else told) in lab.ssh("h1", "true").stderr


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (
            r"Not allowed at this time\r\n",
            "the connection was closed before the server's SSH ident; it said: Not allowed",
        ),
        (
            r"SSH-2.0-x\r\n",
            "the server closed the connection (key exchange)\nhint: its ProxyCommand ended with status 1",
        ),
        ("", "its ProxyCommand ended with status 1"),
    ],
)
def test_its_proxycommand_fails_after_the_server_has_closed(lab: Lab, greeting: str, words: str) -> None:
    lab.host("h1", ProxyCommand=f"sh -c 'read ident; printf \"{greeting}\"; exit 1'")
    assert f"pyrelay: hop 1 of 1 (h1): {words}" in lab.pyrelay("h1/h3").stderr


def test_its_proxycommand_fails_and_leaves_bytes_of_ours_unread(lab: Lab) -> None:
    """Which resets the connection."""
    waits = f"{sys.executable} -c 'import select; select.select([0], [], [])'"
    script = lab.top / "command"
    script.write_text(f"read ident; printf 'SSH-2.0-x\\r\\n'; {waits}; exit 1\n")
    lab.host("h1", ProxyCommand=f"sh {script}")
    assert lab.pyrelay("h1/h3").stderr == (
        "pyrelay: hop 1 of 1 (h1): the server closed the connection (key exchange)\n"
        "hint: its ProxyCommand ended with status 1\n"
    )


def test_its_proxycommand_and_no_shell_for_it(hops: Lab) -> None:
    hops.host("h1", ProxyCommand="nc %h %p")
    done = hops.run(hops.program, "-F", hops.config, "h1/h3", env={"SHELL": "/nonexistent/sh"})
    assert done.returncode == 1
    assert done.stderr == (
        "pyrelay: hop 1 of 1 (h1): its ProxyCommand cannot be run by /nonexistent/sh ($SHELL): "
        "no such file or directory\n"
    )


def test_a_match_that_leaves_a_program_in_the_background_is_not_waited_for(hops: Lab) -> None:
    mark = hops.top / "pid"
    hops.head = f"""Match originalhost h1 exec "sh -c 'echo $$ >{mark}; exec sleep 600' & true"\n"""
    try:
        assert answer(hops, "h1/h3") == "h3"
    finally:
        until(lambda: mark.exists() and mark.read_text().endswith("\n"), "mark")
        os.kill(int(mark.read_text()), signal.SIGKILL)  # fails when it has been waited for


def test_its_proxycommand_is_pyrelay(hops: Lab) -> None:
    """A static chain: `h3` alone is reached through h1, and that through the gate."""
    pyrelay = f"pyrelay -F {hops.config}"
    hops.host("h1", ProxyCommand=f"{pyrelay} gate+%n")
    hops.host("h3", ProxyCommand=f"{pyrelay} h1+%n")
    hops.known_hosts.write_text(hops.known_hosts.read_text().replace("*+h3", "h3"))
    hops.host("h3", HostKeyAlias="h3")
    assert answer(hops, "h3") == "h3"
    assert hops["gate"].forwards() == [("127.0.0.1", hops["h1"].port)]


def test_its_proxycommand_leads_back(hops: Lab) -> None:
    pyrelay = f"pyrelay -F {hops.config}"
    hops.host("h1", ProxyCommand=f"{pyrelay} gate+%n")
    hops.host("gate", ProxyCommand=f"{pyrelay} h1+%n")
    done = hops.pyrelay("h1/h3", timeout=10)
    assert done.returncode == 1
    assert "the ProxyCommand of h1 leads back to h1" in done.stderr


def test_the_block_of_the_chain_that_matches_a_hop_too_does_not_recurse(hops: Lab) -> None:
    """`Host *` with pyrelay as ProxyCommand: a plain name is a plain connection."""
    hops.head = f"Host *\n    ProxyCommand pyrelay -F {hops.config} %h %p\n"
    assert answer(hops, "h1/h3") == "h3"


def test_a_plain_destination_looks_nothing_up(hops: Lab) -> None:
    hops.head = "NoSuchKeyword yes\n"
    done = hops.pyrelay("127.0.0.1", str(hops["h3"].port))
    assert done.stdout.startswith("SSH-2.0-")
    assert "nosuchkeyword" in hops.pyrelay("h1+h3").stderr


@pytest.mark.parametrize("setting", ["BindAddress", "-s"])
def test_its_source_address(hops: Lab, setting: str) -> None:
    if setting == "-s":
        hops.options += ["-s", "127.0.0.9"]
    else:
        hops.host("h1", BindAddress="127.0.0.9")
    assert answer(hops, "h1/h3") == "h3"
    assert "from 127.0.0.9 port" in hops["h1"].log()
    assert "from 127.0.0.9 port" not in hops["h3"].log()


def test_its_interface(hops: Lab) -> None:
    hops.host("h1", BindInterface="lo")
    assert answer(hops, "h1/h3") == "h3"
    hops.host("h1", BindInterface="nosuch0")
    done = hops.pyrelay("h1/h3")
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): the interface nosuch0 (BindInterface) has no IPv4 address\n"


@pytest.mark.parametrize("mark", "%=")
def test_a_user_of_a_jump_that_is_written_as_in_a_route(hops: Lab, mark: str) -> None:
    for words in (("-J", f"u1{mark}nowhere", "h3"), ("jumping/h3",)):
        hops.host("jumping", ProxyJump=f"u1{mark}nowhere".replace("%", "%%"))
        said = hops.pyrelay(*words).stderr
        assert f"no such host: u1{mark}nowhere\nhint: in -J and in ProxyJump a user is written u1@nowhere\n" in said
    assert "hint:" not in hops.pyrelay("-J", "[fe80::1%nowhere]", "h3").stderr


def test_its_connect_timeout(hops: Lab) -> None:
    """The error names what ssh would name, and whose limit it was."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        host, port = silent.getsockname()
        with socket.create_connection((host, port)):  # the queue is full
            hops.host("h1", Port=port, ConnectTimeout=2)
            assert hops.pyrelay("h1/h3").stderr == (
                "pyrelay: hop 1 of 1 (h1): no answer within 2 seconds "
                f"(ConnectTimeout; connecting to 127.0.0.1 port {port})\n"
            )


def test_its_connection_attempts(hops: Lab) -> None:
    port = hops.closed("closed")
    hops.host("h1", Port=port, ConnectionAttempts=2)
    done = hops.pyrelay("-v", "h1/h3")
    assert done.returncode == 1
    said = f"pyrelay: hop 1 of 1 (h1): cannot connect to 127.0.0.1 port {port}: connection refused"
    assert done.stderr.count(f"{said}; attempt 1 of 2\n") == 1
    assert done.stderr.endswith(f"{said}\n")


@pytest.mark.parametrize(
    ("setting", "service"),
    [("lowdelay throughput", 0x10), ("af21 cs1", 0x48), ("cs1", 0x20), ("ef", 0xB8), ("0x22", 0x22), ("none", None)],
)
def test_its_type_of_service(setting: str, service: int | None) -> None:
    assert HopSettings("h1", {"ipqos": [setting]}).service() == service


def test_its_type_of_service_is_that_of_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        sock = tcp.connect(host, port, Progress(), tcp.Terms(service=0x48))
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x48
        sock.close()
