"""Tor: a real network on loopback, an onion service in front of a real sshd, and the recipe of docs/onion.md."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import echo_blocks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from desk import ONION, parts, table
from desk import blocks as readme
from lab import ROOT, Lab
from nameserver import NameServer
from peers import LOOPBACK, need, until
from tornet import Network
from traced import RESOLVER, traced

from relay.dial.proxy.handshake import EXTENDED, SOCKS5_REPLIES

pytestmark = pytest.mark.timeout(300)

UP, SHUT, NOT_THERE = 22, 24, 23  # ports of the onion service `plain`


class Bed:
    """The network and the lab that its tests share. `net.client` is found by TOR_SOCKS_PORT, with ExtendedErrors."""

    def __init__(self, net: Network, lab: Lab, names: NameServer, key: dict[str, str]) -> None:
        self.net = net
        self.lab = lab
        self.names = names
        self.key = key
        self.onion = net["plain"].onion
        block = next(text for text in readme("ssh as an onion service", ONION) if text.startswith("Host *.onion"))
        lab.head = block.replace("pyrelay", f"pyrelay -F {lab.config}")
        with lab.known_hosts.open("a") as file:
            file.writelines(f"{self.onion},{net['guarded'].onion} {key}\n" for key in lab["h1"].host_keys)
            file.writelines(f"h2 {key}\n" for key in lab["h2"].host_keys)

    def environment(self, *, extended: bool = True) -> dict[str, str]:
        port = self.net.client.extended_port if extended else self.net.client.socks_port
        return {"TOR_SOCKS_PORT": str(port)}

    def ssh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.lab.run("ssh", "-F", self.lab.config, *arguments, env=self.environment())

    def fails(self, *arguments: str, extended: bool = True) -> list[str]:
        """Run pyrelay, which has to fail; return the lines that it says."""
        ran = self.lab.run(self.lab.program, "-F", self.lab.config, *arguments, env=self.environment(extended=extended))
        assert (ran.returncode, ran.stdout) == (1, "")
        return ran.stderr.splitlines()

    def answers(self, service: str) -> bool:
        """Whether a service can be reached: the first attempts may come before all of Tor knows of it."""
        ran = self.lab.run(
            self.lab.program, "-w", "15", self.net[service].onion, str(NOT_THERE), env=self.environment()
        )
        return "connection refused, says Tor" in ran.stderr

    def words(self, code: int, *arguments: str) -> None:
        """pyrelay fails with the words and the hint of a reply code."""
        words, hint = SOCKS5_REPLIES[code]
        lines = self.fails(*arguments)
        assert lines[0].split(": ", 2)[2].startswith(f"{words}, says Tor at {LOOPBACK}:"), lines
        assert lines[1:] == [f"hint: {hint}"] * bool(hint)


def new_key() -> dict[str, str]:
    """A key for client authorization, made as docs/onion.md says."""
    with tempfile.TemporaryDirectory() as top:
        need("openssl")
        commands = next(text for text in readme("ssh as an onion service", ONION) if text.startswith("openssl"))
        done = subprocess.run(["/bin/sh", "-ec", commands], cwd=top, capture_output=True, text=True, check=True)
    public, secret = done.stdout.splitlines()
    return {"PUBLIC": public, "SECRET": secret}


def filled(start: str, **words: str) -> str:
    """A line of docs/onion.md that begins so, with words of it replaced."""
    (line,) = [
        line
        for text in readme("ssh as an onion service", ONION)
        for line in text.splitlines()
        if line.startswith(start)
    ]
    for word, value in words.items():
        line = re.sub(rf"\b{word}\b", value, line)
    return line


@pytest.fixture(scope="module")
def bed(_sshd_can_start: None) -> Iterator[Bed]:
    top = Path(tempfile.mkdtemp(prefix="pyrelay-"))
    (top / "tor").mkdir(mode=0o700)
    (top / "lab").mkdir()
    top.chmod(0o755)
    lab, names = Lab(top / "lab"), NameServer()
    key = new_key()
    try:
        lab.servers("h1", "h2")
        shut = lab.closed("shut")
        services = {
            "plain": {UP: lab["h1"].port, SHUT: shut},
            "guarded": {UP: lab["h1"].port},
            "doomed": {UP: lab["h1"].port},
        }
        clients = {"guarded": filled("descriptor:", PUBLIC=key["PUBLIC"])}
        resolv_conf = f"nameserver {LOOPBACK}:{names.port}\n"
        with Network(top / "tor", services, resolv_conf, clients) as net:
            made = Bed(net, lab, names, key)
            for service in ("plain", "doomed"):
                until(functools.partial(made.answers, service), f"connection to {service} through Tor")
            yield made
    finally:
        lab.stop()
        names.stop()
        shutil.rmtree(top)


def streams(events: list[str], state: str) -> list[dict[str, str]]:
    """What Tor has logged about streams that entered this state."""
    found = []
    for event in events:
        words = shlex.split(event)
        if words[0] == "STREAM" and words[2] == state:
            more = dict(word.split("=", 1) for word in words[5:])
            if more.get("CLIENT_PROTOCOL") == "SOCKS5":
                found.append({"circuit": words[3], "target": words[4], **more})
    return found


def test_ssh_to_an_onion_service_by_its_name_alone(bed: Bed) -> None:
    events = bed.net.client.control("STREAM", "STATUS_CLIENT")
    ran = bed.ssh(bed.onion, "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h1\n", "")
    so_far = events.so_far()
    (stream,) = streams(so_far, "NEW")
    assert stream["target"] == f"{bed.onion}:22"
    assert not [event for event in so_far if "DANGEROUS_SOCKS" in event]


def test_an_onion_service_as_the_first_hop(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ProxyCommand of its own block in ssh_config, which for most people is pyrelay, is not run for it."""
    monkeypatch.setattr(bed.lab, "head", f"Host {bed.onion}\n    ProxyCommand false\n{bed.lab.head}")
    events = bed.net.client.control("STREAM")
    ran = bed.ssh(f"{bed.onion}/h2", "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h2\n", "")
    assert [stream["target"] for stream in streams(events.so_far(), "NEW")] == [f"{bed.onion}:22"]
    assert bed.lab["h1"].forwards()[-1] == (LOOPBACK, bed.lab["h2"].port)


