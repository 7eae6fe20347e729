"""Private key files: every format of ssh-keygen; signatures checked by paramiko."""

from __future__ import annotations

import contextlib
import math
import resource
import subprocess
import sys
import warnings
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from hypothesis import given
from hypothesis import strategies as st
from paramiko.message import Message
from peers import need

from relay.errors import RelayError
from relay.ssh.login.keyfile import BadFile, PrivateKey, WrongPassphrase, parse_private, read_private, read_public
from relay.ssh.pubkey import mpint, string

KINDS = {
    "ed25519": ("ed25519", "RFC4716", "ssh-ed25519"),
    "ecdsa-openssh": ("ecdsa", "RFC4716", "ecdsa-sha2-nistp256"),
    "ecdsa-pem": ("ecdsa", "PEM", "ecdsa-sha2-nistp256"),
    "ecdsa-pkcs8": ("ecdsa", "PKCS8", "ecdsa-sha2-nistp256"),
    "rsa-openssh": ("rsa", "RFC4716", "rsa-sha2-512"),
    "rsa-pem": ("rsa", "PEM", "rsa-sha2-256"),
    "rsa-pkcs8": ("rsa", "PKCS8", "rsa-sha2-512-cert-v01@openssh.com"),
}


def keygen(path: Path, *options: str) -> Path:
    subprocess.run([need("ssh-keygen"), "-q", "-f", path, *options], check=True)
    return path


def signs(key: PrivateKey, algorithm: str) -> bool:
    signature = key.sign(b"data", algorithm)
    public = paramiko.PKey.from_type_string(key.public.type, key.public.blob)
    return bool(public.verify_ssh_sig(b"data", Message(signature)))


@pytest.mark.parametrize("kind", KINDS)
def test_formats(tmp_path: Path, kind: str) -> None:
    name, form, algorithm = KINDS[kind]
    path = keygen(tmp_path / "key", "-t", name, "-m", form, "-N", "")
    public = read_public(f"{path}.pub")
    assert public is not None
    file = read_private(str(path))
    assert not file.encrypted
    if form == "RFC4716":
        assert file.public is not None
        assert file.public.blob == public.blob
    key = file.unlock()
    assert key.public.blob == public.blob
    assert signs(key, algorithm)

    subprocess.run([need("ssh-keygen"), "-q", "-p", "-P", "", "-N", "oÿpen", "-m", form, "-f", path], check=True)
    locked = read_private(str(path))
    assert locked.encrypted
    assert locked.public == file.public or (locked.public and locked.public.blob == public.blob)
    for wrong in (b"wrong", b"", None):
        with pytest.raises(WrongPassphrase):
            locked.unlock(wrong)
    assert signs(locked.unlock("oÿpen".encode()), algorithm)


RSA = ("n", "e", "d", "iqmp", "p", "q")


def rsa_file(numbers: rsa.RSAPrivateNumbers, **changed: int) -> bytes:
    """An OpenSSH file without a passphrase (PROTOCOL.key); changed: numbers that are others in the private half."""
    public = numbers.public_numbers
    values = {**vars_of(numbers), "n": public.n, "e": public.e}
    half = string(b"ssh-rsa") + string(mpint(public.e)) + string(mpint(public.n))
    inside = (
        bytes(8) + string(b"ssh-rsa") + b"".join(string(mpint((values | changed)[name])) for name in RSA) + string(b"")
    )
    inside += bytes(range(1, 9))[: -len(inside) % 8]
    body = b"openssh-key-v1\0" + string(b"none") * 2 + string(b"") + bytes([0, 0, 0, 1]) + string(half) + string(inside)
    return b"-----BEGIN OPENSSH PRIVATE KEY-----\n%s\n-----END OPENSSH PRIVATE KEY-----\n" % b64encode(body)


