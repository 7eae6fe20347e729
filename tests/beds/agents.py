"""Key agents: the real ssh-agent, and one that follows a script, with a security key in software."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peers import Listener, need

from relay.ssh.pubkey import string

if TYPE_CHECKING:
    from lab import Lab

FAILURE, SUCCESS, IDENTITIES, SIGNATURE = b"\x05", b"\x06", b"\x0c", b"\x0e"  # RFC 9987
LIST, SIGN, EXTENSION = 11, 13, 27


class RealAgent:
    """ssh-agent. environment: what its askpass program is to see."""

    def __init__(self, lab: Lab, name: str = "agent", **environment: str) -> None:
        self._lab = lab
        self.path = lab.top / name
        self._process = lab.start(need("ssh-agent"), "-D", "-a", self.path, env=environment)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it says where it listens once it does

    def add(self, *arguments: str | Path) -> None:
        """Run ssh-add."""
        done = self._lab.run("ssh-add", *arguments, env={"SSH_AUTH_SOCK": str(self.path)})
        assert done.returncode == 0, done.stderr


# What an agent answers to a message: a message, the pieces of one, or None to say nothing.
Script = Callable[[bytes], bytes | Iterable[bytes] | None]


class ScriptedAgent:
    """An agent that follows a script."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self._script = script
        self.stop = Listener(self._serve, path=path).stop

    def _serve(self, connection: socket.socket) -> None:
        threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError):  # the client may leave
            while head := file.read(4):
                answer = self._script(file.read(int.from_bytes(head, "big")))
                if isinstance(answer, bytes):
                    connection.sendall(string(answer))
                elif answer is not None:
                    connection.sendall((1 << 16).to_bytes(4, "big"))
                    for piece in answer:
                        connection.sendall(piece)


class SecurityKey:
    """What a FIDO token does (OpenSSH's PROTOCOL.u2f), in software."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._application = b"ssh:"
        kind = b"sk-ssh-ed25519@openssh.com"
        self.blob = string(kind) + string(self._key.public_key().public_bytes_raw()) + string(self._application)
        self.line = f"{kind.decode()} {b64encode(self.blob).decode()} token\n"

    def sign(self, data: bytes) -> bytes:
        presence_and_counter = b"\1" + (7).to_bytes(4, "big")
        signed = hashlib.sha256(self._application).digest() + presence_and_counter + hashlib.sha256(data).digest()
        return string(b"sk-ssh-ed25519@openssh.com") + string(self._key.sign(signed)) + presence_and_counter


def listing(*keys: tuple[bytes, bytes]) -> bytes:
    """The answer to REQUEST_IDENTITIES: blobs and comments."""
    return (
        IDENTITIES + len(keys).to_bytes(4, "big") + b"".join(string(blob) + string(comment) for blob, comment in keys)
    )


def certify(lab: Lab, authority: Path, key: Path, *options: str) -> Path:
    """Make a user certificate for a key; return its file, the one beside the key."""
    subprocess.run(
        [need("ssh-keygen"), "-q", "-s", authority, "-I", "test", "-n", lab.user, *options, f"{key}.pub"], check=True
    )
    return Path(f"{os.fspath(key)}-cert.pub")