def test_a_name_is_looked_up_by_the_exit(bed: Bed) -> None:
    events = bed.net.client.control("STREAM", "STATUS_CLIENT")
    port = bed.lab["h2"].port
    found, text = traced(bed.lab, "--tor", "h2.test", str(port), env=bed.environment())
    assert found == {f"{bed.net.client.extended_port} {LOOPBACK}"}
    assert not RESOLVER.search(text)
    so_far = events.so_far()
    assert streams(so_far, "NEW")[0]["target"] == f"h2.test:{port}"
    assert not [event for event in so_far if "DANGEROUS_SOCKS" in event]
    assert "h2.test" in bed.names.asked


@pytest.mark.parametrize("route", ["{}", "{}/localhost"])
def test_an_onion_name_meets_no_resolver(bed: Bed, route: str) -> None:
    port = [] if route == "{}" else [str(bed.lab["h2"].port)]
    found, text = traced(bed.lab, route.format(bed.onion), *port, env=bed.environment())
    assert found == {f"{bed.net.client.extended_port} {LOOPBACK}"}
    assert not RESOLVER.search(text)
    assert not [name for name in bed.names.asked if name.endswith("onion")]


def test_tor_sees_an_address_where_one_was_given(bed: Bed) -> None:
    """Tor would have warned of a look-up in the tests above."""
    events = bed.net.client.control("STATUS_CLIENT")
    traced(bed.lab, "--tor", LOOPBACK, str(bed.lab["h2"].port), env=bed.environment())
    assert [event for event in events.so_far() if "DANGEROUS_SOCKS" in event]


def test_each_target_has_a_circuit_of_its_own(bed: Bed) -> None:
    events = bed.net.client.control("STREAM")
    for name in ("a.test", "b.test", "a.test"):
        traced(bed.lab, "--tor", name, str(bed.lab["h2"].port), env=bed.environment())
    first, second, third = streams(events.so_far(), "SUCCEEDED")
    assert first["SOCKS_USERNAME"] == second["SOCKS_USERNAME"] == third["SOCKS_USERNAME"]
    assert first["SOCKS_PASSWORD"] == third["SOCKS_PASSWORD"] != second["SOCKS_PASSWORD"]
    assert second["circuit"] not in {first["circuit"], third["circuit"]}


