"""The key exchanges: each with paramiko's side of a server; what a server may not send is refused."""

from __future__ import annotations

import hashlib
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest
from contract import SOON
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from lab import EXTRA
from pair import KEY, Server
from peers import missing

from relay.run.progress import Progress
from relay.ssh.pubkey import mpint, string
from relay.ssh.wire import kex_others
from relay.ssh.wire.exchanges import EXCHANGES, has_mlkem
from relay.ssh.wire.kex import INIT, REPLY, Curve25519, Exchange, MlKem768X25519, Sntrup761X25519, agree
from relay.ssh.wire.library import Message, SSHException
from relay.ssh.wire.transport import Transport

SMALL_ORDER = [b"\0" * 32, b"\1" + b"\0" * 31]
PRIME = kex_others.Group14.prime


class Modulus:
    """A server's /etc/ssh/moduli with one group."""

    def get_modulus(self, least: int, wanted: int, most: int) -> tuple[int, int]:
        assert (least, wanted, most) == (2048, 3072, 8192)
        return 2, kex_others.Group16.prime


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.mark.parametrize("name", EXCHANGES)
def test_with_another_implementation(
    streams: tuple[socket.socket, socket.socket], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides come to the same keys: a login under them succeeds; also when they are exchanged again."""
    monkeypatch.setattr(paramiko.Transport, "_modulus_pack", Modulus())
    known = paramiko.Transport._kex_info
    monkeypatch.setitem(known, "curve25519-sha256", known["curve25519-sha256@libssh.org"])
    client, server = Transport(streams[0], None, Progress()), paramiko.Transport(streams[1])
    for transport in (client, server):
        transport._preferred_kex = (name,)
    server.add_server_key(KEY)
    server.start_server(event=threading.Event(), server=Server())
    try:
        client.start_client(timeout=SOON)
        assert client.host_key_blob == KEY.asbytes()
        client.renegotiate_keys()
        client.auth_none("somebody")
        assert server.is_authenticated()
    finally:
        client.close()
        server.close()
        client.join(SOON)
        server.join(SOON)


def test_whether_there_is_ml_kem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cryptography may have its classes and an OpenSSL without it. It is offered only where a key can be made."""
    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        assert not has_mlkem()
        return
    assert has_mlkem()
    monkeypatch.setattr(type(default_backend()), "mlkem_supported", lambda _: False)
    assert not has_mlkem()


def test_all_that_there_are() -> None:
    assert next(iter(EXCHANGES)) == "mlkem768x25519-sha256"
    assert set(kex_others.EXCHANGES) < set(EXCHANGES)


class Unconnected:
    """What an exchange asks of a transport; its signature is never looked at."""

    local_version = remote_version = "SSH-2.0-x"
    local_kex_init = remote_kex_init = b""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.expected: list[int] = []
        self.done = False

    def _send_message(self, message: Message) -> None:
        self.sent.append(message.asbytes())

    def _expect_packet(self, *kinds: int) -> None:
        self.expected = list(kinds)

    def _set_K_H(self, secret: int | bytes, digest: bytes) -> None:  # noqa: N802
        self.secret = secret

    def _verify_key(self, key: bytes, signature: bytes) -> None:
        pass

    def _activate_outbound(self) -> None:
        self.done = True


def begun(kind: type[Exchange]) -> tuple[Any, Unconnected]:
    transport = Unconnected()
    exchange = kind(transport)
    exchange.start_kex()
    return exchange, transport


def with_pqcrypto(monkeypatch: pytest.MonkeyPatch) -> None:
    if not EXTRA.exists():
        missing("the package pqcrypto is not in build/pq; `make test` puts it there, or says why not")
    monkeypatch.syspath_prepend(str(EXTRA.parent))


def test_sntrup_with_a_server_of_pqcryptos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides come to the hash of both secrets, a string."""
    with_pqcrypto(monkeypatch)
    from pqcrypto.kem import sntrup_761

    exchange, transport = begun(Sntrup761X25519)
    public = exchange.ours
    assert len(public) == 1158 + 32
    assert transport.sent == [bytes([INIT]) + string(public)]
    ciphertext, secret = sntrup_761.encaps(public[:1158])
    key = X25519PrivateKey.generate()
    exchange.parse_next(REPLY, reply(ciphertext + key.public_key().public_bytes_raw()))
    point = key.exchange(X25519PublicKey.from_public_bytes(public[1158:]))
    assert transport.secret == hashlib.sha512(secret + point).digest()
    assert transport.done


def reply(value: bytes, more: bytes = b"") -> Message:
    return Message(string(b"key") + string(value) + string(b"signature") + more)


OWN = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((Curve25519, point) for point in SMALL_ORDER),
        (Curve25519, OWN[:-1]),
        (Curve25519, OWN + b"\0"),
        (Curve25519, b""),
        (MlKem768X25519, OWN),
        (MlKem768X25519, bytes(1088) + bytes(32)),
        (MlKem768X25519, bytes(1089) + OWN),
        (Sntrup761X25519, OWN),
        (Sntrup761X25519, bytes(1039) + bytes(32)),
        (Sntrup761X25519, bytes(1040) + OWN),
        (kex_others.NistP256, b""),
        (kex_others.NistP256, b"\0"),
        (kex_others.NistP256, b"\4" + bytes(64)),
        (kex_others.NistP384, b"\4" + bytes(96)),
        *((kex_others.Group14, mpint(number)) for number in (0, 1, PRIME - 1, PRIME, PRIME + 2)),
        *((kex_others.Group14, mpint(number)) for number in (2, 1 << 2000, 7 << 100)),  # too few bits are set
        (kex_others.Group14, b"\xff" * 256),
    ],
)
def test_a_public_value_that_is_none(kind: type[Exchange], value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind is Sntrup761X25519:
        with_pqcrypto(monkeypatch)
    exchange, transport = begun(kind)
    with pytest.raises(SSHException, match=r"public value of the key exchange is not valid|cannot be read"):
        exchange.parse_next(REPLY, reply(value))
    assert not transport.done


@pytest.mark.parametrize("message", [Message(b""), Message(string(b"key")), reply(OWN, b"\0"), Message(b"\xff" * 90)])
def test_a_reply_that_cannot_be_read(message: Message) -> None:
    exchange, transport = begun(Curve25519)
    with pytest.raises(SSHException, match="cannot be read"):
        exchange.parse_next(REPLY, message)
    assert not transport.done


def test_a_secret_of_nothing() -> None:
    """RFC 8731 section 3: all bits zero must end the exchange, whatever the library takes."""
    with pytest.raises(ValueError, match=r"computing|small order"):
        agree(X25519PrivateKey.generate(), bytes(32))

    class Lenient:
        def exchange(self, _: object) -> bytes:
            return bytes(32)

    with pytest.raises(ValueError, match="small order"):
        agree(Lenient(), OWN)  # type: ignore[arg-type]


def group(prime: int, generator: int, more: bytes = b"") -> Message:
    return Message(string(mpint(prime)) + string(mpint(generator)) + more)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (group((1 << 1023) + 1, 2), "a group of 1024 bits; we take 2048 to 8192"),
        (group((1 << 8192) + 1, 2), "a group of 8193 bits"),
        (group(0, 2), "a group of 0 bits"),
        (group(PRIME - 1, 2), "is not valid"),
        (group(PRIME, 1), "is not valid"),
        (group(PRIME, PRIME - 1), "is not valid"),
        (group(PRIME, 2, b"\0"), "cannot be read"),
        (Message(string(b"\xff" * 256) + string(b"\2")), "cannot be read"),
    ],
)
def test_a_group_that_is_not_taken(message: Message, words: str) -> None:
    exchange, transport = begun(kex_others.GroupExchange)
    assert transport.expected == [31]
    with pytest.raises(SSHException, match=words):
        exchange.parse_next(31, message)
    assert len(transport.sent) == 1


@given(base=st.integers(0), exponent=st.integers(0), modulus=st.integers(2))
def test_powers(base: int, exponent: int, modulus: int) -> None:
    assert kex_others.power(base, exponent, modulus) == pow(base, exponent, modulus)


def test_no_step_holds_up_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's pow has the interpreter's lock for as many multiplications as its exponent has bits."""
    bits: list[int] = []

    def counted(base: int, exponent: int, modulus: int) -> int:
        bits.append(exponent.bit_length())
        return pow(base, exponent, modulus)

    monkeypatch.setattr(kex_others, "pow", counted, raising=False)
    exchange, _ = begun(kex_others.GroupExchange)
    exchange.parse_next(31, group((1 << 8192) - 1, 2))
    exchange.finish(mpint(7 << 8000 | 1))
    assert len(bits) == 2 * 5 * (512 // 5 + 1)
    assert set(bits) == {2}


def test_one_thread_at_a_time_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one more would have the relays of all other hops in the process wait once more."""
    computing: list[str] = []
    kept_out: list[bool] = []

    def noted(base: int, exponent: int, modulus: int) -> int:
        computing.append(threading.current_thread().name)
        kept_out.append(kex_others._COMPUTING.locked())
        return pow(base, exponent, modulus)

    monkeypatch.setattr(kex_others, "pow", noted, raising=False)
    threads = [threading.Thread(target=kex_others.power, args=(2, 1 << 20, 1009)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(itertools.groupby(computing))) == len(threads)
    assert all(kept_out)


def test_exponents_are_no_longer_than_they_need_be() -> None:
    exchange, _ = begun(kex_others.Group16)
    assert exchange._exponent.bit_length() == 512
