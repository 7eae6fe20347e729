"""paramiko comes in by one door, as much of it as a client needs, and safely beside other threads' imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

import relay
from relay.run.sparing import INSTEAD
from relay.ssh.wire import numbers
from relay.ssh.wire.library import LEFT_OUT

THEIRS = Path(paramiko.__file__).parent
OURS = Path(relay.__file__).parent


def run(script: str, *arguments: str) -> str:
    """What a fresh interpreter prints, which has the same path and has imported nothing."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path = {sys.path!r}\n{script}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rooms() -> set[str]:
    """The modules of paramiko that our client imports as they are."""
    brought = run("import relay.ssh.session; print(*(name for name in sys.modules if name.startswith('paramiko.')))")
    return {name.removeprefix("paramiko.") for name in brought.split()} - set(LEFT_OUT)


def left_out_of(module: str) -> set[tuple[str, str]]:
    """What a module of paramiko imports from those that are left out, at its top."""
    tree = ast.parse((THEIRS / f"{module}.py").read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paramiko."):
            found |= {(node.module.removeprefix("paramiko."), alias.name) for alias in node.names if node.module}
    return {(room, name) for room, name in found if room in LEFT_OUT}


def test_what_is_left_out_is_what_is_asked_for() -> None:
    """No name is missing, which would fail at a user's, and none is there that nobody asks for."""
    imported = rooms()
    assert "transport" in imported
    asked = set().union(*(left_out_of(room) for room in imported))
    assert asked == {(room, name) for room, names in LEFT_OUT.items() for name in names}


def test_a_new_name_fails_loudly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import relay.ssh.session\nfrom paramiko.pkey import PublicBlob"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "ImportError: cannot import name 'PublicBlob' from 'paramiko.pkey'" in done.stderr


def test_what_is_left_out_says_so() -> None:
    script = """
import relay.ssh.session
from paramiko.rsakey import RSAKey
try:
    RSAKey()
except NotImplementedError as error:
    print(error)
"""
    assert run(script) == "paramiko's RSAKey is not imported (relay/ssh/wire/library.py)\n"


def test_nothing_of_others_is_touched() -> None:
    """No stand-in for a standard module, and none for one that is not there."""
    script = """
import relay.ssh.session
assert "invoke" not in sys.modules and "importlib.metadata" not in sys.modules
import importlib.metadata
print(importlib.metadata.version("paramiko"))
"""
    assert run(script).startswith("5.1.")


SPARED = {"hashlib", "hmac", "logging", "random", "socket", "traceback", "typing", "warnings"}
NOT_FOR_GCM = {"ciphers.algorithms", "ciphers.modes", "asymmetric.ec", "asymmetric.padding", "_serialization"}


def test_what_is_spared_is_not_imported_until_it_is_used() -> None:
    script = f"""
import threading
known = set(sys.modules)  # in Python 3.13, warnings are among them
import relay.ssh.session, paramiko.util
assert not {SPARED | {"re", "tokenize"}} & set(sys.modules) - known, sys.modules
assert not {{"cryptography.hazmat.primitives." + name for name in {NOT_FOR_GCM}}} & set(sys.modules), sys.modules
try:
    1 / 0
except ZeroDivisionError:
    print(paramiko.util.tb_strings()[-2])
import hashlib, hmac, logging, random, socket, typing, warnings
assert paramiko.util.logging is not logging and logging.getLogger("x").addFilter
assert paramiko.transport.sha256(b"hop").digest() == hashlib.sha256(b"hop").digest()
assert paramiko.packet.compute_hmac(b"key", b"hop", hashlib.sha512) == hmac.digest(b"key", b"hop", "sha512")
assert paramiko.transport.socket.getaddrinfo is socket.getaddrinfo
from cryptography.hazmat.primitives.asymmetric import rsa
assert rsa.random.choice is random.choice
assert sys.modules["cryptography.utils"].typing.get_origin is typing.get_origin
assert sys.modules["cryptography.utils"].warnings.warn is warnings.warn
"""
    assert run(script) == "ZeroDivisionError: division by zero\n"


def test_what_the_backend_supports_is_what_it_says_without_stand_ins() -> None:
    """It compares with classes; in FIPS mode with those of curves and ciphers, too."""
    script = """
for name in sys.argv[1:]:
    __import__(name)
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
sha = hashes.SHA256()
mask = padding.MGF1(sha)
for way in (padding.PKCS1v15(), padding.PSS(mask, 32), padding.OAEP(mask, sha, None), None):
    print(backend.rsa_padding_supported(way))
print(backend.elliptic_curve_signature_algorithm_supported(ec.ECDSA(sha), ec.SECP256R1()))
print(backend.elliptic_curve_exchange_algorithm_supported(ec.ECDH(), ec.SECP256K1()))
print(backend.cmac_algorithm_supported(algorithms.AES(bytes(16))))
for fips in (False, True):
    backend._fips_enabled = fips
    print(backend.elliptic_curve_supported(ec.SECP521R1()), backend.elliptic_curve_supported(ec.SECP256K1()))
    print(backend.cipher_supported(algorithms.AES(bytes(32)), modes.CBC(bytes(16))))
    print(backend.cipher_supported(algorithms.ChaCha20(bytes(32), bytes(16)), None))
backend._fips_enabled = False
print(Cipher(algorithms.AES(bytes(16)), modes.GCM(bytes(12))).encryptor().update(b"hop").hex())
for wrong in (sha, None):
    try:
        Cipher(algorithms.AES(bytes(16)), wrong).encryptor()
    except Exception as error:
        print(type(error).__name__)
"""
    assert run(script, "relay.ssh.session") == run(script)


def test_a_version_that_asks_for_more_is_run_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "socks.py").write_text("import logging\nlogging.NullHandler()\nwhole = logging.__file__\n")
    script = f"""
sys.path.insert(0, {str(tmp_path)!r})
from relay.run import sparing
import socks
print(socks.whole is sys.modules["logging"].__file__, socks.__spec__.name)
"""
    assert run(script) == "True socks\n"


