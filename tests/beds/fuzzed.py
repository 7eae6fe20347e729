"""The parsers that are given any bytes: each returns a value that keeps its rules, or raises an error of our own.

Each is given bytes by fuzz/ for minutes, by test_fuzzed.py for a moment.
"""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relay.config import lookup, settings
from relay.dial import master
from relay.dial.objection import objection
from relay.dial.proxy import auth, causes, digest, handshake, http, message
from relay.dial.proxy.who import Who
from relay.dial.proxy.wire import LINE, Wire
from relay.errors import RelayError
from relay.run import Run
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.share import wire as share
from relay.spec import route
from relay.spec.options import Options
from relay.spec.proxy import CONNECT, SOCKS4, SOCKS5, TOR, Proxy
from relay.ssh import memory
from relay.ssh.login import keyfile
from relay.ssh.pubkey import BadKey, PublicKey, mpint, string
from relay.ssh.trust import known_hosts
from relay.ssh.trust.hostcert import Certificate
from relay.ssh.trust.signature import verify

LONGEST = 240  # characters of a line that a person is to read
NUMBERS = ("connectionattempts", "numberofpasswordprompts", "requiredrsasize", "serveralivecountmax")
TIMES = ("connecttimeout", "serveraliveinterval")
LISTS = ("ciphers", "hostkeyalgorithms", "kexalgorithms", "macs", "pubkeyacceptedalgorithms")
FILES = ("certificatefile", "globalknownhostsfile", "identityfile", "revokedhostkeys", "userknownhostsfile")
PROXIES: tuple[tuple[str, str | None], ...] = (
    (SOCKS4, None),
    (SOCKS5, None),
    (SOCKS5, "alice"),
    (TOR, "uid0"),
    (CONNECT, None),
    (CONNECT, "alice"),
)
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
POINT = ec.derive_private_key(7, ec.SECP256R1()).public_key()
SIGNERS = (
    PublicKey(string(b"ssh-ed25519") + string(ED25519.public_key().public_bytes_raw())),
    PublicKey(
        string(b"ecdsa-sha2-nistp256")
        + string(b"nistp256")
        + string(POINT.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
    ),
    PublicKey(string(b"ssh-rsa") + string(mpint(65537)) + string(mpint((1 << 2048) - 1942289))),
)
MOST = 200 * LINE  # bytes of a proxy's reply that are looked at


def a_route(data: bytes) -> None:
    """A destination, or a ProxyJump's value."""
    text = data.decode(errors="surrogateescape")
    with suppress(route.RouteError):
        found = route.parse(text)
        for element in (*found.hops, found.target):
            _check(element)
        assert found.target.user is None
        assert route.parse(str(found)) == found
    with suppress(route.RouteError):
        for element in route.parse_jump(text):
            _check(element)


def _check(element: route.Element) -> None:
    route.check_host(element.host)
    if element.user is not None:
        route.check_user(element.user)
    assert element.port is None or 1 <= element.port <= 65535


def settings_of_a_hop(data: bytes) -> None:
    """What `ssh -G` prints."""
    with suppress(RelayError):
        found = lookup.checked(settings.HopSettings("name", settings.parse(data)))
        route.check_host(found.hostname)
        assert 0 <= found.port <= 65535
        for key in NUMBERS:
            with suppress(RelayError):
                assert 0 <= found.number(key) < 2**31
        for key in TIMES:
            with suppress(RelayError):
                assert 0 <= found.seconds(key) < 2**31
        with suppress(RelayError):
            assert (found.service() or 0) in range(256)
        with suppress(RelayError):
            assert min(found.rekey_limit()) >= 0
        for key in FILES:
            with suppress(RelayError):
                assert "none" not in found.paths(key)
        for key in LISTS:
            assert "" not in (found.algorithms(key) or ())  # "-*" leaves none at all
        with suppress(RelayError):
            assert isinstance(found.proxy_command() + found.proxy_jump(), str)
        with suppress(RelayError):
            assert isinstance(objection(found), str)


def a_known_hosts_file(data: bytes) -> None:
    """What known_hosts holds; the first line is the name that is looked for."""
    name, _, text = data.partition(b"\n")
    host = name.decode(errors="replace").lower()
    entries, problems, _ = known_hosts.lookup(text, host, "file")
    last = text.count(b"\n") + 1
    assert all(1 <= entry.number <= last for entry in entries)
    assert len(entries) + len(problems) <= last
    assert all(problem.isprintable() for problem in problems)
    for entry in entries:
        with suppress(BadKey):
            assert known_hosts.other_names(text, "other", entry.key, "file") is not None


def a_masters_message(data: bytes) -> None:
    """What a ControlMaster says, without its length."""
    with suppress(master.Garbled):
        said = master.parse(data)
        assert data[:8] == said.kind.to_bytes(4) + said.number.to_bytes(4)
        assert said.reason.isprintable()
        assert len(said.reason) <= LONGEST


def replies_of_a_proxy(data: bytes) -> None:
    """All that a proxy says before it ends; the first byte says what it is asked by."""
    kind, user = PROXIES[data[0] % len(PROXIES) if data else 0]
    said = data[1 : 1 + MOST]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MOST)
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            said = said[: theirs.send(said)]
        theirs.shutdown(socket.SHUT_WR)
        password = "secret" if user else None
        proxy = Proxy(kind, "127.0.0.1", 9, user=user, password=password)
        progress = Progress(10, verbosity=-1)
        wire = Wire(ours, proxy, "target", progress)
        try:
            if kind == CONNECT:
                http.connect(
                    lambda: wire,
                    "target",
                    22,
                    Who(proxy, Run(Options(), progress, Prompt(progress, Children(), batch=True), Children())),
                )
            else:
                handshake.negotiate(wire, "target", 22, user, password)
        except RelayError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))
            assert len(str(error)) < 2 * LONGEST
            return
        ours.setblocking(False)
        left = b""
        with suppress(BlockingIOError):
            while more := ours.recv(65536):
                left += more
        assert said.endswith(left)  # what follows the reply is the target's, to the byte
        assert len(left) < len(said)


