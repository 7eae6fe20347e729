"""The negotiation of a key exchange (RFC 4253 section 7): what we offer, what was agreed, and a guess sent ahead.

With transport.py the only file that overrides methods of paramiko's Transport. It knows nothing of ssh_config, files
or trust decisions: the caller sets the lists.

A guess: our KEXINIT says first_kex_packet_follows, and the first message of our first key exchange follows at once.
It is right if the first key exchange and the first host key algorithm of both sides are equal (proposals_match in
OpenSSH's kex.c). The server ignores the message of a wrong guess, and we send that of the exchange agreed on.
"""

from __future__ import annotations

import os
import time

from relay.ssh.pubkey import BadKey, PublicKey, Reader, string
from relay.ssh.record import Record
from relay.ssh.trust.hostkeys import ALGORITHMS, check_proof
from relay.ssh.trust.signature import verify
from relay.ssh.wire.ciphers import CIPHERS, MACS
from relay.ssh.wire.exchanges import EXCHANGES, is_post_quantum
from relay.ssh.wire.keys import Keys
from relay.ssh.wire.library import IncompatiblePeer, Message, SSHException, paramiko
from relay.ssh.wire.numbers import MSG_KEXINIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, ClassVar

    from relay.ssh.wire.kex import Exchange

# A right guess is answered as soon as the server has our KEXINIT. What drops all that comes before the server's ident
# drops both, and both sides would wait for ever: seconds, and times the time that the server's KEXINIT took.
_PATIENCE, _ROUNDS = 3.0, 4.0
_COOKIE, _LISTS, _FOLLOWS_AND_RESERVED = 16, 10, 5  # of a KEXINIT: bytes, lists, bytes
# RFC 8308 section 2.1; OpenSSH's PROTOCOL, "strict key exchange extension".
_ENDING = ("ext-info-c", "kex-strict-c-v00@openssh.com")


def _check_shape(kexinit: bytes) -> None:
    """Raise SSHException when a KEXINIT, without its type, ends too soon or too late (RFC 4253 section 7.1)."""
    reader = Reader(kexinit)
    try:
        reader.take(_COOKIE)
        for _ in range(_LISTS):
            reader.string()
        reader.take(_FOLLOWS_AND_RESERVED)
    except BadKey as error:
        raise SSHException("a KEXINIT that cannot be read") from error
    if reader.rest():
        raise SSHException("a KEXINIT that goes on behind its end")


class Agreed(Record):
    """The algorithms of a transport. ciphers, macs: from us and to us; the MAC is "" where the cipher makes the tag."""

    exchange: str
    host_key: str
    ciphers: tuple[str, str]
    macs: tuple[str, str]

    @property
    def post_quantum(self) -> bool:
        """Whether what is recorded today stays secret when there are quantum computers."""
        return is_post_quantum(self.exchange)

    def __str__(self) -> str:
        names = [f"key exchange {self.exchange}"]
        for word, (out, back) in (("cipher", self.ciphers), ("MAC", self.macs)):
            names += [f"{word} {out or 'none'}"] if out == back else [f"{word} {out or 'none'} and {back or 'none'}"]
        return ", ".join(names).replace("MAC none", "MAC of the cipher's own")


class OnlySsh(IncompatiblePeer):
    """The algorithm to take is one that we lack: ssh_config names it before any of ours that the server has.

    ident: the server's.
    """

    def __init__(self, keyword: str, algorithm: str, ident: str) -> None:
        super().__init__(f"the server has {algorithm}, which ssh_config chooses ({keyword}) and only ssh knows")
        self.algorithm = algorithm
        self.ident = ident


class Weaker(SSHException):
    """Without the guess a post-quantum key exchange would have been agreed on, and with it none was."""


