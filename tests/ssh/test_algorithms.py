"""The algorithms of a hop: those that somebody chose are used, by ssh if need be; which they are is said."""

from __future__ import annotations

import pytest
from lab import Lab
from login_server import failure, scripted
from peers import LOOPBACK

from relay.config.settings import HopSettings
from relay.ssh import quantum

CURVE, SNTRUP = "curve25519-sha256", "sntrup761x25519-sha512@openssh.com"
GROUP14 = "diffie-hellman-group14-sha256"  # sshd 10 offers it only where it is told to


@pytest.mark.parametrize(
    ("theirs", "ours", "by_ssh", "used"),
    [
        ("", f"KexAlgorithms {SNTRUP},{CURVE}", True, f"algorithm: {SNTRUP}"),
        ("", f"KexAlgorithms {CURVE},{SNTRUP}", False, f"algorithm: {CURVE}"),
        (f"KexAlgorithms {CURVE}", f"KexAlgorithms {SNTRUP},{CURVE}", False, f"algorithm: {CURVE}"),
        (f"KexAlgorithms {SNTRUP},{CURVE}", "KexAlgorithms +diffie-hellman-group1-sha1", False, f"algorithm: {CURVE}"),
        (f"KexAlgorithms +{GROUP14}", f"KexAlgorithms ^{GROUP14}", False, f"algorithm: {GROUP14}"),
        ("", "Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com", False, "cipher: chacha20-poly1305@"),
        ("Ciphers +aes128-cbc", "Ciphers aes128-cbc,aes128-ctr", True, "cipher: aes128-cbc"),
        ("Ciphers aes128-ctr", "MACs umac-64@openssh.com,hmac-sha2-256", True, "MAC: umac-64@"),
        ("", "MACs umac-64@openssh.com,hmac-sha2-256", False, "MAC: <implicit>"),
        ("", "HostKeyAlgorithms rsa-sha2-256", False, "host key algorithm: rsa-sha2-256"),
        ("HostKeyAlgorithms +ssh-rsa", "HostKeyAlgorithms ssh-rsa,rsa-sha2-256", True, "host key algorithm: ssh-rsa"),
        ("HostKeyAlgorithms +ssh-rsa", "HostKeyAlgorithms +ssh-rsa", False, "host key algorithm: rsa-sha2-512"),
    ],
)
def test_the_first_that_the_server_has_is_taken(lab: Lab, theirs: str, ours: str, by_ssh: bool, used: str) -> None:
    key, _, value = ours.partition(" ")
    h1 = lab.server("h1", extra=theirs, host_key_types=("rsa",), **{key: value})
    lab.server("h2")
    done = lab.pyrelay("-v", "h1/h2")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert ("h1): by ssh: the server has " in done.stderr) == by_ssh
    assert used in h1.whole_log()
    assert len(h1.logins()) == 1


def test_such_a_hop_is_remembered_and_not_knocked_at_again(lab: Lab) -> None:
    """As long as ssh_config chooses the algorithm."""
    h1 = lab.server("h1", KexAlgorithms=f"{SNTRUP},{CURVE}")
    lab.server("h2")
    for connections in (2, 3):
        assert "h1): by ssh: the " in lab.pyrelay("-v", "h1/h2").stderr
        assert len(h1.connections) == connections
    lab.host("h1", KexAlgorithms=CURVE)
    assert "h1): by our own client" in lab.pyrelay("-v", "h1/h2").stderr
    assert len(h1.logins()) == 3


# The extra pq: sntrup761x25519-sha512 is ours, too


def to_h2(lab: Lab) -> str:
    return f"h1/{LOOPBACK}:{lab['h2'].port}"


def test_with_the_extra_it_is_post_quantum_where_ssh_is(lab: Lab) -> None:
    """Against what this sshd begins with; the second time as a guess. It is exchanged again, too."""
    extra = lab.post_quantum()
    h1 = lab.server("h1", RekeyLimit="1M")
    lab.server("h2")
    lab.write_config()
    for _ in range(2):
        done = lab.pyrelay_in(extra, "-v", to_h2(lab))
        assert f"(h1): key exchange {h1.first_exchange}, " in done.stderr
        assert "quantum computer" not in done.stderr
        assert done.stdout.startswith("SSH-2.0-")
    data = "x" * 16_000_000  # new keys are for what both sides have sent, and that is more than 1M where it goes fast
    copied = lab.run("ssh", "-F", lab.config, "h1/h2", "cat", stdin=data, env=extra)
    assert copied.stdout == data
    assert h1.whole_log().count(f"kex: algorithm: {h1.first_exchange}") > 5


