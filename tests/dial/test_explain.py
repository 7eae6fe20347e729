"""`pyrelay --explain`: a test for each column, with the real ssh -G, agents and known_hosts files."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest
import trusting
from agents import RealAgent, ScriptedAgent, SecurityKey, certify
from desk import blocks
from explained import HOST_KEY, explained, text
from lab import ROOT, Lab
from masters import start_master
from peers import need

from relay.ssh.memory import Memory, Shown
from relay.ssh.pubkey import read_key

TABLE = ROOT / "docs" / "ssh_config.md"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILsTwHq8xUDUiEqBj1e5YdWOFWbVLiJYGPNF1hrv7HWc"
HERE = {"NoHostAuthenticationForLocalhost": "yes"}
RSA = {"HostKeyAlgorithms": "rsa-sha2-512"}
CERTIFICATES = {"HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com"}
CA = "@cert-authority {host} {ca}\n"
ASKS = {"StrictHostKeyChecking": "ask", "BatchMode": "no"}


def rows(printed: str) -> list[list[str]]:
    """The cells of the columns; the first row has their names."""
    return [re.split("  +", line) for line in printed.split("\n\n", maxsplit=1)[0].splitlines()]


# The columns


def test_the_columns_stand_below_each_other(plan: Lab) -> None:
    printed = text(plan, "h1/h2/h3")
    lines = printed.split("\n\n")[0].splitlines()
    assert rows(printed)[0] == ["PLACE", "WHERE (LOOKED UP BY)", "CARRIED BY", "KEYS OFFERED", "HOST KEY"]
    assert [row[0] for row in rows(printed)[1:]] == ["hop 1 of 2 (h1)", "hop 2 of 2 (h2)", "target (h3)"]
    for name in rows(printed)[0][1:]:
        at = lines[0].index(name)
        assert all(line[at - 2 : at] == "  " and line[at] != " " for line in lines)
    assert printed.endswith("\nit could be dialled\n")


@pytest.mark.parametrize(
    ("words", "host", "looked_up"),
    [
        (["h1/h3"], "127.0.0.1", "an address"),
        (["h2/h3"], "h2.example", "this machine"),
        (["--proxy", "socks5h://127.0.0.1:9", "h2/h3"], "h2.example", "the proxy"),
        (["--tor", "h2/h3"], "h2.example", "Tor's exit"),
        (["x.onion/h3"], "x.onion", "Tor, an onion service"),
        (["[2001:db8::1]:2200/h3"], "2001:db8::1", "an address"),
        (["behind/h3"], "behind.example", "its ProxyCommand"),
    ],
)
def test_where_and_who_looks_the_name_up(plan: Lab, words: list[str], host: str, looked_up: str) -> None:
    plan.host("behind", HostName="behind.example", ProxyCommand="false")
    plan.known_hosts.write_text(f"* {HOST_KEY}\n")
    first, target = explained(plan, *words)["legs"]
    assert (first["host"], first["looked_up_by"]) == (host, looked_up)
    hop = re.sub(r"[\[\]]|:2200", "", words[-1].rpartition("/")[0])
    assert (target["host"], target["port"], target["looked_up_by"]) == ("h3.example", 22, hop)


def test_as_whom_and_at_which_port(plan: Lab) -> None:
    printed = text(plan, "-l", "me", "u9@h1+h2~2299+h3", "2222", status=1)  # h2 has no known key at that port
    assert [row[1] for row in rows(printed)[1:]] == [
        "me@127.0.0.1:2201 (an address)",
        "me@h2.example:2299 (h1)",
        "u9@h3.example:2222 (h2)",
    ]


@pytest.mark.parametrize(
    ("words", "carried"),
    [
        (["h1/h3"], "TCP; our own client"),
        (["--engine", "ssh", "h1/h3"], "TCP; ssh (--engine ssh)"),
        (["--proxy", "http://127.0.0.1:9", "h1/h3"], "a proxy (the HTTP proxy 127.0.0.1:9); our own client"),
        (["--tor", "h1/h3"], "Tor (--tor); our own client"),
        (["x.onion/h3"], "Tor (a .onion name); our own client"),
        (["behind/h3"], "its ProxyCommand; our own client"),
        (["odd/h3"], "TCP; ssh (our client has none of the macs that ssh_config asks for)"),
    ],
)
def test_what_carries_a_leg_and_why(plan: Lab, words: list[str], carried: str) -> None:
    plan.host("behind", ProxyCommand="false")
    plan.host("odd", MACs="umac-64-etm@openssh.com")
    plan.known_hosts.write_text(f"* {HOST_KEY}\n")
    first, target = rows(text(plan, *words))[1:]
    assert first[2] == carried
    assert target[2] == "the hop before; ssh itself"


def test_the_hops_of_a_proxy_jump_stand_before(plan: Lab) -> None:
    plan.host("h2", ProxyJump="h1")
    found = explained(plan, "h2/h3")
    assert [leg["place"] for leg in found["legs"]] == ["hop 1 of 2 (h1)", "hop 2 of 2 (h2)", "target (h3)"]
    assert found["notes"] == []


def test_the_keys_and_what_signs(plan: Lab) -> None:
    """The agent's, a file's, and an encrypted file's."""
    secret = plan.keygen("secret")
    subprocess.run([need("ssh-keygen"), "-q", "-p", "-N", "x", "-P", "", "-f", secret], check=True)
    held = plan.keygen("held")
    agent = RealAgent(plan)
    agent.add(held)
    plan.host("h1", IdentityAgent=agent.path, IdentitiesOnly="no", IdentityFile=secret)
    keys = {key["name"]: key for key in explained(plan, "h1/h3")["legs"][0]["keys"]}
    assert {name: key["signer"] for name, key in keys.items()} == {
        "held": "the agent",
        str(secret): "its file, with a passphrase",
        str(plan.identity): "its file",
    }
    fingerprint = plan.run("ssh-keygen", "-lf", f"{held}.pub").stdout.split()[1]
    assert keys["held"]["key"] == f"ED25519 {fingerprint}"
    assert f"held (the agent), {secret} (its file, with a passphrase)" in text(plan, "h1/h3")
    note = f"hop 1 of 1 (h1): {secret} cannot be used: nobody may be asked for its passphrase (BatchMode yes)"
    assert explained(plan, "h1/h3")["notes"] == [note]
    plan.host("h1", BatchMode="no")
    assert explained(plan, "h1/h3")["notes"] == []


