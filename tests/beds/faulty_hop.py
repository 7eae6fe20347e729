"""An SSH server that keeps to its protocol up to the message of one stage.

paramiko's server side over a Wire. What it is about to send is looked at, so
that the fault stands in the right place of the stream, and is sealed where the
right message would be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import paramiko
from faults import BANNER, Wire
from paramiko.message import Message

from relay.ssh.pubkey import string
from relay.ssh.wire.kex_others import Group14

KEY = paramiko.ECDSAKey.generate()
DISCONNECT, SUCCESS, FAILURE, QUESTIONS = 1, 52, 51, 60
CONFIRMATION, OPEN_FAILURE, WINDOW, DATA, END, CLOSE = 91, 92, 93, 94, 96, 97
# Each stage by the type of the server's message that a fault takes the place of (RFC 4250 section 4.1.2).
STAGES = {
    "key exchange": 20,
    "host key": 31,  # SSH_MSG_KEX_ECDH_REPLY (RFC 5656 section 7.1)
    "group": 31,  # SSH_MSG_KEX_DH_GEX_GROUP (RFC 4419 section 5), where that is the key exchange
    "host key with a group": 33,  # SSH_MSG_KEX_DH_GEX_REPLY
    "new keys": 21,
    "login service": 6,
    "login by none": SUCCESS,
    "login by publickey": SUCCESS,
    "login by keyboard-interactive": QUESTIONS,
    "login by password": SUCCESS,
    "channel open": CONFIRMATION,
    "relay to the target": WINDOW,
    "relay from the target": DATA,
    "close": CLOSE,
}
GROUP_EXCHANGE = "diffie-hellman-group-exchange-sha256"
GROUPS = frozenset({"group", "host key with a group"})  # the stages of that key exchange
MORE = b"more"  # what the target says after its banner, when it has heard something
SMALL = 65536  # bytes of window; what is sent soon needs the server's next word
LOOK_ROUND = 0.1  # seconds


def hop(wire: Wire) -> None:
    """Serve one connection."""
    transport = _Transport(wire)
    transport.add_server_key(KEY)
    if wire.stage in GROUPS:
        transport._preferred_kex = (GROUP_EXCHANGE,)
        transport._modulus_pack = _Group()
    try:
        transport.start_server(threading.Event(), _Everybody(wire.stage))
        channel = None
        while channel is None and transport.is_active():
            channel = transport.accept(LOOK_ROUND)  # which does not notice an end
        if channel is not None:
            _target(channel, wire.stage)
        transport.join()  # the client leaves
    finally:
        transport.close()


def _target(channel: paramiko.Channel, stage: str) -> None:
    """Be the target."""
    channel.sendall(BANNER)
    heard = channel.recv(SMALL)
    if stage == "relay from the target" and heard:
        channel.sendall(MORE)
    if stage != "close":
        while channel.recv(SMALL):
            pass
    channel.close()


class _Group:
    """The group that paramiko offers: the one that everybody has (RFC 3526)."""

    def get_modulus(self, *_: int) -> tuple[int, int]:
        return 2, Group14.prime


class _Everybody(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """Lets everybody in by the method of the stage, publickey where that is not about a method."""

    def __init__(self, stage: str) -> None:
        self._method = stage.removeprefix("login by ") if stage.startswith("login by ") else "publickey"

    def get_allowed_auths(self, username: str) -> str:
        return self._method

    def _result(self, method: str) -> int:
        return int(paramiko.AUTH_SUCCESSFUL if method == self._method else paramiko.AUTH_FAILED)

    def check_auth_none(self, username: str) -> int:
        return self._result("none")

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self._result("publickey")

    def check_auth_password(self, username: str, password: str) -> int:
        return self._result("password")

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery:
        return paramiko.InteractiveQuery("", "", ("Code: ", False))

    def check_auth_interactive_response(self, responses: list[str]) -> int:
        return self._result("keyboard-interactive")

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: object) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


class _Transport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """Sends what the fault makes of the message of the stage."""

    def __init__(self, wire: Wire) -> None:
        self._socket = _Socket(wire)
        super().__init__(self._socket, default_window_size=SMALL)
        self.daemon = True
        self._wire = wire
        self._kind = STAGES.get(wire.stage)
        if wire.stage == "ident":
            self._socket.harm = self._say_who

    def _say_who(self, right: bytes) -> None:
        self._wire.say("ident", right, b"Exceeded MaxStartups\r\n")

    def _send_message(self, data: Message) -> None:
        payload = data.asbytes()
        # The banner is not the data that is meant.
        if payload[0] != self._kind or (payload[0] == DATA and not payload.endswith(MORE)):
            super()._send_message(data)
            return
        self._kind = None
        fault = self._wire.fault
        if fault in {"refused", "late data", "duplicate"}:
            self._wire.reached.set()
            for each in self._instead(fault, payload):
                super()._send_message(Message(each))
            if fault == "refused" and each[0] == DISCONNECT:
                self._wire.last()
        else:
            self._socket.harm = self._wire.harm
            super()._send_message(data)

    def _instead(self, fault: str, payload: bytes) -> list[bytes]:
        """The messages that are sent instead of one."""
        if fault == "duplicate":
            return [payload, payload]
        refusal = bytes((DISCONNECT,)) + (2).to_bytes(4) + string(b"come back tomorrow") + string(b"")
        channel = payload[1:5]
        if payload[0] == CONFIRMATION:
            refusal = bytes((OPEN_FAILURE,)) + channel + (2).to_bytes(4) + string(b"Connection refused") + string(b"")
        elif fault == "refused" and payload[0] in {SUCCESS, QUESTIONS}:
            refusal = bytes((FAILURE,)) + string(b"hostbased") + bytes(1)
        elif fault == "late data" and payload[0] == DATA:
            refusal = bytes((END,)) + channel
        elif fault == "late data" and payload[0] == CLOSE:
            return [payload, bytes((DATA,)) + channel + string(MORE)]
        return [refusal] if fault == "refused" else [refusal, payload]


class _Socket:
    """The connection as paramiko has it. harm: takes what is sent next, and all that comes from then on."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._harmed = threading.Event()
        self._over = threading.Event()
        self.harm: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> int:
        if self._harmed.is_set():  # an answer of another thread, to what it had read just before
            self._over.wait()
            return len(data)
        if self.harm is None:
            return self._wire.socket.send(data)
        harm, self.harm = self.harm, None
        self._wire.socket.settimeout(None)  # paramiko has set one
        if self._wire.fault == "duplicate":  # which leaves the connection as it is
            harm(data)
            return len(data)
        self._harmed.set()
        try:
            harm(data)
        finally:
            self._over.set()
        return len(data)

    def recv(self, size: int) -> bytes:
        if self._harmed.is_set():
            self._over.wait()
            return b""
        data = self._wire.socket.recv(size)
        if self._harmed.is_set():  # it has begun meanwhile: a server that is silent, say, answers no keepalive
            self._over.wait()
            return b""
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire.socket, name)
