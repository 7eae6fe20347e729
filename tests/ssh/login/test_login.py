"""Logins to real sshds that ask nobody: key files, agents, certificates, several methods, refusals in words."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import EXTENSION, FAILURE, LIST, SIGN, SIGNATURE, RealAgent, ScriptedAgent, SecurityKey, certify, listing
from login_server import asking, passwords
from terminal import askpass

from relay.ssh.pubkey import Reader, string

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from lab import Lab

KINDS = {
    "ed25519": ("ed25519",),
    "ecdsa-256": ("ecdsa", "-b", "256"),
    "ecdsa-384": ("ecdsa", "-b", "384"),
    "ecdsa-521": ("ecdsa", "-b", "521"),
    "rsa": ("rsa", "-b", "2048"),
}
FORMS = ("RFC4716", "PEM", "PKCS8")  # ssh-keygen -m; the first is OpenSSH's own


@pytest.fixture
def hops(lab: Lab) -> Lab:
    """A lab with a target, h2; the hop h1 and the keys for it are each test's own."""
    lab.server("h2")
    lab.identity = Path("none")
    return lab


def public(*keys: Path) -> str:
    return "".join(Path(f"{key}.pub").read_text() for key in keys)


def succeeds(lab: Lab, *options: str) -> bool:
    """Whether a relay through h1 arrives at h2; what it says on stderr must be nothing then."""
    done = lab.pyrelay(*options, "h1/h2")
    return done.stdout.startswith("SSH-2.0-OpenSSH") and not done.stderr


def refusal(lab: Lab, *options: str) -> str:
    """The message with which a relay through h1 fails."""
    done: CompletedProcess[str] = lab.pyrelay(*options, "h1/h2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (h1): ")
    return done.stderr.removeprefix("pyrelay: hop 1 of 1 (h1): ")


def fingerprint(lab: Lab, key: Path) -> str:
    return lab.run("ssh-keygen", "-l", "-f", f"{key}.pub").stdout.split()[1]


# Key files


@pytest.mark.parametrize("kind", KINDS)
def test_key_files(hops: Lab, kind: str) -> None:
    # (Older ones write ed25519 keys in OpenSSH's own form whatever they are told, newer ones refuse.)
    forms = FORMS[:1] if kind == "ed25519" else FORMS
    keys = [hops.keygen(f"key{form}", *KINDS[kind], "-m", form) for form in forms]
    hops.server("h1", authorized_keys=public(*keys))
    for key in keys:
        Path(f"{key}.pub").unlink()
        hops.host("h1", IdentityFile=key)
        assert succeeds(hops), key.read_text().splitlines()[0]
    assert "Postponed publickey" not in hops["h1"].log()  # a key that costs nothing signs at once


def test_a_key_file_that_others_can_read_is_not_used(hops: Lab) -> None:
    key = hops.keygen("key")
    key.chmod(0o640)
    hops.server("h1", authorized_keys=public(key), IdentityFile=key)
    assert f"hint: {key}: permissions 0640 are too open" in refusal(hops)


@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_a_key_file_with_the_public_half_behind_the_private_one(hops: Lab, form: str) -> None:
    """ssh takes it for what begins it."""
    key = hops.keygen("key", "rsa", "-m", form)
    line = public(key)
    with key.open("a") as file:
        file.write(line)
    Path(f"{key}.pub").unlink()
    hops.server("h1", authorized_keys=line, IdentityFile=key)
    assert succeeds(hops)
    assert hops.ssh("h1", "true").returncode == 0


@pytest.mark.parametrize(
    ("options", "level", "noted"), [((), "INFO", True), (("-q",), "INFO", False), ((), "ERROR", False)]
)
def test_the_reason_why_a_key_is_ignored_is_the_hint_where_nobody_can_be_asked(
    hops: Lab, options: tuple[str, ...], level: str, noted: bool
) -> None:
    """Not askpass, nor that there is no key: one is named."""
    key = hops.keygen("key")
    key.chmod(0o644)
    missing = f"{hops.top}/nothing"
    asking(hops, "h1", passwords("secret", ("publickey", "password")), keys="yes")
    hops.host("h1", IdentityFile=f"{key}\n    IdentityFile {missing}", LogLevel=level)
    done = hops.pyrelay(*options, "h1/h2")
    reasons = f"{key}: permissions 0644 are too open", f"{missing}: no such identity file"
    assert done.stderr.splitlines()[-1].startswith(f"hint: {reasons[0]}")
    assert done.stderr.endswith(f"; {reasons[1]}\n")
    assert all((f"h1): a key is ignored: {reason}" in done.stderr) is noted for reason in reasons)