def test_a_certificate_and_a_security_key(plan: Lab) -> None:
    token = SecurityKey()
    (plan.top / "token.pub").write_text(token.line)
    (plan.top / "token").write_text("not a key")
    certificate = certify(plan, plan.keygen("ca"), plan.identity)
    plan.host("h1", IdentityFile=plan.top / "token")
    first = explained(plan, "h1/h3")["legs"][0]
    assert [key["key"].split()[0] for key in first["keys"]] == ["ED25519", "ED25519-CERT"]
    assert certificate.exists()


@pytest.mark.parametrize("answers", [True, False])
def test_an_agent_that_does_not_list_its_keys(plan: Lab, answers: bool) -> None:
    agent = ScriptedAgent(plan.top / "agent", lambda _: b"\x05" if answers else None)
    plan.at_end(agent.stop)
    plan.head = f"IdentityAgent {agent.path}"
    notes = explained(plan, "h1/h2/h3")["notes"]
    said = "it does not list its keys" if answers else "it does not answer within 1 second"
    assert [note for note in notes if "agent" in note] == [
        f"{place}: the agent cannot be used: {agent.path}: {said}"
        for place in ("hop 1 of 2 (h1)", "hop 2 of 2 (h2)", "target (h3)")
    ]


def test_no_key_may_be_offered(plan: Lab) -> None:
    plan.host("h1", PubkeyAuthentication="no")
    plan.host("h2", PreferredAuthentications="password")
    plan.host("h3", PubkeyAcceptedAlgorithms="ssh-rsa")
    found = explained(plan, "h1/h2/h3+h3", status=1)
    assert [leg["keys"] for leg in found["legs"][:3]] == [[], [], []]
    nobody = "no method of login is left that asks nobody (BatchMode yes)"
    assert found["notes"][:5] == [
        "hop 1 of 3 (h1): no key is offered: PubkeyAuthentication no",
        f"hop 1 of 3 (h1): {nobody}",
        "hop 2 of 3 (h2): no key is offered: PreferredAuthentications password",
        f"hop 2 of 3 (h2): {nobody}",
        f"hop 3 of 3 (h3): {plan.identity} is not offered: PubkeyAcceptedAlgorithms leaves no signature for it",
    ]
    plan.host("h1", PreferredAuthentications="none", BatchMode="no")
    assert explained(plan, "h1/h3")["notes"][1] == "hop 1 of 1 (h1): no method of login is left"
    plan.host("h1", PreferredAuthentications="password")
    assert len(explained(plan, "h1/h3")["notes"]) == 1


