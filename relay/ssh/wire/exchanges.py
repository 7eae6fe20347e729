"""The key exchanges by name; the module of those that few servers need is imported when such a one is agreed on."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm

from relay.ssh.wire.kex import Curve25519, MlKem768X25519, Sntrup761X25519

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.ssh.wire.kex import Exchange, Exchanging

_POST_QUANTUM = ("mlkem", "sntrup")  # how names begin


def is_post_quantum(exchange: str) -> bool:
    """Whether a key exchange resists a quantum computer, by its name (kex_is_pq_from_name in OpenSSH's kex-names.c)."""
    return exchange.startswith(_POST_QUANTUM)


def has_mlkem() -> bool:
    """Whether cryptography, and the OpenSSL that it was built with, have ML-KEM."""
    try:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        MLKEM768PrivateKey.from_seed_bytes(b"")  # to make a key would take some of the start
    except ValueError:  # no seed: it is asked for one
        return True
    except (ImportError, UnsupportedAlgorithm):
        return False
    return False


def has_sntrup() -> bool:
    """Whether the package pqcrypto, the extra pq, is installed, and can be used here."""
    try:
        from pqcrypto.kem import sntrup_761  # noqa: F401
    except ImportError:
        return False
    return True


def _other(name: str) -> Callable[[Exchanging], Exchange]:
    """What makes an exchange that few servers need."""

    def make(transport: Exchanging) -> Exchange:
        from relay.ssh.wire import kex_others  # see the top

        return kex_others.EXCHANGES[name](transport)

    return make


SNTRUP = ("sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com")

# In the order of preference, which is ssh's; what makes an exchange of that name.
EXCHANGES: dict[str, Callable[[Exchanging], Exchange]] = {
    **({"mlkem768x25519-sha256": MlKem768X25519} if has_mlkem() else {}),
    **(dict.fromkeys(SNTRUP, Sntrup761X25519) if has_sntrup() else {}),
    "curve25519-sha256": Curve25519,
    "curve25519-sha256@libssh.org": Curve25519,
    **{
        name: _other(name)
        for name in (
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
            "diffie-hellman-group16-sha512",
            "diffie-hellman-group-exchange-sha256",
            "diffie-hellman-group14-sha256",
        )
    },
}
