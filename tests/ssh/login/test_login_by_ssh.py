"""Hops that are left to ssh, since it has something to log in with that comes first and that our client lacks."""

from __future__ import annotations

import os
import re
import socket
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from agents import LIST, ScriptedAgent, listing
from kerberos import Realm
from lab import Lab
from login_server import MORE, SUCCESS, Request, failure, scripted
from peers import missing, need

from relay.config.settings import HopSettings
from relay.dial import only_ssh
from relay.dial.only_ssh import first_methods, has_ticket
from relay.ssh.login import foreign
from relay.ssh.pubkey import string

# What sshd logs of a login that was refused, or that nobody has finished.
IN_VAIN = re.compile(
    r"^(?:Failed|error: maximum|(?:Connection|Disconnected|Received disconnect).*\[preauth\]).*", re.MULTILINE
)
FORGETFUL = ("--memory", "none")


class Kerberized:
    """A lab with a hop h1 that takes a ticket or the key `fits`, and a target h2. ticket: of whoever has one."""

    def __init__(self, lab: Lab, realm: Realm, patch: pytest.MonkeyPatch) -> None:
        if "gssapiauthentication" not in lab.run("ssh", "-G", "-F", "none", "h1").stdout:
            missing("this ssh was built without Kerberos")
        self.lab = lab
        for name, value in realm.ssh(lab.user).items():
            patch.setenv(name, value)
        fits = lab.keygen("fits")
        self.hop = lab.server(
            "h1",
            authorized_keys=Path(f"{fits}.pub").read_text(),
            extra="GSSAPIAuthentication yes\nGSSAPIStrictAcceptorCheck no",
            HostName="localhost",
            AddressFamily="inet",
            GSSAPIAuthentication="yes",
            IdentityFile="none",
        )
        host = self.hop.host_keys[0]
        with lab.known_hosts.open("a") as file:
            file.write(f"[localhost]:{self.hop.port} {host}\n")
        lab.server("h2")
        self.none = dict(realm.environment, KRB5CCNAME=f"FILE:{lab.top}/no-tickets")
        self.ticket = realm.log_in(cache=lab.top / "tickets")

    def relay(self, env: dict[str, str], *options: str) -> str:
        """Relay through h1; what is said on stderr. It must arrive."""
        done = self.lab.pyrelay_in(env, *options, "h1/h2")
        assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr
        return done.stderr

    def refused(self, env: dict[str, str], *options: str) -> str:
        done = self.lab.pyrelay_in(env, *options, "h1/h2")
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        return done.stderr

    def methods(self) -> list[str]:
        """By which each login has got in."""
        return re.findall(r"^Accepted (\S+) for ", self.hop.whole_log(), re.MULTILINE)

    def in_vain(self) -> list[str]:
        return IN_VAIN.findall(self.hop.whole_log())