@pytest.mark.parametrize(
    ("lines", "settings", "state", "then"),
    [
        ("{key}", {}, "known", ""),
        ("* {key}", {}, "known", ""),
        ("127.0.0.1 {key}", {}, "known", ""),  # known without a port counts for every port
        ("@cert-authority {host} {key}", {}, "certified", ""),
        ("", ASKS, "new", "you are asked"),
        ("", {"StrictHostKeyChecking": "accept-new"}, "new", "it is accepted, and added to {file}"),
        ("", {**ASKS, "BatchMode": "yes"}, "new", "it is refused: nobody may be asked (BatchMode yes)"),
        ("", {}, "new", "it is refused: StrictHostKeyChecking is yes"),
        ("@revoked * {key}", ASKS, "revoked", "another: you are asked"),
        ("{key}\n@revoked * {key}", ASKS, "revoked", "it is refused"),
    ],
)
def test_what_is_known_of_a_host_key(plan: Lab, lines: str, settings: dict[str, object], state: str, then: str) -> None:
    host = "[127.0.0.1]:2201"
    lines = f"{host} {lines}" if lines.startswith("{key}") else lines
    plan.known_hosts.write_text(lines.format(key=HOST_KEY, host=host) + "\n")
    plan.host("h1", **settings)
    found = explained(plan, "h1/h3", status=int("it is refused" in then))
    known = found["legs"][0]["host_key"]
    assert (known["state"], known["then"]) == (state, then.format(file=plan.known_hosts))
    assert known["name"] == host


def test_by_which_file_and_line(plan: Lab) -> None:
    revoked = plan.top / "revoked"
    revoked.write_text(f"{OTHER_KEY}\n")
    with plan.known_hosts.open("a") as file:
        file.write(f"# a comment\n*.example,[h2.example]:2202 {OTHER_KEY}\n")
    plan.host("h2", RevokedHostKeys=revoked)
    first, second, _ = rows(text(plan, "h1/h2/h3"))[1:]
    assert first[4] == f"known: ED25519 ({plan.known_hosts}:1)"
    assert second[4] == f"known: ED25519 ({plan.known_hosts}:1); revoked: ED25519 ({revoked})"
    known, other = explained(plan, "h1/h2/h3")["legs"][1]["host_key"]["keys"]
    assert (known["by"], other["state"]) == (f"{plan.known_hosts}:1", "revoked")
    assert known["fingerprint"] in plan.run("ssh-keygen", "-lf", plan.known_hosts).stdout


def test_a_known_key_that_hostkeyalgorithms_leaves_out(plan: Lab) -> None:
    """The host has to show another one then, and has changed."""
    plan.host("h1", HostKeyAlgorithms="rsa-sha2-512")
    found = explained(plan, "h1/h3", status=1)
    left_out = "HostKeyAlgorithms leaves it out, and any other is refused"
    assert found["error"] == f"hop 1 of 1 (h1): its host key: {left_out}"
    plan.host("h1", HostKeyAlgorithms="rsa-sha2-512,ssh-ed25519")
    assert explained(plan, "h1/h3")["legs"][0]["host_key"]["then"] == ""


