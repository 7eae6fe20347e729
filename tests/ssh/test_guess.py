"""The guessed key exchange: when it is sent, what it saves, and what becomes of a wrong one."""

from __future__ import annotations

import re
import select
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Lab
from login_server import SUCCESS, Request, failure, scripted
from peers import LOOPBACK, Listener, need
from sshd import Server

KEXINIT, NEWKEYS, INIT = 20, 21, 30  # RFC 4253 section 12, RFC 5656 section 7.1
QUIET = 0.1  # seconds without a byte after which a side waits for the other
OURS = "KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256"  # so that sshd begins with one that we have


class Flights(Listener):
    """Passes on what one side has said. flights: how often that was the client; they are counted once quiet is set.

    quiet: seconds without a byte after which a side has said all. turns_away: so many who come next.
    """

    quiet = 0.0
    turns_away = 0

    def __init__(self, port: int) -> None:
        self.connections = self.flights = 0
        self._port = port
        super().__init__(self._pass_on)

    def _pass_on(self, client: socket.socket) -> None:
        self.connections += 1
        self.flights = 0
        if self.turns_away:
            self.turns_away -= 1
            client.close()
            return
        with suppress(OSError), client, socket.create_connection((LOOPBACK, self._port)) as server:
            said_last = server
            while True:
                for sock in select.select([client, server], [], [])[0]:
                    data = _all(sock, self.quiet)
                    if not data:
                        return
                    self.flights += sock is client is not said_last
                    said_last = sock
                    (server if sock is client else client).sendall(data)


def _all(sock: socket.socket, quiet: float) -> bytes:
    """What somebody says until it says no more for so many seconds."""
    data = sock.recv(65536)
    while data and select.select([sock], [], [], quiet)[0] and (more := sock.recv(65536)):
        data += more
    return data


class Way:
    """To a target behind hops; each arrival, with how many flights of ours it took to the target."""

    hops = "h1"

    def __init__(self, lab: Lab, port: int, host_keys: list[str]) -> None:
        self._lab = lab
        self.front = Flights(port)
        self.target = Listener(self._greet)
        self._took: list[int] = []
        lab.at_end(self.front.stop)
        lab.at_end(self.target.stop)
        lab.host("h1", Port=self.front.port)
        lab.know("h1", self.front.port, host_keys)

    def _greet(self, client: socket.socket) -> None:
        with client:
            self._took.append(self.front.flights)
            client.sendall(b"SSH-2.0-x\r\n")

    def __call__(self, *options: str) -> subprocess.CompletedProcess[str]:
        done = self._lab.pyrelay(*options, f"{self.hops}/{LOOPBACK}:{self.target.port}")
        assert done.stdout == "SSH-2.0-x\r\n", done.stderr
        return done

    def flights(self) -> int:
        """Of an arrival about which nothing is said."""
        self.front.quiet = QUIET
        assert self().stderr == ""
        self.front.quiet = 0
        return self._took[-1]


@pytest.fixture
def way(lab: Lab) -> Callable[..., tuple[Way, Server]]:
    """Makes h1 a server of these sshd_config lines and host keys."""

    def make(extra: str = OURS, *kinds: str, known: str = "") -> tuple[Way, Server]:
        server = lab.server("h1", extra=extra, host_key_types=kinds or ("ed25519",))
        return Way(lab, server.port, [key for key in server.host_keys if known in key]), server

    return make


Make = Callable[..., tuple[Way, Server]]


def test_one_hop_in_three_round_trips(way: Make) -> None:
    """TCP; the keys; the login with the channel. The first time, it is as careful as ssh."""
    to, server = way()
    assert to.flights() == 5
    assert to.flights() == 2
    assert to.front.connections == 2
    assert len(server.logins()) == 2


def test_two_hops_in_five(lab: Lab, way: Make) -> None:
    """Keys and login of the second one, besides."""
    to, _ = way()
    lab.server("h2", extra=OURS)
    to.hops = "h1/h2"
    to()
    assert to.flights() == 4


def test_a_known_host_key_of_the_servers_first_algorithm_leads(way: Make) -> None:
    to, _ = way(OURS, "rsa", "ed25519")
    to()
    assert to.flights() == 2


def test_a_host_key_that_is_not_known_does_not_lead(way: Make) -> None:
    to, _ = way(OURS, "rsa", "ed25519", known="ed25519")
    to()
    assert to.flights() == 3


@pytest.mark.parametrize(
    "other",
    [
        "KexAlgorithms ecdh-sha2-nistp256,curve25519-sha256",
        "KexAlgorithms diffie-hellman-group-exchange-sha256",
        "HostKeyAlgorithms ecdsa-sha2-nistp256",
    ],
)
def test_a_wrong_guess_is_skipped(way: Make, other: str) -> None:
    """The server's list has changed; it saves nothing then, and costs nothing; the next guess is right again."""
    to, server = way(OURS, "ed25519", "ecdsa")
    to()
    server.configure(f"{other}\nCiphers chacha20-poly1305@openssh.com\n")  # which counts packets, unlike AES-GCM
    assert to.flights() == 3 + ("group-exchange" in other)
    assert to.front.connections == 2
    assert "Unable to negotiate" not in server.whole_log()
    to()
    assert len(server.logins()) == 3


def test_what_ssh_config_chooses_leads(lab: Lab, way: Make) -> None:
    """Whatever the server begins with."""
    to, _ = way()
    lab.host("h1", KexAlgorithms="ecdh-sha2-nistp256,curve25519-sha256")
    for _ in range(2):
        assert "key exchange ecdh-sha2-nistp256, " in to("-v").stderr
    lab.host("h1", KexAlgorithms="curve25519-sha256", HostKeyAlgorithms="ssh-ed25519")
    assert to.flights() == 2


