"""Lines of known_hosts, with the real ssh-keygen as the judge of what they say of a host."""

from __future__ import annotations

import base64
import hmac
import re
import subprocess
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from peers import need

from relay import known_hosts
from relay.pubkey import string

if TYPE_CHECKING:
    from collections.abc import Callable
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
def test_ssh_keygen_finds_the_same(tmp_path: Path, data: bytes, host: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(data)
    entries, _ = known_hosts.lookup(data, host, str(path))
    event(f"keys found: {len(entries)}")
    assert [(entry.number, entry.marker, entry.key.fingerprint()) for entry in entries] == judged(path, host)
