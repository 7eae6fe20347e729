"""Libraries' modules without what they import and next to never use: that would be a quarter of a SOCKS relay's start.

Such a module gets `log` where it imports logging; and for traceback and base64 what imports these when it is called.
It is run as it is, with an `import` of its own (the Python reference, "Builtins and restricted execution"), so nobody
else's import of these names is touched, and nothing is put into sys.modules.

Import this module before one of SPARED.
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

# paramiko's (relay/ssh/wire/library.py) and PySocks (relay/dial/proxy/handshake.py).
SPARED = frozenset({"paramiko.common", "paramiko.util", "socks"})


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


class _Later:
    """What stands for a module until its one function that is used is called."""

    def __init__(self, module: str, function: str) -> None:
        def call(*arguments: Any) -> Any:
            return vars(builtins.__import__(module))[function](*arguments)

        vars(self)[function] = call


log = Log()
# traceback: once something has gone wrong. base64: for HTTP, which PySocks is not used for.
_INSTEAD = {
    "logging": log,
    "traceback": _Later("traceback", "format_exception"),
    "base64": _Later("base64", "b64encode"),
}


def _import(name: str, *more: Any) -> Any:
    """What an import in one of these modules calls."""
    return _INSTEAD.get(name) or builtins.__import__(name, *more)


class _Loader:
    def __init__(self, loader: SourceFileLoader) -> None:
        self._loader = loader

    def create_module(self, _: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        code = self._loader.get_code(module.__name__)
        assert code is not None  # noqa: S101  (for the type checker: there is source)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        exec(code, vars(module))  # noqa: S102  (as importlib does)


class _Finder:
    """Finds these modules, and no others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        others = (finder for finder in sys.meta_path if finder is not self) if name in SPARED else ()
        for finder in others:
            if (found := finder.find_spec(name, path, target)) is not None:
                found.loader = _Loader(found.loader)  # type: ignore[arg-type, assignment]
                return found
        return None


if "paramiko" not in sys.modules:  # else all of it has been imported, as tests do that have servers of it
    sys.meta_path.insert(0, _Finder())
