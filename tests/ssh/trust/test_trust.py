"""Which host keys are trusted: pyrelay and the real ssh, with one ssh_config and one server, decide alike."""

from __future__ import annotations

import base64
import errno
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from terminal import Terminal
from trusting import (
    CHANGED,
    REVOKED,
    UNKNOWN,
    Listener,
    Meeting,
    Person,
    agree,
    certify,
    key,
    meet,
    server,
    settings_of_h1,
    write,
)

from relay.errors import RelayError, Unserved
from relay.run.children import Children
from relay.ssh.pubkey import PublicKey, string
from relay.ssh.trust import hosts_command
from relay.ssh.trust.trust import Trust

if TYPE_CHECKING:
    from lab import Lab


@pytest.mark.parametrize(
    ("known_hosts", "settings", "expected"),
    [
        ("{host} {key}\n", {}, ""),
        ("{host} {key}", {}, ""),
        ("other {key}\n", {}, UNKNOWN),
        ("", {"StrictHostKeyChecking": "ask"}, UNKNOWN),
        ("{host} {other}\n", {}, CHANGED),
        ("{host} {other}\n", {"StrictHostKeyChecking": "accept-new"}, CHANGED),
        ("{host} {other}\n", {"StrictHostKeyChecking": "ask"}, CHANGED),
        ("{host} {other}\n{host} {key}\n", {}, ""),
        ("{host},h1 {key} comment\n", {}, ""),
        ("[127.0.0.?]:* {key}\n", {}, ""),
        ("*,!{host},!127.0.0.1 {key}\n", {}, UNKNOWN),
        ("*,!{host} {key}\n", {}, ""),
        ("127.0.0.1 {key}\n", {}, ""),
        ("127.0.0.1 {other}\n", {}, UNKNOWN),
        ("{host} {other}\n127.0.0.1 {key}\n", {}, CHANGED),
        ("{host} {key}\n@revoked * {key}\n", {}, REVOKED),
        ("{host} {key}\n@revoked * {other}\n", {}, ""),
        ("@revoked 127.0.0.1 {key}\n", {}, REVOKED),
        ("@cert-authority {host} {key}\n", {}, UNKNOWN),
        ("alias {key}\n", {"HostKeyAlias": "Alias"}, ""),
        ("{host} {key}\n", {"HostKeyAlias": "alias"}, UNKNOWN),
        ("", {"KnownHostsCommand": "/bin/echo %H {key}"}, ""),
        ("", {"KnownHostsCommand": "/bin/echo %H {other}"}, CHANGED),
        ("", {"KnownHostsCommand": "/bin/echo %H ssh-ed25519 %K"}, ""),
        ("", {"KnownHostsCommand": "/bin/echo x{key}"}, UNKNOWN),
        ("{host} {key}\n", {"KnownHostsCommand": "/bin/false"}, "KnownHostsCommand failed"),
        ("{host} {key}\n", {"KnownHostsCommand": "/nonexistent %H"}, ""),
        ("", {"KnownHostsCommand": "echo %H {key}"}, UNKNOWN),
        ("", {"GlobalKnownHostsFile": "{top}/global"}, ""),
        ("", {"UserKnownHostsFile": "/nonexistent {top}/global"}, ""),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/list"}, ""),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/list-with-key"}, REVOKED),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/krl"}, ""),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/krl-with-key"}, REVOKED),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/broken-krl"}, "ssh-keygen cannot read it"),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/nonexistent"}, "No such file"),
        ("{host} {key}\n", {"RevokedHostKeys": "{top}/broken"}, "broken:1: "),
        ("{host} {key}\n", {"HostKeyAlgorithms": "rsa-sha2-512,ssh-ed25519"}, ""),
        ("{host} {key}\n", {"HostKeyAlgorithms": "-*"}, "pyrelay has none of the HostKeyAlgorithms"),
    ],
)
def test_a_plain_key(lab: Lab, known_hosts: str, settings: dict[str, str], expected: str) -> None:
    server(lab)
    write(lab, "{host} {key}\n")
    (lab.top / "global").write_bytes(lab.known_hosts.read_bytes())
    (lab.top / "broken").write_text("ssh-ed25519 AAAA\n")
    (lab.top / "broken-krl").write_bytes(b"SSHKRL\n\0 and what is none")
    (lab.top / "list").write_text(f"# a comment\n\n{key(lab, 'other')}\n")
    (lab.top / "list-with-key").write_text(f"{key(lab, 'other')}\n {key(lab, 'h1/ed25519')}\n")
    for name, revoked in (("krl", "other"), ("krl-with-key", "h1/ed25519")):
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", lab.top / name, lab.top / f"{revoked}.pub"], check=True)
    words = {"key": key(lab, "h1/ed25519"), "other": key(lab, "other"), "top": lab.top}
    lab.host("h1", **{name: value.format(**words) for name, value in settings.items()})
    write(lab, known_hosts)
    agree(lab, expected)


