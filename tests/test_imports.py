"""What each path may import: the start-up budget of the program, held by names and not by a clock."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import proxies
import pytest
from contract import SOON
from lab import ROOT, Lab
from peers import LOOPBACK, until

from relay.ssh.pubkey import string
from relay.ssh.wire.ciphers import CLEAR
from relay.ssh.wire.library import LEFT_OUT
from relay.ssh.wire.packet import Sealer

# Runs pyrelay, and says at its end which modules are there.
PROGRAM = """
import os, sys
def leave(status, leave=os._exit):
    os.write(2, "\\n".join(["modules:", *(name for name, module in sys.modules.items() if module)]).encode())
    leave(status)
os._exit = leave
from relay.cli import main
main()
"""
# With what a bare interpreter has, this is all that a plain relay may import. `socket` alone would cost 5 ms.
RAW = {
    "__future__",
    "_socket",
    "errno",
    "fcntl",
    "gc",
    "relay",
    "relay.run",
    "relay.cli",
    "relay.dial",
    "relay.dial.stream",
    "relay.errors",
    "relay.run.guard",
    "relay.spec",
    "relay.spec.options",
    "relay.run.progress",
    "relay.pump",
    "relay.pump.mover",
    "relay.pump.rules",
    "relay.spec.route",
    "relay.dial.tcp",
    "relay.value",
    "relay.pump.way",
    "select",
}
USAGE = {
    "__future__",
    "gc",
    "relay",
    "relay.cli",
    "relay.errors",
    "relay.spec",
    "relay.spec.options",
    "relay.run",
    "relay.run.progress",
    "relay.spec.route",
    "relay.run.status",
    "relay.value",
}


def imported(*arguments: str, status: int = 0) -> set[str]:
    """The modules that a run of pyrelay imports, besides those of the bare interpreter."""
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, check=True, text=True
    )
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == status, run.stderr
    return set(run.stderr.partition("modules:\n")[2].split()) - set(bare.stdout.split())


@pytest.fixture
def port() -> int:
    """A target that says a word to the first who connects."""
    listener = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-test\r\n")

    threading.Thread(target=serve, daemon=True).start()
    number: int = listener.getsockname()[1]
    return number


def test_plain_relay(port: int) -> None:
    assert imported(LOOPBACK, str(port)) - RAW == set()


def test_plain_relay_to_a_name(port: int) -> None:
    """The resolver must not bring the idna codec."""
    assert imported("-4", "localhost", str(port)) - RAW == set()


# Runs pyrelay, whose import of one module waits for a byte on stdin.
SLOW = """
import builtins, os
def slowly(name, *rest, find=builtins.__import__, **more):
    if name == "{slow}":
        os.read(0, 1)
    return find(name, *rest, **more)
builtins.__import__ = slowly
from relay.cli import main
main()
"""


def test_a_hop_is_connected_to_before_our_client_has_been_imported(tmp_path: Path) -> None:
    config = tmp_path / "config"
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SOON)
        config.write_text(f"Host h1\nHostName {LOOPBACK}\nPort {listener.getsockname()[1]}\n")
        argv = [sys.executable, "-c", SLOW.format(slow="relay.ssh.session"), "-F", str(config), "h1/h2"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            listener.accept()[0].close()
            assert program.communicate(b"\n" * 9, SOON)[1].startswith(b"pyrelay: hop 1 of 1 (h1): the connection was")


# Runs pyrelay, which says when a module is looked for.
TELLING = """
import os, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "{name}":
            os.write(2, b"wanted")
