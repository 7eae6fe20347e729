"""UpdateHostKeys: a hop that announces its next key and then rotates, and all in whose case ssh learns nothing."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from peers import until
from trusting import Listener, Person, certify, key, server, settings_of_h1, write

from relay.errors import RelayError
from relay.ssh.login.keyfile import read_private
from relay.ssh.pubkey import BadKey, PublicKey, read_key, string
from relay.ssh.trust.trust import Trust
from relay.ssh.trust.update import ANNOUNCED, PROVE, Policy, Skipped, Update, proofs, sort
from relay.ssh.wire.transport import Transport

if TYPE_CHECKING:
    from lab import Lab

LEARNS, LEARNS_NOT = True, False


def policy_of(lab: Lab, *answers: str, address: str = "") -> Policy | None:
    """What pyrelay finds out about h1 before a login."""
    settings = settings_of_h1(lab)
    progress = Listener()
    with socket.create_connection(("127.0.0.1", settings.port)) as stream:
        transport = Transport(stream, None, progress)
        try:
            judge = Trust(settings, progress, Person(progress, *answers), address=address)
            transport._preferred_keys = tuple(judge.algorithms())
            transport.start_client(timeout=30)
            judge.verify(transport.host_key_blob)
            return judge.update()
        finally:
            transport.close()
            transport.join()


def blob(line: str) -> bytes:
    kind, base64 = line.split()[:2]
    return read_key(kind.encode(), base64.encode()).blob


def would_learn(lab: Lab, *answers: str) -> bool:
    """Whether pyrelay would ask h1 to prove its RSA key."""
    policy = policy_of(lab, *answers)
    if policy is None:
        return False
    try:
        new = sort(policy, [blob(line) for line in lab["h1"].host_keys]).new
    except Skipped:
        return False
    return any(each.plain == "ssh-rsa" for each in new)


# Lines of known_hosts, and settings of h1 ({own} is that file, {system} another one that knows its key).
CASES: list[tuple[str, dict[str, str], bool]] = [
    ("{host} {key}\n", {}, LEARNS),
    ("{host} {key}\nelsewhere {other}\n", {}, LEARNS),
    ("{host},192.0.2.1 {key}\n", {}, LEARNS),
    ("{host} {key}\n{host} {other}\n", {}, LEARNS),
    ("{host} {key}\n", {"UpdateHostKeys": "no"}, LEARNS_NOT),
    ("{host} {key}\n", {"UpdateHostKeys": "ask"}, LEARNS_NOT),
    ("{host} {key}\n{host} {rsa}\n", {}, LEARNS_NOT),
    ("[127.0.0.?]:{port} {key}\n", {}, LEARNS_NOT),
    ("{host},a,b {key}\n", {}, LEARNS_NOT),
    ("{host} {key}\n@revoked {host} {other}\n", {}, LEARNS_NOT),
    ("{host} {key}\n@cert-authority {host} {other}\n", {}, LEARNS_NOT),
    ("{host} {key}\nelsewhere {rsa}\n", {}, LEARNS_NOT),
    ("{host} {key}\n{host} {other}\nelsewhere {other}\n", {}, LEARNS_NOT),
    ("127.0.0.1 {key}\n", {}, LEARNS_NOT),
    ("{host} {key}\n", {"HostKeyAlgorithms": "ssh-ed25519"}, LEARNS_NOT),
    ("", {"StrictHostKeyChecking": "accept-new"}, LEARNS_NOT),
    ("", {"GlobalKnownHostsFile": "{system}"}, LEARNS_NOT),
    ("{host} {key}\n", {"GlobalKnownHostsFile": "{own}"}, LEARNS_NOT),
    ("", {"KnownHostsCommand": "/bin/cat {system}"}, LEARNS_NOT),
]


def test_where_ssh_learns_a_key(lab: Lab) -> None:
    server(lab, "ed25519", "rsa")
    write(lab, "{host} {key}\n")
    system = lab.known_hosts.rename(lab.top / "system")
    usual = {
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlgorithms": "ssh-ed25519,rsa-sha2-512",
        "KnownHostsCommand": "none",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "yes",
    }
    rsa = next(line for line in lab["h1"].host_keys if line.startswith("ssh-rsa")).split()[1]
    for lines, settings, learns in CASES:
        lab.host("h1", **usual)
        files = {"own": lab.known_hosts, "system": system}
        lab.host("h1", **{name: value.format(**files) for name, value in settings.items()})
        write(lab, lines)
        before = lab.known_hosts.read_text()
        assert would_learn(lab) == learns, (lines, settings)
        lab.known_hosts.write_text(before)
        assert lab.ssh("h1", "true").returncode == 0
        assert (lab.known_hosts.read_text().count(rsa) > before.count(rsa)) == learns, (lines, settings)


def test_a_key_that_a_person_has_just_accepted(lab: Lab) -> None:
    server(lab, "ed25519", "rsa")
    lab.host("h1", HostKeyAlgorithms="ssh-ed25519,rsa-sha2-512", UpdateHostKeys="yes", StrictHostKeyChecking="ask")
    lab.known_hosts.write_text("")
    assert would_learn(lab, "yes")


def test_a_key_that_a_certificate_vouches_for(lab: Lab) -> None:
    server(lab, "ed25519", "rsa", certified="ed25519")
    certify(lab)
    lab.host("h1", UpdateHostKeys="yes")
    write(lab, "@cert-authority {host} {ca}\n")
    assert policy_of(lab) is None


def test_keys_that_would_have_to_stand_under_the_address_too(lab: Lab) -> None:
    server(lab)
    lab.host("h1", UpdateHostKeys="yes", CheckHostIP="yes")
    write(lab, "{host},[192.0.2.1]:{port} {key}\nalias {key}\n")
    assert policy_of(lab, address="192.0.2.1") is None
    assert policy_of(lab) is not None
    lab.host("h1", HostKeyAlias="alias")
    assert policy_of(lab, address="192.0.2.1") is not None


# The whole


def bastion(lab: Lab, name: str) -> str:
    """A hop with two keys, of which the first is known, alone on its line; return the second key's line."""
    hop = lab.server(name, host_key_types=("ed25519", "ecdsa"), UpdateHostKeys="yes")
    known, coming = hop.host_keys
    others = [line for line in lab.known_hosts.read_text().splitlines() if f"*/{name}," not in line]
    lab.known_hosts.write_text("\n".join([*others, f"[127.0.0.1]:{hop.port} {known}", ""]))
    return f"[127.0.0.1]:{hop.port} {' '.join(coming.split()[:2])}\n"


