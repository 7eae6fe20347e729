"""Signatures: what a key has signed is taken, and nothing that holds a byte more; ssh refuses the same."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.message import Message
from peers import LOOPBACK, Listener, need

from relay.ssh.login.keyfile import read_private
from relay.ssh.pubkey import BadKey, Reader, string
from relay.ssh.trust.signature import verify

if TYPE_CHECKING:
    from lab import Lab

DATA = b"what is signed"
KINDS = {
    "ssh-ed25519": ("ed25519", "256"),
    "ecdsa-sha2-nistp256": ("ecdsa", "256"),
    "ecdsa-sha2-nistp521": ("ecdsa", "521"),
    "rsa-sha2-512": ("rsa", "2048"),
}


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_byte_more(tmp_path: Path, algorithm: str) -> None:
    """Behind the signature, inside it, and inside an ECDSA signature's two numbers."""
    kind, bits = KINDS[algorithm]
    argv: list[str | Path] = [need("ssh-keygen"), "-q", "-N", "", "-t", kind, "-b", bits, "-f", tmp_path / "key"]
    subprocess.run(argv, check=True)
    key = read_private(str(tmp_path / "key")).unlock()
    right = key.sign(DATA, algorithm)
    assert verify(key.public, right, DATA) == algorithm
    reader = Reader(right)
    name, value = reader.string(), reader.string()
    for more in (b"\0", string(b""), right):
        for wrong in (right + more, string(name) + string(value + more), string(name + more) + string(value)):
            with pytest.raises(BadKey):
                verify(key.public, wrong, DATA)
    for end in range(len(right)):
        with pytest.raises(BadKey):
            verify(key.public, right[:end], DATA)


class _Longer(paramiko.ECDSAKey):  # type: ignore[misc]  # paramiko has no types
    """A key whose signatures are right, and have a byte behind them."""

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Message:
        return Message(super().sign_ssh_data(data, algorithm).asbytes() + self.more)

    more = b""


@pytest.mark.parametrize("more", [b"", b"\0"])
def test_a_server_whose_signature_is_longer(lab: Lab, more: bytes) -> None:
    """ssh is the oracle: both get past the key exchange, or neither does."""
    key = _Longer.generate()
    key = _Longer(vals=(key.signing_key, key.verifying_key))
    key.more = more

    def serve(connection: socket.socket) -> None:
        server = paramiko.Transport(connection)
        server.add_server_key(key)
        with suppress(paramiko.SSHException, EOFError, OSError):
            server.start_server(threading.Event(), paramiko.ServerInterface())
            server.join()

    listener = Listener(serve)
    lab.at_end(listener.stop)
    lab.host("h1", Port=listener.port)
    lab.know("h1", listener.port, [f"{key.get_name()} {key.get_base64()}"])
    config = lab.write_config()
    said = []
    commands: list[list[str | Path]] = [
        ["ssh", "-F", config, "h1", "true"],
        [lab.program, "-F", config, f"h1/{LOOPBACK}:9"],
    ]
    for argv in commands:
        _, err = lab.start(*argv, stdin=subprocess.DEVNULL).communicate(timeout=60)
        said.append(err.decode())
    assert [("ermission denied" in each) for each in said] == [not more, not more], said
    if more:
        assert "bytes after the signature" in said[1]