def a_refusal_of_a_proxy(data: bytes) -> None:
    """The head of a response that is no tunnel: its challenges, and the causes that it names."""
    status, *lines = data.decode(errors="replace").split("\n")
    head = message.Head(int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 407, "No")
    for line in lines:
        name, _, value = line.partition(":")
        head.fields.append((name.strip().lower(), value.strip()))
    for challenge in auth.challenges(head.all("proxy-authenticate")):
        assert challenge.scheme == challenge.scheme.lower() != ""
        if challenge.scheme == "digest" and digest.strongest([challenge]) is not None:
            digest.answer(challenge, "alice", "secret", "target:22")
    said, hint = causes.refusal(head, login=None)
    assert said.isprintable() and hint.isprintable()
    assert len(said) < 3 * LONGEST


def a_memory_of_a_hop(data: bytes) -> None:
    """A file of what a hop has shown; what is read of it is written and read again."""
    found = memory.read(data)
    if found is None:
        return
    written = memory.write(found)
    assert memory.read(written) == found
    assert len(written) <= memory.LONGEST
    assert all(line.decode().isprintable() for line in written.split(b"\n"))
    assert found.in_vain <= set(memory.AHEAD)
    assert found.ident == "" or found.ident.startswith("SSH-")


def messages_of_a_holder(data: bytes) -> None:
    """All that a relay and the holder of shared hops say to each other before one ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        wire = share.Wire(ours)
        with suppress(share.BadMessage, share.Ended):
            while True:
                kind, fields = wire.receive()
                assert share.unpack(share.pack((kind, *fields))) == [os.fsencode(kind), *fields]


def a_private_key_file(data: bytes) -> None:
    """Its label and its headers, an empty line, and what is inside, without base64."""
    head, _, inside = data.partition(b"\n\n")
    label, *headers = head.split(b"\n")
    lines = [b"-----BEGIN %s-----" % label, *headers, *([b""] if headers else []), b64encode(inside)]
    with suppress(keyfile.BadFile, keyfile.WrongPassphrase):
        found = keyfile.parse_private(b"\n".join([*lines, b"-----END %s-----" % label, b""]))
        if found.encrypted and b"DEK-Info:" not in data:
            found.check()  # how often a passphrase is hashed these files say, as to ssh: for years, if they like
            return
        key = found.unlock(b"opened" if found.encrypted else None)
        algorithm = "rsa-sha2-512" if key.public.type == "ssh-rsa" else key.public.type
        assert verify(key.public, key.sign(b"data", algorithm), b"data") == algorithm
        assert key.for_agent()


def a_signature(data: bytes) -> None:
    """Of a host key or a CA; the first byte says whose key it is to be by."""
    key = SIGNERS[data[0] % len(SIGNERS) if data else 0]
    with suppress(BadKey):
        assert verify(key, data[1:], b"data") == "ssh-ed25519" == key.plain  # the seed is the only one there is
        assert len(data) == 1 + len(string(b"ssh-ed25519") + string(bytes(64)))


def a_host_certificate(data: bytes) -> None:
    """What a host shows in its key's place."""
    with suppress(BadKey):
        found = Certificate(PublicKey(data))
        assert found.objection("h1", 0, (), lambda: (10, 3)) != ""
        assert all(b"\0" not in name for name in found.principals)


# By the names of the directories that hold good ones to begin with.
TARGETS: dict[str, Callable[[bytes], None]] = {
    "certificate": a_host_certificate,
    "private_key": a_private_key_file,
    "signature": a_signature,
    "wire": messages_of_a_holder,
    "known_hosts": a_known_hosts_file,
    "refusals": a_refusal_of_a_proxy,
    "memory": a_memory_of_a_hop,
    "master": a_masters_message,
    "replies": replies_of_a_proxy,
    "route": a_route,
    "settings": settings_of_a_hop,
}
