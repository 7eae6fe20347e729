"""What both sides say that they can do, in EXT_INFO (RFC 8308)."""

from __future__ import annotations

from relay.ssh.pubkey import BadKey, Reader, string
from relay.ssh.wire.library import SSHException
from relay.ssh.wire.numbers import MSG_EXT_INFO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SERVERS = "ext-info-s"  # in a server's KEXINIT: it takes a client's EXT_INFO
# A server may then say a second time which signatures it takes, once it knows who logs in: a Match block of sshd_config
# may decide that (OpenSSH's PROTOCOL has the extension).
OURS = bytes([MSG_EXT_INFO]) + (1).to_bytes(4, "big") + string(b"ext-info-in-auth@openssh.com") + string(b"0")
MOST = 2  # messages of a server, as in OpenSSH (kex.c, kex_input_ext_info)


def heard(known: Mapping[str, bytes], message: bytes, number: int) -> dict[str, bytes]:
    """What the server's extensions are after one more message, by their names.

    known: those of its messages so far. number: which message it is, counted from 1. It is read to its end and not
    further, whatever its count says. Raises SSHException.
    """
    if number > MOST:
        raise SSHException(f"a server sends {MOST} messages of extensions at most")
    reader = Reader(message)
    try:
        pairs = [(reader.string().decode(errors="replace"), reader.string()) for _ in range(reader.number())]
    except BadKey as error:
        raise SSHException("an EXT_INFO that cannot be read") from error
    return {**known, **dict(pairs)}
