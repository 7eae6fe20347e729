"""Libraries' modules without what they import and next to never use: that is a quarter of the start of a login.

Such a module gets something that stands for the other one: a few names at hand, and any further one from the module
itself, which is imported then. The library's module is run as it is, with an `import` of its own (the Python
reference, "Builtins and restricted execution"), so nobody else's import of these names is touched, and nothing is put
into sys.modules.

The libraries are those of INSTEAD. Import this module before one of them.
"""

from __future__ import annotations

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


class _StandIn:
    """What stands for a module. at_hand: names of it; all else is taken from the module itself."""

    def __init__(self, module: str, at_hand: dict[str, Any]) -> None:
        self._module = module
        self.at_hand = at_hand

    def __getattr__(self, name: str) -> Any:
        return self.at_hand[name] if name in self.at_hand else _take(self._module, name)


def _take(module: str, name: str) -> Any:
    return getattr(builtins.__import__(module), name)


class _Later:
    """What stands for a function of a module, which is imported when the function is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        return _take(self._module, self._name)(*arguments, **more)


def _later(module: str, *functions: str) -> _StandIn:
    """What stands for a module of which these functions are taken at the import, and next to never called."""
    return _StandIn(module, {name: _Later(module, name) for name in functions})


log = Log()
# By the library, what its modules get in place of others.
INSTEAD: dict[str, dict[str, Any]] = {
    "cryptography": {
        "random": _StandIn("random", {}),  # for factors of an RSA key that has none
        "typing": _StandIn(
            "typing",
            {
                "TYPE_CHECKING": False,
                **dict.fromkeys(("Any", "Generic", "Optional", "TypeVar", "Union", "overload"), _Hint()),
            },
        ),
    },
    "paramiko": {
        "hashlib": _later("hashlib", "md5", "sha1", "sha256", "sha512"),  # ours are those of relay/ssh/digest.py
        "hmac": _later("hmac", "HMAC"),
        "logging": log,
        "socket": _StandIn("socket", {"error": OSError, "timeout": TimeoutError}),
        "traceback": _StandIn("traceback", {}),  # once something has gone wrong
    },
    "socks": {"base64": _later("base64", "b64encode"), "logging": log},  # base64: for HTTP, which it is not used for
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
        others = (finder for finder in sys.meta_path if finder is not self) if name.partition(".")[0] in INSTEAD else ()
        for finder in others:
            if (found := finder.find_spec(name, path, target)) is not None:
                if (found.origin or "").endswith(".py"):
                    found.loader = _Loader(found.loader)  # type: ignore[arg-type, assignment]
                return found
        return None


if "paramiko" not in sys.modules:  # else it has been imported as it is, as by tests that have servers of it
    sys.meta_path.insert(0, _Finder())
