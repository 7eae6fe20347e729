"""An SSH server whose login follows a script: for what a real sshd needs accounts or PAM, or never does.

Key exchange and channels are paramiko's server side. It forwards as a hop
does, so a login that it grants is proved by the connection behind it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
from lab import Lab
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_CHANNEL_OPEN,
    MSG_IGNORE,
    MSG_NEWKEYS,
    MSG_SERVICE_REQUEST,
    MSG_USERAUTH_INFO_RESPONSE,
    MSG_USERAUTH_REQUEST,
)
from paramiko.message import Message
from peers import Listener

from relay.ssh.pubkey import Reader, string

# RFC 4250 section 4.1.2
DISCONNECT, IGNORE, UNIMPLEMENTED, SERVICE_ACCEPT, FAILURE, SUCCESS, BANNER, MORE, CONFIRMATION, OPEN_FAILURE = (
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x06",
    b"\x33",
    b"\x34",
    b"\x35",
    b"\x3c",
    b"\x5b",
    b"\x5c",
)

KEXINIT = b"\x14"
_GONE = (OSError, EOFError)  # what writing to a client that has left raises; the second is paramiko's


def failure(*methods: str, partial: bool = False) -> bytes:
    return FAILURE + string(",".join(methods).encode()) + bytes([partial])


def banner(text: bytes) -> bytes:
    return BANNER + string(text) + string(b"")


def questions(*asked: tuple[str, bool], title: str = "", instruction: str = "") -> bytes:
    """An INFO_REQUEST (RFC 4256 section 3.2); each question with whether its answer may be seen."""
    body = string(title.encode()) + string(instruction.encode()) + string(b"") + len(asked).to_bytes(4, "big")
    return MORE + body + b"".join(string(text.encode()) + bytes([echo]) for text, echo in asked)


def taken(*algorithms: str) -> bytes:
    """An EXT_INFO with server-sig-algs (RFC 8308 section 3.1)."""
    return b"\x07" + (1).to_bytes(4, "big") + string(b"server-sig-algs") + string(",".join(algorithms).encode())


def change_request(text: str) -> bytes:
    """SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8)."""
    return MORE + string(text.encode()) + string(b"")


def disconnect(text: str) -> bytes:
    return DISCONNECT + (2).to_bytes(4, "big") + string(text.encode()) + string(b"")


class Request:
    """What a client sends during its login.

    method: of the request; "answers" for an INFO_RESPONSE, "channel" for a CHANNEL_OPEN that comes before the login is
    granted. fields: what the method adds.
    """

    def __init__(self, user: str, method: str, fields: bytes) -> None:
        self.user = user
        self.method = method
        self.fields = Reader(fields)
        self.number = 0  # the client's of the channel

    def password(self) -> tuple[str, ...]:
        """The password; the old and the new one for a change."""
        change = self.fields.number(1)
        return tuple(os.fsdecode(self.fields.string()) for _ in range(1 + change))

    def answers(self) -> list[str]:
        return [self.fields.string().decode() for _ in range(self.fields.number())]


Script = Callable[[Request], Sequence[bytes]]  # the messages that answer a request


class LoginServer:
    """A server on loopback.

    requests: the methods that clients have asked for, in their order. ignored: how many messages to be ignored came.
    kex: what its KEXINIT names after the key exchanges. signatures: its server-sig-algs, paramiko's own unless set.
    transports: one for each connection.
    rekeys: whether it exchanges keys again as soon as it has opened a channel. keys_last: whether it says that it has
    new keys only when the client has said so.
    guess: a message that it sends right after its KEXINIT, which then says so (RFC 4253 section 7).
    behind_keys: a message that it sends along with its NEWKEYS.
    exchanges: its key exchanges in its order; paramiko's own unless set. guesses: how many KEXINITs said that a guess
    follows. breaks: whether it ends the connection then.
    """

    exchanges: Sequence[str] = ()
    guess = b""
    behind_keys = b""
    guesses = 0
    breaks = False
    rekeys = False
    keys_last = False

    def __init__(self, host_key: Path, script: Script, greeting: Sequence[bytes] = (), ident: str = "") -> None:
        self.host_key = Path(f"{host_key}.pub").read_text().strip()
        self.requests: list[str] = []
        self.kex: tuple[str, ...] = ()
        self.signatures: tuple[str, ...] = ()
        self._key = paramiko.Ed25519Key.from_private_key_file(str(host_key))
        self._script = script
        self._greeting = greeting
        self._ident = ident
        self.transports: list[_Transport] = []
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def _serve(self, connection: socket.socket) -> None:
        transport = _Transport(connection)
        transport.told = self._told
        transport.rekeys = self.rekeys
        transport.keys_last = self.keys_last
        transport.guess = self.guess
        transport.behind_keys = self.behind_keys
        transport._preferred_kex = tuple(self.exchanges) or transport._preferred_kex
        transport.daemon = True
        transport.local_version = self._ident or transport.local_version
        transport.more_kex = self.kex
        transport.signatures = self.signatures
        transport.use_compression(True)
        transport.add_server_key(self._key)
        transport.auth_handler = _Login(transport, self._answer, self._greeting)
        self.transports.append(transport)
        transport.start_server(threading.Event(), _Forwards(transport))

    def _told(self, follows: bool) -> None:
        self.guesses += follows
        if follows and self.breaks:
            raise EOFError

    def _answer(self, request: Request) -> Sequence[bytes]:
        self.requests.append(request.method)
        return self._script(request)

    @property
    def deserted(self) -> bool:
        """Whether every client has left."""
        return not any(transport.is_active() for transport in self.transports)

    @property
    def ignored(self) -> int:
        return sum(transport.ignored for transport in self.transports)

    def stop(self) -> None:
        self._listener.stop()
        for transport in self.transports:
            transport.close()


def scripted(lab: Lab, name: str, script: Script, *greeting: bytes, ident: str = "", **settings: object) -> LoginServer:
    """A hop whose login follows a script, known to the lab's clients; settings: as for Lab.host."""
    server = LoginServer(lab.keygen(f"{name}-host"), script, greeting, ident)
    lab.at_end(server.stop)
    lab.host(name, Port=server.port, **settings)
    lab.know(name, server.port, [server.host_key])
    return server