def test_a_krl_where_no_file_can_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ssh needs no file to read one, so it goes by ssh."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    (tmp_path / "krl").write_bytes(b"SSHKRL\n\0")
    with pytest.raises(Unserved, match="no file can be made for ssh-keygen: no space left"):
        hosts_command._krl_revokes(
            str(tmp_path / "krl"), PublicKey(string(b"ssh-ed25519") + string(bytes(32))), Children()
        )


@pytest.mark.parametrize(
    "text",
    [
        *("* {key}\n", "@revoked * {key}\n", '"{key}"\n', "cert-authority {key}\n", "serial: 1\n", "\r\n"),
        *("\N{ZERO WIDTH NO-BREAK SPACE}{key}\n", "ssh-foo AAAA\n", "{other}\ngarbage\n", "# x\n\n \t\n{other}\n\r\n"),
    ],
)
def test_a_list_of_revoked_keys_of_which_a_line_cannot_be_read(lab: Lab, text: str) -> None:
    """ssh trusts no key then; one that only a newer ssh knows is for ssh to judge."""
    server(lab)
    lab.server("h2")
    words = {"key": key(lab, "h1/ed25519"), "other": key(lab, "other")}
    (lab.top / "list").write_text(text.format(**words))
    write(lab, "{host} {key}\n")
    lab.host("h1", RevokedHostKeys=lab.top / "list")
    assert lab.ssh("h1", "true").returncode == 255
    assert lab.pyrelay("h1/h2").returncode == 1
    assert lab["h1"].logins() == []


def test_a_list_with_a_key_that_is_too_short(lab: Lab) -> None:
    server(lab)
    short = b"".join(string(part) for part in (b"ssh-rsa", b"\1\0\1", b"\x7f" + bytes(94) + b"\1"))
    (lab.top / "list").write_text(f"ssh-rsa {base64.b64encode(short).decode()}\n")
    write(lab, "{host} {key}\n")
    lab.host("h1", RevokedHostKeys=lab.top / "list")
    agree(lab, "")
    with (lab.top / "list").open("a") as file:
        file.write(key(lab, "h1/ed25519"))
    agree(lab, REVOKED)


@pytest.mark.parametrize("names", ["{0} {1}", "{1} {0}", "{0} {0}"])
def test_several_files_of_revoked_keys(lab: Lab, names: str) -> None:
    """As OpenSSH 10.6 and later take them; this ssh prints what one of those would."""
    server(lab)
    write(lab, "{host} {key}\n")
    files = [lab.top / "first list", lab.top / "second"]
    for file, revoked in zip(files, ("other", "h1/ed25519"), strict=True):
        file.write_text(f"{key(lab, revoked)}\n")
    newer = lab.program.parent / "ssh"
    newer.write_text(f"#!/bin/sh\n/usr/bin/ssh \"$@\"\necho 'revokedhostkeys {names.format(*files)}'\n")
    newer.chmod(0o755)
    lab.server("h2")
    done = lab.pyrelay("h1/h2")
    assert (REVOKED in done.stderr) == ("{1}" in names)
    assert done.stdout.startswith("SSH-2.0-") == ("{1}" not in names)


def test_hashed_names(lab: Lab) -> None:
    server(lab)
    write(lab, "other {key}\n{host} {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", lab.known_hosts], capture_output=True, check=True)
    assert "127.0.0.1" not in lab.known_hosts.read_text()
    agree(lab, "")


@pytest.mark.parametrize("known", ["key", "rsa", "ecdsa"])
@pytest.mark.parametrize("marked", ["", "@revoked other {rsa}\n"])
def test_the_key_that_is_known_is_the_one_that_is_asked_for(lab: Lab, known: str, marked: str) -> None:
    server(lab, "rsa", "ecdsa", "ed25519")
    write(lab, f"{marked}{{host}} {{{known}}}\n")
    agree(lab, "")