def test_a_known_key_that_is_too_short(plan: Lab) -> None:
    public = plan.keygen("short", "rsa").with_suffix(".pub").read_text()
    plan.known_hosts.write_text(f"[127.0.0.1]:2201 {public}")
    plan.host("h1", RequiredRSASize="4096")
    found = explained(plan, "h1/h3", status=1)
    too_short = "the server's RSA host key has 3072 bits; RequiredRSASize is 4096"
    assert found["error"] == f"hop 1 of 1 (h1): its host key: {too_short}"
    plan.known_hosts.write_text(f"[127.0.0.1]:2201 {public}[127.0.0.1]:2201 {HOST_KEY}\n")
    assert explained(plan, "h1/h3")["legs"][0]["host_key"]["then"] == ""


@pytest.mark.parametrize(
    ("settings", "then", "status"),
    [
        ({"UserKnownHostsFile": "none"}, "it is refused: there is no UserKnownHostsFile to write it to", 1),
        ({"HostName": "h#1"}, "it is refused: a name like this one cannot be written to known_hosts", 1),
        (
            {"HostKeyAlias": "gw*"},
            "ssh decides: its HostKeyAlias has characters that only ssh writes to known_hosts",
            0,
        ),
    ],
)
def test_a_new_key_that_cannot_be_written_down(plan: Lab, settings: dict[str, object], then: str, status: int) -> None:
    plan.known_hosts.write_text("")
    plan.host("h1", StrictHostKeyChecking="accept-new", **settings)
    assert explained(plan, "h1/h3", status=status)["legs"][0]["host_key"]["then"] == then


def test_a_revocation_list_is_read(plan: Lab) -> None:
    key, revoked = plan.top / "key.pub", plan.top / "krl"
    key.write_text(f"{HOST_KEY}\n")
    subprocess.run([need("ssh-keygen"), "-q", "-k", "-f", revoked, key], check=True)
    plan.host("h1", RevokedHostKeys=revoked)
    found = explained(plan, "h1/h3", status=1)
    assert found["legs"][0]["host_key"]["keys"][0]["by"] == str(revoked)
    assert found["error"] == "hop 1 of 1 (h1): its host key: it is refused"


@pytest.mark.parametrize(
    ("lines", "settings", "said", "run"),
    [
        ("", {"RevokedHostKeys": "/nonexistent"}, "RevokedHostKeys /nonexistent: No such file", "No such file"),
        ("", {"RevokedHostKeys": "{top}/broken"}, "broken: ssh-keygen cannot read it", "ssh-keygen cannot read it"),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/h1/ed25519.pub", **HERE}, "it is refused", trusting.REVOKED),
        ("{host} {rsa}\n", {"RequiredRSASize": "4096", **HERE, **RSA}, "has 3072 bits", "has 3072 bits"),
        (CA, {"HostKeyAlgorithms": "ssh-ed25519"}, "HostKeyAlgorithms leaves no certificate: it is", trusting.UNKNOWN),
        (CA, {"CASignatureAlgorithms": "rsa-sha2-512"}, "leaves out its CA's, ssh-ed25519: it is", trusting.UNKNOWN),
        ("", CERTIFICATES, "HostKeyAlgorithms leaves certificates only", "not permitted by HostKeyAlgorithms"),
        ("", {"RevokedHostKeys": "{top}/other.pub", **HERE}, "", ""),
        ("{host} {key}\n@revoked * {key}\n", HERE, "", ""),
        (CA, {"HostKeyAlgorithms": f"{CERTIFICATES['HostKeyAlgorithms']},ssh-rsa"}, "", ""),
    ],
)
def test_a_run_refuses_the_same_host_keys(lab: Lab, lines: str, settings: dict[str, str], said: str, run: str) -> None:
    trusting.server(lab, "ed25519", "rsa")
    trusting.certify(lab)
    lab["h1"].configure(f"HostCertificate {lab.top}/h1/ed25519-cert.pub\n")
    lab.server("h3")
    trusting.write(lab, lines)
    (lab.top / "broken").write_bytes(b"SSHKRL\n\0 and what is none")
    new = "accept-new" if "RevokedHostKeys" in settings or settings is CERTIFICATES else "yes"
    lab.host("h1", StrictHostKeyChecking=new, **{key: value.format(top=lab.top) for key, value in settings.items()})
    found = explained(lab, "h1/h3", status=int(bool(said)))
    assert said in (found["error"] or "")
    done = lab.pyrelay("h1/h3")
    assert (run in done.stderr, done.returncode == 0) == (True, not run), done.stderr


