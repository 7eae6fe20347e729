"""Libraries' modules without what they import and next to never use: that is a third of the start of a login.

Such a module gets something that stands for the other one: a few names at hand, and any further one from the module
itself, which is imported then. The library's module is run as it is, with an `import` of its own (the Python
reference, "Builtins and restricted execution"), so nobody else's import of these names is touched, and nothing is put
into sys.modules.

The libraries are those of INSTEAD. Import this module before one of them.
"""

from __future__ import annotations

import _collections_abc
import _socket
import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from types import ModuleType
    from typing import Any


class Log:
    """What stands for the module logging, and for a logger of it.

    hears: is given each line that is logged; None: nobody is, since what they log we say ourselves.
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

    def debug(self, text: str, *values: object) -> None:
        """Say a line."""
        self.log(self.DEBUG, text, *values)


class _Hint:
    """What stands for a name of typing that says nothing at run time: it can be called, indexed and inherited from."""

    def __call__(self, *_: Any, **__: Any) -> _Hint:
        return self

    def __getitem__(self, _: Any) -> _Hint:
        return self

    __or__ = __ror__ = __getitem__

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return (_Indexed,)


class _Indexed:
    """What stands for a class that may be indexed, such as typing.Generic."""

    def __class_getitem__(cls, _: Any) -> type[_Indexed]:
        return cls


def _take(module: str, name: str) -> Any:
    return getattr(builtins.__import__(module, None, None, [name]), name)


class _Later:
    """What stands for a function or a class of a module, which is imported when the one is called or the other used."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return _take(self._module, self._name)(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(_take(self._module, self._name), name)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, _take(self._module, self._name))


class _StandIn:
    """What stands for a module.

    stands_for: its name. at_hand: names of it, among them those of functions and classes that are taken at the import,
    and next to never used (later). All else is taken from the module itself.
    """

    def __init__(self, module: str, *later: str, **at_hand: Any) -> None:
        self.stands_for = module
        self.at_hand = {name: _Later(module, name) for name in later} | at_hand

    def __getattr__(self, name: str) -> Any:
        return self.at_hand[name] if name in self.at_hand else _take(self.stands_for, name)


def _by_name(*stand_ins: _StandIn) -> dict[str, Any]:
    return {one.stands_for: one for one in stand_ins}


log = Log()
_PRIMITIVES = "cryptography.hazmat.primitives"
_ASYMMETRIC = f"{_PRIMITIVES}.asymmetric"
_CIPHERS = f"{_PRIMITIVES}.ciphers"
# By the library, what its modules get in place of others.
INSTEAD: dict[str, dict[str, Any]] = {
    "cryptography": _by_name(
        # AES-GCM and X25519 need no modes, no other algorithms and no keys in files; and the backend is rarely asked
        # whether it supports those.
        _StandIn(_PRIMITIVES, _serialization=_StandIn(f"{_PRIMITIVES}._serialization")),
        _StandIn(
            _ASYMMETRIC,
            ec=_StandIn(f"{_ASYMMETRIC}.ec", "SECP224R1", "SECP256R1", "SECP384R1", "SECP521R1"),
            utils=_StandIn(f"{_ASYMMETRIC}.utils"),
        ),
        _StandIn(f"{_ASYMMETRIC}.padding", "MGF1", "OAEP", "PKCS1v15", "PSS"),
        _StandIn(  # for certificates, and OpenSSH's own format under a passphrase
            f"{_PRIMITIVES}.serialization.ssh",
            *("SSHCertificate", "SSHCertificateBuilder", "SSHCertificateType"),
            *("SSHCertPrivateKeyTypes", "SSHCertPublicKeyTypes", "SSHPrivateKeyTypes", "SSHPublicKeyTypes"),
            *("load_ssh_private_key", "load_ssh_public_identity", "load_ssh_public_key", "ssh_key_fingerprint"),
        ),
        _StandIn(
            _CIPHERS,
            modes=_StandIn(
                f"{_CIPHERS}.modes", "ECB", "Mode", "ModeWithInitializationVector", "ModeWithNonce", "ModeWithTweak"
            ),
        ),
        _StandIn(f"{_CIPHERS}.algorithms", "AES"),
        _StandIn(f"{_CIPHERS}.modes", "CBC", "Mode"),
        _StandIn("random"),  # for factors of an RSA key that has none
        _StandIn(
            "typing",
            TYPE_CHECKING=False,
            **dict.fromkeys(("Any", "Generic", "Optional", "TypeVar", "Union", "overload"), _Hint()),
        ),
        _StandIn("warnings"),  # of what is deprecated
    ),
    "paramiko": {
        "logging": log,
        **_by_name(
            # Ours are those of relay/ssh/wire/ciphers.py and relay/ssh/digest.py.
            _StandIn(
                _CIPHERS,
                "Cipher",
                algorithms=_StandIn(f"{_CIPHERS}.algorithms", "AES"),
                modes=_StandIn(f"{_CIPHERS}.modes", "CBC", "CTR"),
            ),
            _StandIn("cryptography.hazmat.decrepit.ciphers.algorithms", "TripleDES"),
            _StandIn("hashlib", "md5", "sha1", "sha256", "sha512"),
            _StandIn("hmac", "HMAC"),
            _StandIn("socket", error=OSError, timeout=TimeoutError),
            _StandIn("traceback"),  # once something has gone wrong
        ),
    },
    "socks": {
        "collections.abc": _collections_abc,
        "logging": log,
        "socket": _socket,  # the files that PySocks reads and writes are ours (relay/dial/proxy/handshake.py)
        **_by_name(
            _StandIn("base64", "b64encode"),  # for HTTP, which is not by PySocks
            _StandIn("functools", wraps=lambda _: lambda wrapper: wrapper),
        ),
    },
}


def _importing(instead: dict[str, Any]) -> Callable[..., Any]:
    """What an import in a module of a library calls."""

    def bring(name: str, *more: Any) -> Any:
        return instead[name] if name in instead else builtins.__import__(name, *more)

    return bring


# By the library, the builtins of its modules.
_BUILTINS = {library: {**vars(builtins), "__import__": _importing(instead)} for library, instead in INSTEAD.items()}


class _Loader:
    def __init__(self, loader: SourceFileLoader) -> None:
        self._loader = loader

    def create_module(self, _: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it; without what stands for others, if it is of a version that asks more of these than they have."""
        code = self._loader.get_code(module.__name__)
        assert code is not None  # noqa: S101  (for the type checker: there is source)
        names = vars(module)
        before = names.copy()
        names["__builtins__"] = _BUILTINS[module.__name__.partition(".")[0]]
        try:
            exec(code, names)  # noqa: S102  (as importlib does)
        except Exception:
            names.clear()
            names.update(before)
            exec(code, names)  # noqa: S102


class _Finder:
    """Finds the modules of these libraries, and no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name.partition(".")[0] not in INSTEAD:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if (found := finder.find_spec(name, path, target)) is not None:
                if (found.origin or "").endswith(".py"):
                    found.loader = _Loader(found.loader)  # type: ignore[arg-type, assignment]
                return found
        return None


if "paramiko" not in sys.modules:  # else it has been imported as it is, as by tests that have servers of it
    sys.meta_path.insert(0, _Finder())
