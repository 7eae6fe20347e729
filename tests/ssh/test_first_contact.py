"""With a hop that is not known yet, as careful as ssh; with one that is remembered, what it has taken is sent ahead.

Whatever becomes of a hop in between: nobody loses a login by what is remembered of it.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import socket
import subprocess
import threading
from binascii import a2b_base64
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Lab
from login_server import MORE, SUCCESS, Request, disconnect, failure, questions, scripted
from peers import LOOPBACK, Listener, missing, need
from sshd import PASSWORD
from strangers import Asyncssh, Dropbear
from terminal import ssh

from relay.config.settings import HopSettings
from relay.dial.engine import client_of
from relay.dial.plan import plan
from relay.run import Run
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.spec import options
from relay.ssh.memory import Shown
from relay.ssh.pubkey import string

QUIET = 0.2  # seconds without a byte after which a device has read all that came before its own ident


def arrives(lab: Lab, times: int = 1) -> None:
    """ssh arrives at h2 through h1, each time; and it says nothing."""
    for _ in range(times):
        done = lab.ssh("h1/h2", "echo $SERVER", timeout=30)
        assert (done.stdout, done.stderr) == ("h2\n", "")


def memories(lab: Lab) -> list[bytes]:
    """What is remembered of hops."""
    place = lab.home / ".local/state/pyrelay/hops"
    return [path.read_bytes() for path in place.iterdir() if path.name != "salt"] if place.exists() else []


@pytest.fixture
def hops(lab: Lab) -> Lab:
    """A lab with a target, h2; the hop h1 is each test's own."""
    lab.server("h2")
    return lab