def test_what_only_ssh_can_read_of_a_host_key(plan: Lab) -> None:
    """A key of a type that our client lacks, and a line of a revocation list: a run leaves the hop to ssh."""
    dss = "ssh-dss AAAAB3NzaC1kc3M="
    plan.known_hosts.write_text(f"[127.0.0.1]:2201 {dss}\n[h2.example]:2202 {HOST_KEY}\n")
    (plan.top / "revoked").write_text(f"{dss}\n")
    plan.host("h2", RevokedHostKeys=plan.top / "revoked")
    first, second, _ = (leg["host_key"] for leg in explained(plan, "h1/h2/h3")["legs"])
    assert (first["state"], first["then"]) == ("not checked", "one of the type ssh-dss is known, which only ssh has")
    assert (second["state"], second["then"].endswith(":1: unknown type 'ssh-dss': for ssh to read")) == (
        "not checked",
        True,
    )


def test_a_known_hosts_command_is_not_run(plan: Lab) -> None:
    plan.known_hosts.write_text("")
    plan.host("h1", KnownHostsCommand=f"/bin/touch {plan.top}/ran")
    known = explained(plan, "h1/h3")["legs"][0]["host_key"]
    assert known["then"] == "unless KnownHostsCommand knows it, it is refused: StrictHostKeyChecking is yes"
    assert not (plan.top / "ran").exists()


def test_the_targets_key_is_looked_up_as_ssh_does_it(plan: Lab) -> None:
    """Under the whole route; under HostKeyAlias; by our own KnownHostsCommand, under the target's own name."""
    assert explained(plan, "h1/h3")["legs"][1]["host_key"]["name"] == "h1/h3"
    assert explained(plan, "h1/h3", "2200")["legs"][1]["host_key"]["name"] == "[h1/h3]:2200"
    plan.known_hosts.write_text(f"[127.0.0.1]:2201,h3.example {HOST_KEY}\n")
    assert explained(plan, "h1/h3")["legs"][1]["host_key"]["state"] == "new"
    plan.head = f"Host */*\n    KnownHostsCommand {plan.program} --known-hosts=%H %n %p"
    found = explained(plan, "h1/h3")["legs"][1]["host_key"]
    assert (found["state"], found["name"]) == ("known", "h3.example")


def test_a_master_is_named_and_not_asked(plan: Lab) -> None:
    plan.server("h4")
    path = plan.top / "master"
    plan.host("h4", ControlPath=path)
    plan.write_config()
    start_master(plan, "h4", path)
    first = rows(text(plan, "h4/h3"))[1]
    assert first[2:] == [f"a ControlMaster ({path})", "none", "not checked: the master has checked it"]


def test_nobody_looks_a_masters_hop_up(plan: Lab) -> None:
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(plan.top / "master"))
        master.listen()
        plan.host("h2", ControlPath=plan.top / "master")
        assert rows(text(plan, "h2/h3"))[1][1].endswith("@h2.example:2202 (nobody)")


def test_shared_hops_are_not_asked_for(plan: Lab) -> None:
    plan.options = ["--share", "1m"]
    assert explained(plan, *plan.options, "h1/h3")["notes"] == [
        "--share: a hop that pyrelay -O list shows is logged in to already"
    ]