def unpublished() -> str:
    """An address that is well formed, and that nobody has published (rend-spec-v3, section 6)."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    check = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    return base64.b32encode(key + check + b"\x03").decode().lower() + ".onion"


def test_what_cannot_be_reached_is_told_in_words(bed: Bed) -> None:
    bed.words(0xF0, unpublished())
    bed.words(0xF4, bed.net["guarded"].onion)
    bed.words(0xF6, f"{'a' * 56}.onion")
    bed.words(0xF6, "short.onion")
    # Tor 0.4.9 may be silent about a port that the service does not have, when it is asked more than once.
    until(lambda: bed.answers("plain"), "refusal of the port")


def test_without_extended_errors_the_hint_names_the_flag(bed: Bed) -> None:
    for name, port, words in (
        (unpublished(), UP, "host unreachable"),
        (bed.net["guarded"].onion, UP, "general failure"),
        (bed.onion, SHUT, "general failure"),
    ):
        lines = bed.fails(name, str(port), extended=False)
        assert f": {words}, says Tor at " in lines[0]
        assert lines[1] == f"hint: {EXTENDED}"


def test_a_service_that_does_not_answer(bed: Bed) -> None:
    onion = bed.net["doomed"].onion
    bed.net["doomed"].vanish()  # Tor has its descriptor, since it has been asked for a wrong port
    # A Tor that has had too little processor time may answer 6 before it knows the reason.
    until(lambda: f": {SOCKS5_REPLIES[6][0]}, says Tor" not in bed.fails(onion)[0], "word on the service")
    bed.words(0xF2, onion)


def test_a_name_that_the_exit_does_not_find(bed: Bed) -> None:
    (line,) = bed.fails("--tor", "no.such.name")
    assert ": host unreachable, says Tor at " in line


def test_tor_at_a_unix_socket(bed: Bed) -> None:
    found, _ = traced(bed.lab, "-x", str(bed.net.client.socks_path), bed.onion)
    assert found == set()  # nothing but that socket


def test_tor_by_socks4a(bed: Bed) -> None:
    events = bed.net.client.control("STREAM")
    traced(bed.lab, "-X", "4a", "-x", f"{LOOPBACK}:{bed.net.client.extended_port}", bed.onion)
    (event,) = [event for event in events.so_far() if " NEW " in event and "CLIENT_PROTOCOL=SOCKS4" in event]
    assert f" {bed.onion}:22 " in event


def test_tor_asked_by_http_says_what_it_is(bed: Bed) -> None:
    line = bed.fails("-X", "connect", "-x", f"{LOOPBACK}:{bed.net.client.extended_port}", bed.onion)[0]
    assert line.endswith("refuses: 501 Tor is not an HTTP Proxy")


def test_100_mb_both_ways_at_once(bed: Bed) -> None:
    bed.lab.host("h2", HostName="h2.test", HostKeyAlias="h2", ProxyCommand="pyrelay --tor %h %p")
    client = bed.lab.start("ssh", "-F", bed.lab.config, "h2", "cat", stdin=subprocess.PIPE, env=bed.environment())
    echo_blocks(client)


# The recipe


def test_the_torrc_of_the_recipe_is_that_of_the_network(bed: Bed) -> None:
    """What the tests above have used is what docs/onion.md says, but for directories and ports."""
    for start, node, mine in (
        ("HiddenServiceDir", bed.net["guarded"], f"HiddenServiceDir {bed.net['guarded'].directory}"),
        ("HiddenServicePort", bed.net["guarded"], f"HiddenServicePort 22 {LOOPBACK}:{bed.lab['h1'].port}"),
        ("ClientOnionAuthDir", bed.net.client, f"ClientOnionAuthDir {bed.net.client.top}/auth"),
        ("SocksPort", bed.net.client, f"SocksPort {LOOPBACK}:{bed.net.client.extended_port} ExtendedErrors"),
    ):
        line = filled(start)
        line = line.replace("/var/lib/tor/ssh", str(bed.net["guarded"].directory))
        line = line.replace("/var/lib/tor/onion_auth", f"{bed.net.client.top}/auth")
        line = line.replace(f"{LOOPBACK}:22", f"{LOOPBACK}:{bed.lab['h1'].port}")
        line = line.replace(" 9050 ", f" {LOOPBACK}:{bed.net.client.extended_port} ")
        assert line == mine
        assert f"\n{line}\n" in (node.top / "torrc").read_text()


def test_client_authorization_by_the_recipe(bed: Bed) -> None:
    guarded = bed.net["guarded"].onion
    address = guarded.removesuffix(".onion")
    bed.words(0xF4, guarded)
    bed.net.client.authorize("alice", filled("ADDRESS:", ADDRESS=address, SECRET=new_key()["SECRET"]))
    bed.words(0xF5, guarded)
    bed.net.client.authorize("alice", filled("ADDRESS:", ADDRESS=address, SECRET=bed.key["SECRET"]))
    ran = bed.ssh(guarded, "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h1\n", "")


def test_the_readmes_line_for_tor(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = [row for row in table("through a proxy") if row[0] == "Tor"]
    config, (command,) = parts(row[2].replace("h3", "h2"))
    monkeypatch.setattr(bed.lab, "head", "\n".join([*config, "HostName h2.test", "HostKeyAlias h2"]))
    events = bed.net.client.control("STREAM")
    ran = bed.ssh(*command.split()[1:], "echo $SERVER")
    assert (ran.stdout, ran.stderr) == ("h2\n", "")
    assert [stream["target"] for stream in streams(events.so_far(), "NEW")] == [f"h2.test:{bed.lab['h2'].port}"]


def test_the_manual_has_the_same_recipe() -> None:
    page = (ROOT / "man" / "pyrelay.1").read_text()
    words = ("HiddenServiceDir", "HiddenServicePort", "descriptor:", "ADDRESS:", "ClientOnionAuthDir", "SocksPort")
    for start in words:
        assert f"\n{filled(start)}\n" in page.replace("\n.Dl ", "\n")