@pytest.fixture
def kerberized(lab: Lab, realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Kerberized:
    return Kerberized(lab, realm, monkeypatch)


@pytest.mark.parametrize("way", [(), ("--share", "1s")], ids=["", "shared"])
def test_ten_logins_by_a_ticket_and_nothing_in_vain(kerberized: Kerberized, way: tuple[str, ...]) -> None:
    """As with ssh: none of them leaves a refused or abandoned login in the hop's log, nor a word here."""
    assert (
        kerberized.lab.run("ssh", "-F", kerberized.lab.write_config(), "h1", "true", env=kerberized.ticket).returncode
        == 0
    )
    for _ in range(10 if not way else 2):
        assert kerberized.relay(kerberized.ticket, *way) == ""
    assert set(kerberized.methods()) == {"gssapi-with-mic"}
    assert kerberized.in_vain() == []


@pytest.mark.parametrize("options", [(), FORGETFUL], ids=["", "forgetful"])
def test_six_keys_that_do_not_fit(kerberized: Kerberized, options: tuple[str, ...]) -> None:
    """With MaxAuthTries 6 there is no room for a ticket after them."""
    kerberized.hop.configure("MaxAuthTries 6\n")
    keys = [kerberized.lab.keygen(f"key{number}") for number in range(6)]
    kerberized.lab.host("h1", IdentityFile="\n    IdentityFile ".join(map(str, keys)))
    for _ in range(2):
        kerberized.relay(kerberized.ticket, *options)
    assert kerberized.methods() == ["gssapi-with-mic"] * 2
    assert "Failed publickey" not in kerberized.hop.log()


def test_where_nothing_is_remembered_the_hop_is_asked_first(kerberized: Kerberized) -> None:
    """Over a connection of its own; ssh has the next one."""
    said = kerberized.relay(kerberized.ticket, "-v", *FORGETFUL)
    assert "by ssh: it takes gssapi-with-mic, which comes first and is at hand\n" in said
    assert [len(each.logins()) for each in kerberized.hop.connections] == [0, 1]


def test_a_key_that_has_got_in_is_tried_first(kerberized: Kerberized) -> None:
    lab = kerberized.lab
    lab.host("h1", IdentityFile=lab.top / "fits")
    for env in (kerberized.none, kerberized.ticket):
        kerberized.relay(env)
    assert kerberized.methods() == ["publickey"] * 2
    assert kerberized.in_vain() == []


def test_a_hop_that_takes_no_tickets_is_left_to_ssh_once(kerberized: Kerberized) -> None:
    """ssh says by what it has got in; our client has that, too."""
    lab = kerberized.lab
    lab.host("h1", IdentityFile=lab.top / "fits")
    kerberized.hop.configure("GSSAPIAuthentication no\n")
    said = [kerberized.relay(kerberized.ticket, "-v") for _ in range(3)]
    assert ["by ssh: gssapi-with-mic comes first, and is at hand" in each for each in said] == [True, False, False]
    assert kerberized.methods() == ["publickey"] * 3
    assert kerberized.in_vain() == []


def test_a_key_that_got_in_and_is_refused_now(kerberized: Kerberized) -> None:
    """It is not offered a second time, so ssh is not asked either; the next login is ssh's."""
    kerberized.lab.host("h1", IdentityFile=kerberized.lab.top / "fits")
    kerberized.relay(kerberized.none)
    kerberized.hop.authorize("")
    assert kerberized.refused(kerberized.ticket).endswith("gssapi-with-mic is for ssh to try: --engine ssh\n")
    kerberized.relay(kerberized.ticket)
    assert kerberized.methods() == ["publickey", "gssapi-with-mic"]
    offered = re.findall(r"^Failed publickey .* (SHA256:\S+)$", kerberized.hop.log(), re.MULTILINE)
    assert len(offered) == len(set(offered)) == 2  # that one, and the one that is for all hosts


def test_preferredauthentications_decides(kerberized: Kerberized) -> None:
    lab = kerberized.lab
    lab.host("h1", IdentityFile=lab.top / "fits", PreferredAuthentications="publickey,gssapi-with-mic")
    for options in ((), FORGETFUL):
        assert "by ssh" not in kerberized.relay(kerberized.ticket, "-v", *options)
    assert kerberized.methods() == ["publickey"] * 2


def test_without_a_ticket_the_hint_names_what_would_try(kerberized: Kerberized) -> None:
    said = kerberized.refused(kerberized.none)
    assert said.endswith("gssapi-with-mic is for ssh to try: --engine ssh\n")
    kerberized.lab.host("h1", GSSAPIAuthentication="no")
    assert "--engine ssh" not in kerberized.refused(kerberized.ticket)


@pytest.mark.parametrize("level", ["INFO", "ERROR", "VERBOSE"])
def test_what_ssh_says_is_what_it_says_at_that_level(kerberized: Kerberized, level: str) -> None:
    kerberized.lab.host("h1", LogLevel=level)
    kerberized.hop.configure("ForceCommand true\n")
    said = kerberized.relay(kerberized.ticket)
    assert ('using "gssapi-with-mic"' in said) == (level == "VERBOSE")
    assert said == "" or level == "VERBOSE"


NEW = "ssh-mldsa44-ed25519@openssh.com"


NEW_KEY = string(NEW.encode()) + string(b"x" * 64)


def new_key(path: Path) -> Path:
    """A private key file of the type NEW, as far as it can be read without knowing the type."""
    data = b"openssh-key-v1\0" + string(b"none") + string(b"none") + string(b"") + (1).to_bytes(4, "big")
    text = b64encode(data + string(NEW_KEY) + string(b"private")).decode()
    path.touch(0o600)
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")
    return path


def takes_any(request: Request) -> list[bytes]:
    """A server that takes every key; nothing else."""
    if request.method.startswith("publickey"):
        return [SUCCESS if request.fields.number(1) else MORE + request.fields.rest()]
    return [failure("publickey")]


@pytest.mark.parametrize("takes", [NEW, "ssh-ed25519"])
def test_a_key_of_a_type_that_our_client_lacks(lab: Lab, takes: str) -> None:
    """Where the server takes that. (The installed ssh need not have it; here another key gets in.)"""
    new = new_key(lab.top / "new")
    server = scripted(lab, "h1", takes_any, IdentityFile=f"{new}\n    IdentityFile {lab.identity}")
    server.signatures = (takes, "ssh-ed25519")
    lab.server("h2")
    lab.write_config()
    said = [lab.ssh("-o", f"ProxyCommand=pyrelay -v -F {lab.config} h1/h2", "h2", "true").stderr for _ in range(2)]
    if takes == NEW:
        assert f"by ssh: {new} is a key of the type {NEW}, which our client lacks\n" in said[0]
        assert f"by ssh: ssh has logged in there by {NEW}\n" in said[1]
        assert server.requests[0] == "none"  # before any key of ours
    else:
        assert "by ssh" not in "".join(said)
    assert all("connected in" in each for each in said)


@pytest.mark.parametrize(
    ("file", "settings", "by_ssh"),
    [
        ("", {"IdentitiesOnly": "no"}, "the agent's new"),
        ("", {}, ""),  # IdentitiesOnly
        ("new.pub", {}, "{}/new.pub"),
        ("new", {}, "{}/new"),  # there is only new.pub
        ("new", {"PubkeyAuthentication": "no", "PreferredAuthentications": "publickey"}, ""),
        ("other.pub", {}, ""),  # nobody holds it
    ],
)
@pytest.mark.parametrize("takes", [NEW, "ssh-ed25519"])
def test_a_key_of_such_a_type_in_the_agent(
    lab: Lab, file: str, settings: dict[str, str], by_ssh: str, takes: str
) -> None:
    """Before any key of ours is tried."""
    for name, blob in (("new", NEW_KEY), ("other", NEW_KEY + b"x")):
        (lab.top / f"{name}.pub").write_text(f"{NEW} {b64encode(blob).decode()} {name}\n")
    agent = ScriptedAgent(
        lab.top / "agent", lambda message: listing((NEW_KEY, b"new")) if message[0] == LIST else b"\5"
    )
    lab.at_end(agent.stop)
    files = f"{lab.top / file}\n    IdentityFile {lab.identity}" if file else str(lab.identity)
    server = scripted(lab, "h1", takes_any, IdentityFile=files, IdentityAgent=agent.path, **settings)
    server.signatures = (takes, "ssh-ed25519")
    said = lab.pyrelay("-v", "h1/h2").stderr
    left = re.findall(rf"by ssh: (.*) is a key of the type {NEW}, which our client lacks\n", said)
    assert left == [by_ssh.format(lab.top)] * (bool(by_ssh) and takes == NEW)
    assert not left or (len(server.transports) > 1 and server.requests[0] == "none")


@pytest.mark.parametrize("suffix", ["", ".pub"])
def test_a_key_of_such_a_type_that_is_of_no_use_is_called_that(lab: Lab, suffix: str) -> None:
    """And nobody is asked for its passphrase, nor told to change who may read a public key."""
    new = new_key(lab.top / "new")
    Path(f"{new}.pub").write_text(f"{NEW} {b64encode(NEW_KEY).decode()} new\n")
    lab.server("h1", authorized_keys="", IdentityFile=f"{new}{suffix}")
    said = lab.pyrelay("h1/h2").stderr
    assert f"hint: {new}{suffix}: a key of the type {NEW}, which our client lacks\n" in said


def test_a_remembered_key_that_is_refused_leaves_the_hop_to_ssh(lab: Lab) -> None:
    """A key of a newer type has come before it meanwhile."""
    refuses = False

    def script(request: Request) -> list[bytes]:
        return [failure("publickey")] if refuses else takes_any(request)

    server = scripted(lab, "h1", script)
    lab.server("h2")
    assert lab.ssh("h1/h2", "true").returncode == 0
    refuses, server.signatures = True, (NEW, "ssh-ed25519")
    lab.host("h1", IdentityFile=f"{new_key(lab.top / 'new')}\n    IdentityFile {lab.identity}")
    assert f"new is a key of the type {NEW}, which our client lacks\n" in lab.pyrelay("-v", "h1/h2").stderr


def test_hostbased_is_at_hand_where_ssh_can_sign_by_the_key_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(**values: str) -> list[str]:
        given = {"hostbasedauthentication": ["yes"], "enablesshkeysign": ["yes"]}
        return first_methods(HopSettings("h1", {**given, **{key: [value] for key, value in values.items()}}))

    here = __file__
    monkeypatch.setattr(only_ssh, "_KEYSIGN", (sys.executable,))
    monkeypatch.setattr(only_ssh, "_HOST_KEYS", (here,))
    assert first() == ["hostbased"]
    assert first(hostbasedauthentication="no") == first(enablesshkeysign="no") == []
    assert first(preferredauthentications="publickey,hostbased") == []
    assert first(preferredauthentications="publickey,hostbased", pubkeyauthentication="no") == ["hostbased"]
    monkeypatch.setattr(only_ssh, "_KEYSIGN", (here,))  # nobody can run it
    assert first() == []


# Programs with a directory in place of /etc/ssh, and a server of which with another home, too.
WITHIN = 'mount --bind "$0" /etc/ssh && exec "$@"'
AT_HOME = 'mount --bind "$0" /etc/ssh && mount --bind "$0" ~ && exec "$@"'


def test_a_login_by_the_key_of_this_host(lab: Lab) -> None:
    """ssh-keysign reads nothing but /etc/ssh."""
    if os.geteuid() != 0:
        missing("only root can put its own files in place of /etc/ssh")
    etc = lab.top / "etc"
    etc.mkdir()
    public = Path(f"{lab.keygen('etc/ssh_host_ed25519_key')}.pub").read_text()
    (etc / "ssh_config").write_text("EnableSSHKeysign yes\n")
    (etc / "ssh_known_hosts").write_text(f"* {public}")
    (etc / ".shosts").write_text("".join(f"{name} {lab.user}\n" for name in {"localhost", socket.gethostname()}))
    within = [need("unshare"), "--mount", "sh", "-c"]
    lab.server(
        "h1",
        authorized_keys="",
        extra="HostbasedAuthentication yes\nHostbasedUsesNameFromPacketOnly yes\nIgnoreRhosts no\nPermitRootLogin yes",
        within=[*within, AT_HOME, str(etc)],
        EnableSSHKeysign="yes",
        HostbasedAuthentication="yes",
    )
    lab.server("h2")
    relay = [*within, WITHIN, str(etc), str(lab.program), "-F", str(lab.config)]
    for options in ((), FORGETFUL):
        done = lab.run(*relay, *options, "h1/h2")
        assert done.stdout.startswith("SSH-2.0-OpenSSH"), done.stderr + lab["h1"].log()
    assert re.findall("^Accepted (.*) for", lab["h1"].whole_log(), re.MULTILINE) == ["hostbased"] * 2


@pytest.mark.parametrize("cache", ["", "FILE:{}/none", "{}/none", "DIR:{}/none", "FILE:/dev/null"])
def test_no_ticket(tmp_path: Path, cache: str) -> None:
    environ = {"KRB5CCNAME": cache.format(tmp_path), "KRB5_CONFIG": str(tmp_path / "none")}
    assert not has_ticket(environ)


def test_a_ticket_that_has_expired(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", realm.environment["KRB5_CONFIG"])
    assert has_ticket(realm.log_in(cache=tmp_path / "valid"))
    assert not has_ticket(realm.log_in("-l", "1s", "-s", "-2h", cache=tmp_path / "old"))


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----", b"openssh", bytes(99)])
def test_key_files_whose_type_cannot_be_told(tmp_path: Path, damage: bytes) -> None:
    path = new_key(tmp_path / "key")
    assert foreign.type_of(foreign.public_half(str(path))[0]) == NEW
    for size in range(0, path.stat().st_size, 7):
        cut = tmp_path / "cut"
        cut.write_bytes(path.read_bytes()[:size] + damage)
        assert re.fullmatch("[A-Za-z0-9@.-]*", foreign.type_of(foreign.public_half(str(cut))[0]))