def test_a_socket_without_a_master_is_none(plan: Lab) -> None:
    path = plan.top / "left"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        plan.host("h1", ControlPath=path)
        # Without /proc nothing but a connection would tell, and nothing is dialled.
        by = "a ControlMaster" if plan.elsewhere else "our own client (paramiko)"
        assert explained(plan, "h1/h3")["legs"][0]["entered"]["by"] == by


def test_what_is_remembered_of_a_hop(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3")
    assert "hop 1 of 2 (h1): nothing is remembered of it\n" in text(lab, "h1/h2/h3")
    assert lab.ssh("h1/h2/h3", "true").returncode == 0
    printed = text(lab, "h1/h2/h3")
    for place in ("hop 1 of 2 (h1)", "hop 2 of 2 (h2)"):
        assert f"{place}: remembered: SSH-2.0-OpenSSH_" in printed
    assert printed.count(f"publickey with {lab.identity} (ssh-ed25519) logged in") == 2
    memory = explained(lab, "h1/h2/h3")["legs"][1]["memory"]
    assert memory["method"] == "publickey"
    assert memory["used"][:2] == "20"
    assert set(memory) == set(Shown.__annotations__)
    assert explained(lab, "h2/h3")["legs"][0]["memory"] is None  # another way to h2
    assert explained(lab, "--memory", "none", "h1/h3")["legs"][0]["memory"] is None


def test_real_hops_are_entered_as_the_plan_says(lab: Lab) -> None:
    """By what carries them, with the key that is first, and with the host key that is known."""
    lab.servers("h1", "h2", "h3")
    lab.host("h2", MACs="umac-64-etm@openssh.com")
    found = explained(lab, "h1/h2/h3")
    said = lab.pyrelay("-v", "h1/h2/h3").stderr
    for leg in found["legs"][:-1]:
        by = f"{leg['entered']['by']}: {leg['entered']['why']}" if leg["entered"]["why"] else leg["entered"]["by"]
        assert f"pyrelay: {leg['place']}: by {by}\n" in said
        (known,) = leg["host_key"]["keys"]
        host_key = lab[leg["place"][-3:-1]].host_keys[0]
        assert known["fingerprint"] == read_key(*host_key.encode().split()[:2]).fingerprint()
    first = found["legs"][0]
    assert f"host key: {first['host_key']['keys'][0]['key']} {first['host_key']['keys'][0]['fingerprint']}" in said
    assert f"trying {first['keys'][0]['key']} {first['keys'][0]['name']}\n" in said


# The README


def test_the_readme_shows_what_is_printed(lab: Lab) -> None:
    """But for the columns' width, the lab's files and the day."""
    shown = next(block for block in blocks("When it fails") if block.startswith("$ pyrelay --explain "))
    command, _, output = shown.partition("\n")
    lab.head = f"{blocks('Use')[0]}\nHost */*\n    User me\n    StrictHostKeyChecking ask\n    BatchMode no"
    files = {"~/.ssh/known_hosts": str(lab.known_hosts), "~/.ssh/id_ed25519": str(lab.identity)}
    lab.host("h1", HostName="192.0.2.1", User="u1", ForwardAgent="yes")
    lab.host("h2", HostName="h2", Port=2022, User="me", **ASKS)
    lab.known_hosts.write_text(f"# hosts\n\n192.0.2.1 {HOST_KEY}\n")
    remembered = next(line for line in output.splitlines() if "remembered: " in line).partition("remembered: ")[2]
    ident, _, algorithms, _ = remembered.split("; ")
    kex, host_key = algorithms.split()[-3::2]
    public = Path(f"{lab.identity}.pub").read_bytes().split()
    Memory(str(lab.home / ".local/state/pyrelay/hops"), "by TCP").keep(
        ("u1", "192.0.2.1", "22", ""),
        Shown(
            ident=ident,
            method="publickey",
            key=read_key(*public[:2]).fingerprint(),
            algorithm="ssh-ed25519",
            kex=kex,
            host_key=host_key,
        ),
    )
    printed = text(lab, *command.split()[3:])
    for short, real in files.items():
        printed = printed.replace(real, short)
    printed = re.sub(r"\d{4}-\d\d-\d\d", "2026-11-28", printed)
    assert [re.split("  +", line) for line in printed.splitlines()] == [
        re.split("  +", line) for line in output.splitlines()
    ]


# Whether it could be dialled


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["h1++h3"], "it could not be dialled: hop 2 of 2: the name is empty\n"),
        (["h1/x.onion"], "it could not be dialled: target (x.onion): a hop cannot be asked for a .onion name: "),
        (["h1/h9/h3"], "it could not be dialled: hop 2 of 2 (h9): its host key: it is refused: StrictHostKey"),
    ],
)
def test_what_could_not_be_dialled(plan: Lab, words: list[str], said: str) -> None:
    plan.host("h1", ForwardAgent="no")
    assert said in text(plan, *words, status=1)