class Device(Listener):
    """What stands before a server, and drops all that comes before that has said its ident, but for the first line."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._port = port
        super().__init__(self._pass_on)

    def _pass_on(self, client: socket.socket) -> None:
        self.connections += 1
        with client, socket.create_connection((LOOPBACK, self._port)) as server:
            first = b""
            while not first.endswith(b"\n"):
                first += client.recv(1)
            while select.select([client], [], [], QUIET)[0]:
                if not client.recv(65536):
                    return
            server.sendall(first)
            ways = [threading.Thread(target=_copy, args=pair) for pair in ((client, server), (server, client))]
            for way in ways:
                way.start()
            for way in ways:
                way.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass  # one of them has left
    finally:
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class InTurn(Listener):
    """One port behind which several servers stand, as behind a balancer: each connection is for the next one."""

    def __init__(self, *ports: int) -> None:
        self.connections = 0
        self._ports = itertools.cycle(ports)
        super().__init__(self._pass_on)

    def _pass_on(self, client: socket.socket) -> None:
        self.connections += 1
        with client, socket.create_connection((LOOPBACK, next(self._ports))) as server:
            back = threading.Thread(target=_copy, args=(server, client))
            back.start()
            _copy(client, server)
            back.join()


# Servers that need ssh's order


@pytest.mark.parametrize("tries", [1, 2])
def test_a_password_where_every_try_counts(hops: Lab, tries: int) -> None:
    """A key that is at hand is not offered to a server without keys: it would be the one try."""
    h1 = hops.password_server("h1", extra=f"MaxAuthTries {tries}\nPubkeyAuthentication no")
    for _ in range(2):
        with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
            if tries == 2:
                terminal.answer("@h1's password: ", "mistyped")
            terminal.answer("@h1's password: ", PASSWORD)
            terminal.ends_well("h2\n")
    assert h1.logins() == [hops.user] * 2


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("method", ["keyboard-interactive", "publickey,password"])
def test_every_try_counts_by_the_methods_that_the_server_names(hops: Lab, method: str, tries: int) -> None:
    """It ends the login at so many requests that it refuses; `none`, which only asks, is not counted."""
    first, *more = method.split(",")
    refused: list[str] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "none":
            refused.clear()
            return [failure(first)]
        if request.method.partition("-")[0] == "publickey" == first:
            refused.clear()  # the second time it comes first
            return [failure(*more, partial=True)]
        if request.method == first == "keyboard-interactive":
            return [questions(("Code: ", False))]
        given = request.answers() if request.method == "answers" else list(request.password())
        if given == ["123"]:
            return [SUCCESS]
        refused.append(request.method)
        return [
            disconnect("Too many authentication failures") if len(refused) >= tries else failure(*(more or [first]))
        ]

    server = scripted(hops, "h1", script, BatchMode="no")
    for _ in range(2):
        with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
            for answer in ["mistyped", "123"][2 - tries :]:
                terminal.answer("Code: " if more == [] else "password: ", answer)
            terminal.ends_well("h2\n")
    assert server.requests[0] == "none"


@pytest.mark.parametrize(
    ("right", "batch", "signed"),
    [
        ("the second key", "no", [False, False, True]),
        ("the second key", "yes", [False, True]),  # nothing could follow a refusal of the last one
        ("the password", "no", [False, False]),
        ("the password", "yes", [False, True]),
    ],
)
def test_a_server_that_counts_no_questions(hops: Lab, right: str, batch: str, signed: list[bool]) -> None:
    """OpenSSH 10.6 does not count questions about keys: where MaxAuthTries is 1, ssh still comes to the last one."""
    blob = a2b_base64(Path(f"{hops.identity}.pub").read_text().split()[1])  # the lab's own key comes last
    refused = disconnect("Too many authentication failures")
    asked: list[bool] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "none":
            return [failure("publickey", "password")]
        if request.method == "password":
            return [SUCCESS if request.password() == (PASSWORD,) else refused]
        asked.append(bool(request.fields.number(1)))
        algorithm, key = request.fields.string(), request.fields.string()
        if key == blob and right == "the second key":
            return [SUCCESS if asked[-1] else MORE + string(algorithm) + string(key)]
        return [refused if asked[-1] else failure("publickey", "password")]

    first = hops.keygen("first")
    scripted(hops, "h1", script, ident="SSH-2.0-OpenSSH_10.6p1", BatchMode=batch, IdentityFile=first)
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        if signed[-1:] == [False]:
            terminal.answer("password: ", PASSWORD)
        if (right, batch) == ("the password", "yes"):
            terminal.expect("Too many authentication failures")
        else:
            terminal.ends_well("h2\n")
    assert asked == signed


def test_a_key_is_withdrawn_by_a_server_that_counts_no_questions(hops: Lab) -> None:
    """The signature that was sent ahead costs nobody a try: where there are two, one password may be mistyped."""
    withdrawn = False
    refused: list[str] = []

    def script(request: Request) -> list[bytes]:
        if request.method == "none":
            refused.clear()
        elif request.method == "password":
            if request.password() == (PASSWORD,):
                return [SUCCESS]
            refused.append(request.method)
        elif request.fields.number(1):
            if not withdrawn:
                return [SUCCESS]
            refused.append(request.method)
        elif not withdrawn:
            return [MORE + string(request.fields.string()) + string(request.fields.string())]
        many = len(refused) > 1
        return [disconnect("Too many authentication failures") if many else failure("publickey", "password")]

    scripted(hops, "h1", script, ident="SSH-2.0-OpenSSH_10.6p1", BatchMode="no")
    arrives(hops)
    withdrawn = True
    with ssh(hops, "h1/h2", "echo $SERVER") as terminal:
        terminal.answer("password: ", "mistyped")
        terminal.answer("password: ", PASSWORD)
        terminal.ends_well("h2\n")


def test_a_server_that_lets_in_by_none(hops: Lab) -> None:
    """A key that it is offered it refuses."""

    def script(request: Request) -> list[bytes]:
        return [SUCCESS if request.method == "none" else failure("none")]

    server = scripted(hops, "h1", script)
    arrives(hops, 2)
    assert server.requests == ["none", "none"]


@pytest.mark.parametrize("extra", ["", "KexAlgorithms curve25519-sha256"])
def test_a_device_that_drops_what_comes_before_its_ident(hops: Lab, extra: str) -> None:
    """The second time something is sent ahead in vain; that costs one connection, and is remembered, too.

    Where the key exchange is guessed, nobody would ever say that the guess was dropped.
    """
    h1 = hops.server("h1", extra=extra)
    device = Device(h1.port)
    hops.at_end(device.stop)
    hops.host("h1", Port=device.port)
    hops.know("h1", device.port, h1.host_keys)
    arrives(hops)
    assert device.connections == 1
    arrives(hops)
    assert device.connections == 3
    arrives(hops)
    assert device.connections == 4
    assert h1.logins() == [hops.user] * 3


# What is remembered, and what becomes of it


def test_what_is_remembered_of_a_hop(hops: Lab) -> None:
    h1 = hops.server("h1")
    arrives(hops)
    (memory,) = memories(hops)
    assert re.fullmatch(
        rb"pyrelay-hop 1\nident SSH-2.0-OpenSSH_\S+.*\nkex \S+\nown-kex \S+\nhost-key \S+\nmethod publickey\n"
        rb"key SHA256:\S+\nalgorithm ssh-ed25519\nused \d{4}-\d\d-\d\d\nsig-algs \S+\nhostbound yes\n",
        memory,
    )
    assert h1.logins() == [hops.user]


def test_what_follows_is_asked_for_before_a_hop_is_remembered(hops: Lab, tmp_path: Path) -> None:
    """The server opens the channel while the file is written: the thread that writes it sends nothing after that."""
    hops.server("h1")
    trace = tmp_path / "trace"
    strace = [need("strace"), "-f", "-qq", "-o", str(trace), "-e", "trace=sendto,/^rename"]
    done = hops.run(*strace, hops.program, "-F", hops.config, "h1/h2", "22", stdin="no SSH\n")
    assert done.stdout.startswith("SSH-2.0-")
    calls = re.findall(r"^(\d+) +(sendto|rename)", trace.read_text(), re.MULTILINE)
    writer = next(thread for thread, call in calls if call == "rename")
    assert [call for thread, call in calls if thread == writer][-2:] == ["sendto", "rename"]


@pytest.mark.parametrize("given", ["none", "elsewhere"])
def test_where_it_is_kept(hops: Lab, given: str) -> None:
    hops.server("h1")
    hops.options = ["--memory", given if given == "none" else str(hops.top / given)]
    arrives(hops, 2)
    assert memories(hops) == []
    assert (hops.top / "elsewhere").exists() == (given == "elsewhere")


def test_a_key_that_is_withdrawn_for_another(hops: Lab) -> None:
    first, second = (hops.keygen(name) for name in ("first", "second"))
    hops.host("h1", IdentityFile=f"{first}\n    IdentityFile {second}")
    h1 = hops.server("h1", authorized_keys=Path(f"{first}.pub").read_text())
    arrives(hops)
    h1.authorize(Path(f"{second}.pub").read_text())
    arrives(hops, 2)
    assert h1.whole_log().count("Failed publickey") == 1


def test_a_changed_host_key_is_refused_whatever_is_remembered(hops: Lab) -> None:
    h1 = hops.server("h1")
    arrives(hops)
    other = hops.keygen("other")
    h1.replace_host_key(other)
    done = hops.pyrelay("h1/h2")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("kex", ["ecdh-sha2-nistp256", "diffie-hellman-group14-sha256"])
def test_another_list_of_key_exchanges(hops: Lab, kex: str) -> None:
    h1 = hops.server("h1")
    arrives(hops, 2)
    h1.configure(f"KexAlgorithms {kex}\n")
    arrives(hops, 2)


def test_a_server_that_becomes_another(hops: Lab) -> None:
    """OpenSSH, then dropbear, then OpenSSH."""
    h1 = hops.server("h1")
    dropbear = _dropbear(hops)
    front = InTurn(h1.port, h1.port, dropbear.port, dropbear.port, h1.port)
    _at(hops, front, h1.host_keys)
    arrives(hops, 5)
    assert front.connections == 5


@pytest.mark.slow
@pytest.mark.timeout(600)  # a hundred logins, maybe on a busy machine
@pytest.mark.parametrize("other", ["dropbear", "asyncssh"])
def test_two_servers_in_turn_behind_one_port(hops: Lab, other: str) -> None:
    """A hundred logins, none lost, and hardly a connection more; each guesses what the other has shown."""
    h1 = hops.server("h1", extra="KexAlgorithms curve25519-sha256")
    front = InTurn(h1.port, (_dropbear(hops) if other == "dropbear" else _asyncssh(hops)).port)
    _at(hops, front, h1.host_keys)
    target = hops["h2"]
    for _ in range(100):
        assert hops.pyrelay(f"h1/{LOOPBACK}:{target.port}").stdout.startswith("SSH-2.0-")
    assert front.connections <= 102


def test_fifty_at_once_learn_the_same_hop(hops: Lab) -> None:
    h1 = hops.server("h1")
    config = hops.write_config()
    to = f"h1/{LOOPBACK}:{hops['h2'].port}"
    running = [
        hops.start(hops.program, "-F", config, to, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(50)
    ]
    for process in running:
        assert process.communicate(timeout=110)[0].startswith(b"SSH-2.0-")
    assert len(memories(hops)) == 1
    assert h1.logins() == [hops.user] * 50


@pytest.mark.parametrize("place", ["full", "read-only"])
def test_where_nothing_can_be_written(hops: Lab, place: str) -> None:
    """A disk that is full, and a home that is read-only: nothing is remembered, and nothing is said of it."""
    if os.geteuid() != 0:
        missing("only root can mount a disk that is full")
    hops.server("h1")
    disk = hops.top / "disk"
    disk.mkdir()
    spoil = {"full": 'head -c 9999 /dev/zero > "$0/fill" 2>/dev/null', "read-only": 'mount -o remount,ro "$0"'}[place]
    script = f'mount -t tmpfs -o size=4k none "$0"; {spoil}; "$@"; ls -A "$0/pyrelay/hops" 2>/dev/null; exit 0'
    to = f"h1/{LOOPBACK}:{hops['h2'].port}"
    for _ in range(2):
        argv: list[str | Path] = ["unshare", "--mount", "sh", "-c", script, disk, hops.program, "-F", hops.config, to]
        done = hops.run(*argv, env={"XDG_STATE_HOME": str(disk)})
        assert done.stderr == ""
        assert re.fullmatch(r"SSH-2.0-\S+.*\r\n", done.stdout)


def test_each_hop_of_a_chain_is_remembered_by_the_way_to_it(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3")
    for _ in range(2):
        assert lab.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert len(memories(lab)) == 2
    assert lab.ssh("h2/h3", "echo $SERVER").stdout == "h3\n"
    assert len(memories(lab)) == 3


def test_shared_hops_are_remembered_likewise(shared: Lab) -> None:
    assert shared.ssh("h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert len(memories(shared)) == 2


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        ("--tor h1/t", False),
        ("--tor --memory /m h1/t", True),
        ("h1/t", True),
        ("-x p:1 h1/t", True),
        (f"-x p:1 {'a' * 56}.onion/t", False),
    ],
)
def test_nothing_is_remembered_of_a_route_that_begins_at_tor(argv: str, kept: bool, tmp_path: Path) -> None:
    chosen = options.parse(argv.replace("/m", str(tmp_path)).split())
    progress = Progress()
    children = Children({"HOME": str(tmp_path)})
    run = Run(chosen, progress, Prompt(progress, children), children)
    host = argv.rpartition(" ")[2].removesuffix("/t")
    found = [HopSettings("h1", {"hostname": [host]}), HopSettings("t", {})]
    client = client_of(run, plan(["hop", "target"], found, chosen).legs[0])
    client.memory.keep(["u", "h1", "22", ""], Shown(ident="SSH-2.0-x", method="none"))
    assert (client.memory.recall(["u", "h1", "22", ""]) is not None) == kept


def _dropbear(lab: Lab) -> Dropbear:
    top = lab.top / "dropbear"
    top.mkdir()
    dropbear = Dropbear(top, lab.top / "h1/ed25519", Path(f"{lab.identity}.pub").read_text())
    lab.at_end(dropbear.stop)
    return dropbear


def _asyncssh(lab: Lab) -> Asyncssh:
    server = Asyncssh(lab.top / "h1/ed25519", Path(f"{lab.identity}.pub"))
    lab.at_end(server.stop)
    return server


def _at(lab: Lab, front: InTurn, host_keys: list[str]) -> None:
    """Have h1 be what stands behind a port."""
    lab.at_end(front.stop)
    lab.host("h1", Port=front.port)
    lab.know("h1", front.port, host_keys)