def test_a_stale_key_that_ssh_would_not_look_at(lab: Lab, way: Make) -> None:
    """The server begins with RSA, and what is known of its RSA key is wrong; ssh asks for the other one."""
    to, server = way(OURS, "rsa", "ed25519", known="ed25519")
    lab.know("h1", to.front.port, [Path(f"{lab.keygen('stale', 'rsa')}.pub").read_text().strip()])
    for connections in (1, 3, 4):
        to()
        assert to.front.connections == connections
    assert len(server.logins()) == 3


def lets_in(request: Request) -> list[bytes]:
    return [SUCCESS] if request.method.startswith("publickey") else [failure("publickey")]


def test_a_server_that_breaks_at_it(lab: Lab) -> None:
    """It is met once more in the same run, the careful way; what it did not take is not sent ahead again."""
    server = scripted(lab, "h1", lets_in)
    server.breaks = True
    to = Way(lab, server.port, [server.host_key])
    for connections, guesses in ((1, 0), (3, 1), (4, 1)):
        to()
        assert (to.front.connections, server.guesses) == (connections, guesses)
    assert to.flights() < 5  # our KEXINIT still goes first


def test_a_server_that_closes_before_its_ident(lab: Lab) -> None:
    """Once it may be short of room. When that comes again, what was sent ahead is the cause: it is not sent again."""
    server = scripted(lab, "h1", lets_in)
    to = Way(lab, server.port, [server.host_key])
    to()
    to.front.turns_away = 1
    for connections, guesses in ((3, 0), (4, 1)):
        to()
        assert (to.front.connections, server.guesses) == (connections, guesses)
    for connections in (6, 8, 9):
        to.front.turns_away = int(connections < 9)
        to()
        assert (to.front.connections, server.guesses) == (connections, 1)


def test_a_server_that_has_become_better(lab: Lab) -> None:
    """The guess would keep it from its post-quantum key exchange: it is met once more, and guessed right then.

    When it has become worse again, nothing is guessed any more. (paramiko's server breaks at a wrong guess.)
    """
    weak, strong = ("curve25519-sha256@libssh.org",), ("mlkem768x25519-sha256", "curve25519-sha256@libssh.org")
    server = scripted(lab, "h1", lets_in)
    to = Way(lab, server.port, [server.host_key])
    for exchanges, connections, guesses in ((weak, 1, 0), (strong, 3, 1), (strong, 4, 2), (weak, 6, 3), (strong, 7, 3)):
        server.exchanges = exchanges
        assert f"key exchange {exchanges[0]}, " in to("-v").stderr
        assert (to.front.connections, server.guesses) == (connections, guesses)


def test_no_weaker_key_exchange_for_a_guess(lab: Lab) -> None:
    """The server begins with one that resists no quantum computer, and has one that does."""
    server = scripted(lab, "h1", lets_in)
    server.exchanges = ("curve25519-sha256@libssh.org", "mlkem768x25519-sha256")
    to = Way(lab, server.port, [server.host_key])
    for _ in range(2):
        assert "key exchange mlkem768x25519-sha256, " in to("-v").stderr
    assert server.guesses == 0
    server.exchanges = ("mlkem768x25519-sha256", "curve25519-sha256@libssh.org")
    for _ in range(2):
        to()
    assert server.guesses == 1


def test_a_wrong_guess_of_the_servers_is_passed_over(lab: Lab) -> None:
    server = scripted(lab, "h1", lets_in)
    server.exchanges = ("diffie-hellman-group14-sha256", "curve25519-sha256@libssh.org")
    server.guess = b"\x1fanything"
    to = Way(lab, server.port, [server.host_key])
    for _ in range(2):
        assert "key exchange curve25519-sha256" in to("-v").stderr
    assert to.front.connections == 2


MORE = -1  # what follows the new keys can't be read


def kinds(sent: bytes) -> list[int]:
    """The messages of one system call."""
    if not sent:
        return []
    end = 4 + int.from_bytes(sent[:4], "big")
    return [sent[5], *([MORE] * (len(sent) > end) if sent[5] == NEWKEYS else kinds(sent[end:]))]


def test_no_two_small_packets_in_a_row_before_the_first_answer(lab: Lab, tmp_path: Path) -> None:
    """A ProxyCommand or a proxy may send the second one only when the first is acknowledged, 40 ms later."""
    lab.server("h1", extra=OURS)
    lab.server("h2")
    lab.write_config()
    for expected in ([[KEXINIT], [INIT], [NEWKEYS, MORE]], [[KEXINIT, INIT], [NEWKEYS, MORE]]):
        trace = tmp_path / "trace"
        strace = [need("strace"), "-f", "-qq", "-xx", "-s", "9999", "-o", str(trace), "-e", "trace=sendto"]
        done = lab.run(*strace, lab.program, "-F", lab.config, "h1/h2", "22", stdin="no SSH\n")
        assert done.stdout.startswith("SSH-2.0-")
        calls = re.findall(r'sendto\(\d+, "([^"]+)"', trace.read_text())[1:]  # the first one is the ident
        sent = [kinds(bytes.fromhex(call.replace("\\x", ""))) for call in calls[: len(expected)]]
        assert sent == expected


def test_a_server_that_waits_for_our_new_keys(lab: Lab) -> None:
    """They are held back for what follows them only once the server's have come."""
    server = scripted(lab, "h1", lets_in)
    server.keys_last = True
    to = Way(lab, server.port, [server.host_key])
    for _ in range(2):
        to()
    assert to.front.connections == 2