def test_a_key_that_is_known_for_every_port_is_not_asked_for(lab: Lab) -> None:
    """It counts when the server shows it; but ssh puts the algorithms in order by the name with the port alone."""
    server(lab, "rsa", "ed25519")
    write(lab, "127.0.0.1 {rsa}\n")
    agree(lab, UNKNOWN)
    write(lab, "127.0.0.1 {key}\n")
    agree(lab, "")
    write(lab, "127.0.0.1 {rsa}\n{host} {key}\n")
    agree(lab, "")


@pytest.mark.parametrize(
    ("known_hosts", "expected"),
    [
        ("@revoked * {key}\n{host} {key}\n{host} {ecdsa}\n", ""),
        ("@revoked * {key}\n{host} {key}\n{host} {other}\n{host} {ecdsa}\n", ""),
        ("@revoked * {key}\n{host} {other}\n{host} {ecdsa}\n", REVOKED),
        ("@revoked * {key}\n{host} {key}\n", REVOKED),
    ],
)
def test_a_type_whose_first_key_is_revoked_is_not_asked_for(lab: Lab, known_hosts: str, expected: str) -> None:
    server(lab, "ecdsa", "ed25519")
    write(lab, known_hosts)
    agree(lab, expected)


@pytest.mark.parametrize(
    ("algorithms", "expected"),
    [
        ("ssh-ed25519,ecdsa-sha2-nistp256", CHANGED),
        ("ecdsa-sha2-nistp256,ssh-ed25519", ""),
        ("^ssh-ed25519", CHANGED),
        ("^ecdsa-sha2-nistp256", ""),
        ("-rsa-sha2-256", ""),
        ("+ssh-rsa", ""),
    ],
)
def test_the_order_of_algorithms_that_were_chosen(lab: Lab, algorithms: str, expected: str) -> None:
    """It stays, whichever key is known. A list that only adds to the default one (+), or takes from it (-), is none."""
    server(lab, "ecdsa", "ed25519")
    lab.host("h1", HostKeyAlgorithms=algorithms)
    write(lab, "{host} {ecdsa}\n")
    agree(lab, expected)


def test_algorithms_that_were_chosen(lab: Lab) -> None:
    server(lab, "rsa", "ecdsa", "ed25519")
    lab.host("h1", HostKeyAlgorithms="ssh-ed25519,ecdsa-sha2-nistp256")
    write(lab, "{host} {rsa}\n")
    met = agree(lab, CHANGED)
    assert "  known is: RSA " in met.error
    assert f"  known by: {lab.known_hosts}:1\n" in met.error
    lab.host("h1", HostKeyAlgorithms="sk-ssh-ed25519@openssh.com")
    assert "pyrelay has none of the HostKeyAlgorithms of ssh_config: sk-ssh-ed25519@openssh.com" in meet(lab).error


def test_an_rsa_key_that_is_too_short(lab: Lab) -> None:
    server(lab, "rsa")
    write(lab, "{host} {rsa}\n")
    agree(lab, "")
    lab.host("h1", RequiredRSASize=8192)
    agree(lab, "RequiredRSASize is 8192")


# Certificates

CA = "@cert-authority {host} {ca}\n"
PLAIN = "{host} {key}\n"