sys.meta_path.insert(0, Finder)
from relay.cli import main
main()
"""


@pytest.mark.parametrize(
    ("cipher", "module"),
    [("aes128-gcm@openssh.com", "gcm"), ("chacha20-poly1305@openssh.com", "chacha"), ("aes256-ctr", "ctr")],
)
def test_a_ciphers_module_is_imported_while_the_server_works_on_its_answer(
    tmp_path: Path, cipher: str, module: str
) -> None:
    """This server never answers what it is sent for the key exchange."""
    config = tmp_path / "config"
    lists = [b"curve25519-sha256", b"ssh-ed25519", *[cipher.encode()] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2]
    payload = bytes([20]) + bytes(16) + b"".join(map(string, [*lists, b"", b""])) + bytes(5)
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SOON)
        config.write_text(f"Host h1\nHostName {LOOPBACK}\nPort {listener.getsockname()[1]}\n")
        program = TELLING.format(name=f"relay.ssh.wire.{module}")
        argv = [sys.executable, "-c", program, "--memory", "none", "-F", str(config), "h1/h2"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0) as started:
            with listener.accept()[0] as server:
                server.sendall(b"SSH-2.0-test\r\n" + Sealer(CLEAR).packet(payload))
                assert started.stderr is not None
                assert select.select([started.stderr], [], [], SOON)[0]
                assert started.stderr.read(6) == b"wanted"
            started.stderr.read()


def test_a_proxy_is_connected_to_before_pysocks_has_been_imported() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SOON)
        program = SLOW.format(slow="relay.dial.proxy.handshake")
        argv = [sys.executable, "-c", program, "-x", f"{LOOPBACK}:{listener.getsockname()[1]}", "target.example"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
            listener.accept()[0].close()
            assert b" closed the connection" in started.communicate(b"\n" * 9, SOON)[1]


CONFIG = {"relay.config", "relay.config.lookup", "relay.config.settings", "relay.run.asked", "relay.run.program"}
PLAN = {"relay.dial.first", "relay.dial.plan"}
ASKS = {"relay.run.children", "relay.run.prompt"}
ENDS = {"relay.run.family"}  # may be imported at the end: ssh -G, whose output is read, may not have ended yet
PROXIED = {
    *PLAN,
    *ASKS,
    "relay.dial.proxy",
    "relay.spec.proxy",
    "relay.dial.proxy.leg",
    "relay.dial.proxy.who",
    "relay.dial.proxy.wire",
}


def test_relay_by_http_connect(lab: Lab, port: int) -> None:
    proxy = proxies.start("tinyproxy", lab)
    try:
        found = imported(*proxy.options, LOOPBACK, str(port))
    finally:
        proxy.stop()
    assert found - RAW == PROXIED | {"relay.dial.proxy.http", "relay.dial.proxy.message"}


def test_relay_by_socks(lab: Lab, port: int) -> None:
    proxy = proxies.start("microsocks", lab)
    try:
        found = imported("-q", *proxy.options, LOOPBACK, str(port))  # (-q: see test_shared_hops)
    finally:
        proxy.stop()
    assert {name for name in found if name.startswith("relay")} - RAW == PROXIED | {
        "relay.dial.proxy.handshake",
        "relay.run.sparing",
    }
    assert "socks" in found
    assert "encodings.idna" not in found  # an address is sent as one; a name PySocks encodes so
    assert found.isdisjoint({"asyncio", "cryptography", "ctypes", "importlib.metadata", "logging", "paramiko", "ssl"})
    assert found.isdisjoint({"collections", "enum", "functools", "selectors", "socket"})  # half of its start
    assert found.isdisjoint({"subprocess", "traceback", "typing"})


@pytest.mark.parametrize("arguments", [["-w"], ["h1++h3"]])
def test_usage_error(arguments: list[str]) -> None:
    assert imported(*arguments, status=2) - USAGE == set()


# What a hop costs: with these, and our own rooms, a login by an Ed25519 key is all there. Of paramiko, the modules that
# relay/ssh/wire/library.py leaves out are in sys.modules, too, but empty.
_HOP = """
    _cffi_backend _collections _functools _operator _queue _struct _weakrefset array atexit binascii collections
    collections.abc enum functools itertools keyword operator reprlib resource select struct threading types weakref

    cryptography cryptography.__about__ cryptography.exceptions cryptography.utils _openssl _openssl.lib
    cryptography.hazmat
    cryptography.hazmat.backends cryptography.hazmat.backends.openssl cryptography.hazmat.backends.openssl.backend
    cryptography.hazmat.bindings cryptography.hazmat.bindings._rust cryptography.hazmat.bindings.openssl
    cryptography.hazmat.bindings.openssl._conditional cryptography.hazmat.bindings.openssl.binding
    cryptography.hazmat.primitives cryptography.hazmat.primitives._asymmetric
    cryptography.hazmat.primitives._cipheralgorithm cryptography.hazmat.primitives.hashes
    cryptography.hazmat.primitives.hmac
    cryptography.hazmat.primitives.ciphers cryptography.hazmat.primitives.ciphers.aead
    cryptography.hazmat.primitives.ciphers.base
    cryptography.hazmat.primitives.asymmetric cryptography.hazmat.primitives.asymmetric.ed25519
    cryptography.hazmat.primitives.asymmetric.mlkem cryptography.hazmat.primitives.asymmetric.x25519

    paramiko paramiko.buffered_pipe paramiko.channel paramiko.common paramiko.compress paramiko.file paramiko.message
    paramiko.packet paramiko.pipe paramiko.ssh_exception paramiko.transport paramiko.util