def is_learnt(lab: Lab, *lines: str) -> bool:
    written = lab.known_hosts.read_text()
    return all(line in written for line in lines)


@pytest.mark.parametrize("share", [[], ["--share", "5"]])
def test_a_bastion_announces_its_next_key_and_rotates(lab: Lab, share: list[str]) -> None:
    """So does the hop behind it. (With --share the holder learns.)"""
    lab.server("h3")
    lines = [bastion(lab, "h1"), bastion(lab, "h2")]
    lab.options = share
    process = lab.start("ssh", "-F", lab.config, "h1/h2/h3", "cat", stdin=subprocess.PIPE)
    until(lambda: is_learnt(lab, *lines), "new key in known_hosts")
    out, err = process.communicate(b"data", timeout=60)
    assert (out, err, process.returncode) == (b"data", b"", 0)
    if share:
        lab.pyrelay("-O", "exit")
    for name in ("h1", "h2"):
        lab[name].replace_host_key(lab.top / name / "ecdsa")
    done = lab.ssh("h1/h2/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")
    assert lab.ssh("-o", "ProxyCommand=none", "h1", "true").returncode == 0


def test_what_is_learnt_and_what_is_left_is_said(lab: Lab) -> None:
    lab.server("h2")
    line = bastion(lab, "h1")
    with lab.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{lab['h1'].port} {key(lab, 'former')}\n")
    lab.options = ["-v"]
    process = lab.start("ssh", "-F", lab.config, "h1/h2", "cat", stdin=subprocess.PIPE)
    until(lambda: is_learnt(lab, line), "new key in known_hosts")
    _, err = process.communicate(b"", timeout=60)
    assert b"pyrelay: hop 1 of 1 (h1): UpdateHostKeys: not announced any more: ED25519 SHA256:" in err
    assert key(lab, "former") in lab.known_hosts.read_text()


# Proofs