@pytest.mark.parametrize(
    ("keygen", "known_hosts", "settings", "expected"),
    [
        ("", CA, {}, ""),
        ("", "@cert-authority * {ca}\n", {}, ""),
        ("", "@cert-authority 127.0.0.1 {ca}\n", {}, ""),
        ("", "@cert-authority {host} {other}\n" + CA, {}, ""),
        ("", "@cert-authority {host} {other}\n", {}, UNKNOWN),
        ("", "@cert-authority {host} {other}\n" + PLAIN, {}, ""),
        ("", "@cert-authority other {ca}\n", {}, UNKNOWN),
        ("", "{host} {ca}\n", {}, CHANGED),
        ("", PLAIN, {}, ""),
        ("", "{host} {other}\n", {}, CHANGED),
        ("", "{host} {other}\n" + CA, {}, ""),
        ("-n h1,127.0.0.1", CA, {}, ""),
        ("-n h1", CA, {}, UNKNOWN),
        ("-n h1", CA + PLAIN, {}, ""),
        ("-n h1", CA + "{host} {other}\n", {}, CHANGED),
        ("-n alias", "@cert-authority alias {ca}\n", {"HostKeyAlias": "alias"}, ""),
        ("", "@cert-authority alias {ca}\n", {"HostKeyAlias": "alias"}, UNKNOWN),
        ("-V -2d:-1d", CA, {}, UNKNOWN),
        ("-V +1d:+2d", CA, {}, UNKNOWN),
        ("-V -2d:-1d", CA + PLAIN, {}, ""),
        ("-V always:forever", CA, {}, ""),
        ("-O critical:x=y", CA, {}, UNKNOWN),
        ("-O extension:x=y", CA, {}, ""),
        ("", CA, {"CASignatureAlgorithms": "rsa-sha2-512"}, UNKNOWN),
        ("", CA, {"CASignatureAlgorithms": "ssh-ed25519"}, ""),
        ("", CA + "@revoked * {ca}\n", {}, REVOKED),
        ("", CA + PLAIN + "@revoked * {ca}\n", {}, REVOKED),
        ("", CA + "@revoked * {key}\n", {}, REVOKED),
        ("", CA, {"RevokedHostKeys": "{top}/ca.pub"}, REVOKED),
        ("", CA, {"RevokedHostKeys": "{top}/h1/ed25519.pub"}, REVOKED),
        ("", CA, {"RevokedHostKeys": "{top}/krl"}, ""),
        ("-z 7", CA, {"RevokedHostKeys": "{top}/krl"}, REVOKED),
        ("", CA + PLAIN, {"HostKeyAlgorithms": "ssh-ed25519"}, ""),
        ("", CA, {"HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com"}, ""),
        ("", "", {"KnownHostsCommand": "/bin/echo @cert-authority %H {ca}"}, ""),
    ],
)
def test_a_certificate(lab: Lab, keygen: str, known_hosts: str, settings: dict[str, str], expected: str) -> None:
    server(lab, certified="ed25519")
    certify(lab, keygen)
    (lab.top / "serials").write_text("serial: 7\n")
    krl = ["ssh-keygen", "-q", "-k", "-f", f"{lab.top}/krl", "-s", f"{lab.top}/ca.pub", f"{lab.top}/serials"]
    subprocess.run(krl, check=True)
    lab.host("h1", **{name: value.format(top=lab.top, ca=key(lab, "ca")) for name, value in settings.items()})
    write(lab, known_hosts)
    agree(lab, expected)


@pytest.mark.parametrize("names", ["-n 127.0.0.*", "-n *", "-n 127.0.0.?,h1", ""])
def test_what_a_certificate_names_is_read_as_the_installed_ssh_reads_it(lab: Lab, names: str) -> None:
    server(lab, certified="ed25519")
    certify(lab, names, named=bool(names))
    write(lab, CA)
    by_ssh = lab.ssh("h1", "true").returncode == 0
    assert (meet(lab).error == "") == by_ssh


