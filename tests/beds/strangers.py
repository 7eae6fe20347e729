"""SSH servers other than OpenSSH's, as hops, and what may stand before a server.

Each listens on loopback and takes one user's key.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import asyncssh
from peers import LOOPBACK, Listener, free_ports, missing, need, until


class Dropbear:
    """One `dropbear -i` for each connection, with an empty home of its own; root only.

    Dropbear looks for authorized_keys in the account's home and nowhere else, so
    in its mount namespace that is another directory. options: of dropbear.
    """

    def __init__(self, top: Path, host_key: Path, authorized_keys: str, options: Sequence[str] = ()) -> None:
        if os.geteuid() != 0:
            missing("only root can give dropbear a home of its own")
        keys = top / "home" / ".ssh"
        keys.mkdir(parents=True, mode=0o700)
        (keys / "authorized_keys").write_text(authorized_keys)
        (keys / "authorized_keys").chmod(0o600)
        converted = top / "dropbear_host_key"
        subprocess.run(
            [need("dropbearconvert"), "openssh", "dropbear", host_key, converted], check=True, capture_output=True
        )
        home = pwd.getpwuid(0).pw_dir
        dropbear = shlex.join([need("dropbear"), "-i", "-s", "-m", "-r", str(converted), *options])
        script = f"mount --bind {keys.parent} {home} && exec {dropbear}"
        self._argv = [need("unshare"), "--mount", "sh", "-c", script]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            process = subprocess.Popen(
                self._argv,
                stdin=connection.fileno(),
                stdout=connection.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._processes.append(process)

    def stop(self) -> None:
        """Accept no more and end every connection."""
        self._listener.stop()
        for process in self._processes:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            process.wait()


class Asyncssh:
    """asyncssh's server, in a thread of the tests; it forwards, and runs nothing.

    forwards: the host and port of each forward there has been.
    """

    def __init__(self, host_key: Path, authorized_keys: Path) -> None:
        self.forwards: list[tuple[str, int]] = []
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(host_key, authorized_keys)), daemon=True
        )
        self._thread.start()
        self._ready.wait()

    async def _serve(self, host_key: Path, authorized_keys: Path) -> None:
        forwards = self.forwards

        class Server(asyncssh.SSHServer):
            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
                forwards.append((dest_host, dest_port))
                return True

        listener = await asyncssh.listen(
            LOOPBACK,
            0,
            server_factory=Server,
            server_host_keys=[str(host_key)],
            authorized_client_keys=str(authorized_keys),
        )
        self.port = listener.get_port()
        self._ready.set()
        await self._over.wait()
        listener.close()
        await listener.wait_closed()

    def stop(self) -> None:
        """Accept no more, and end."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()


class Program:
    """A server of beds/hops: it prints its port, and ends with its stdin. argv: with what follows it is run."""

    def __init__(self, argv: Sequence[str | Path], host_key: Path, authorized_keys: Path, **environment: str) -> None:
        self._process = subprocess.Popen(
            [*argv, host_key, authorized_keys],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A name that a forward asks for and no one knows is to fail at once.
            env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1", **environment},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline() or 0)
        assert self.port, f"{argv[-1]} does not start"

    def stop(self) -> None:
        """End it, and every connection."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Front:
    """A multiplexer in the foreground, which leads to a server; {port} of its argv, or $PORT of its file, is its."""

    def __init__(self, *argv: str) -> None:
        self.port = next(free_ports())
        self._process = subprocess.Popen(
            [word.format(port=self.port) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PORT": str(self.port)},
        )
        until(self._listens, "listener")

    def _listens(self) -> bool:
        assert self._process.poll() is None, "it has ended"
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def stop(self) -> None:
        """End it, and every connection."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
