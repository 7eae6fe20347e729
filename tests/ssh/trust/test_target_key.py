"""`pyrelay --known-hosts`: the real ssh trusts in a chain what it trusts without one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from lab import CHAINS, ROOT

from relay.ssh.trust.target_key import split

if TYPE_CHECKING:
    from lab import Lab
    from sshd import Server


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h1/h3", ("h1/h3", 22)),
        ("[h1/h3]:2200", ("h1/h3", 2200)),
        ("h1+h2:2022+h3", ("h1+h2:2022+h3", 22)),
        ("[h1+h2:2022+h3]:2200", ("h1+h2:2022+h3", 2200)),
        ("2001:db8::1", ("2001:db8::1", 22)),
        ("[2001:db8::1]:2200", ("2001:db8::1", 2200)),
        ("[2001:db8::1]:2022+h3", ("[2001:db8::1]:2022+h3", 22)),
        ("[[2001:db8::1]:2022+h3]:2200", ("[2001:db8::1]:2022+h3", 2200)),
        ("[a]+[b]:2022", ("[a]+[b]:2022", 22)),
        ("[[a]+[b]:2022]:2200", ("[a]+[b]:2022", 2200)),
        ("[h3]:0", ("[h3]:0", 22)),
        ("[h3]:99999", ("[h3]:99999", 22)),
        ("[h3]:2²", ("[h3]:2²", 22)),
        ("[h3]:", ("[h3]:", 22)),
    ],
)
def test_the_port_in_a_name_that_ssh_asks_for(name: str, expected: tuple[str, int]) -> None:
    assert split(name) == expected


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """h1, h2 and h3, known under their own names only, and ssh told to ask pyrelay for the keys of a chain."""
    for server in lab.servers("h1", "h2", "h3"):
        know_only_itself(lab, server)
    lab.head = f"Host {CHAINS}\n    KnownHostsCommand {lab.top}/bin/pyrelay -F {lab.config} --known-hosts %H"
    return lab


def know_only_itself(lab: Lab, server: Server) -> None:
    text = lab.known_hosts.read_text()
    lab.known_hosts.write_text(text.replace(f",*/{server.name},*+{server.name} ", " "))


def known_hosts(lab: Lab, *arguments: str) -> str:
    done = lab.pyrelay("--known-hosts", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_ssh_trusts_in_a_chain_what_it_trusts_without(chain: Lab) -> None:
    assert chain.ssh("h3", "echo $SERVER").stdout == "h3\n"
    before = chain.known_hosts.read_bytes()
    for strict in ("yes", "accept-new"):
        done = chain.ssh("-o", f"StrictHostKeyChecking={strict}", "h1/h2/h3", "echo $SERVER")
        assert (done.stdout, done.stderr) == ("h3\n", "")
    assert chain.known_hosts.read_bytes() == before
    chain.head = ""
    assert "No ED25519 host key is known for h1/h2/h3" in chain.ssh("h1/h2/h3").stderr


@pytest.mark.parametrize(
    "name", ["h1/h3", "u%h1+h3", "u=h1+h3", "h1+h2~{h2}+h3", "h1+h2:{h2}+h3", "[h1]+[h3]", "h1/h3:{h3}"]
)
def test_in_every_spelling(chain: Lab, name: str) -> None:
    chain.host("h1", User=chain.user)
    name = name.format(h2=chain["h2"].port, h3=chain["h3"].port).replace("u%", f"{chain.user}%")
    name = name.replace("u=", f"{chain.user}=")
    done = chain.ssh("--", name, "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")


def test_with_a_port_of_sshs_own(chain: Lab) -> None:
    port = chain["h3"].port
    chain.host("h3", Port=1)
    done = chain.ssh("-p", str(port), "h1/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")
    key = chain["h3"].host_keys[0].rpartition(" ")[0]
    assert known_hosts(chain, f"[h1/h3]:{port}") == f"[h1/h3]:{port} {key}\n"


def test_a_changed_key_still_fails(chain: Lab) -> None:
    ours, theirs = (chain[name].host_keys[0].split()[1] for name in ("h3", "h2"))
    chain.known_hosts.write_text(chain.known_hosts.read_text().replace(ours, theirs))
    done = chain.ssh("-o", "StrictHostKeyChecking=accept-new", "h1/h3", "echo $SERVER")
    assert done.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_a_revoked_key_still_fails(chain: Lab) -> None:
    with chain.known_hosts.open("a") as file:
        file.write(f"@revoked * {chain['h3'].host_keys[0]}\n")
    done = chain.ssh("h1/h3", "echo $SERVER")
    assert done.returncode == 255
    assert "REVOKED HOST KEY DETECTED" in done.stderr


def test_an_unknown_key_is_as_unknown_as_ever(chain: Lab) -> None:
    chain.known_hosts.write_text(chain.known_hosts.read_text().replace(f":{chain['h3'].port} ", ":1 "))
    assert known_hosts(chain, "h1/h3") == ""
    assert "No ED25519 host key is known for h1/h3" in chain.ssh("h1/h3").stderr


def test_what_is_printed(lab: Lab) -> None:
    key, other = (lab.keygen(name).with_suffix(".pub").read_text().rpartition(" ")[0] for name in ("k1", "k2"))
    lab.host("h3", HostName="H3.example.com", Port=2022)
    lab.host("alias", HostKeyAlias="Known.As", Port=2022)
    lab.host("hashed", HostName="hashed")
    lab.known_hosts.write_text(f"hashed {key}\nknown.as {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", lab.known_hosts], capture_output=True, check=True)
    with lab.known_hosts.open("a") as file:
        file.write(
            f"# comment\n[h3.example.com]:2022 {key} comment\n"
            f"@cert-authority *.example.com,[*.example.com]:2022 {other}\n"
            f"@revoked [h3.example.com]:2* {other} c\r\n"
            f"[h3.example.com]:2022 {key[:40]}\n"
            f"h3.example.com {other}\n"
        )
    assert known_hosts(lab, "h1/h3") == f"h1/h3 {key}\n@cert-authority h1/h3 {other}\n@revoked h1/h3 {other}\n"
    assert known_hosts(lab, "h1/h3:22") == f"@cert-authority h1/h3:22 {other}\nh1/h3:22 {other}\n"
    assert known_hosts(lab, "h1+alias") == f"h1+alias {key}\n"
    assert known_hosts(lab, "h1+hashed") == f"h1+hashed {key}\n"
    assert known_hosts(lab, "hashed") == f"hashed {key}\n"
    # A key that is known without a port counts where none is known with it, as for ssh.
    assert known_hosts(lab, "[h1/h3]:1") == f"@cert-authority [h1/h3]:1 {other}\n[h1/h3]:1 {other}\n"
    found = ("@revoked [h1/h3]:2", "@cert-authority [h1/h3]:2", "[h1/h3]:2")  # none is known with it but a revoked one
    assert known_hosts(lab, "[h1/h3]:2") == "".join(f"{name} {other}\n" for name in found)
    # -o goes before what ssh_config says.
    assert known_hosts(lab, "-o", "HostKeyAlias=known.as", "h1/nobody") == f"h1/nobody {key}\n"
    assert known_hosts(lab, "-o", "UserKnownHostsFile=/nonexistent", "h1/h3") == ""


def test_a_key_of_a_type_that_ssh_alone_may_have(lab: Lab) -> None:
    """ssh judges: to one that knows the type, any other key of the host's has changed."""
    lab.host("h3", HostName="h3.example.com")
    dss = "ssh-dss AAAAB3NzaC1kc3M="
    lab.known_hosts.write_text(
        f"h3.example.com {dss} comment\n@revoked h3.example.com ssh-new AAAA\nh3.example.com x\n"
    )
    assert known_hosts(lab, "h1/h3") == f"h1/h3 {dss}\n@revoked h1/h3 ssh-new AAAA\n"


