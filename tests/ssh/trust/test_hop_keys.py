"""Hops' host keys in the whole program, under the real ssh."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from peers import missing

from relay.ssh.trust import known_hosts

if TYPE_CHECKING:
    from lab import Lab


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """h1, h2 and h3, known to the clients."""
    lab.servers("h1", "h2", "h3")
    return lab


def replace_key(lab: Lab, name: str, line: str) -> None:
    """Put a line in the place of what known_hosts has for a hop; {host} is its name there, {key} its key."""
    host, key = f"[127.0.0.1]:{lab[name].port}", lab[name].host_keys[0]
    kept = [each for each in lab.known_hosts.read_text().splitlines() if not each.startswith(f"{host},")]
    kept += [f"*/{name},*+{name} {key}", line.format(host=host, key=key)]
    lab.known_hosts.write_text("\n".join(kept) + "\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no host key is known for {host}, and StrictHostKeyChecking is yes; it shows ED25519 SHA256:"),
        (
            "{host} {other}",
            "REMOTE HOST IDENTIFICATION HAS CHANGED: the host key of {host} is not the known one\n  it shows: ",
        ),
        ("{host} {key}\n@revoked * {key}", "REVOKED HOST KEY: the ED25519 host key of {host}, SHA256:"),
    ],
)
def test_a_hop_that_is_not_trusted_is_named_and_not_logged_in_to(chain: Lab, line: str, words: str) -> None:
    other = f"{chain.keygen('other')}.pub"
    with open(other) as file:
        replace_key(chain, "h2", line.replace("{other}", file.read().strip()))
    before = chain.known_hosts.read_bytes()
    done = chain.ssh("h1/h2/h3", "echo $SERVER")
    assert (done.returncode, done.stdout) == (255, "")
    assert "pyrelay: hop 2 of 2 (h2): " + words.format(host=f"[127.0.0.1]:{chain['h2'].port}") in done.stderr
    assert "\nhint: " in done.stderr
    assert chain["h2"].logins() == []
    assert chain.known_hosts.read_bytes() == before


def test_a_key_of_a_type_that_ssh_alone_may_have(chain: Lab) -> None:
    """It may be the one that the hop has, and then the one that is shown is a changed one: ssh decides."""
    replace_key(chain, "h2", "{host} ssh-mldsa44-ed25519 AAAA")
    before = chain.known_hosts.read_bytes()
    done = chain.pyrelay("-v", "-o", "StrictHostKeyChecking=yes", "h1/h2/h3")
    assert done.returncode == 1
    why = "a key of it is known of the type ssh-mldsa44-ed25519, which our client lacks"
    assert f"pyrelay: hop 2 of 2 (h2): by ssh: {why}\n" in done.stderr
    assert "Host key verification failed." in done.stderr
    assert chain["h2"].logins() == []
    assert chain.known_hosts.read_bytes() == before


def test_a_key_of_such_a_type_that_only_a_command_knows(chain: Lab) -> None:
    replace_key(chain, "h2", "")
    command = chain.top / "knows"
    command.write_text(f"#!/bin/sh\necho '[127.0.0.1]:{chain['h2'].port} ssh-mldsa44-ed25519 AAAA'\n")
    command.chmod(0o755)
    chain.host("h2", KnownHostsCommand=command, StrictHostKeyChecking="accept-new")
    before = chain.known_hosts.read_bytes()
    done = chain.pyrelay("-v", "h1/h2/h3")
    assert "by ssh: a key of it is known of the type ssh-mldsa44-ed25519, which our client lacks\n" in done.stderr
    # (To ssh 9.2, which does not know the type either, the key is a new one.)
    assert done.returncode == 0 or chain.known_hosts.read_bytes() == before


@pytest.mark.parametrize("alias", ["[gw]:2222", "gw@site", "gw,10.0.0.1"])
def test_an_alias_that_only_ssh_writes_down(chain: Lab, alias: str) -> None:
    chain.host("h2", HostKeyAlias=alias, StrictHostKeyChecking="accept-new")
    done = chain.ssh("h1/h2/h3", "echo $SERVER")
    assert done.stdout == "h3\n"
    assert f"Permanently added '{alias}' (ED25519) to the list of known hosts." in done.stderr
    assert any(line.startswith(f"{alias} ") for line in chain.known_hosts.read_text().splitlines())


def test_a_chain_behind_certificates(lab: Lab) -> None:
    """Hops that are known by their CA alone; the target's session is ssh's own."""
    lab.keygen("ca")
    for name in ("h1", "h2", "h3"):
        lab.server(name, extra=f"HostCertificate {lab.top}/{name}/ed25519-cert.pub")
        key = lab.top / name / "ed25519.pub"
        subprocess.run(["ssh-keygen", "-q", "-s", lab.top / "ca", "-h", "-I", name, "-n", name, key], check=True)
        lab.host(name, HostKeyAlias=name)
    ca = (lab.top / "ca.pub").read_text()
    target = lab["h3"].host_keys[0]
    lab.known_hosts.write_text(f"@cert-authority h1,h2 {ca}h1/h2/h3 {target}\n")
    done = lab.ssh("h1/h2/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")
    lab.known_hosts.write_text(f"@cert-authority h1 {ca}h1/h2/h3 {target}\n")
    assert "hop 2 of 2 (h2): no host key is known for h2, " in lab.ssh("h1/h2/h3").stderr


def test_a_certificate_by_a_key_of_a_type_that_ssh_alone_has(lab: Lab) -> None:
    for kind in ("dsa", "mldsa44-ed25519"):  # ssh-keygen has the first up to 9.9, the second from 10.6 on
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", lab.top / "ca"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            break
    else:
        missing("this ssh-keygen makes keys of no type that our client lacks")
    lab.server("h1", extra=f"HostCertificate {lab.top}/h1/ed25519-cert.pub", HostKeyAlias="h1")
    key = lab.top / "h1" / "ed25519.pub"
    subprocess.run(["ssh-keygen", "-q", "-s", lab.top / "ca", "-h", "-I", "h1", "-n", "h1", key], check=True)
    lab.server("h2")
    lab.host("h1", CASignatureAlgorithms=f"+{(lab.top / 'ca.pub').read_text().split()[0]}")
    lab.known_hosts.write_text(f"@cert-authority h1 {(lab.top / 'ca.pub').read_text()}h1/h2 {lab['h2'].host_keys[0]}\n")
    done = lab.ssh("h1/h2", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h2\n", "")


def test_a_key_that_only_a_known_hosts_command_knows(chain: Lab) -> None:
    replace_key(chain, "h1", "")
    chain.host("h1", KnownHostsCommand=f"/bin/echo %H {chain['h1'].host_keys[0]}")
    before = chain.known_hosts.read_bytes()
    done = chain.ssh("h1/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")
    assert chain.known_hosts.read_bytes() == before


def test_what_a_known_hosts_command_says_is_shown(chain: Lab) -> None:
    """ssh gives it its own stderr. It runs more than once for each hop."""
    command = chain.top / "command"
    command.write_text(f'#!/bin/sh\nprintf "looked\\033 up\\n" >&2\necho $1 {chain["h1"].host_keys[0]}\n')
    command.chmod(0o755)
    chain.host("h1", KnownHostsCommand=f"{command} %H")
    done = chain.ssh("h1/h3", "echo $SERVER")
    words = "pyrelay: hop 1 of 1 (h1): KnownHostsCommand: looked up\n"
    assert (done.stdout, done.stderr) == ("h3\n", words)


def test_a_hop_asks_pyrelay_for_its_keys_and_nothing_goes_round_in_circles(chain: Lab) -> None:
    """KnownHostsCommand under `Host *` bears on the hops, too."""
    chain.head = f"Host *\n    KnownHostsCommand {chain.top}/bin/pyrelay -F {chain.config} --known-hosts %H"
    done = chain.ssh("h1/h2/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")


def test_both_hops_are_asked_about_through_askpass(chain: Lab) -> None:
    for name in ("h1", "h2"):
        replace_key(chain, name, "")
        chain.host(name, StrictHostKeyChecking="ask", BatchMode="no")
    askpass = chain.top / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$1" >> {chain.top}/asked\necho yes\n')
    askpass.chmod(0o755)
    env = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    done = chain.run("ssh", "-F", chain.config, "h1/h2/h3", "echo $SERVER", env=env)
    hosts = [f"[127.0.0.1]:{chain[name].port}" for name in ("h1", "h2")]
    assert done.stdout == "h3\n"
    added = "hop {0} of 2 (h{0}): Warning: Permanently added '{1}' (ED25519) to the list of known hosts."
    assert done.stderr.splitlines() == ["pyrelay: " + added.format(*each) for each in enumerate(hosts, 1)]
    asked = (chain.top / "asked").read_text().splitlines()
    question = "pyrelay: hop {0} of 2 (h{0}): The authenticity of host '{1} ({2})' can't be established."
    assert [line for line in asked if "authenticity" in line] == [
        question.format(1, hosts[0], hosts[0]),
        question.format(2, hosts[1], "<no hostip for proxy command>"),
    ]
    assert chain.ssh("h1/h2/h3", "echo $SERVER").stderr == ""


def test_twenty_learn_at_once(lab: Lab) -> None:
    names = [f"h{number}" for number in range(20)]
    lab.servers(*names)
    target = lab.silent("target", b"SSH-2.0-nobody\r\n")
    for number, name in enumerate(names):
        lab.host(name, StrictHostKeyChecking="accept-new", HashKnownHosts="yes" if number % 2 else "no")
    lab.known_hosts.write_text(f"first {lab['h0'].host_keys[0]}")  # without its new-line
    config = lab.top / "config-of-all"  # each start writes the lab's own anew
    config.write_bytes(lab.write_config().read_bytes())
    running = [lab.start(lab.top / "bin/pyrelay", "-F", config, f"{name}+127.0.0.1:{target.port}") for name in names]
    for name, process in zip(names, running, strict=True):
        assert process.stdout is not None
        assert process.stdout.readline() == b"SSH-2.0-nobody\r\n", process.communicate()
        process.kill()
        _, said = process.communicate()
        host = f"[127.0.0.1]:{lab[name].port}"
        added = f"Warning: Permanently added '{host}' (ED25519) to the list of known hosts."
        assert said.decode() == f"pyrelay: hop 1 of 1 ({name}): {added}\n"
    data = lab.known_hosts.read_bytes()
    assert [line.error for line in known_hosts.lines(data)] == [""] * 21
    assert data.count(b"\n") == 21
    for name in names:
        found = subprocess.run(
            ["ssh-keygen", "-F", f"[127.0.0.1]:{lab[name].port}", "-f", lab.known_hosts],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert lab[name].host_keys[0].split()[1] in found


@pytest.mark.parametrize(
    "algorithms",
    [
        "",
        "+ssh-rsa",
        "-*nistp*",
        "ssh-ed25519",
        "ssh-ed25519,rsa-sha2-512",
        "rsa-sha2-512,ssh-ed25519",
        "^rsa-sha2-512",
    ],
)
def test_a_known_hosts_command_runs_for_the_order_where_ssh_runs_it(lab: Lab, algorithms: str) -> None:
    """That is with %t=NONE, before the server has shown its key."""
    lab.servers("h1", "h3")
    log = lab.top / "log"
    script = lab.top / "command"
    script.write_text(f"#!/bin/sh\necho $* >>{log}\n")
    script.chmod(0o755)
    lab.host("h1", KnownHostsCommand=f"{script} %I %t")
    if algorithms:
        lab.host("h1", HostKeyAlgorithms=algorithms)
    ran = []
    for client, words in ((lab.ssh, ("h1", "true")), (lab.pyrelay, ("h1/h3",))):
        assert client(*words).returncode == 0
        ran.append("ORDER NONE" in log.read_text())
        assert "HOSTNAME ssh-ed25519" in log.read_text()
        log.unlink()
    assert ran == [algorithms in ("", "+ssh-rsa", "-*nistp*")] * 2
