"""Names are bytes, to ssh and to pyrelay, whatever the locale makes of them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scripted_proxy
from login_server import Request, passwords, scripted
from peers import LOOPBACK, missing, need

from relay.spec import PROXY_PASSWORD

if TYPE_CHECKING:
    from lab import Lab

LATIN1 = "de_DE.ISO-8859-1"
LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "Latin-1": {"LC_ALL": LATIN1},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
# The letter u with two dots, as each of two encodings has it.
NAMES = [b"\xfc", b"\xc3\xbc"]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a locale that is not UTF-8, for LOCPATH."""
    path = tmp_path_factory.mktemp("locales")
    argv: list[str | Path] = [need("localedef"), "-i", "de_DE", "-f", "ISO-8859-1", path / LATIN1]
    if subprocess.run(argv, capture_output=True, check=False).returncode > 1:  # 1 is for warnings
        missing("locales is not installed; `make test` installs it, or says how")
    return path


@pytest.fixture(params=LOCALES)
def environ(request: pytest.FixtureRequest, compiled: Path) -> dict[str, str]:
    return {"LOCPATH": str(compiled), **LOCALES[request.param]}


def run(lab: Lab, environ: dict[str, str], *arguments: str | Path) -> tuple[int | None, bytes, str]:
    """Run pyrelay: its exit status, its stdout, and its stderr as far as that is ASCII."""
    process = lab.start(lab.program, "-F", lab.config, *arguments, env=environ)
    out, err = process.communicate(timeout=60)
    said = err.decode("ascii", "replace")
    assert "internal error" not in said
    assert "Traceback" not in said
    return process.returncode, out, said


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_that_name_is_read(lab: Lab, environ: dict[str, str], name: bytes) -> None:
    """The key is revoked there; the file that another encoding would make of the name knows it."""
    lab.servers("h1", "h2")
    known = lab.known_hosts.read_text()
    for each in NAMES:
        text = known.replace("[", "@revoked [") if each == name else known
        Path(os.fsdecode(bytes(lab.top) + b"/known-" + each)).write_text(text)
    lab.host("h1", UserKnownHostsFile=os.fsdecode(bytes(lab.top) + b"/known-" + name))
    status, out, said = run(lab, environ, "h1/h2")
    assert (status, out) == (1, b"")
    assert "REVOKED HOST KEY" in said
    process = lab.start("ssh", "-F", lab.config, "h1", "true", env=environ)
    assert b"REVOKED HOST KEY" in process.communicate()[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_key_file_of_that_name_is_offered(lab: Lab, environ: dict[str, str], name: bytes) -> None:
    lab.servers("h1", "h2")
    path = os.fsdecode(bytes(lab.top) + b"/key-" + name)
    lab.identity.rename(path)
    lab.host("h1", IdentityFile=path)
    assert run(lab, environ, "h1/h2")[1].startswith(b"SSH-2.0-")
    lab.host("h1", IdentityFile="none")
    assert run(lab, environ, "-i", path, "h1/h2")[1].startswith(b"SSH-2.0-")


def hop(lab: Lab, user: bytes, password: bytes) -> list[bytes]:
    """A hop h1 that takes a password; the users that have tried, as they do."""
    users = []
    take = passwords(os.fsdecode(password))

    def script(request: Request) -> Sequence[bytes]:
        users.append(os.fsencode(request.user))
        return take(request)

    scripted(lab, "h1", script, BatchMode="no", PubkeyAuthentication="no", User=os.fsdecode(user))
    return users


def arrives(lab: Lab, environ: dict[str, str], *arguments: str) -> None:
    """ssh reaches h2."""
    process = lab.start("ssh", "-F", lab.config, *arguments, "echo $SERVER", env=environ)
    out, err = process.communicate(timeout=60)
    assert out == b"h2\n", err


def askpass(lab: Lab, answer: bytes) -> dict[str, str]:
    """A program that answers every question, and keeps it."""
    program = lab.top / "askpass"
    program.write_bytes(b"#!/bin/sh\nprintf '%%s' \"$1\" >>%s/asked\nprintf '%%s' '%s'\n" % (bytes(lab.top), answer))
    program.chmod(0o755)
    return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}


@pytest.mark.parametrize("name", NAMES)
def test_users_and_answers_reach_the_hop_as_they_were_typed(lab: Lab, environ: dict[str, str], name: bytes) -> None:
    lab.server("h2")
    users = hop(lab, b"u" + name, b"pass" + name)
    environ = {**environ, **askpass(lab, b"pass" + name)}
    arrives(lab, environ, "h1/h2")
    arrives(lab, environ, os.fsdecode(b"v" + name + b"%h1/h2"))
    assert set(users) == {b"u" + name, b"v" + name}