"""
HOP = set(_HOP.split())


def test_hops(lab: Lab, port: int) -> None:
    lab.server("h1")
    lab.write_config()
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", lab.known_hosts], capture_output=True, check=True)
    found = imported("-F", str(lab.config), f"h1/{LOOPBACK}:{port}")
    left_out = {f"paramiko.{name}" for name in LEFT_OUT}
    ours = {name for name in found if name.startswith("relay")}
    # What paramiko asks for by name: in Python 3.14 that is much.
    script = "import sys, enum, io, threading, warnings; print(*sys.modules)"
    known = subprocess.run([sys.executable, "-ISc", script], capture_output=True, text=True, check=True)
    assert found - RAW - HOP - left_out - ours - set(known.stdout.split()) == set()
    assert found >= left_out | {"paramiko.transport"}
    rare = {"relay.ssh.netcat", "relay.ssh.wire.kex_others", "relay.dial.openssh", "relay.ssh.trust.hosts_command"}
    assert ours & rare == set()


SLOW_TO_IMPORT = {"asyncio", "hashlib", "re", "selectors", "shlex", "signal", "socket", "subprocess", "typing"}


def test_a_hop_by_its_proxycommand(lab: Lab, port: int) -> None:
    server = lab.server("h1")
    lab.host("h1", Port=server.port, ProxyCommand="nc %h %p")
    lab.write_config()
    found = imported("-F", str(lab.config), f"h1/{LOOPBACK}:{port}")
    assert "relay.dial.command" in found
    assert found.isdisjoint(SLOW_TO_IMPORT)


def test_a_hop_by_ssh(lab: Lab, port: int) -> None:
    lab.server("h1")
    lab.write_config()
    found = imported("-F", str(lab.config), "--engine", "ssh", f"h1/{LOOPBACK}:{port}")
    assert "relay.dial.openssh" in found
    assert found.isdisjoint(SLOW_TO_IMPORT | {"collections", "cryptography", "enum", "functools", "threading"})


@pytest.mark.parametrize("ciphers", ["chacha20-poly1305@openssh.com", "aes128-ctr"])
def test_no_cipher_brings_another_openssl(lab: Lab, port: int, ciphers: str) -> None:
    lab.server("h1", extra=f"Ciphers {ciphers}")
    lab.write_config()
    assert imported("-F", str(lab.config), f"h1/{LOOPBACK}:{port}").isdisjoint({"_hashlib", "hashlib", "hmac"})


def test_what_two_threads_must_not_import_is_there_before_the_second_begins() -> None:
    """Python 3.13.0's collections.abc puts another module in its place; who finds the first has nothing of it."""
    script = f"""import sys; sys.path.insert(0, {str(ROOT)!r})
from types import SimpleNamespace
from relay import dial
before = "collections.abc" in sys.modules
dial.start_new_thread = lambda *_: print(before, "collections.abc" in sys.modules)
dial._expect_session(SimpleNamespace(options=SimpleNamespace(engine="auto")))
"""
    run = subprocess.run([sys.executable, "-IS", "-c", script], check=False, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False True\n", "")


def test_garbage_is_looked_for_once_the_relay_has_begun(port: int) -> None:
    script = "import gc; import relay.pump as pump; relay = pump.relay\n"
    script += "pump.relay = lambda *rest, **more: print(gc.isenabled(), gc.get_freeze_count() > 999) or 0\n"
    run = subprocess.run(
        [sys.executable, "-c", f"{script}from relay.cli import main; main()", LOOPBACK, str(port)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "True True\n"


def test_a_hop_by_its_master(lab: Lab, port: int) -> None:
    """Nobody logs in here, so nothing of that is imported."""
    path = lab.top / "master"
    lab.server("h1", ControlPath=path)
    lab.start("ssh", "-F", lab.config, "-M", "-N", "h1")
    until(path.exists, "master")
    found = imported("-F", str(lab.config), f"h1/{LOOPBACK}:{port}")
    ours = {name for name in found if name.startswith("relay")}
    assert ours - RAW - ENDS == {
        *ASKS,
        *CONFIG,
        *PLAN,
        "relay.dial.engine",
        "relay.dial.master",
        "relay.run.unix",
    }
    assert found & {"asyncio", "cryptography", "dataclasses", "paramiko", "socket", "typing"} == set()


SHARED = {
    *ASKS,
    *CONFIG,
    *PLAN,
    "relay.share",
    "relay.share.call",
    "relay.share.client",
    "relay.run.unix",
    "relay.share.place",
    "relay.share.wire",
}


def test_shared_hops(lab: Lab, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that asks another process for its hops imports nothing for logins, and no subprocess."""
    lab.server("h1")
    lab.write_config()
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(lab.home))
    try:
        # -q: a login of more than a second would show the status line, whose module is one more.
        found = imported("-F", str(lab.config), "-q", "--share", "10m", f"h1/{LOOPBACK}:{port}")
    finally:
        lab.pyrelay("-O", "exit")
    assert found - RAW - ENDS == SHARED | {"relay.run.private"}  # it makes the directory