@pytest.mark.parametrize("name", ["h1+h2:x+h3", "h1//h3", "h3:", "[", "u@h1/h3", "h1/u%h3"])
def test_what_is_no_route_has_no_keys(lab: Lab, name: str) -> None:
    assert known_hosts(lab, name) == ""


def test_a_config_that_ssh_cannot_read(lab: Lab) -> None:
    lab.head = "NoSuchKeyword yes"
    done = lab.pyrelay("--known-hosts", "h1/h3")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Bad configuration option: nosuchkeyword" in done.stderr


def test_it_imports_next_to_nothing() -> None:
    program = "import sys; from relay import cli; from relay.ssh.trust import target_key; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    heavy = {"asyncio", "collections", "enum", "hashlib", "paramiko", "re", "socket", "subprocess", "typing"}
    assert not heavy & set(loaded.split())
    assert "relay.ssh.trust.target_key" in loaded.split()


def test_a_file_that_cannot_be_read_is_not_an_empty_one(chain: Lab) -> None:
    """ssh ends where its KnownHostsCommand fails: a changed key is not learned as a new one."""
    chain.host("h3", UserKnownHostsFile=chain.top)
    done = chain.pyrelay("--known-hosts", "h1/h3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"pyrelay: {chain.top} cannot be read: is a directory\n")
    done = chain.ssh("-o", "StrictHostKeyChecking=accept-new", "h1/h3", "true")
    assert done.returncode == 255
    assert "KnownHostsCommand failed" in done.stderr