def test_what_stands_for_typing_takes_what_classes_and_aliases_do_with_it() -> None:
    any_, generic = (getattr(INSTEAD["cryptography"]["typing"], name) for name in ("Any", "Generic"))
    assert any_ | None and None | any_ and any_[int][str] is any_

    class Of(generic[any_]):  # type: ignore[misc, valid-type]
        pass

    assert Of[int]() is not None  # type: ignore[misc]


def taken(path: Path) -> set[tuple[str, str]]:
    """What a module takes of those for which something stands: their names, and what of each."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add((node.value.id, node.attr))
    return found


@pytest.mark.parametrize("library", INSTEAD)
def test_what_is_at_hand_is_what_is_used(library: str) -> None:
    """By one of the library's modules that a login or a proxy needs."""
    script = """
import relay.ssh.session, socks
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "LIBRARY"]
print(*(getattr(module, "__file__", None) or "" for module in modules))
"""
    files = [file for file in run(script.replace("LIBRARY", library)).split() if file.endswith(".py")]
    used = set().union(*(taken(Path(file)) for file in files))
    stand_ins = {module: names.at_hand for module, names in INSTEAD[library].items() if _stands_in(names)}
    inner = {name: more.at_hand for names in stand_ins.values() for name, more in names.items() if _stands_in(more)}
    for module, names in [*stand_ins.items(), *inner.items()]:
        assert {(module, name) for name in names} <= used, module
    assert set(INSTEAD[library]) <= {module for module, _ in used}


def _stands_in(value: object) -> bool:
    return isinstance(value, type(INSTEAD["paramiko"]["socket"]))


@pytest.mark.parametrize("line", ["fresh: %d", "fresh: 100%"])
def test_what_paramiko_logs(line: str) -> None:
    """With values, or without and with a percent sign of its own; with -vvv only."""
    values = (7,) if "%d" in line else ()
    script = f"""
from relay.ssh.login.client import Client
from relay.run.progress import Progress
import paramiko.util
sys.stderr = sys.stdout
log = paramiko.util.get_logger("paramiko.transport")
for verbosity in (2, 3):
    Client(Progress(1, verbosity), None, None)
    log.log(10, {line!r}, *{values!r})
    print("said")
"""
    assert run(script).split("\n") == ["said", (line % values if values else line), "said", ""]


def test_one_door() -> None:
    """Whoever else imports paramiko could do so before the door has been passed."""
    for path in sorted(OURS.rglob("*.py")):
        if path == OURS / "ssh" / "wire" / "library.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] == "paramiko"], path


# The one thread imports our client, and stands still before a module in turn, each in a process of its own; there the
# other thread imports something, to its end unless that waits for the first. It says at how many places that was.
INTERLEAVED = """
import os, threading

other, every = sys.argv[1], int(sys.argv[2])

class Stop:
    def __init__(self, after):
        self.left, self.first, self.thread, self.failed = after, threading.get_ident(), None, []
    def find_spec(self, name, path=None, target=None):
        if threading.get_ident() == self.first:
            self.left -= 1
            if self.left == 0:
                self.thread = threading.Thread(target=self.run)
                self.thread.start()
                self.thread.join(0.05)
    def run(self):
        try:
            module = __import__(other, fromlist=["*"])
            if other == "importlib.metadata":
                assert module.version("paramiko").startswith("5.1.")
        except BaseException as error:
            self.failed.append(error)

def child(after):
    stop = Stop(after)
    sys.meta_path.insert(0, stop)
    import relay.ssh.session
    if stop.thread is None:
        return 3
    stop.thread.join(20)
    import paramiko
    ok = not stop.failed and not stop.thread.is_alive() and not hasattr(paramiko, "SSHClient")
    if not ok:
        print("step", after, stop.failed, stop.thread.is_alive(), file=sys.stderr)
    return 0 if ok else 4

after = 1
while True:
    pid = os.fork()
    if pid == 0:
        status = 5
        try:
            status = child(after)
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 3:
        break
    if status:
        sys.exit(f"failed at step {after}")
    after += every
print(after)
"""


# At how many places there is something to stand still before.
COUNTED = """
import os, threading

class Count:
    places = 0
    def find_spec(name, path=None, target=None):
        Count.places += 1
sys.meta_path.insert(0, Count)
import relay.ssh.session
print(Count.places)
"""


@pytest.mark.parametrize(
    ("other", "every"), [("importlib.metadata", "5"), ("relay.ssh.session", "9"), ("relay.ssh.wire.channel", "9")]
)
def test_beside_the_imports_of_another_thread(other: str, every: str) -> None:
    places = int(run(COUNTED))
    assert places < int(run(INTERLEAVED, other, every)) <= places + int(every)  # to the last one


def test_numbers_are_those_of_paramiko() -> None:
    for name, value in vars(numbers).items():
        if "MSG_" in name:
            assert getattr(paramiko.common, name) == value