def test_a_key_that_is_ignored_is_the_hint_where_a_person_was_asked_in_vain_and_not_told(hops: Lab) -> None:
    key = hops.keygen("key")
    key.chmod(0o644)
    asking(hops, "h1", passwords("secret", ("publickey", "password")), keys="yes")
    hops.host("h1", IdentityFile=key, NumberOfPasswordPrompts=1)
    hops.write_config()
    reason = f"{key}: permissions 0644 are too open"
    for options, told, hint in (((), True, False), (("-q",), False, True)):
        command = ("pyrelay", *options, "-F", hops.config, "h1/h2")
        done = hops.run(*command, env=askpass(hops, "echo wrong"))
        assert (f"h1): a key is ignored: {reason}" in done.stderr) is told
        assert (f"\nhint: {reason}" in done.stderr) is hint
        assert "no key to offer" not in done.stderr


def test_a_key_file_that_does_not_exist_is_named(hops: Lab) -> None:
    hops.server("h1", authorized_keys="", IdentityFile=hops.top / "nothing")
    message = refusal(hops)
    assert message.startswith(f"login as {hops.user} refused: Permission denied; the server takes publickey")
    assert "offered: nothing" in message
    assert message.endswith(f"hint: {hops.top}/nothing: no such identity file\n")


def test_the_public_key_beside_a_private_one_must_be_its_own(hops: Lab) -> None:
    key, other = hops.keygen("key", "rsa", "-m", "PEM"), hops.keygen("other")
    hops.server("h1", authorized_keys=public(other), IdentityFile=key)
    shutil.copy(f"{other}.pub", f"{key}.pub")
    assert "the private key is not that of the public key beside it" in refusal(hops)


def test_algorithms_that_ssh_config_rules_out(hops: Lab) -> None:
    key = hops.keygen("key", "rsa")
    hops.server("h1", authorized_keys=public(key), IdentityFile=key, PubkeyAcceptedAlgorithms="ssh-ed25519")
    assert "no signature algorithm that both PubkeyAcceptedAlgorithms and the server take" in refusal(hops)
    assert "userauth-request for user" in hops["h1"].log()
    assert "method publickey" not in hops["h1"].log()
    hops.host("h1", PubkeyAcceptedAlgorithms="rsa-sha2-256")
    assert succeeds(hops)


# The agent


def with_agent(lab: Lab, *keys: Path, **settings: object) -> RealAgent:
    """An agent with these keys, which h1 uses and offers all of."""
    agent = RealAgent(lab)
    for key in keys:
        agent.add(key)
    lab.host("h1", IdentityAgent=agent.path, IdentitiesOnly="no", **settings)
    return agent


@pytest.mark.parametrize("kind", KINDS)
def test_agent(hops: Lab, kind: str) -> None:
    key = hops.keygen("key", *KINDS[kind])
    hops.server("h1", authorized_keys=public(key))
    with_agent(hops, key)
    key.unlink()
    assert succeeds(hops)


def test_known_good_first(hops: Lab) -> None:
    keys = [hops.keygen(f"key{number}") for number in range(5)]
    hops.server("h1", authorized_keys=public(keys[3]), extra="MaxAuthTries 1")
    with_agent(hops, *keys, IdentityFile=keys[3])
    assert succeeds(hops)


def test_identities_only(hops: Lab) -> None:
    keys = [hops.keygen(f"key{number}") for number in range(3)]
    hops.server("h1", authorized_keys=public(keys[2]))
    with_agent(hops, *keys, IdentityFile=keys[0])
    hops.host("h1", IdentitiesOnly="yes")
    message = refusal(hops)
    assert fingerprint(hops, keys[0]) in message
    assert fingerprint(hops, keys[1]) not in message
    assert fingerprint(hops, keys[2]) not in message


