"""How bytes move: packets, channels, windows; and the room of paramiko, which is imported nowhere else.

paramiko is imported here first, without two things that take half its
start-up: invoke, for `Match exec` in a reader of ssh_config that is not used
(paramiko/config.py guards that import), and importlib.metadata, which it asks
for its own version.
"""

from __future__ import annotations

import sys
from types import ModuleType


def _import_paramiko() -> None:
    sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]  # what makes an import fail at once
    name = "importlib.metadata"
    if name in sys.modules:
        import paramiko

        return
    import importlib

    stand_in = ModuleType(name)
    stand_in.version = lambda _: ""  # type: ignore[attr-defined]
    sys.modules[name] = importlib.metadata = stand_in
    try:
        import paramiko  # noqa: F401
    finally:
        del sys.modules[name], importlib.metadata


_import_paramiko()
import paramiko  # noqa: E402

__all__ = ["paramiko"]
