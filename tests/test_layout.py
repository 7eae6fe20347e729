"""The layout of relay/: which way imports go, how much a module and a function may hold, and what no code asks.

Every import counts: those in functions and those for types, too.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "relay").rglob("*.py"))

# The rooms from top to bottom. A module imports what stands below it or on its own line, never what stands above.
# What is not named belongs to the room that it is in.
ORDER = """
    cli __main__
    share
    dial
    pump
    ssh.enter
    ssh.session ssh.quantum ssh.announced
    ssh.netcat ssh.login
    ssh.wire.userauth ssh.wire.channel
    ssh.wire.transport ssh.wire.takeover
    ssh.wire.negotiation
    ssh.wire.link
    ssh.wire.flow
    ssh.wire.connection ssh.wire.packets
    ssh.wire.ciphers ssh.wire.reader
    ssh.wire.gcm ssh.wire.chacha ssh.wire.ctr
    ssh.wire.packet ssh.wire.opening ssh.wire.buffer ssh.wire
    ssh.trust
    ssh.pubkey ssh
    config
    run
    spec
    contract
    errors
    value
    __init__
"""
RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}

TOP = 11  # things at the top of relay/, beside these:
BESIDE = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}

LINES = 400  # of a module, but of these:
LONGER = {
    "relay/spec/options.py": 600,  # a table: every option once
    "relay/spec/route.py": 600,  # a grammar, with its examples
}
PARAMETERS = 6  # of a function, beside self or cls

# Calls of getattr and hasattr, and of isinstance about sockets, that ask nothing about a stream or a hop.
PROBES = {
    # what this system has
    "getattr(_socket, 'TCP_QUICKACK', None)",
    "getattr(_socket, 'TCP_QUICKACK', 0)",
    "getattr(_socket, name, None)",
    "hasattr(os, 'splice')",
    # what a module, or a class of it, has for which something else stands
    "getattr(builtins.__import__(module, None, None, [name]), name)",
    "getattr(_take(self._module, self._name), name)",
    # the fields of a value, by their names
    "getattr(self, name)",
    "getattr(Options, flag.field, None)",
    # whether an error of the system has words of its own
    "getattr(error, 'strerror', None)",
}


def name(file: Path) -> str:
    """A module's name within relay: "ssh.wire" for its __init__.py, "__init__" for relay's own."""
    parts = file.relative_to(ROOT / "relay").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


NAMES = {name(file) for file in FILES}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imported(node: ast.AST) -> list[str]:
    """The modules of relay that a statement imports."""
    if isinstance(node, ast.Import):
        found = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        found = [each if each.removeprefix("relay.") in NAMES else str(node.module) for each in inside]
    else:
        return []
    return [
        each.removeprefix("relay.") if "." in each else "__init__" for each in found if each.split(".")[0] == "relay"
    ]


@cache
def imports() -> dict[str, set[str]]:
    return {name(file): {each for node in ast.walk(tree(file)) for each in imported(node)} for file in FILES}


def rank(module: str) -> int:
    """Its line in ORDER. A KeyError means that a new room needs a place there."""
    while module and module not in RANK:
        module = module.rpartition(".")[0]
    return RANK[module]


def reached(start: str) -> set[str]:
    """All modules that one imports, and that these import."""
    found: set[str] = set()
    left = set(imports()[start])
    while left:
        found |= left
        left = {each for module in left for each in imports()[module]} - found
    return found


def upward() -> set[str]:
    return {f"{one} > {other}" for one in imports() for other in imports()[one] if rank(other) < rank(one)}


def circles() -> set[str]:
    """The imports by which a module comes back to itself."""
    return {f"{one} > {other}" for one in imports() for other in imports()[one] if one in reached(other)}


def long_modules() -> set[str]:
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    return {file for file, count in lines.items() if count > LONGER.get(file, LINES)}


def long_signatures() -> set[str]:
    found = set()
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef):
                taken = node.args
                every = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
                if sum(each is not None and each.arg not in {"self", "cls"} for each in every) > PARAMETERS:
                    found.add(f"{name(file)}.{node.name}")
    return found


def probes() -> set[str]:
    """The calls that ask an object what it is, as ast spells them."""
    found = set()
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                text = ast.unparse(node)
                if node.func.id in {"getattr", "hasattr"} or (node.func.id == "isinstance" and "socket" in text):
                    found.add(text)
    return found


def questions() -> set[str]:
    return probes() - PROBES


@pytest.mark.parametrize("rule", [upward, circles, long_modules, long_signatures, questions])
def test_rule(rule) -> None:  # type: ignore[no-untyped-def]
    assert rule() == set()


@pytest.mark.parametrize("room", [file for file in FILES if file.name == "__init__.py"], ids=name)
def test_a_room_that_lists_its_files_lists_them_all(room: Path) -> None:
    listed = set(re.findall(r"\b[a-z_]+\.py\b", ast.get_docstring(tree(room)) or ""))
    missing = {file.name for file in room.parent.glob("*.py")} - {"__init__.py"} - listed
    assert len(listed) < 4 or not missing


def test_what_stands_at_the_top() -> None:
    assert len({path.name for path in (ROOT / "relay").iterdir()} - BESIDE) <= TOP


def test_what_the_order_and_the_probes_name_is_there() -> None:
    assert set(RANK) <= NAMES
    assert probes() >= PROBES


def test_no_test_file_is_long() -> None:
    files = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in (ROOT / "tests").rglob("*.py")}
    assert {file for file, lines in files.items() if lines > 600} == set()


def test_every_folder_is_a_package_of_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {str(file.parent.relative_to(ROOT)).replace("/", ".") for file in FILES}
    assert folders <= set(listed)
