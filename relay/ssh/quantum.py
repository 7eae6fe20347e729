"""What is said of a hop's key exchange: the algorithms under -v, and ssh's warning where it is not post-quantum."""

from __future__ import annotations

from relay.ssh.wire.exchanges import EXCHANGES, SNTRUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings
    from relay.run.progress import Progress
    from relay.ssh.wire.transport import Transport

# sshconnect.c, warn_nonpq_kex, of OpenSSH 10.1 and later.
WARNING = (
    "** WARNING: connection is not using a post-quantum key exchange algorithm.",
    '** This session may be vulnerable to "store now, decrypt later" attacks.',
    "** The server may need to be upgraded. See https://openssh.com/pq.html",
)
PACKAGE = "pqcrypto"  # the extra pq


def report(transport: Transport, settings: HopSettings, progress: Progress) -> None:
    """Name the algorithms under -v, and warn where ssh would.

    ssh warns if WarnWeakCrypto is on (`ssh -G` prints it from OpenSSH 10.1 on) and nobody chose KexAlgorithms.
    """
    agreed = transport.agreed
    progress.note(1, str(agreed))
    progress.learn("key_exchange", agreed.exchange)
    progress.learn("cipher", " and ".join(dict.fromkeys(agreed.ciphers)))
    progress.learn("host_key_algorithm", agreed.host_key)
    if agreed.post_quantum:
        return
    name = missing(transport)
    means = "no post-quantum key exchange: a quantum computer could read later what is recorded of this hop today"
    remark = f"{means}; the server has {name}, which needs the package {PACKAGE} here" if name else means
    progress.learn("remark", remark)
    warns = settings.yes("warnweakcrypto") and not settings.chosen("kexalgorithms")
    if warns:
        for line in WARNING:
            progress.note(0, line)
    progress.note(0 if warns and name else 1, remark)


def missing(transport: Transport) -> str:
    """The post-quantum key exchange that the server has and pyrelay could have, too; "" if there is none."""
    theirs = transport.remote_lists.get("kex_algo_list", ())
    return next((name for name in SNTRUP if name in theirs and name not in EXCHANGES), "")