def vars_of(numbers: rsa.RSAPrivateNumbers) -> dict[str, int]:
    return {name: getattr(numbers, name) for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp")}


def pem_file(key: rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def rsa_numbers() -> rsa.RSAPrivateNumbers:
    return rsa.generate_private_key(65537, 2048).private_numbers()


@pytest.mark.parametrize("name", [*RSA, "dmp1", "dmq1"])
def test_rsa_numbers_that_do_not_belong_together(rsa_numbers: rsa.RSAPrivateNumbers, name: str) -> None:
    """A login by such a key would be refused, and cost a try."""
    assert signs(parse_private(rsa_file(rsa_numbers)).unlock(), "rsa-sha2-512")
    if name in RSA:
        value = rsa_numbers.public_numbers.n if name == "n" else vars_of(rsa_numbers).get(name, 65537)
        with pytest.raises(BadFile):
            parse_private(rsa_file(rsa_numbers, **{name: value ^ 6})).unlock()
    if name not in ("n", "e"):
        values = vars_of(rsa_numbers)
        values[name] ^= 6
        wrong = rsa.RSAPrivateNumbers(**values, public_numbers=rsa_numbers.public_numbers)
        with contextlib.suppress(ValueError):  # of some, cryptography makes no key
            file = pem_file(wrong.private_key(unsafe_skip_rsa_key_validation=True))
            with pytest.raises(BadFile):
                parse_private(file).unlock()


def der(tag: int, inside: bytes) -> bytes:
    size = len(inside)
    return bytes([tag, *([size] if size < 128 else [0x82, size >> 8, size & 255])]) + inside


@pytest.mark.parametrize("one", ["p", "q"])
def test_one_is_no_prime(rsa_numbers: rsa.RSAPrivateNumbers, one: str) -> None:
    """A number by which nothing can be divided, once one is taken away."""
    n, e, d = rsa_numbers.public_numbers.n, rsa_numbers.public_numbers.e, rsa_numbers.d
    numbers = (0, n, e, d, 1, n, 0, d, 0) if one == "p" else (0, n, e, d, n, 1, d, 0, 1)
    inside = b"".join(der(2, mpint(number) or b"\0") for number in numbers)
    label = b"RSA PRIVATE KEY-----\n"
    for file in (
        b"-----BEGIN " + label + b64encode(der(0x30, inside)) + b"\n-----END " + label,
        rsa_file(rsa_numbers, p=numbers[4], q=numbers[5]),
    ):
        with pytest.raises(BadFile):
            parse_private(file).unlock()


def test_a_compressed_point(tmp_path: Path) -> None:
    """RFC 5656 section 3.1 leaves it to each whether it takes one; ssh does not."""
    lines = keygen(tmp_path / "key", "-t", "ecdsa", "-N", "").read_bytes().splitlines()
    body = a2b_base64(b"".join(lines[1:-1])).replace(b"\0\0\0\x41\4", b"\0\0\0\x41\2")
    with pytest.raises(BadFile, match="not supported"):
        parse_private(b"\n".join((lines[0], b64encode(body), lines[-1], b""))).unlock()


@pytest.mark.parametrize("passphrase", ["", "opened"])
@pytest.mark.parametrize("name", ["rsa", "ecdsa"])
def test_a_key_that_is_damaged_anywhere_signs_for_its_public_half_or_not_at_all(
    tmp_path: Path, name: str, passphrase: str
) -> None:
    path = keygen(tmp_path / "key", "-t", name, "-a", "1", "-N", passphrase)
    lines = path.read_bytes().splitlines()
    body = a2b_base64(b"".join(lines[1:-1]))
    how_often = body.find(b"\0\0\0\x18\0\0\0\x10") + 24  # a passphrase is hashed: not for years
    for offset in range(len(body) % 11, len(body), 11):
        if passphrase and how_often <= offset < how_often + 8:
            continue
        damaged = bytearray(body)
        damaged[offset] ^= 1
        try:
            file = parse_private(b"\n".join((lines[0], b64encode(damaged), lines[-1], b"")))
            key = file.unlock(passphrase.encode() or None)
        except (BadFile, WrongPassphrase):
            continue
        assert signs(key, "rsa-sha2-256" if name == "rsa" else "ecdsa-sha2-nistp256")


def test_rsa_primes_are_not_looked_for() -> None:
    """As ssh: that takes up to a second. (These numbers do belong together.)"""
    p, q = (1 << 1024) - 5, (1 << 1024) - 7
    d = pow(65537, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(ValueError, match="Invalid private key"):
        numbers.private_key()
    for file in (rsa_file(numbers), pem_file(key)):
        assert parse_private(file).unlock().public.bits == 2048


@pytest.mark.parametrize(
    ("name", "form", "passphrase", "brings"),
    [
        *((name, "RFC4716", "", "serialization") for name in ("ed25519", "ecdsa", "rsa")),
        *((name, "RFC4716", "opened", "serialization") for name in ("ed25519", "ecdsa", "rsa")),
        *((name, "PEM", "", "serialization.ssh") for name in ("ecdsa", "rsa")),
    ],
)
def test_a_key_is_read_without_what_takes_long_to_import(
    tmp_path: Path, name: str, form: str, passphrase: str, brings: str
) -> None:
    path = keygen(tmp_path / "key", "-t", name, "-m", form, "-N", passphrase)
    script = f"""import sys; sys.path = {sys.path!r}
import relay.run.sparing
from relay.ssh.login.keyfile import WrongPassphrase, read_private
file = read_private({str(path)!r})
try:
    assert not file.encrypted or file.unlock(b"another")
except WrongPassphrase:
    pass
file.unlock({passphrase.encode()!r} or None).sign(b"data", "rsa-sha2-512")
print({{"dataclasses", "re", "cryptography.hazmat.primitives.{brings}"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-ISc", script], check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_every_p_521_signature_is_right(tmp_path: Path) -> None:
    """Its numbers are of several lengths, with and without a zero before them."""
    key = read_private(str(keygen(tmp_path / "key", "-t", "ecdsa", "-b", "521", "-N", ""))).unlock()
    assert all(signs(key, "ecdsa-sha2-nistp521") for _ in range(50))


@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-cbc", "aes256-gcm@openssh.com"])
def test_ciphers(tmp_path: Path, cipher: str) -> None:
    file = read_private(str(keygen(tmp_path / "key", "-t", "ed25519", "-N", "open", "-Z", cipher)))
    assert file.cipher == cipher
    assert signs(file.unlock(b"open"), "ssh-ed25519")
    with pytest.raises(WrongPassphrase):
        file.unlock(b"wrong")


@pytest.fixture(scope="module")
def plain_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("pem") / "key", "-t", "ecdsa", "-m", "PEM", "-N", "")


def openssl(*arguments: str | Path) -> None:
    subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)


PEM_CIPHERS = [
    "aes-128-cbc",
    "aes-192-cbc",
    "aes-256-cbc",
    "des-ede3-cbc",
    "camellia-128-cbc",
    "camellia-192-cbc",
    "camellia-256-cbc",
]


@pytest.mark.parametrize("cipher", PEM_CIPHERS)
def test_ciphers_of_traditional_files(plain_pem: Path, tmp_path: Path, cipher: str) -> None:
    """ssh-keygen opens each, as ssh would."""
    path = tmp_path / "key"
    openssl("ec", "-in", plain_pem, f"-{cipher}", "-passout", "pass:opens", "-out", path)
    path.chmod(0o600)
    file = read_private(str(path))
    assert (file.encrypted, file.cipher) == (True, cipher.upper())
    file.check()
    assert signs(file.unlock(b"opens"), "ecdsa-sha2-nistp256")
    for wrong in (b"wrong", b"", None):
        with pytest.raises(WrongPassphrase):
            file.unlock(wrong)
    shown = subprocess.run([need("ssh-keygen"), "-y", "-P", "opens", "-f", path], capture_output=True, check=True)
    assert file.unlock(b"opens").public.text.encode() in shown.stdout


@pytest.mark.parametrize(("form", "cipher"), [("ec", "aria-128-cbc"), ("pkcs8", "camellia-256-cbc")])
def test_a_cipher_that_only_openssl_has_is_named_before_anybody_is_asked(
    plain_pem: Path, tmp_path: Path, form: str, cipher: str
) -> None:
    path = tmp_path / "key"
    how = [f"-{cipher}"] if form == "ec" else ["-topk8", "-v2", cipher]
    openssl(form, "-in", plain_pem, *how, "-passout", "pass:opens", "-out", path)
    path.chmod(0o600)
    name = cipher.upper() if form == "ec" else "CAMELLIA"
    with pytest.raises(BadFile, match=f"encrypted with {name}; `ssh-keygen -p -f` on it would change that"):
        read_private(str(path)).check()


def test_a_cipher_that_has_no_name_here(plain_pem: Path, tmp_path: Path) -> None:
    path = tmp_path / "key"
    openssl("pkcs8", "-topk8", "-v2", "aes256", "-in", plain_pem, "-passout", "pass:opens", "-out", path)
    body = a2b_base64(b"".join(path.read_bytes().splitlines()[1:-1]))
    other = body.replace(bytes.fromhex("60864801650304012a"), bytes.fromhex("60864801650304017f"))
    assert other != body
    data = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n%s\n-----END ENCRYPTED PRIVATE KEY-----\n" % b64encode(other)
    with pytest.raises(BadFile, match="its encryption is not supported"):
        parse_private(data).unlock(b"opens")


@pytest.mark.parametrize("read", [read_public, read_private])
def test_a_key_file_that_cannot_be_read_is_not_one_that_is_not_there(
    tmp_path: Path, read: Callable[[str], object]
) -> None:
    """Another key must not be used for want of a descriptor, or of an answer from the disk."""
    path = keygen(tmp_path / "key")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(RelayError, match=r"key cannot be read: too many open files$"):
            read(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with pytest.raises(RelayError, match=r"/proc/self/mem cannot be read: input/output error$"):
        read("/proc/self/mem")  # its first page is not there
    assert read_public(str(tmp_path / "absent")) is None
    with pytest.raises(FileNotFoundError):
        read_private(str(tmp_path / "absent"))


def test_a_cipher_that_is_not_to_be_had(tmp_path: Path) -> None:
    file = read_private(str(keygen(tmp_path / "key", "-t", "ed25519", "-N", "open", "-Z", "aes128-ctr")))
    words = "encrypted with aes128-ctr; `ssh-keygen -p -f` on it would change that"
    with pytest.raises(BadFile, match=words):
        file.check()
    with pytest.raises(BadFile, match=words):
        file.unlock(b"open")


def test_a_key_of_an_old_type_is_no_matter_for_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = dsa.generate_private_key(1024)
        data = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        warnings.simplefilter("error")
        with pytest.raises(BadFile, match="not supported"):
            parse_private(data).unlock()


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"ssh-ed25519 AAAA", b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA"],
)
def test_what_is_no_private_key(data: bytes) -> None:
    with pytest.raises(BadFile):
        parse_private(data).unlock()


HEADERS = [b"", b"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-192-CBC,%s\n\n" % (b"0a" * 16), b"DEK-Info: X\nENCRYPTED\n"]


@given(
    st.binary(),
    st.sampled_from([b"OPENSSH ", b"RSA ", b"EC ", b"", b"ENCRYPTED "]),
    st.sampled_from(HEADERS),
    st.none() | st.binary(),
)
def test_any_bytes_give_a_key_or_our_error(body: bytes, kind: bytes, header: bytes, passphrase: bytes | None) -> None:
    inside = header + b64encode(body)
    data = b"-----BEGIN %sPRIVATE KEY-----\n%s\n-----END %sPRIVATE KEY-----\n" % (kind, inside, kind)
    try:
        parse_private(data).unlock(passphrase)
    except (BadFile, WrongPassphrase):
        pass


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_key_gives_a_key_or_our_error(offset: int, noise: bytes) -> None:
    data = bytearray(SAMPLE)
    data[offset : offset + len(noise)] = noise
    for passphrase in (None, b"x"):
        try:
            parse_private(bytes(data)).unlock(passphrase)
        except (BadFile, WrongPassphrase):
            pass


def test_a_private_half_of_another_key() -> None:
    """What it signs would be refused, and cost a try: the key is none, or has the public half of what signs."""
    public = parse_private(SAMPLE).public
    assert public is not None
    body = bytearray(a2b_base64(b"".join(SAMPLE.splitlines()[1:-1])))
    body[body.rindex(public.fields[0]) - 32] ^= 1
    lines = (SAMPLE.splitlines()[0], b64encode(body), SAMPLE.splitlines()[-1], b"")
    key = parse_private(b"\n".join(lines)).unlock()
    assert signs(key, "ssh-ed25519")
    assert not key.public.is_same(public)


# A key made for this test and used for nothing.
SAMPLE = b"""-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCS2WmqGY41b0JVkMboMg8yWlA2Z74dScJ1CdIF3TL4SQAAAJCGwi47hsIu
OwAAAAtzc2gtZWQyNTUxOQAAACCS2WmqGY41b0JVkMboMg8yWlA2Z74dScJ1CdIF3TL4SQ
AAAEBqv4j8FLrHPDTNlhioq7n4iVtO3Ow3BbcgESD8xvcicZLZaaoZjjVvQlWQxugyDzJa
UDZnvh1JwnUJ0gXdMvhJAAAABnNhbXBsZQECAwQFBgc=
-----END OPENSSH PRIVATE KEY-----
"""
