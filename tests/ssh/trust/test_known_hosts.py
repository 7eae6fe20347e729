"""Lines of known_hosts, with the real ssh-keygen as the judge of what they say of a host."""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import re
import resource
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from lab import ROOT
from peers import missing, need

from relay.ssh.pubkey import PublicKey, string
from relay.ssh.trust import known_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Keys of every type, each as two words.
ED25519, OTHER_ED25519 = (
    b"ssh-ed25519 " + base64.b64encode(string(b"ssh-ed25519") + string(bytes([byte] * 32))) for byte in (1, 2)
)
SK_ED25519 = b"sk-ssh-ed25519@openssh.com " + base64.b64encode(
    string(b"sk-ssh-ed25519@openssh.com") + string(bytes([1] * 32)) + string(b"ssh:")
)
ECDSA = [
    ec.generate_private_key(curve()).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
]


def rsa(bits: int) -> bytes:
    blob = string(b"ssh-rsa") + string(b"\1\0\1") + string(b"\0" + b"\xc5" * (bits // 8))
    return b"ssh-rsa " + base64.b64encode(blob)


KEYS = [ED25519, OTHER_ED25519, SK_ED25519, rsa(2048), rsa(1024), rsa(1016), *ECDSA]
HOSTS = ["h1", "H1", "h1.example.com", "[h1]:2022", "[h1.example.com]:22", "2001:db8::1", "[2001:db8::1]:2022", "h"]


def hashed(host: str, salt: bytes) -> bytes:
    digest = hmac.digest(salt, host.encode(), "sha1")
    return b"|1|%s|%s" % (base64.b64encode(salt), base64.b64encode(digest))


def mostly(usual: st.SearchStrategy[bytes], *others: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What is usual three times of four: a file of which every line has something wrong shows little."""
    return st.integers(0, 3).flatmap(lambda die: st.one_of(*others) if die == 0 else usual)


def odd(usual: bytes, *others: bytes) -> st.SearchStrategy[bytes]:
    return mostly(st.just(usual), st.sampled_from(others))


SALTS = st.binary(min_size=20, max_size=20)
HOST = st.sampled_from([host.encode() for host in HOSTS])
PATTERN = mostly(
    HOST,
    st.sampled_from([b"*", b"h?", b"*.example.com", b"[*]:2022", b"[h1]:*", b"h1*", b"?1", b"", b"**", b"*1"]),
    st.text("hH1*?[]:.", max_size=6).map(str.encode),
    st.integers(1020, 1026).map(lambda count: b"*" + b"h" * (count - 1)),
    st.lists(st.sampled_from([b"\xff", b"\xc3\xa9", b"*", b"h", b"\v"])).map(b"".join),
)
SIGNED = st.builds(lambda sign, pattern: sign + pattern, odd(b"", b"!", b"!!"), PATTERN)
NAMES = mostly(
    st.lists(SIGNED, min_size=1, max_size=5).map(b",".join),
    st.builds(hashed, st.sampled_from(HOSTS), SALTS),
    st.builds(lambda host, salt, cut: hashed(host, salt)[:-cut], st.sampled_from(HOSTS), SALTS, st.integers(1, 60)),
    st.builds(hashed, st.sampled_from(HOSTS), st.binary(min_size=1, max_size=24)),
    st.sampled_from([b"|", b"|1|", b"|2|a|b", b"|1||", b"|h1", b"h1,|1|a|b"]),
)
BREAK: list[Callable[[bytes], bytes]] = [
    lambda key: key.replace(b" ", b"\t "),
    lambda key: key.partition(b" ")[0],
    lambda key: key[:-1],
    lambda key: key[:-4],
    lambda key: key + b"AAAA",
    lambda key: key[:-3] + bytes([key[-3] + 1]) + b"==" if key.endswith(b"==") else key + b"=",
    lambda key: key + b"\r",
    lambda key: key[:60] + b"\v" + key[60:],
    lambda key: key.replace(b"ssh-ed25519", b"SSH-ED25519", 1),
    lambda key: key.replace(b"ssh-rsa ", b"rsa-sha2-512 "),
    lambda key: key.replace(b"ssh-ed25519 ", b"ssh-rsa "),
    lambda key: key.replace(b"nistp256 ", b"nistp384 "),
]
KEY = mostly(
    st.sampled_from(KEYS),
    st.builds(lambda how, key: how(key), st.sampled_from(BREAK), st.sampled_from(KEYS)),
    st.sampled_from([b"# no key", b"1024 65537 1234567890", b"ssh-ed25519 AAAA", b""]),
)
LINE = st.tuples(
    odd(b"", b" ", b"\t", b"#", b"\0"),
    odd(
        b"",
        b"@cert-authority ",
        b"@revoked ",
        b"@revoked\t",
        b"@revoked  ",
        b"@lost ",
        b"@revoked @revoked ",
        b"@",
        b"@ ",
    ),
    NAMES,
    odd(b" ", b"\t", b"  ", b" \t"),
    KEY,
    odd(b"", b" c", b" two words", b"\t# c", b" \xff\xfe", b" a\0b", b" " + b"x" * 9000, b"#"),
    odd(b"\n", b"\r\n", b"\n\n"),
).map(b"".join)
FILE = st.builds(
    lambda lines, cut: b"".join(lines)[: -1 if cut else None], st.lists(LINE, min_size=1, max_size=8), st.booleans()
)


def judged(path: Path, host: str) -> list[tuple[int, str, str]]:
    """Line, marker and fingerprint of each key that ssh-keygen finds for host."""
    done = subprocess.run([need("ssh-keygen"), "-l", "-F", host, "-f", path], capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(rb"^# Host .* found: line (\d+) (CA|REVOKED|)\n\S+ \S+ (SHA256:\S+)", done.stdout, re.MULTILINE)
    markers = {b"": "", b"CA": known_hosts.CA, b"REVOKED": known_hosts.REVOKED}
    assert len(found) == done.stdout.count(b"\n# Host ") + done.stdout.startswith(b"# Host ")
    return [(int(number), markers[marker], fingerprint.decode()) for number, marker, fingerprint in found]


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=FILE, host=st.sampled_from(HOSTS))
@example(data=b"h1 " + ED25519, host="h1")
@example(data=b"*,!h1 " + ED25519 + b"\n", host="h1")
@example(data=b"@revoked\th1\t" + ED25519.replace(b" ", b"\t") + b"\n", host="h1")
@example(data=b"@cert-authority *,!" + b"h" * 1023 + b" " + ED25519 + b"\n", host="h1")
@pytest.mark.timeout(400)  # a thousand runs of ssh-keygen
def test_ssh_keygen_finds_the_same(tmp_path: Path, data: bytes, host: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(data)
    entries = known_hosts.lookup(data, host, str(path))[0]
    event(f"keys found: {len(entries)}")
    assert [(entry.number, entry.marker, entry.key.fingerprint()) for entry in entries] == judged(path, host)


def concerning(lines: Iterator[known_hosts.Line], host: bytes) -> list[int]:
    """The numbers of those that are about host, or cannot be read."""

    def concerns(line: known_hosts.Line) -> bool:
        try:
            return not line.names or known_hosts.matches(line.names, host)
        except known_hosts.BadLine:
            return True

    return [line.number for line in lines if concerns(line)]


@given(data=FILE | st.binary(), host=HOST)
def test_no_line_about_a_host_is_passed_over(data: bytes, host: bytes) -> None:
    assert concerning(known_hosts.about(data, host), host) == concerning(known_hosts.lines(data), host)


def test_lines_about_others_are_not_read() -> None:
    """Where there are a thousand of them, that takes longer than a login."""
    others = [names + b" " + ED25519 for names in (b"h2,10.0.0.2", hashed("h2", bytes(20)), b"[h2]:2022")]
    data = b"\n".join([*others, hashed("h1", bytes(20)) + b" " + ED25519, b"h0,h1 " + ED25519, *others])
    assert [line.number for line in known_hosts.about(data, b"h1")] == [4, 5]


# Patterns


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_are_those_of_a_regular_expression(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, char) for char in pattern)
    assert known_hosts.match_pattern(text.encode(), pattern.encode()) == bool(re.fullmatch(expression, text))


def test_many_stars_take_no_time_to_speak_of() -> None:
    assert not known_hosts.match_pattern(b"a" * 250, b"*a" * 250 + b"*b")


# Adding a line

OURS = PublicKey(base64.b64decode(ED25519.split()[1]))
THEIRS = PublicKey(base64.b64decode(OTHER_ED25519.split()[1]))
NAMES_TO_LEARN = ["h1", "[h1]:2022", "2001:db8::1", "fe80::1%eth0", "H1.Example.COM", "h\xe9"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=FILE | st.binary(), host=st.sampled_from(NAMES_TO_LEARN), is_hashed=st.booleans())
@example(data=b"@revoked * " + ED25519, host="h1", is_hashed=False)
def test_what_is_added_is_found_and_nothing_is_lost(tmp_path: Path, data: bytes, host: str, is_hashed: bool) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(data)
    known = [entry.key.blob for entry in known_hosts.lookup(data, host.lower(), "")[0] if not entry.marker]
    known_hosts.append(str(path), host, OURS, hashed=is_hashed)
    after = path.read_bytes()
    if OURS.blob in known:
        assert after == data
        return
    assert after.startswith(data)
    added = after[len(data) :]
    assert added.startswith(b"\n") == bool(data and not data.endswith(b"\n"))
    assert added.strip(b"\n").count(b"\n") == 0
    assert added.lstrip(b"\n").startswith(b"|1|") == is_hashed
    number = after.count(b"\n")  # its line is the last
    assert (number, "", OURS.fingerprint()) in judged(path, host.lower())


def test_a_new_file_and_its_directory_are_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hosts, "with_home", lambda _: str(tmp_path / ".ssh"))
    before = os.umask(0)
    try:
        path = tmp_path / ".ssh" / "known_hosts"
        known_hosts.append(str(path), "h1", OURS, hashed=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_bytes() == b"h1 " + ED25519 + b"\n"


def test_no_other_directory_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        known_hosts.append(str(tmp_path / "ssh" / "known_hosts"), "h1", OURS, hashed=False)


def test_the_mode_of_a_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.touch(0o644)
    inode = path.stat().st_ino
    known_hosts.append(str(path), "h1", OURS, hashed=False)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_ino) == (0o644, inode)


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_followed(tmp_path: Path, exists: bool) -> None:
    link, real = tmp_path / "known_hosts", tmp_path / "real"
    if exists:
        real.write_bytes(b"h2 " + ED25519)
    link.symlink_to(real)
    known_hosts.append(str(link), "h1", OURS, hashed=False)
    assert link.is_symlink()
    assert real.read_bytes().splitlines()[-1] == b"h1 " + ED25519


def test_dev_null_takes_it_and_stays_what_it_is() -> None:
    before = os.stat(os.devnull)
    known_hosts.append(os.devnull, "h1", OURS, hashed=True)
    after = os.stat(os.devnull)
    assert (after.st_ino, after.st_rdev, after.st_mode) == (before.st_ino, before.st_rdev, before.st_mode)
    assert known_hosts.read_files([os.devnull], [], print) == [(os.devnull, b"")]


def test_a_full_disk_is_an_error() -> None:
    if not os.path.exists("/dev/full"):
        missing("/dev/full is Linux's")
    with pytest.raises(OSError, match="No space left"):
        known_hosts.append("/dev/full", "h1", OURS, hashed=False)


def test_a_disk_with_room_for_half_a_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="the disk is full"):
            known_hosts.append(str(path), "h1", OURS, hashed=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    known_hosts.append(str(path), "h1", OURS, hashed=False)
    assert path.read_bytes().splitlines()[1:] == [b"h1 " + ED25519]


def test_a_second_key_of_a_type_is_added(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    for key in (OURS, THEIRS, OURS, THEIRS):
        known_hosts.append(str(path), "h1", key, hashed=True)
    assert [entry.key.blob for entry in known_hosts.lookup(path.read_bytes(), "h1", "")[0]] == [OURS.blob, THEIRS.blob]


def test_a_lock_that_is_never_given_back_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known_hosts"
    monkeypatch.setattr(known_hosts, "_LOCK_PATIENCE", 2)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known_hosts.append(str(path), "h1", OURS, hashed=False)
        assert path.read_bytes() == b"h1 " + ED25519 + b"\n"


def test_who_adds_a_line_waits_for_who_is_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"first " + ED25519)
    waits, go_on = threading.Event(), threading.Event()

    def wait(_seconds: float) -> None:
        waits.set()
        assert go_on.wait(30)

    monkeypatch.setattr(known_hosts, "sleep", wait)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # whoever adds one wants to be alone
        second = threading.Thread(target=known_hosts.append, args=(str(path), "h1", OURS), kwargs={"hashed": False})
        second.start()
        assert waits.wait(30)
        file.write(b"\n")  # what the second must not add again
    go_on.set()
    second.join()
    assert path.read_bytes() == b"first " + ED25519 + b"\nh1 " + ED25519 + b"\n"


ADDER = """
import sys
from relay.ssh.trust import known_hosts
from relay.ssh.pubkey import read_key
path, number, *key = sys.argv[1:]
key = read_key(*(word.encode() for word in key))
print(flush=True)
sys.stdin.read()
for count in range(10):
    known_hosts.append(path, f"h{number}-{count}", key, hashed=number == "7")
"""


def test_twenty_at_once(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"first " + ED25519)  # without its new-line: one of them must add it, and only one
    argv = [sys.executable, "-c", ADDER, str(path)]
    processes = [
        subprocess.Popen(
            [*argv, str(number), *ED25519.decode().split()], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(20)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    for process in processes:
        process.communicate()
    data = path.read_bytes()
    assert [line.error for line in known_hosts.lines(data)] == [""] * 201
    assert b"\n\n" not in data
    for number in range(20):
        assert all(len(known_hosts.lookup(data, f"h{number}-{count}", "")[0]) == 1 for count in range(10))


def test_which_names_may_be_written_down() -> None:
    assert all(map(known_hosts.recordable, ("h1", "2001:db8::1", "fe80::1%eth0", "h1/h2", "h\xe9")))
    for bad in ("", "a b", "a\tb", "a,b", "*", "h?", "!h", "|1|a", "@h", "#h", "[h]", "a\x7f", "'h'", '"h"', "a\\"):
        assert not known_hosts.recordable(bad)