class Negotiation(paramiko.Transport):
    """paramiko's Transport, as far as it negotiates keys.

    early: whether our KEXINIT goes out before the server's ident has come. guessing: whether a guess goes with it.
    unguessed: the key exchanges in the order without a guess, if that is another one.
    chosen: by keyword, what ssh_config chooses, in its order, with the algorithms that we lack.
    agreed: the algorithms of the first key exchange, from then on. remote_lists: the server's first KEXINIT, by
    paramiko's names for its lists. (Others would change under the threads that look at them.)
    host_key_blob: the server's key or certificate, as it was sent; host_key_signature: its signature of the session's
    identifier.
    """

    _cipher_info: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"block-size": row.block, "key-size": row.key, "iv-size": row.iv, "is_aead": row.tag > 0}
        for name, row in CIPHERS.items()
    }
    _preferred_ciphers = tuple(CIPHERS)
    _mac_info: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"class": kind, "size": kind.algorithm().digest_size} for name, kind in MACS.items()
    }
    _preferred_macs = tuple(MACS)
    _kex_info = EXCHANGES
    _preferred_kex = tuple(EXCHANGES)
    _preferred_keys = ALGORITHMS

    agreed: Agreed
    packetizer: Any  # relay/ssh/wire/packets.py
    local_kex_init: bytes | None
    kex_engine: Any

    def __init__(self, stream: Any, packetizer_class: Any) -> None:
        super().__init__(stream, packetizer_class=packetizer_class)
        self.host_key_blob = b""
        self.host_key_signature = b""
        self.remote_lists: dict[str, list[str]] = {}
        self.chosen: dict[str, Sequence[str]] = {}
        self.early = False
        self.guessing = False
        self.unguessed: Sequence[str] = ()
        self._server_guesses = False  # it says that its first message of the key exchange follows its KEXINIT
        self._guess: Exchange | None = None  # until the server's KEXINIT has come
        self._begun = 0.0  # when our first KEXINIT was sent

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key algorithms in our order. paramiko would put all certificates behind all plain keys."""
        return tuple(self._preferred_keys)

    def begin_ahead(self) -> None:
        """Send our KEXINIT, and the first message of a guess, before the server's ident has come."""
        self.packetizer.holds = self.guessing
        self._send_kex_init()
        self.packetizer.holds = False
        if self.guessing:
            self._guess = self._kex_info[self.preferred_kex[0]](self)
            self._guess.start_kex()

    def _send_kex_init(self) -> None:
        """Offer our algorithms, once for each key exchange: `run` asks for it again after the server's ident.

        paramiko's cannot say that a guess follows.
        """
        if self.local_kex_init is not None:
            return
        with self.clear_to_send_lock:
            self.clear_to_send.clear()
        self.in_kex = True
        self._begun = self._begun or time.monotonic()
        ciphers, macs, compression = self.preferred_ciphers, self.preferred_macs, self.preferred_compression
        exchanges = (*self.preferred_kex, *_ENDING)
        lists = (exchanges, self.preferred_keys, ciphers, ciphers, macs, macs, compression, compression, (), ())
        body = b"".join(string(",".join(names).encode()) for names in lists)
        follows = self.guessing and not self.initial_kex_done
        self.local_kex_init = bytes([MSG_KEXINIT]) + os.urandom(16) + body + bytes([follows]) + bytes(4)
        self._latest_kex_init = self.local_kex_init
        self._send_message(Message(self.local_kex_init))

    def _negotiate_keys(self, m: Message) -> None:
        """The server's KEXINIT has come: go on with a guess that was right, or begin the exchange agreed on."""
        with self.clear_to_send_lock:
            self.clear_to_send.clear()
        self._send_kex_init()  # unless ours has been sent
        self._parse_kex_init(m)
        right = self._is_right()
        if self._server_guesses and not right:
            self.packetizer.skip_next()
        guess, self._guess = self._guess, None
        if guess is not None and right:
            now = time.monotonic()
            self.packetizer.answer_due = now + _PATIENCE + _ROUNDS * (now - self._begun)
            self.kex_engine = guess
            guess.go_on()
        else:
            self.kex_engine.start_kex()
        for name in self.agreed.ciphers:
            CIPHERS[name].rooms(Keys(name, b"", b""))  # what it imports is there when the server's answer comes

    def _is_right(self) -> bool:
        """Whether the first algorithms of both sides are equal: then a guess of either side counts (RFC 4253, 7)."""
        ours = (self.preferred_kex[0], self.preferred_keys[0])
        return ours == tuple(self.remote_lists[name][0] for name in ("kex_algo_list", "server_key_algo_list"))

    def _parse_kex_init(self, m: Message) -> None:
        """Agree on the algorithms. Raises IncompatiblePeer if there is none in common, or if ssh has a better one."""
        super()._parse_kex_init(m)
        if self.initial_kex_done:
            return
        exchange = next(name for name in self.preferred_kex if name in self.remote_lists["kex_algo_list"])
        ciphers = (self.local_cipher, self.remote_cipher)
        macs = tuple(
            "" if self._cipher_info[cipher]["is_aead"] else mac
            for cipher, mac in zip(ciphers, (self.local_mac, self.remote_mac), strict=True)
        )
        usual = next((name for name in self.unguessed if name in self.remote_lists["kex_algo_list"]), exchange)
        if is_post_quantum(usual) and not is_post_quantum(exchange):
            raise Weaker("the server has a better key exchange than the one that was guessed")
        self._heed_choices(macs)
        self.agreed = Agreed(exchange, self.host_key_type, ciphers, macs)  # type: ignore[arg-type]  # two of them

    def _heed_choices(self, macs: Sequence[str]) -> None:
        """What somebody chose is used, in their order, by ssh if we lack it. macs: "" where none is used."""
        rows = (
            ("kexalgorithms", "kex_algo_list", self.preferred_kex),
            ("hostkeyalgorithms", "server_key_algo_list", self.preferred_keys),
            ("ciphers", "client_encrypt_algo_list", self.preferred_ciphers),
            ("ciphers", "server_encrypt_algo_list", self.preferred_ciphers),
            ("macs", "client_mac_algo_list" if macs[0] else "", self.preferred_macs),
            ("macs", "server_mac_algo_list" if macs[1] else "", self.preferred_macs),
        )
        for key, name, ours in rows:
            theirs = self.remote_lists.get(name, ())
            wanted = next((algorithm for algorithm in self.chosen.get(key, ()) if algorithm in theirs), None)
            if wanted is not None and wanted not in ours:
                raise OnlySsh(key, wanted, self.remote_version)

    def _really_parse_kex_init(self, m: Message, ignore_first_byte: bool = False) -> dict[str, list[str]]:
        """Keep the server's lists: an error about them must be able to name them.

        Where the cipher makes the tag, no MAC is needed, nor need there be one in common (choose_mac in OpenSSH's
        kex.c); paramiko asks for one all the same. It also makes up what a message lacks, and ignores what follows it.
        """
        if not ignore_first_byte:
            _check_shape(m.asbytes())
        parsed: dict[str, list[str]] = super()._really_parse_kex_init(m, ignore_first_byte)
        if not self.initial_kex_done:
            self.remote_lists = {key: list(value) for key, value in parsed.items() if isinstance(value, list)}
        self._server_guesses = bool(parsed["kex_follows"])
        for side in ("client", "server"):
            offered = parsed[f"{side}_encrypt_algo_list"]
            cipher = next((name for name in self.preferred_ciphers if name in offered), "")
            if cipher and self._cipher_info[cipher]["is_aead"]:
                parsed[f"{side}_mac_algo_list"] = list(self.preferred_macs)
        return parsed

    def _get_engine(self, name: str, key: bytes, iv: bytes, operation: object = None, aead: bool = False) -> Keys:  # noqa: ARG002
        """The keys of a packet cipher, which the Packetizer makes one of (ciphers.py)."""
        return Keys(name, key, iv)

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        """Keep the host key as it was sent; on a rekey it must be the one that was checked at first.

        paramiko does not check that key and signature have the negotiated type, and it imports all types.
        """
        self.packetizer.answer_due = 0.0
        try:
            check_proof(self.host_key_type, host_key, sig)
            verify(PublicKey(host_key), sig, self.H)
        except BadKey as error:
            raise SSHException(str(error)) from error
        if self.host_key_blob and host_key != self.host_key_blob:
            raise SSHException("the server showed another host key when it rekeyed")
        self.host_key_blob = host_key
        self.host_key_signature = self.host_key_signature or sig