def test_with_the_extra_an_exchange_that_somebody_chose_is_ours(lab: Lab) -> None:
    extra = lab.post_quantum()
    lab.server("h1", KexAlgorithms=f"{SNTRUP},{CURVE}")
    lab.server("h2")
    lab.write_config()
    done = lab.pyrelay_in(extra, "-v", to_h2(lab))
    assert f"(h1): key exchange {SNTRUP}, " in done.stderr
    assert ": by ssh" not in done.stderr


def test_the_extra_is_named_where_it_is_missing(lab: Lab) -> None:
    """And not where a server has no such key exchange."""
    lab.server("h1", extra=f"KexAlgorithms {SNTRUP},{CURVE}")
    lab.server("h2", extra=f"KexAlgorithms {CURVE}")
    said = lab.pyrelay("-v", "h1/h2/h3").stderr.splitlines()
    assert [("pqcrypto" in line) for line in said if "quantum computer" in line] == [True, False]
    said = lab.pyrelay("--check", "h1/h2/h3").stdout.splitlines()
    assert [("pqcrypto" in line) for line in said if "quantum computer" in line] == [True, False]


def test_what_a_server_calls_its_exchanges_is_not_printed(lab: Lab) -> None:
    server = scripted(lab, "h1", lambda _: [failure("publickey")])
    server.exchanges = (f"sntrup\x1b[2J, {CURVE}", "curve25519-sha256@libssh.org")
    lab.server("h2")
    said = lab.pyrelay("-v", "h1/h2").stderr
    assert "quantum computer" in said
    assert "sntrup" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("wanted", "picked"),
    [("a,b,c", ()), ("a,b,c,x,y", ("x", "y")), ("x,a,b,c", ("x",)), ("c,a,b", ("c",)), ("a,b", ("a", "b")), ("", ())],
)
def test_what_somebody_picked_of_a_list(wanted: str, picked: tuple[str, ...]) -> None:
    assert HopSettings("h1", {"macs": [wanted]}, {"macs": ["a,b,c"]}).picked("macs") == picked


def test_v_names_the_algorithms_of_each_hop(lab: Lab) -> None:
    lab.server("h1", extra=f"KexAlgorithms {CURVE}\nCiphers aes128-ctr\nMACs hmac-sha2-512")
    lab.server("h2", extra=f"KexAlgorithms {CURVE}\nCiphers aes256-gcm@openssh.com")
    lab.server("h3")
    said = lab.pyrelay("-v", "h1/h2/h3").stderr
    assert "hop 1 of 2 (h1): key exchange curve25519-sha256, cipher aes128-ctr, MAC hmac-sha2-512\n" in said
    assert "hop 2 of 2 (h2): key exchange curve25519-sha256, cipher aes256-gcm@openssh.com, MAC of " in said


@pytest.mark.parametrize(
    ("setting", "warned"),
    [("yes", True), ("no", False), ("yes\nloglevel ERROR", False), ("yes\nkexalgorithms curve25519-sha256", False)],
)
def test_sshs_warning(lab: Lab, setting: str, warned: bool) -> None:
    """Where `ssh -G` prints warnweakcrypto, as OpenSSH 10.1 and later do; this ssh prints what one of those would."""
    lab.server("h1", extra=f"KexAlgorithms {CURVE},{SNTRUP}")
    lab.server("h2")
    key, _, _ = setting.partition("\n")[2].partition(" ")
    newer = lab.program.parent / "ssh"
    newer.write_text(
        "#!/bin/sh\n"
        f'/usr/bin/ssh "$@" | sed "/^{key or "none"} /d; /^warnweakcrypto /d"\n'
        f'case "$*" in *"-F none"*) ;; *) printf "%s\\n" "warnweakcrypto {setting}" ;; esac\n'
    )
    newer.chmod(0o755)
    said = lab.pyrelay("h1/h2").stderr
    assert [f"pyrelay: hop 1 of 1 (h1): {line}" in said for line in quantum.WARNING] == [warned] * 3
    assert ("the package pqcrypto" in said) == warned
    assert lab.pyrelay("-q", "h1/h2").stderr == ""
