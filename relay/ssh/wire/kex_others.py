"""Key exchanges that few servers need: ECDH on NIST's curves, and Diffie-Hellman modulo a prime.

RFC 5656 section 4; RFC 4253 section 8 with the groups 14 and 16 of RFC 3526
(RFC 8268); RFC 4419, where the server chooses the group.
"""

from __future__ import annotations

import os
from threading import Lock

from cryptography.hazmat.primitives.asymmetric import ec

from relay.ssh.digest import Sha384, Sha512
from relay.ssh.pubkey import BadKey, mpint, point, string
from relay.ssh.wire.kex import Exchange
from relay.ssh.wire.library import SSHException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.ssh.pubkey import Reader

# Bits of an exponent: twice the bits of the longest key that is made of the secret (dh.c, dh_gen_key). A longer one
# would make nothing safer.
_EXPONENT = 512
_WINDOW = 5  # bits of the exponent at a time
_COMPUTING = Lock()  # who multiplies numbers of thousands of bits
_LEAST_BITS = 4  # that are set in a public value (dh.c, dh_pub_is_valid, which has the other bounds, too)
_GEX_GROUP, _GEX_INIT, _GEX_REPLY, _GEX_REQUEST = 31, 32, 33, 34  # RFC 4419 section 5
_LEAST, _WANTED, _MOST = 2048, 3072, 8192  # bits of a group's prime: RFC 8270, dh_estimate and DH_GRP_MAX of OpenSSH

_GROUP_14 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
_GROUP_16 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
    "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C"
    "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7"
    "88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6"
    "287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9"
    "93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
    16,
)


def power(base: int, exponent: int, modulus: int) -> int:
    """base to the power of exponent, modulo modulus, step by step: between two steps other threads go on.

    Python's pow has the interpreter's lock from its beginning to its end, 70 ms in the largest group. That is as long
    as the relays of all other hops in the same process would wait. As pow, this takes some bits of the exponent at a
    time, but one multiplication at a step; the steps together take no longer. One
    thread computes at a time: a second one, which wants that lock, too, would hold the relays up once more.
    """
    with _COMPUTING:
        powers = [1]
        for _ in range((1 << _WINDOW) - 1):
            powers.append(powers[-1] * base % modulus)
        result = 1
        for at in range(exponent.bit_length() // _WINDOW * _WINDOW, -1, -_WINDOW):
            for _ in range(_WINDOW):
                result = pow(result, 2, modulus)
            result = result * powers[exponent >> at & (1 << _WINDOW) - 1] % modulus
        return result


class NistP256(Exchange):
    """ecdh-sha2-nistp256; the others differ in curve and hash."""

    curve: ec.EllipticCurve = ec.SECP256R1()

    def begin(self) -> bytes:
        """A key for this exchange alone; its point."""
        self._key = ec.generate_private_key(self.curve)
        numbers = self._key.public_key().public_numbers()
        return point(numbers.x, numbers.y, self.curve.key_size)

    def finish(self, theirs: bytes) -> int | bytes:
        """The x coordinate of the common point."""
        public = ec.EllipticCurvePublicKey.from_encoded_point(self.curve, theirs)  # on the curve, or a ValueError
        return int.from_bytes(self._key.exchange(ec.ECDH(), public), "big")


class NistP384(NistP256):
    """ecdh-sha2-nistp384."""

    hash_algo = Sha384
    curve = ec.SECP384R1()


class NistP521(NistP256):
    """ecdh-sha2-nistp521."""

    hash_algo = Sha512
    curve = ec.SECP521R1()


class Group14(Exchange):
    """diffie-hellman-group14-sha256."""

    prime, generator = _GROUP_14, 2

    def begin(self) -> bytes:
        """A secret exponent, and what it makes of the generator."""
        self._exponent = int.from_bytes(os.urandom(_EXPONENT // 8), "big") | 1 << (_EXPONENT - 1)
        return mpint(power(self.generator, self._exponent, self.prime))

    def read_value(self, reader: Reader) -> bytes:
        """A number."""
        return mpint(int.from_bytes(reader.mpint(), "big"))

    def finish(self, theirs: bytes) -> int | bytes:
        """The secret number. The server's must be in the group, not 1 or -1, and no sum of three powers of 2."""
        number = int.from_bytes(theirs, "big")
        if not 1 < number < self.prime - 1 or number.bit_count() < _LEAST_BITS:
            raise ValueError("out of range")
        return power(number, self._exponent, self.prime)


class Group16(Group14):
    """diffie-hellman-group16-sha512."""

    hash_algo = Sha512
    prime = _GROUP_16


class GroupExchange(Group14):
    """diffie-hellman-group-exchange-sha256: the server chooses the group, by the sizes that we want."""

    init, reply = _GEX_INIT, _GEX_REPLY
    prime = 0  # the server has not said it

    def start_kex(self) -> None:
        """Ask for a group."""
        self._sizes = b"".join(bits.to_bytes(4, "big") for bits in (_LEAST, _WANTED, _MOST))
        self.send(_GEX_REQUEST, self._sizes, _GEX_GROUP)

    def take(self, reader: Reader) -> None:
        """The group; then the reply."""
        if self.prime:
            super().take(reader)
            return
        prime, generator = (int.from_bytes(reader.mpint(), "big") for _ in range(2))
        if reader.rest():
            raise BadKey("bytes after the group")
        if not _LEAST <= prime.bit_length() <= _MOST:
            raise SSHException(f"the server wants a group of {prime.bit_length()} bits; we take {_LEAST} to {_MOST}")
        if not prime % 2 or not 1 < generator < prime - 1:
            raise SSHException("the server's group for the key exchange is not valid")
        self.prime, self.generator = prime, generator  # of this exchange alone
        super().start_kex()

    def parameters(self) -> bytes:
        """The sizes, and the group (section 3)."""
        return self._sizes + b"".join(string(mpint(number)) for number in (self.prime, self.generator))


EXCHANGES: dict[str, type[Exchange]] = {
    "ecdh-sha2-nistp256": NistP256,
    "ecdh-sha2-nistp384": NistP384,
    "ecdh-sha2-nistp521": NistP521,
    "diffie-hellman-group14-sha256": Group14,
    "diffie-hellman-group16-sha512": Group16,
    "diffie-hellman-group-exchange-sha256": GroupExchange,
}