def asking(lab: Lab, name: str, script: Script, *greeting: bytes, keys: str = "no") -> LoginServer:
    """A hop whose login follows a script, and which is offered no keys unless the test is about them."""
    return scripted(lab, name, script, *greeting, BatchMode="no", PubkeyAuthentication=keys)


def passwords(right: str, methods: tuple[str, ...] = ("password",)) -> Script:
    """A server that takes one password."""

    def script(request: Request) -> list[bytes]:
        if request.method == "password" and request.password() == (right,):
            return [SUCCESS]
        return [failure(*methods)]

    return script


class _Transport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """paramiko's, which would refuse the channel."""

    ignored = 0
    rekeys = False
    keys_last = False
    guess = b""
    behind_keys = b""
    told: Callable[[bool], None]  # whether a client's KEXINIT says that a guess follows

    def _really_parse_kex_init(self, m: Message, ignore_first_byte: bool = False) -> Any:
        parsed = super()._really_parse_kex_init(m, ignore_first_byte)
        if not ignore_first_byte:
            self.told(parsed["kex_follows"])
        return parsed

    def _send_message(self, data: Message) -> None:
        if self.guess and data.asbytes()[:1] == KEXINIT:
            self.local_kex_init = self._latest_kex_init = data.asbytes()[:-5] + b"\1" + bytes(4)
            super()._send_message(Message(self.local_kex_init))
            data = Message(self.guess)
        super()._send_message(data)
        if self.rekeys and data.asbytes()[:1] == CONFIRMATION:
            self._send_kex_init()

    def _activate_outbound(self) -> None:
        if self.keys_last:
            self._expect_packet(MSG_NEWKEYS)
        elif self.behind_keys:
            together: list[bytes] = []
            write_all, self.packetizer.write_all = self.packetizer.write_all, together.append
            super()._activate_outbound()
            self._send_message(Message(self.behind_keys))
            self.packetizer.write_all = write_all
            write_all(b"".join(together))
        else:
            super()._activate_outbound()

    def _parse_newkeys(self, m: Message) -> None:
        if self.keys_last:
            super()._activate_outbound()
            self._expect_packet()  # those of the client have come
        super()._parse_newkeys(m)

    more_kex: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def preferred_kex(self) -> tuple[str, ...]:
        return (*super().preferred_kex, *self.more_kex)

    @property
    def preferred_pubkeys(self) -> tuple[str, ...]:
        return self.signatures or tuple(super().preferred_pubkeys)

    def _enforce_strict_kex(self, ptype: int) -> None:
        """What is called for each message that is ignored."""
        self.ignored += ptype == MSG_IGNORE
        super()._enforce_strict_kex(ptype)

    def _ensure_authed(self, ptype: int, message: Message) -> Message | None:
        if ptype == MSG_CHANNEL_OPEN and not self.is_authenticated():
            return self.auth_handler.asked_early(message)
        return super()._ensure_authed(ptype, message)