def proof(private: Path, algorithm: str, session: bytes = b"session") -> tuple[PublicKey, bytes]:
    """A key, and its proof."""
    secret = read_private(str(private)).unlock()
    data = string(PROVE) + string(session) + string(secret.public.blob)
    return secret.public, string(secret.sign(data, algorithm))


def test_proofs(lab: Lab) -> None:
    first, signed = proof(lab.keygen("first"), "ssh-ed25519")
    rsa = lab.keygen("second", "rsa")
    second, by_256 = proof(rsa, "rsa-sha2-256")
    by_1 = proof(rsa, "ssh-rsa")[1]
    both = [first, second]
    assert proofs(both, signed + by_256, b"session", "ssh-ed25519") == both
    assert proofs(both, signed + by_256, b"session", "rsa-sha2-256-cert-v01@openssh.com") == both
    assert proofs(both, signed + by_1, b"session", "ssh-ed25519") == [first]
    for answer, session, algorithm in (
        (signed, b"session", "ssh-ed25519"),  # one is missing
        (by_256 + signed, b"session", "ssh-ed25519"),
        (signed + by_256, b"another session", "ssh-ed25519"),
        (signed + by_256, b"session", "rsa-sha2-512"),  # as agreed in the key exchange
        (signed + by_256 + b"x", b"session", "ssh-ed25519"),
    ):
        with pytest.raises(BadKey):
            proofs(both, answer, session, algorithm)


def test_nothing_waits_for_it(lab: Lab) -> None:
    """Not for a server that takes no request, nor does anything happen before the first byte."""
    first, coming = (blob(Path(f"{lab.keygen(name)}.pub").read_text()) for name in ("first", "coming"))
    lab.known_hosts.write_text(f"h1 {PublicKey(first).text}\n")
    policy = Policy("h1", (str(lab.known_hosts),), frozenset({first}), frozenset({"ssh-ed25519"}), False, "sha256")
    asked, free = threading.Event(), threading.Event()

    def send(body: bytes) -> None:
        assert body == string(PROVE) + b"\1" + string(coming)
        asked.set()
        free.wait()

    update = Update(policy, lambda text: None)
    update.log_in(b"session", "ssh-ed25519", send)
    update.asked(b"other@example.com", b"x")
    update.asked(ANNOUNCED, string(first) + string(coming))
    update.asked(ANNOUNCED, string(first))  # only the first counts
    assert not asked.is_set()
    update.begin()
    update.begin()
    assert asked.wait(30)
    free.set()


@pytest.mark.parametrize("data", [b"\0\0\0\5x", struct.pack(">I", 0) * 65])
def test_an_announcement_that_is_none(lab: Lab, data: bytes) -> None:
    policy = Policy("h1", (str(lab.known_hosts),), frozenset(), frozenset({"ssh-ed25519"}), False, "sha256")
    update = Update(policy, lambda text: None)
    update.log_in(b"session", "ssh-ed25519", lambda body: pytest.fail("asked"))
    update.begin()
    update.asked(ANNOUNCED, data)
    update.proven(b"x")


def test_a_hop_with_new_keys_at_each_login(lab: Lab) -> None:
    """known_hosts does not grow without end: former keys stay in it."""
    here = Path(f"{lab.keygen('one')}.pub").read_text()
    policy = Policy("h1", (str(lab.known_hosts),), frozenset(), frozenset({"ssh-ed25519"}), False, "sha256")
    new = [string(b"ssh-ed25519") + string(bytes([number]) * 32) for number in range(64)]
    lab.known_hosts.write_text("")
    assert len(sort(policy, new).new) == 64
    lab.known_hosts.write_text(f"h1 {here}")
    assert len(sort(policy, new[1:]).new) == 63
    with pytest.raises(Skipped, match="more than 64 keys of h1"):
        sort(policy, new)


def test_keys_that_come_twice(lab: Lab) -> None:
    one = blob(Path(f"{lab.keygen('one')}.pub").read_text())
    policy = Policy("h1", (str(lab.known_hosts),), frozenset(), frozenset({"ssh-ed25519"}), False, "sha256")
    with pytest.raises(Skipped, match="twice"):
        sort(policy, [one, b"no key", one])
    with pytest.raises(RelayError):
        sort(policy._replace(files=(str(lab.top),)), [one])
