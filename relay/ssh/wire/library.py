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

Where paramiko's modules import logging and traceback they get `log`, and what
imports traceback when it is needed: both together would take a tenth of the
import. Nobody else's import of these names is touched.

transport.py fails to import if it takes a name from one of these modules that
is not listed here: paramiko's minor version is pinned, and
tests/ssh/wire/test_library.py compares the list with its source.
"""

from __future__ import annotations

import builtins
import sys
from collections import defaultdict
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import SourceFileLoader
    from types import ModuleType

_NAME = "paramiko"
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
SPARED = ("common", "util")  # the modules that import logging or traceback


class Absent:
    """What stands for a class of paramiko's that is left out."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(f"paramiko's {type(self).__name__} is not imported (relay/ssh/wire/library.py)")

    @staticmethod
    def is_available() -> bool:
        """What transport.py asks of some key exchanges."""
        return False


class Log:
    """What paramiko's modules take for the module logging, and for a logger of it.

    hears: is given each line that paramiko logs; None: nobody is, as what it logs we say ourselves.
    """

    DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50

    def __init__(self) -> None:
        self.hears: Callable[[str], None] | None = None

    def getLogger(self, _: str) -> Log:  # noqa: N802  (the name is logging's)
        """All of them are this one."""
        return self

    def addFilter(self, _: object) -> None:  # noqa: N802
        """It would add a number to the record of each line."""

    def log(self, _: int, text: str, *values: object) -> None:
        """Say a line."""
        if self.hears is not None:
            self.hears(text % values if values else text)


log = Log()


class _Traceback:
    """What paramiko's modules take for the module traceback."""

    @staticmethod
    def format_exception(*error: Any) -> list[str]:
        """The only thing of it that one of them uses, once something has gone wrong."""
        import traceback

        return traceback.format_exception(*error)


_INSTEAD = {"logging": log, "traceback": _Traceback()}


def _import(name: str, *more: Any) -> Any:
    """What an import in some of paramiko's modules calls."""
    return _INSTEAD.get(name) or builtins.__import__(name, *more)


class _Sparing:
    """Loads a module of paramiko's that imports logging or traceback."""

    def __init__(self, loader: SourceFileLoader) -> None:
        self._loader = loader

    def create_module(self, _: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it as it is, with an `import` of its own (the reference's "Builtins and restricted execution")."""
        code = self._loader.get_code(module.__name__)
        assert code is not None  # noqa: S101  (for the type checker: there is source)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        exec(code, vars(module))  # noqa: S102  (as importlib does)


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
    """Finds paramiko's package, and the modules of it that are not to be imported as they are; no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name == _NAME:
            real = PathFinder.find_spec(name, path, target)
            if real is None:
                return None
            spec = ModuleSpec(name, _Package(), origin=real.origin, is_package=True)  # type: ignore[arg-type]
            spec.submodule_search_locations = real.submodule_search_locations
            return spec
        package, _, room = name.partition(".")
        if package != _NAME:
            return None
        if room in LEFT_OUT:
            return ModuleSpec(name, _LeftOut())  # type: ignore[arg-type]
        if room in SPARED and (real := PathFinder.find_spec(name, path, target)) is not None:
            real.loader = _Sparing(real.loader)  # type: ignore[arg-type, assignment]
            return real
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