def test_a_known_hosts_file_that_cannot_be_read(plan: Lab) -> None:
    plan.host("h2", UserKnownHostsFile=plan.top)
    assert "it could not be dialled: hop 2 of 2 (h2): " in text(plan, "h1/h2/h3", status=1)


def test_a_bad_line_is_named(plan: Lab) -> None:
    with plan.known_hosts.open("a") as file:
        file.write("* not-a-key\n")
    done = plan.pyrelay("--explain", "h1/h3")
    assert f"hop 1 of 1 (h1): {plan.known_hosts}:2: bad line skipped: no key\n" in done.stderr
    assert done.returncode == 0


def test_json_is_for_explain(plan: Lab) -> None:
    assert plan.pyrelay("--json", "h1/h3").stderr == "pyrelay: --json: this is for --explain and --check\n"


# Nothing is dialled


@pytest.mark.parametrize(
    "words", [["h1/h2/h3"], ["h2.example"], ["--tor", "x.onion/h3"], ["--share", "1m", "h2/h3"], ["behind/h3"]]
)
def test_nothing_is_connected_to_but_the_agent(plan: Lab, words: list[str]) -> None:
    """Neither by us nor by what we start; no name is looked up, nothing is written."""
    agent = RealAgent(plan)
    plan.head = f"IdentityAgent {agent.path}\nCanonicalizeHostname always\nVerifyHostKeyDNS yes"
    ran = f"touch {plan.top}/ran"
    plan.host("behind", ProxyCommand=ran, KnownHostsCommand=f"/bin/{ran}", LocalCommand=ran, PermitLocalCommand="yes")
    trace = plan.top / "trace"
    calls = "trace=connect,bind,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,rename,unlink"
    strace = [need("strace"), "-f", "-qq", "-s", "200", "-o", str(trace), "-e", calls]
    home = sorted(plan.home.rglob("*"))
    plan.known_hosts.write_text(f"* {HOST_KEY}\n")
    known = plan.known_hosts.read_bytes()
    done = plan.run(*strace, plan.program, "-F", plan.write_config(), "--explain", *words)
    assert done.returncode == 0, done.stderr
    seen = trace.read_text()
    sockets = [line for line in seen.splitlines() if re.search(r" (connect|bind|send\w+)\(", line)]
    others = [line for line in sockets if "nscd" not in line and str(agent.path) not in line]
    assert [line for line in others if ", NULL, 0" not in line] == []  # (those go to the agent)
    assert len([line for line in sockets if str(agent.path) in line]) == 1
    assert "/etc/resolv.conf" not in seen
    assert not (plan.top / "ran").exists()
    written = [line for line in seen.splitlines() if re.search(r"O_WRONLY|O_RDWR|O_CREAT|mkdir|rename|unlink", line)]
    assert [line for line in written if "/dev/null" not in line] == []
    assert (sorted(plan.home.rglob("*")), plan.known_hosts.read_bytes()) == (home, known)