@pytest.mark.parametrize("suffix", ["", ".pub"])
def test_a_public_key_picks_one_of_the_agents(hops: Lab, suffix: str) -> None:
    keys = [hops.keygen(f"key{number}") for number in range(3)]
    hops.server("h1", authorized_keys=public(keys[1]), extra="MaxAuthTries 1")
    with_agent(hops, *keys, IdentityFile=f"{keys[1]}{suffix}")
    keys[1].unlink()
    hops.host("h1", IdentitiesOnly="yes")
    assert succeeds(hops)


def test_a_public_key_that_the_agent_does_not_hold(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key))
    with_agent(hops, IdentityFile=f"{key}.pub")
    assert f"hint: {key}.pub: a public key only, which the agent does not hold" in refusal(hops)


def test_too_many_failures(hops: Lab) -> None:
    keys = [hops.keygen(f"key{number}") for number in range(4)]
    hops.server("h1", authorized_keys=public(keys[3]), extra="MaxAuthTries 2")
    with_agent(hops, *keys)
    if hops.ssh("h1", "true").returncode == 0:  # a newer sshd does not count keys that were only asked about
        assert succeeds(hops)
        return
    message = refusal(hops)
    assert "Too many authentication failures" in message
    assert "the server takes publickey" in message
    assert [fingerprint(hops, key) in message for key in keys] == [True, True, False, False]
    assert "hint: IdentitiesOnly=yes offers only the keys that IdentityFile (-i) names" in message
    assert succeeds(hops, "-o", "IdentitiesOnly=yes", "-i", str(keys[3]))


def test_which_agent(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key))
    agent = with_agent(hops, key)
    for setting, variable in (("SSH_AUTH_SOCK", "SSH_AUTH_SOCK"), ("$MY_AGENT", "MY_AGENT")):
        hops.host("h1", IdentityAgent=setting)
        hops.write_config()
        done = hops.run("pyrelay", "-F", hops.config, "h1/h2", env={variable: str(agent.path)})
        assert (done.returncode, done.stderr) == (0, "")
    hops.host("h1", IdentityAgent="none")
    hops.write_config()
    done = hops.run("pyrelay", "-F", hops.config, "h1/h2", env={"SSH_AUTH_SOCK": str(agent.path)})
    assert "offered: nothing" in done.stderr


def test_an_agent_that_is_gone(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key), IdentityFile=key, IdentityAgent=hops.top / "gone")
    assert succeeds(hops)
    assert "the agent cannot be used" in hops.pyrelay("-v", "h1/h2").stderr


def test_keys_for_one_destination(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key))
    hops.server("other", authorized_keys=public(key))
    agent = with_agent(hops)
    hops.host("other", IdentityAgent=agent.path, IdentitiesOnly="no")
    hosts = hops.top / "hosts"
    hosts.write_text("".join(f"{name} {line}\n" for name in ("h1", "other") for line in hops[name].host_keys))
    agent.add("-H", hosts, "-h", "h1", key)
    assert succeeds(hops)
    assert "offered: nothing" in hops.pyrelay("other/h2").stderr  # the agent does not even list it for that host


@pytest.mark.parametrize(("setting", "bound"), [("yes", True), ("host-bound", True), ("unbound", False)])
def test_a_signature_names_the_host_key_unless_it_shall_not(hops: Lab, setting: str, bound: bool) -> None:
    key = hops.keygen("key")
    hops.server(
        "h1",
        authorized_keys=public(key),
        extra="LogLevel DEBUG",
        IdentityFile=key,
        PubkeyAuthentication=setting,
    )
    assert succeeds(hops)
    assert (" method publickey-hostbound-v00@openssh.com" in hops["h1"].whole_log()) == bound


def test_a_key_that_must_be_confirmed(hops: Lab) -> None:
    """ssh-add -c: the person is asked once, and only for a key that the server takes."""
    unwanted, wanted = hops.keygen("unwanted"), hops.keygen("wanted")
    hops.server("h1", authorized_keys=public(wanted))
    asked = hops.top / "asked"
    program = hops.top / "askpass"
    program.write_text(f'#!/bin/sh\necho "$1" >>{asked}\n')
    program.chmod(0o755)
    agent = RealAgent(hops, SSH_ASKPASS=str(program), DISPLAY=":0", SSH_ASKPASS_REQUIRE="force")
    agent.add("-c", unwanted)
    agent.add("-c", wanted)
    hops.host("h1", IdentityAgent=agent.path, IdentitiesOnly="no")
    assert succeeds(hops)
    assert [line.split("?")[0] for line in asked.read_text().splitlines() if line.startswith("Allow")] == [
        "Allow use of key wanted"
    ]


