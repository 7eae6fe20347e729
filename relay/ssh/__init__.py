"""Everything that speaks SSH to a hop; nothing outside this room imports paramiko.

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
        import paramiko  # noqa: PLC0415

        return
    import importlib  # noqa: PLC0415

    stand_in = ModuleType(name)
    stand_in.version = lambda _: ""  # type: ignore[attr-defined]
    sys.modules[name] = importlib.metadata = stand_in
    try:
        import paramiko  # noqa: F401, PLC0415
    finally:
        del sys.modules[name], importlib.metadata


_import_paramiko()