@pytest.mark.parametrize("name", NAMES)
def test_a_hop_is_asked_for_the_host_by_its_own_bytes(lab: Lab, environ: dict[str, str], name: bytes) -> None:
    h1 = lab.server("h1")
    lab.host("alias", HostName=os.fsdecode(b"x" + name + b".invalid"))
    for host, real in ((b"y" + name + b".invalid", b"y" + name), (b"alias", b"x" + name)):
        argv = ["ssh", "-F", str(lab.write_config()), "-G", os.fsdecode(host)]
        settings = subprocess.run(argv, env=lab.environment(**environ), capture_output=True, check=True).stdout
        # By its locale ssh takes a letter for a capital.
        expected = re.search(rb"^hostname (.*)$", settings, re.MULTILINE)
        assert expected is not None
        assert expected[1].lower() == real + b".invalid" or environ["LC_ALL"] == LATIN1
        assert run(lab, environ, os.fsdecode(b"h1/" + host))[0] == 1
        escaped = "".join(chr(byte) if byte < 128 else f"\\{byte:o}" for byte in expected[1])
        assert f", target {escaped} port 22" in h1.log().replace("\\\\", "\\")


@pytest.mark.parametrize("name", NAMES)
def test_users_and_answers_reach_a_socks_proxy_as_they_were_typed(
    lab: Lab, environ: dict[str, str], name: bytes
) -> None:
    """By -P and ssh's environment, and by a URL's %XX and askpass."""
    peer = scripted_proxy.Peer(scripted_proxy.socks5)
    lab.at_end(peer.stop)
    place, user, word = f"{LOOPBACK}:{peer.port}", b"u" + name, b"pass" + name
    login = bytes((1, len(user))) + user + bytes((len(word),)) + word
    secret = {PROXY_PASSWORD: os.fsdecode(word)}
    by_option = run(lab, {**environ, **secret}, "-X", "5", "-x", place, "-P", os.fsdecode(user), "target.example")
    escaped = "".join(f"%{byte:02X}" for byte in user)
    by_url = run(lab, {**environ, **askpass(lab, word)}, "--proxy", f"socks5://{escaped}@{place}", "target.example")
    assert (by_option[0], by_url[0]) == (0, 0), (by_option, by_url)
    assert [login in heard for heard in peer.heard] == [True, True]


@pytest.mark.parametrize("name", NAMES)
def test_users_and_answers_reach_an_http_proxy_as_they_were_typed(
    lab: Lab, environ: dict[str, str], name: bytes
) -> None:
    """By basic and by digest, whose realm is the proxy's; a header of the user's, from a file and from an option."""
    realm, user, word = b"r" + name, b"u" + name, b"pass" + name
    offers = [b'Digest realm="%s", nonce="n", qop="auth"' % realm, b'Basic realm="%s"' % realm]

    def script(line: scripted_proxy.Line) -> None:
        line.hear_headers()
        if b"authorization" in peer.heard[-1].lower():
            line.say(b"HTTP/1.1 200 OK\r\n\r\n" + scripted_proxy.BANNER)
        else:
            line.say(b"HTTP/1.1 407 No\r\nProxy-Authenticate: %s\r\n\r\n" % offers.pop(0))
        line.last()

    peer = scripted_proxy.Peer(script)
    lab.at_end(peer.stop)
    headers = lab.top / "headers"
    headers.write_bytes(b"X-File: " + name)
    argv: list[str | Path] = ["-X", "connect", "-x", f"{LOOPBACK}:{peer.port}", "-P", os.fsdecode(user)]
    argv += ["--proxy-header", os.fsdecode(b"X-Option: " + name), "--proxy-header", f"@{headers}", "target.example"]
    for _ in range(2):
        assert run(lab, {**environ, PROXY_PASSWORD: os.fsdecode(word)}, *argv)[0] == 0
    _, by_digest, _, by_basic = map(bytes, peer.heard)
    assert base64.b64encode(user + b":" + word) in by_basic
    assert b"X-Option: " + name in by_basic and b"X-File: " + name in by_basic
    cnonce = re.search(rb'cnonce="(\w+)"', by_digest)
    assert cnonce is not None

    def md5(*parts: bytes) -> bytes:
        return hashlib.md5(b":".join(parts)).hexdigest().encode()

    asked = md5(b"CONNECT", b"target.example:22")
    right = md5(md5(user, realm, word), b"n", b"00000001", cnonce[1], b"auth", asked)
    assert b'username="%s", realm="%s"' % (user, realm) in by_digest
    assert b'response="%s"' % right in by_digest


def test_a_holder_and_its_relays_need_not_have_one_locale(lab: Lab, compiled: Path) -> None:
    """The holder begins in one; names and answers of a relay in another are the same bytes."""
    lab.server("h2")
    users = hop(lab, b"u\xc3\xbc", b"pass\xfc")
    environ = {"LOCPATH": str(compiled), **askpass(lab, b"pass\xfc")}
    first, second = LOCALES["UTF-8"], LOCALES["Latin-1"]
    lab.options = ["--share", "1m"]
    arrives(lab, {**environ, **first}, "h1/h2")
    arrives(lab, {**environ, **second}, os.fsdecode(b"v\xc3\xbc%h1/h2"))
    assert set(users) == {b"u\xc3\xbc", b"v\xc3\xbc"}


def test_what_is_said_of_itself(lab: Lab, environ: dict[str, str]) -> None:
    lab.write_config()
    for word in ("--help", "--version"):
        assert run(lab, environ, word)[0] == 0
    assert run(lab, environ, os.fsdecode(b"\xfc" * 5000))[0] == 2
