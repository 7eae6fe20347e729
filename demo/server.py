"""An SSH server inside this process that remembers what it saw, on paramiko's server side.

It lets one key in, runs commands and forwards connections (direct-tcpip): what a
jump host and its target do. For the demo only: every user name may log in.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import paramiko

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its last resort prints
_LEFT = (OSError, EOFError, paramiko.SSHException)  # what a socket, and paramiko, raise once the other side has left


@dataclass
class Forward:
    """A connection that the server made for a client: where to, and every byte that it saw go by."""

    place: tuple[str, int]
    passed: bytearray = field(default_factory=bytearray)


class Server:
    """A server on loopback, on a port of the kernel's choosing, until `stop`.

    host_key: its private key. key: the key that may log in.
    logins, commands, forwards: what it has seen; complete after `settle`.
    """

    def __init__(self, name: str, host_key: paramiko.PKey, key: paramiko.PKey) -> None:
        self.name = name
        self.logins: list[str] = []
        self.commands: list[str] = []
        self.forwards: list[Forward] = []
        self._host_key = host_key
        self._key = key
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # stopped
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """Serve one client until it leaves."""
        transport = paramiko.Transport(connection)
        transport.add_server_key(self._host_key)
        session = _Session(self._key)
        try:
            transport.start_server(server=session)
        except (paramiko.SSHException, EOFError):  # a client that left early
            return
        while transport.is_active():
            channel = transport.accept(0.1)
            if channel is None:
                continue
            if not self.logins:
                self.logins.append(transport.get_username())
            self._start(self._run, channel, session)

    def _run(self, channel: paramiko.Channel, session: _Session) -> None:
        """Do what a channel is for: forward, or run one command."""
        if channel.chanid in session.connected:
            upstream = session.connected.pop(channel.chanid)
            forward = Forward(upstream.getpeername())
            self.forwards.append(forward)
            self._start(_copy, channel.recv, upstream.sendall, lambda: upstream.shutdown(socket.SHUT_WR), forward)
            _copy(upstream.recv, channel.sendall, channel.shutdown_write, forward)
        elif session.asked.wait(10):
            self.commands.append(session.command)
            ran = subprocess.run(
                session.command, shell=True, capture_output=True, check=False, env={**os.environ, "SERVER": self.name}
            )
            with suppress(*_LEFT):
                channel.sendall(ran.stdout)
                channel.sendall_stderr(ran.stderr)
                channel.send_exit_status(ran.returncode)
                channel.close()

    def settle(self) -> None:
        """Wait until every client has left and its record is complete."""
        for thread in self._threads[1:]:  # the first one accepts for ever
            thread.join(10)

    def stop(self) -> None:
        """Listen no more; whoever comes now is refused."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class _Session(paramiko.ServerInterface):
    """What paramiko asks about one client, on the transport's own thread.

    connected: the connections made for its forwards, by channel number.
    command: what it wants to be run, once `asked` is set.
    """

    def __init__(self, key: paramiko.PKey) -> None:
        self.connected: dict[int, socket.socket] = {}
        self.command = ""
        self.asked = threading.Event()
        self._key = key

    def get_allowed_auths(self, username: str) -> str:
        """Keys only."""
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        """One key, whoever has it."""
        return int(paramiko.AUTH_SUCCESSFUL if key == self._key else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        """Sessions only."""
        ok = kind == "session"
        return int(paramiko.OPEN_SUCCEEDED if ok else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        """Any command; `_run` runs it."""
        self.command = command.decode()
        self.asked.set()
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        """Connect to wherever the client wants to get."""
        try:
            self.connected[chanid] = socket.create_connection(destination, 10)
        except OSError:
            return int(paramiko.OPEN_FAILED_CONNECT_FAILED)
        return int(paramiko.OPEN_SUCCEEDED)


def _copy(
    receive: Callable[[int], bytes], send: Callable[[bytes], object], end: Callable[[], object], forward: Forward
) -> None:
    """Pass bytes on until there are no more, then pass on that there are no more."""
    with suppress(*_LEFT):
        while data := receive(32768):
            forward.passed += data
            send(data)
        end()