def test_an_agent_that_refuses_to_sign(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key))
    agent = RealAgent(hops, SSH_ASKPASS="/bin/false", DISPLAY=":0", SSH_ASKPASS_REQUIRE="force")
    agent.add("-c", key)
    hops.host("h1", IdentityAgent=agent.path, IdentitiesOnly="no")
    message = refusal(hops)
    assert message.endswith(" key: the agent does not sign with it: it refuses to sign\n")


# Certificates


@pytest.fixture
def authority(hops: Lab) -> Path:
    """A certificate authority that h1 trusts; h1 knows no key."""
    made = hops.keygen("authority")
    hops.server("h1", authorized_keys="", extra=f"TrustedUserCAKeys {made}.pub")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_from_files(hops: Lab, authority: Path, kind: str) -> None:
    key = hops.keygen("key", *KINDS[kind])
    beside = certify(hops, authority, key)
    hops.host("h1", IdentityFile=key)
    assert succeeds(hops)
    named = beside.rename(hops.top / "named")
    hops.host("h1", CertificateFile=named)
    assert succeeds(hops)


def test_a_certificate_that_is_the_public_half_beside_a_key(hops: Lab, authority: Path) -> None:
    key = hops.keygen("key")
    certify(hops, authority, key).rename(f"{key}.pub")
    hops.host("h1", IdentityFile=key)
    assert succeeds(hops)


def test_a_public_half_of_another_key_beside_a_key(hops: Lab) -> None:
    """It is what is offered, and the key does not sign for it; ssh says so, too."""
    key, other = hops.keygen("key"), hops.keygen("other")
    hops.server("h1", authorized_keys=Path(f"{key}.pub").read_text() + Path(f"{other}.pub").read_text())
    Path(f"{other}.pub").rename(f"{key}.pub")
    hops.host("h1", IdentityFile=key)
    assert "the private key is not that of the public key beside it" in refusal(hops)
    assert hops.ssh("h1", "true").returncode == 255


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_from_the_agent(hops: Lab, authority: Path, kind: str) -> None:
    key = hops.keygen("key", *KINDS[kind])
    beside = certify(hops, authority, key)
    with_agent(hops, key)  # ssh-add takes the certificate beside the key, too
    key.unlink()
    beside.unlink()
    assert succeeds(hops)


def test_a_certificate_file_for_a_key_in_the_agent(hops: Lab, authority: Path) -> None:
    key = hops.keygen("key", "rsa")
    with_agent(hops, key)
    named = certify(hops, authority, key).rename(hops.top / "named")
    hops.host("h1", CertificateFile=named)
    key.unlink()
    assert succeeds(hops)


def test_certificates_that_are_none(hops: Lab, authority: Path) -> None:
    key = hops.keygen("key")
    named = certify(hops, authority, key).rename(hops.top / "named")
    hops.host("h1", CertificateFile=named)
    assert f"hint: {named}: there is no private key for this certificate" in refusal(hops)
    hops.host("h1", CertificateFile=f"{key}.pub")
    assert f"hint: {key}.pub: not a user certificate" in refusal(hops)


# Several methods, and none


def test_two_keys_that_are_both_wanted(hops: Lab) -> None:
    first, second = hops.keygen("first"), hops.keygen("second")
    both = "AuthenticationMethods publickey,publickey"
    hops.server("h1", authorized_keys=public(first, second), extra=both)
    hops.host("h1", IdentityFile=f"{first}\n    IdentityFile {second}")
    assert succeeds(hops)
    hops.host("h1", IdentityFile=first)
    message = refusal(hops)
    assert "publickey granted, which is not enough" in message


def test_what_the_server_takes_is_said(hops: Lab) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys="", IdentityFile=key)
    message = refusal(hops)
    assert message.startswith(f"login as {hops.user} refused: Permission denied; the server takes publickey")
    assert f"offered: ED25519 {fingerprint(hops, key)} {key}" in message
    assert "nobody was asked for a password: BatchMode" in message
    assert message.count("\n") <= 2