class _Login(AuthHandler):  # type: ignore[misc]  # paramiko has no types
    """paramiko's server side of the login, which asks the script."""

    def __init__(self, transport: paramiko.Transport, script: Script, greeting: Sequence[bytes]) -> None:
        super().__init__(transport)
        self._script = script
        self._greeting = greeting

    @property
    def _server_handler_table(self) -> dict[int, Callable[[Message], None]]:
        return {
            MSG_SERVICE_REQUEST: self._accept,
            MSG_USERAUTH_REQUEST: self._request,
            MSG_USERAUTH_INFO_RESPONSE: self._answers,
        }

    def _accept(self, message: Message) -> None:
        self._send([SERVICE_ACCEPT + string(message.get_string()), *self._greeting])

    def _request(self, message: Message) -> None:
        reader = Reader(message.asbytes())
        user, _, method = (os.fsdecode(reader.string()) for _ in range(3))
        self.auth_username = user
        self._send(self._script(Request(user, method, reader.rest())))

    def _answers(self, message: Message) -> None:
        self._send(self._script(Request(str(self.auth_username), "answers", message.asbytes())))

    def asked_early(self, message: Message) -> Message | None:
        """A CHANNEL_OPEN before the login: what OpenSSH answers, unless the script has granted the login by then.

        A script that says UNIMPLEMENTED or OPEN_FAILURE itself has said it all.
        """
        request = Request(str(self.auth_username), "channel", message.asbytes())
        opened = Reader(message.asbytes())
        opened.string()  # what kind of channel
        request.number = opened.number()
        answers = self._script(request)
        self._send(answers)
        if {UNIMPLEMENTED, OPEN_FAILURE} & {answer[:1] for answer in answers}:
            return Message(IGNORE + string(b""))
        return None if self.authenticated else Message(UNIMPLEMENTED + message.seqno.to_bytes(4, "big"))

    def _send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            # Before it is sent: a script may send from a thread of its own, and the client's next message is at once.
            if message == SUCCESS:
                self.authenticated = True
            self.transport._send_message(Message(message))
            if message == SUCCESS:
                self.transport._auth_trigger()


class _Forwards(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """What a hop does once somebody is in."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        upstream = socket.create_connection(destination)
        threading.Thread(target=self._forward, args=(upstream,), daemon=True).start()
        return int(paramiko.OPEN_SUCCEEDED)

    def _forward(self, upstream: socket.socket) -> None:
        channel = self._transport.accept(10)
        if channel is None:
            return
        threading.Thread(target=_copy, args=(channel.recv, upstream.sendall), daemon=True).start()
        with upstream, suppress(*_GONE):
            _copy(upstream.recv, channel.sendall)
            channel.close()


def _copy(receive: Callable[[int], bytes], send: Callable[[bytes], object]) -> None:
    with suppress(*_GONE):  # the other side may leave first
        while data := receive(32768):
            send(data)
