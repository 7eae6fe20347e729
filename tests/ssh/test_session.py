"""What ssh_config says of a hop's session is done: algorithms, compression, rekeying, signs of life."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from relay.ssh import session
from relay.ssh.wire.opening import Refused

if TYPE_CHECKING:
    from lab import Lab

pytestmark = pytest.mark.alone

ROUTE = "h1/h2/h3"
SIZE = 24 << 20  # bytes


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


def transfer(lab: Lab, *options: str) -> None:
    """Send bytes to the target and get them back, under a real ssh, and see that they are the same."""
    data = os.urandom(SIZE)
    lab.options += options
    process = lab.start("ssh", "-F", lab.config, ROUTE, "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data, 100)
    assert process.returncode == 0, err.decode()
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("cipher", "mac"),
    [
        ("aes128-gcm@openssh.com", ""),
        ("aes256-gcm@openssh.com", ""),
        ("chacha20-poly1305@openssh.com", ""),
        ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
        ("aes192-ctr", "hmac-sha2-512-etm@openssh.com"),
        ("aes128-ctr", "hmac-sha2-256"),
        ("aes256-ctr", "hmac-sha2-512"),
    ],
)
def test_ciphers_and_macs(lab: Lab, cipher: str, mac: str) -> None:
    """Of hops that have this one alone, and want new keys every 4 MB."""
    for name in ("h1", "h2"):
        lab.server(name, extra=f"Ciphers {cipher}\nRekeyLimit 4M\n" + (f"MACs {mac}\n" if mac else ""))
    lab.server("h3")
    transfer(lab, "-vvv", "--engine", "paramiko")


@pytest.mark.parametrize(
    "kex",
    [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group-exchange-sha256",
    ],
)
def test_key_exchanges(chain: Lab, kex: str) -> None:
    chain.options += ["-o", f"KexAlgorithms={kex}"]
    for name in ("h1", "h2"):
        chain[name].configure(f"KexAlgorithms +{kex}\n")  # OpenSSH 10 has no group of integers by default
    assert chain.ssh(ROUTE, "echo $SERVER").stdout == "h3\n"


@pytest.mark.parametrize("rekeys", ["server", "client", "both"])
def test_rekeying_under_load(lab: Lab, rekeys: str) -> None:
    extra = "RekeyLimit 1M\n" if rekeys != "client" else ""
    for name in ("h1", "h2", "h3"):
        lab.server(name, extra=f"LogLevel DEBUG\n{extra}")
    transfer(lab, *(["-o", "RekeyLimit=1M"] if rekeys != "server" else []))
    for name in ("h1", "h2"):
        assert lab[name].log().count("SSH2_MSG_NEWKEYS received") > 5


def test_rekeying_by_the_clock(lab: Lab) -> None:
    for name in ("h1", "h2", "h3"):
        lab.server(name, extra="LogLevel DEBUG\n")
    lab.options += ["-o", "RekeyLimit=default 1"]
    assert lab.ssh(ROUTE, "sleep 4; echo $SERVER").stdout == "h3\n"
    for name in ("h1", "h2"):
        assert lab[name].log().count("SSH2_MSG_NEWKEYS received") > 2


def test_no_new_keys_amid_a_login(chain: Lab) -> None:
    """sshd would not answer; a limit of so few bytes is reached at once."""
    for hop in ("h1", "h2"):
        chain.host(hop, RekeyLimit="16")
    assert chain.ssh(ROUTE, "echo $SERVER").stdout == "h3\n"


def test_compression_is_without_effect(chain: Lab) -> None:
    """What passes a hop is encrypted already."""
    for name in ("h1", "h2"):
        chain.host(name, Compression="yes")
    assert chain.ssh(ROUTE, "echo $SERVER").stdout == "h3\n"
    for name in ("h1", "h2"):
        assert "Enabling compression" not in chain[name].log()


def test_no_algorithm_in_common_names_both_lists(lab: Lab) -> None:
    lab.server("h1", extra="Ciphers aes128-cbc")
    done = lab.pyrelay("--engine", "paramiko", "h1+h3")
    assert done.returncode == 1
    assert re.fullmatch(
        r"pyrelay: hop 1 of 1 \(h1\): no cipher algorithm in common: we have aes128-gcm@openssh.com,\S+; "
        r"the server has aes128-cbc\nhint: --engine auto leaves such a hop to ssh\n",
        done.stderr,
    )


def test_no_algorithm_that_ssh_config_asks_for_is_to_be_had(chain: Lab) -> None:
    chain.host("h1", Ciphers="aes128-cbc")
    done = chain.pyrelay("--engine", "paramiko", "h1+h3")
    assert done.returncode == 1
    assert "none of the ciphers that ssh_config asks for" in done.stderr
    assert chain["h1"].logins() == []


@pytest.mark.parametrize("hop", ["h1", "h2"])
def test_a_dead_hop_is_noticed_by_its_keepalives(chain: Lab, hop: str) -> None:
    chain.host(hop, ServerAliveInterval=1, ServerAliveCountMax=2)
    with chain.start("pyrelay", "-F", chain.config, ROUTE, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.read(4) == b"SSH-"
        with chain[hop].silenced():
            assert program.wait(20) == 1
        place = f"hop {hop[1]} of 2 ({hop})"
        said = program.stderr.read().decode()
    assert said == f"pyrelay: {place}: the connection was lost: no answer to 2 keepalives in 2 seconds\n"


def test_a_server_that_answers_keepalives_is_alive(chain: Lab) -> None:
    chain.options += ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"]
    assert chain.ssh(ROUTE, "sleep 4; echo $SERVER").stdout == "h3\n"


@pytest.mark.parametrize("hop", ["h1", "h2"])
def test_a_hop_that_dies_is_named(chain: Lab, hop: str) -> None:
    with chain.start("pyrelay", "-F", chain.config, ROUTE, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.read(4) == b"SSH-"
        os.killpg(chain[hop].connections[0].process.pid, signal.SIGKILL)
        assert program.wait(20) == 1
        said = program.stderr.read().decode()
    assert said.startswith(f"pyrelay: hop {hop[1]} of 2 ({hop}): the connection was lost")


@pytest.mark.parametrize(
    ("reason", "text", "denied"),
    [
        (1, "open failed", True),  # OpenSSH
        (1, "", True),  # dropbear -j
        (3, "unknown channel", True),  # Twisted Conch
        (2, "Forwarding disabled", True),  # Erlang's
        (2, "Connection refused", False),
        (2, "", False),
        (4, "", False),
    ],
)
def test_whose_fault_a_refusal_is(reason: int, text: str, denied: bool) -> None:
    """A denial names the hop, and is what --netcat is for; all else is about the target."""
    assert session._is_denied(Refused(reason, text)) is denied