@pytest.mark.parametrize("setting", ["PubkeyAuthentication no", "PreferredAuthentications password"])
def test_publickey_turned_off(hops: Lab, setting: str) -> None:
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key), IdentityFile=key)
    hops.head = setting
    assert "offered: nothing" in refusal(hops)
    assert "method publickey" not in hops["h1"].log()


# Security keys


class TouchAgent(ScriptedAgent):
    """An agent with a security key, which signs when it is touched. signed: what was asked for."""

    def __init__(self, lab: Lab) -> None:
        self.token = SecurityKey()
        self.touched = threading.Event()
        self.signed = 0
        super().__init__(lab.top / "agent", self._act)
        lab.at_end(self.stop)
        lab.host("h1", IdentityAgent=self.path, IdentitiesOnly="no")

    def _act(self, message: bytes) -> bytes:
        if message[0] == LIST:
            return listing((self.token.blob, b"token"))
        if message[0] == SIGN:
            request = Reader(message[1:])
            request.string()
            data = request.string()
            self.signed += 1
            self.touched.wait(30)
            return SIGNATURE + string(self.token.sign(data))
        assert message[0] == EXTENSION
        return FAILURE


def test_a_certificate_of_a_security_key(hops: Lab, authority: Path) -> None:
    agent = TouchAgent(hops)
    agent.touched.set()
    public = hops.top / "token.pub"
    public.write_text(agent.token.line)
    hops.host("h1", IdentityFile=public, CertificateFile=certify(hops, authority, hops.top / "token"))
    assert succeeds(hops)
    assert agent.signed == 1


def test_a_security_key_is_touched(hops: Lab) -> None:
    agent = TouchAgent(hops)
    hops.server("h1", authorized_keys=agent.token.line)
    hops.write_config()
    relay = hops.start("pyrelay", "-F", hops.config, "h1/h2")
    assert relay.stderr is not None
    assert relay.stdout is not None
    assert relay.stderr.readline().startswith(b"pyrelay: hop 1 of 1 (h1): touch your security key (ED25519-SK SHA256:")
    agent.touched.set()
    assert relay.stdout.readline().startswith(b"SSH-2.0-OpenSSH")
    assert agent.signed == 1


def test_a_window_says_what_to_touch_until_it_is(hops: Lab) -> None:
    agent = TouchAgent(hops)
    hops.server("h1", authorized_keys=agent.token.line)
    hops.host("h1", BatchMode="no")
    hops.write_config()
    shown = hops.top / "shown"
    os.mkfifo(shown)
    window = hops.top / "askpass"
    window.write_text(f'#!/bin/sh\necho "$SSH_ASKPASS_PROMPT $1" >{shown}\nexec sleep 100\n')
    window.chmod(0o755)
    relay = hops.start("pyrelay", "-F", hops.config, "h1/h2", env={"SSH_ASKPASS": str(window), "DISPLAY": ":0"})
    assert relay.stdout is not None
    assert shown.read_text().startswith("none pyrelay: touch your security key (ED25519-SK SHA256:")
    agent.touched.set()
    assert relay.stdout.readline().startswith(b"SSH-2.0-OpenSSH")
    assert not [command for command in hops.processes().values() if "sleep" in command]


def test_a_security_key_that_is_never_touched(hops: Lab) -> None:
    """Where nobody can see the request, the deadline holds."""
    agent = TouchAgent(hops)
    hops.server("h1", authorized_keys=agent.token.line)
    message = hops.pyrelay("-w", "3", "h1/h2").stderr
    agent.touched.set()
    assert "no answer within 3 seconds (waiting for the agent's signature)\n" in message


def test_a_security_key_that_the_server_refuses_is_not_touched(hops: Lab) -> None:
    agent = TouchAgent(hops)
    key = hops.keygen("key")
    hops.server("h1", authorized_keys=public(key), IdentityFile=key)
    assert succeeds(hops)
    assert "ED25519-SK" in hops.pyrelay("-v", "--memory", "none", "h1/h2").stderr
    assert agent.signed == 0
