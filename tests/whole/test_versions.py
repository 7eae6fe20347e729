"""Two versions of OpenSSH: one of client, hops and target, one is of another version than the other two.

PYRELAY_OTHER_OPENSSH names the folder in which packages of the other version were unpacked; `make matrix` has 9.2
beside Debian 13's 10.0. PYRELAY_KEX names a file, to which a line is added for each key exchange that was agreed on.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import Lab
from peers import until
from sshd import Server

OTHER = os.environ.get("PYRELAY_OTHER_OPENSSH", "")
SIZE = 4 << 20  # bytes
ONE, THREE = "h1/t", "h1/h2/h3/t"
# Which of client, hops and target are of the other version.
CASES = {
    "client": {"client"},
    "hops": {"hops"},
    "target": {"target"},
    "all but the client": {"hops", "target"},
    "all but the hops": {"client", "target"},
    "all but the target": {"client", "hops"},
}

# Two versions cannot be installed side by side: the other one is in the chroot that `make matrix` makes.
pytestmark = pytest.mark.skipif(not OTHER, reason="there is one version of OpenSSH here; `make matrix` has two")


@dataclass
class Mixed:
    """A lab with three hops and a target t, and how its data goes."""

    lab: Lab

    def there_and_back(self, route: str, *options: str) -> None:
        """Send bytes to the target and get the same ones back, without a word from ssh or pyrelay."""
        data = os.urandom(SIZE)
        client = self.lab.start("ssh", "-F", self.lab.config, *options, route, "cat", stdin=subprocess.PIPE)
        out, err = client.communicate(data, 100)
        assert (client.returncode, err.decode()) == (0, "")
        assert out == data


def take_other_ssh(lab: Lab) -> None:
    (lab.program.parent / "ssh").symlink_to(f"{OTHER}/usr/bin/ssh")


def server(lab: Lab, name: str, *, other: bool) -> Server:
    # The command's first word is the sshd that is installed.
    within = ("sh", "-c", f'shift; exec {OTHER}/usr/sbin/sshd "$@"', "sh") if other else ()
    return lab.server(name, within=within)


@pytest.fixture(params=CASES)
def mixed(lab: Lab, request: pytest.FixtureRequest) -> Mixed:
    others = CASES[request.param]
    if "client" in others:
        take_other_ssh(lab)
    for name in ("h1", "h2", "h3"):
        server(lab, name, other="hops" in others)
    server(lab, "t", other="target" in others)
    return Mixed(lab)


def one_hop(mixed: Mixed) -> None:
    mixed.there_and_back(ONE)


def three_hops(mixed: Mixed) -> None:
    mixed.there_and_back(THREE)


def carried_by_ssh(mixed: Mixed) -> None:
    mixed.lab.options += ["--engine", "ssh"]
    mixed.there_and_back(THREE)


def share(mixed: Mixed) -> None:
    mixed.lab.options += ["--share", "1m"]
    for _ in range(2):
        mixed.there_and_back(THREE)
    assert [len(mixed.lab[name].logins()) for name in ("h1", "h2", "h3", "t")] == [1, 1, 1, 2]
    assert mixed.lab.pyrelay("-O", "exit").returncode == 0


def netcat(mixed: Mixed) -> None:
    for name in ("h1", "h2", "h3"):
        mixed.lab[name].configure("AllowTcpForwarding no\n")
    mixed.lab.options += ["--netcat"]
    mixed.there_and_back(THREE)


def fdpass(mixed: Mixed) -> None:
    mixed.lab.options += ["--fdpass"]
    mixed.lab.head = "Host */*\n    ProxyUseFdpass yes"
    mixed.there_and_back(THREE)


def master(mixed: Mixed) -> None:
    lab, path = mixed.lab, mixed.lab.top / "master"
    lab.host("h1", ControlPath=path)
    running = lab.start("ssh", "-F", lab.config, "-M", "-N", "-o", "ControlPersist=no", "h1")
    until(path.exists, "master")
    mixed.there_and_back(THREE)
    assert len(lab["h1"].logins()) == 1
    running.terminate()
    running.wait(10)


def rekeys(mixed: Mixed) -> None:
    """By the client at the target, by us at the hops, and by all of them as servers."""
    for name in ("h1", "h2", "h3", "t"):
        mixed.lab[name].configure("RekeyLimit 1M\n")
    mixed.lab.options += ["-o", "RekeyLimit=1M"]
    mixed.there_and_back(THREE, "-o", "RekeyLimit=1M")
    for name in ("h1", "h2", "h3", "t"):
        assert mixed.lab[name].whole_log().count("set_newkeys: rekeying out") > 2, name


@pytest.mark.parametrize("way", [one_hop, three_hops, carried_by_ssh, share, netcat, fdpass, master, rekeys])
def test_every_byte(mixed: Mixed, way: Callable[[Mixed], None]) -> None:
    way(mixed)
    assert mixed.lab.remaining(20) == {}


def agreed(server: Server) -> str:
    """The key exchange of the last connection to a server."""
    found: list[str] = re.findall(r"kex: algorithm: (\S+)", server.whole_log())
    return found[-1]


@pytest.mark.parametrize("client", ["ours", "other"])
@pytest.mark.parametrize("hop", ["ours", "other"])
def test_the_key_exchange_beside_that_of_ssh(lab: Lab, client: str, hop: str) -> None:
    """ssh and our client each agree on one with the same server; what they are goes into docs/matrix.md."""
    if client == "other":
        take_other_ssh(lab)
    h1 = server(lab, "h1", other=hop == "other")
    assert lab.ssh("h1", "true").returncode == 0
    by_ssh = agreed(h1)
    assert lab.pyrelay(f"h1/127.0.0.1:{h1.port}").stdout.startswith("SSH-2.0-")
    (ours,) = re.findall(r"kex: algorithm: (\S+)", h1.connections[1].log())
    if file := os.environ.get("PYRELAY_KEX"):
        version = lab.run("ssh", "-V").stderr.split()[0].removesuffix(",").replace("_", " ")
        ident = re.search(r"Local version string SSH-2.0-(\S+)", h1.log())
        assert ident is not None
        with Path(file).open("a") as table:
            table.write(f"| {version} | {ident[1].replace('_', ' ')} | {by_ssh} | {ours} |\n")
