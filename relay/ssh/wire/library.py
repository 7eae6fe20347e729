"""paramiko, as much of it as a client needs: the one door by which it is imported.

Of paramiko's modules this client uses channel, message, packet, transport and
what those stand on. The package's own `__init__` imports all others, too, and
that is half of the start-up time. A finder of ours, asked before all others,
gives paramiko an `__init__` that imports nothing, and in place of each module
that transport.py names and a client never calls a small one: classes of the
same names that say so when they are made.

That is safe beside the imports of other threads: the finder knows no name but
paramiko's, nothing is put into sys.modules by hand or taken out again, and
whoever wants paramiko imports this module, whose lock all threads wait on. A
module of relay/ssh/wire that imported paramiko itself might come before this
one: Python does not wait for a parent package that another thread is importing.

What they import and hardly use they do without (relay/run/sparing.py).

transport.py fails to import if it takes a name from one of these modules that
is not listed here: paramiko's minor version is pinned, and
tests/ssh/wire/test_library.py compares the list with its source.
"""

from __future__ import annotations

import sys
from collections import defaultdict

from relay.run import sparing  # noqa: F401  (before paramiko)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_NAME = "paramiko"
_Spec = type(__spec__)  # importlib.machinery's, of which the import would bring `warnings`
# By the module, the names that paramiko's transport.py, channel.py and util.py import from it.
LEFT_OUT = {
    "auth_handler": ("AuthHandler", "AuthOnlyHandler"),  # relay/ssh/wire/userauth.py
    "compress": ("ZlibCompressor", "ZlibDecompressor"),  # what passes is encrypted already
    "config": ("SSHConfig",),  # relay/config; it would import invoke, and that asyncio
    "ecdsakey": ("ECDSAKey",),  # the server's signature: relay/ssh/trust/signature.py; ours: relay/ssh/login
    "ed25519key": ("Ed25519Key",),
    "file": ("BufferedFile",),  # relay/ssh/wire/channel.py
    "kex_curve25519": ("KexCurve25519",),  # relay/ssh/wire/kex.py
    "kex_ecdh_nist": ("KexNistp256", "KexNistp384", "KexNistp521"),
    "kex_gex": ("KexGexSHA256",),
    "kex_group14": ("KexGroup14SHA256",),
    "kex_group16": ("KexGroup16SHA512",),
    "kex_mlkem": ("KexMLKEM768X25519",),
    "pipe": (),  # for a channel that somebody polls
    "pkey": ("PKey",),
    "primes": ("ModulusPack",),  # only a server has these
    "rsakey": ("RSAKey",),
    "server": ("ServerInterface",),
    "sftp_client": ("SFTPClient",),
}


class Absent:
    """What stands for a class of paramiko's that is left out."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(f"paramiko's {type(self).__name__} is not imported (relay/ssh/wire/library.py)")

    @staticmethod
    def is_available() -> bool:
        """What transport.py asks of some key exchanges."""
        return False


class _Package:
    """Loads paramiko's package without its `__init__`."""

    def create_module(self, _: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """What its modules take from the package: nothing but this, for an ident that we replace."""
        module.__version__ = ""  # type: ignore[attr-defined]


class _LeftOut:
    """Loads the stand-in for a module that is left out."""

    def create_module(self, _: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Classes of the names that are asked of it."""
        for name in LEFT_OUT[module.__name__.partition(".")[2]]:
            setattr(module, name, type(name, (Absent,), {}))


class _Finder:
    """Finds paramiko's package, and the modules of it that are left out; all others are found as ever."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name == _NAME:
            later = sys.meta_path[sys.meta_path.index(self) + 1 :]
            real = next(filter(None, (finder.find_spec(name, path, target) for finder in later)), None)
            if real is not None:
                real.loader = _Package()  # type: ignore[assignment]
            return real
        package, _, room = name.partition(".")
        if package == _NAME and room in LEFT_OUT:
            return _Spec(name, _LeftOut())  # type: ignore[arg-type]
        return None


if _NAME not in sys.modules:  # else all of it has been imported, as tests do that have servers of it
    sys.meta_path.insert(0, _Finder())

import paramiko  # noqa: E402
from paramiko.channel import Channel  # noqa: E402
from paramiko.message import Message  # noqa: E402
from paramiko.packet import NeedRekeyException, Packetizer  # noqa: E402
from paramiko.ssh_exception import IncompatiblePeer, SSHException  # noqa: E402
from paramiko.transport import Transport  # noqa: E402

__all__ = ["Channel", "IncompatiblePeer", "Message", "NeedRekeyException", "Packetizer", "SSHException", "Transport"]
__all__ += ["paramiko"]
for _class in (Channel, IncompatiblePeer, Message, SSHException, Transport):
    setattr(paramiko, _class.__name__, _class)  # as the package's own `__init__` does
# What it answers with UNIMPLEMENTED it looks up here, and a message may have any number (RFC 4250 section 4.1.1).
paramiko.transport.MSG_NAMES = defaultdict(str, paramiko.transport.MSG_NAMES)