@pytest.mark.parametrize("ca_kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_certificates_of_other_types(lab: Lab, kind: str, ca_kind: str) -> None:
    lab.server("h1", host_key_types=[kind], extra=f"HostCertificate {lab.top}/h1/{kind}-cert.pub")
    certify(lab, kind=kind, ca="issuer", ca_kind=ca_kind)
    lab.known_hosts.write_text(f"@cert-authority * {key(lab, 'issuer')}\n")
    agree(lab, "")


def test_a_certificate_as_newer_openssh_than_most_has_it(lab: Lab) -> None:
    """One whose own key HostKeyAlgorithms leaves out."""
    server(lab, certified="ed25519")
    certify(lab, "-n h1")
    lab.host("h1", HostKeyAlgorithms="ssh-ed25519-cert-v01@openssh.com")
    write(lab, PLAIN)
    agree(lab, "not permitted by HostKeyAlgorithms", as_ssh=False)


def test_why_a_certificate_does_not_count_is_said(lab: Lab) -> None:
    server(lab, certified="ed25519")
    certify(lab, "-n h1")
    write(lab, CA)
    met = agree(lab, UNKNOWN)
    assert met.said == ["Certificate invalid: name is not a listed principal"]


def test_a_broken_certificate_is_no_key(lab: Lab) -> None:
    server(lab, certified="ed25519")
    certify(lab)
    write(lab, CA + PLAIN)
    forged = lab.top / "h1/ed25519-cert.pub"
    settings = settings_of_h1(lab)
    blob = bytearray(base64.b64decode(forged.read_text().split()[1]))
    blob[-1] ^= 1
    trust = Trust(settings, Listener(), Person(Listener()))
    with pytest.raises(RelayError, match="cannot be used: its signature is not its issuer's"):
        trust.verify(bytes(blob))


# Where pyrelay is stricter than ssh, or has more to say


@pytest.mark.parametrize("strict", ["no", "off"])
@pytest.mark.parametrize(
    ("known_hosts", "expected"), [("{host} {other}\n", CHANGED), ("{host} {key}\n@revoked * {key}\n", REVOKED)]
)
def test_a_changed_or_revoked_key_is_refused_in_every_mode(
    lab: Lab, strict: str, known_hosts: str, expected: str
) -> None:
    server(lab)
    lab.host("h1", StrictHostKeyChecking=strict)
    write(lab, known_hosts)
    agree(lab, expected, as_ssh=False)


def fingerprint(lab: Lab, name: str) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", lab.top / f"{name}.pub"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]


def test_all_that_is_to_be_known_of_a_changed_key(lab: Lab) -> None:
    server(lab)
    write(lab, "# comment\n\n{host} {other}\n")
    error = agree(lab, CHANGED).error
    host = f"[127.0.0.1]:{lab['h1'].port}"
    lines = (
        f"the host key of {host} is not the known one",
        f"  it shows: ED25519 {fingerprint(lab, 'h1/ed25519')}",
        f"  known is: ED25519 {fingerprint(lab, 'other')}",
        f"  known by: {lab.known_hosts}:3",
    )
    assert "\n".join([*lines, "hint: "]) in error
    command = re.search(r"ssh-keygen -f .*$", error)
    assert command
    subprocess.run(command[0], shell=True, capture_output=True, check=True)
    assert "no host key is known" in meet(lab).error
    lab.host("h1", FingerprintHash="md5")
    assert re.search(r" MD5(:[0-9a-f]{2}){16}\b", meet(lab).error)


def test_how_to_accept_an_unknown_key_is_said(lab: Lab) -> None:
    server(lab)
    lab.known_hosts.write_text("")
    for strict, reason, asks in (
        ("yes", "StrictHostKeyChecking is yes", "-o StrictHostKeyChecking=ask -o BatchMode=no "),
        ("ask", "nobody may be asked (BatchMode)", "-o BatchMode=no "),
    ):
        lab.host("h1", StrictHostKeyChecking=strict)
        error = agree(lab, UNKNOWN).error
        assert f"and {reason}; it shows ED25519 {fingerprint(lab, 'h1/ed25519')}\n" in error
        assert (
            f"accept it once with `ssh -F {lab.config} -p {lab['h1'].port} {asks}h1`, "
            "or give pyrelay -o StrictHostKeyChecking=accept-new" in error
        )


def test_how_to_accept_the_unknown_key_of_a_later_hop_is_said(lab: Lab) -> None:
    """The command of the hint is tried."""
    lab.servers("h1", "h2", "h3")
    known = lab.known_hosts.read_text()
    lab.known_hosts.write_text("".join(line for line in known.splitlines(True) if f":{lab['h2'].port}," not in line))
    lab.host("h2", StrictHostKeyChecking="yes", BatchMode="yes")
    said = lab.pyrelay("h1/h2/h3").stderr
    command = re.search(r"accept it once with `(.*)`", said)
    assert command
    way = f"-J {lab.user}@h1:{lab['h1'].port} -p {lab['h2'].port}"
    assert command[1] == f"ssh -F {lab.config} {way} -o StrictHostKeyChecking=ask -o BatchMode=no h2"
    with Terminal(lab, *command[1].split(), "true") as terminal:
        terminal.expect("(yes/no/[fingerprint])? ")
        terminal.type("yes\n")
        assert terminal.wait() == 0
    assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"


def test_bad_lines_are_named_and_skipped(lab: Lab) -> None:
    server(lab)
    write(
        lab, "@wrong * {key}\n* ssh-ed25519 AAAA\nother broken\n|1|x {key}\n* ssh-new@example.com AAAA\n{host} {key}\n"
    )
    met = agree(lab, "")
    path = lab.known_hosts
    assert met.said == [
        f"{path}:1: bad line skipped: unknown marker",
        f"{path}:2: bad line skipped: too short",
        f"{path}:4: bad line skipped: a hashed name that cannot be read",
    ]


# Learning


@pytest.mark.parametrize("strict", ["no", "off", "accept-new", "ask"])
@pytest.mark.parametrize("hashed", ["yes", "no"])
def test_an_unknown_key_is_learned(lab: Lab, strict: str, hashed: str) -> None:
    server(lab)
    lab.host("h1", StrictHostKeyChecking=strict, HashKnownHosts=hashed)
    lab.known_hosts.write_text("other.example.com ssh-ed25519 AAAA")  # no new-line at the end
    met = meet(lab, *(["yes"] if strict == "ask" else []))
    host = f"[127.0.0.1]:{lab['h1'].port}"
    assert met.error == ""
    assert met.said == [f"Warning: Permanently added '{host}' (ED25519) to the list of known hosts."]
    old, new = lab.known_hosts.read_text().splitlines()
    assert old == "other.example.com ssh-ed25519 AAAA"
    assert new.startswith("|1|" if hashed == "yes" else f"{host} ")
    lab.host("h1", StrictHostKeyChecking="yes")
    assert agree(lab, "").said == []


def test_the_question_is_that_of_openssh(lab: Lab) -> None:
    server(lab)
    lab.host("h1", StrictHostKeyChecking="ask")
    shown = fingerprint(lab, "h1/ed25519")
    host = f"[127.0.0.1]:{lab['h1'].port}"
    question = (
        f"hop 1 of 2 (h1): The authenticity of host '{host} ({host})' can't be established.\n"
        f"ED25519 key fingerprint is {shown}.\n"
        "{others}\n"
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )
    again = "Please type 'yes', 'no' or the fingerprint: "
    nobody = "This key is not known by any other names."
    for answers, accepted in (
        (["yes"], True),
        ([" YES "], True),
        (["y", "maybe", "yes"], True),
        ([shown], True),
        ([shown.lower(), "no"], False),
        (["no"], False),
        (["No"], False),
        ([""], False),
        (["what?", ""], False),
    ):
        lab.known_hosts.write_text("")
        met = meet(lab, *answers, address="127.0.0.1")
        assert met.asked == [question.format(others=nobody), *[again] * (len(answers) - 1)]
        assert met.error == "" if accepted else "you did not accept the ED25519 key of " in met.error
        assert bool(lab.known_hosts.read_text()) == accepted
    write(lab, "b,c {key}\n|1|AAAA|AAAA {key}\n{host} {key} \n")
    lab.host("h1", HostKeyAlias="alias")
    question = question.replace(f"'{host} ({host})'", "'alias (<no hostip for proxy command>)'")
    others = "This host key is known by the following other names/addresses:\n    {0}:1: b,c\n    {0}:3: {1}"
    assert meet(lab, "no").asked == [question.format(others=others.format(lab.known_hosts, host))]


@pytest.mark.parametrize(("picture", "digest"), [("no", "sha256"), ("yes", "sha256"), ("yes", "md5")])
def test_the_words_of_the_question_are_in_ssh(lab: Lab, picture: str, digest: str) -> None:
    """The real ssh asks the same through an askpass program, with the picture that VisualHostKey wants."""
    server(lab)
    lab.host("h1", VisualHostKey=picture, FingerprintHash=digest)
    lab.known_hosts.write_text("")
    lab.host("h1", StrictHostKeyChecking="ask", BatchMode="no")
    askpass = lab.top / "askpass"
    askpass.write_text(f'#!/bin/sh\nprintf %s "$1" > {lab.top}/asked\necho no\n')
    askpass.chmod(0o755)
    env = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    lab.run("ssh", "-F", lab.config, "h1", env=env)
    asked = (lab.top / "asked").read_text().replace("fingerprint is: ", "fingerprint is ")
    ours = meet(lab, "no", address="127.0.0.1").asked[0].removeprefix("hop 1 of 2 (h1): ")
    stops = re.compile(r"\.$", re.MULTILINE)  # not every version has them everywhere
    assert stops.sub("", asked) == stops.sub("", ours)
    assert (f"[{digest.upper()}]" in ours) == (picture == "yes")


def test_a_file_that_cannot_be_written_is_no_error(lab: Lab) -> None:
    server(lab)
    for path, said in (
        ("/dev/null", "Warning: Permanently added"),
        ("/nonexistent/x", "Failed to add the host to the list of known hosts (/nonexistent/x): No such file"),
        (
            "/nonexistent/.ssh/x",
            "Failed to add the host to the list of known hosts (/nonexistent/.ssh/x): No such file",
        ),
    ):
        lab.host("h1", StrictHostKeyChecking="accept-new", UserKnownHostsFile=path)
        met = meet(lab)
        assert met.error == ""
        assert [line[: len(said)] for line in met.said] == [said]
    assert Path("/dev/null").is_char_device()
    lab.host("h1", UserKnownHostsFile=lab.top / ".ssh" / "x")  # only the user's own ~/.ssh is made
    assert "Failed to add the host to the list of known hosts" in meet(lab).said[0]
    assert not (lab.top / ".ssh").exists()


def test_a_name_that_cannot_be_written_down_is_not_learned(lab: Lab) -> None:
    server(lab)
    lab.known_hosts.write_text("")
    lab.host("h1", StrictHostKeyChecking="accept-new", HostKeyAlias="a,b")
    assert "its HostKeyAlias has characters that only ssh writes to known_hosts" in meet(lab).error
    lab.host("h1", HostKeyAlias="alias", UserKnownHostsFile="none")
    assert "there is no UserKnownHostsFile to write it to" in meet(lab).error
    assert lab.known_hosts.read_text() == ""


# The address


def test_a_host_of_this_machine_may_be_exempt(lab: Lab) -> None:
    server(lab)
    lab.known_hosts.write_text("")
    lab.host("h1", NoHostAuthenticationForLocalhost="yes")
    assert lab.ssh("h1", "true").returncode == 0
    for address in ("127.0.0.1", "::1"):
        said = ["NoHostAuthenticationForLocalhost: the host key is not checked"]
        assert meet(lab, address=address) == Meeting("", said, [])
    assert UNKNOWN in meet(lab, address="192.0.2.1").error
    assert UNKNOWN in meet(lab).error  # behind a hop, its localhost is not ours
    lab.host("h1", HostKeyAlias="alias")
    assert lab.ssh("h1", "true").returncode == 255
    assert UNKNOWN in meet(lab, address="127.0.0.1").error


def test_check_host_ip(lab: Lab) -> None:
    server(lab)
    lab.host("h1", CheckHostIP="yes", HostName="localhost", StrictHostKeyChecking="accept-new")
    port = lab["h1"].port
    write(lab, "[localhost]:{port} {key}\n")
    for address in ("", "127.0.0.1"):  # nothing to check
        assert meet(lab, address=address) == Meeting("", [], [])
    (added,) = meet(lab, address="192.0.2.1").said
    assert f"added the ED25519 host key for IP address '[192.0.2.1]:{port}' to the list of known hosts" in added
    assert meet(lab, address="192.0.2.1") == Meeting("", [], [])
    write(lab, "[localhost]:{port} {key}\n[192.0.2.1]:{port} {other}\n")
    assert f"the host key of [192.0.2.1]:{port} is not the known one\n" in meet(lab, address="192.0.2.1").error
    write(lab, "[localhost]:{port} {key}\n@revoked [192.0.2.1]:{port} {key}\n")
    assert REVOKED in meet(lab, address="192.0.2.1").error
    write(lab, "[localhost]:{port} {key}\n[192.0.2.1]:{port} ssh-mldsa44-ed25519 AAAA\n")
    assert "of the type ssh-mldsa44-ed25519, which our client lacks" in meet(lab, address="192.0.2.1").error


def test_what_a_known_hosts_command_is_told(lab: Lab) -> None:
    server(lab)
    log = lab.top / "log"
    command = lab.top / "command"
    command.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >> {log}\necho >> {log}\n')
    command.chmod(0o755)
    lab.host("h1", KnownHostsCommand=rf'{command} %I %H "%t  %f" %K \"a\ b %% ${{HOME}}', CheckHostIP="yes")
    write(lab, "{host} {key}\n192.0.2.1 {key}\n")
    assert lab.run("ssh", "-F", lab.config, "h1", "true", env={"HOME": "/home dir"}).returncode == 0
    by_ssh = log.read_text()
    log.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", "/home dir")
        assert meet(lab).error == ""
    host = f"[127.0.0.1]:{lab['h1'].port}"
    # Up to 9.5, ssh leaves the port away in ORDER.
    assert by_ssh.replace("ORDER\n127.0.0.1\n", f"ORDER\n{host}\n") == log.read_text()
