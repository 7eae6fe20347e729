"""A real Tor network on loopback: an authority, four relays, a client, and a host for each onion service.

    with Network(top, {"plain": {22: sshd.port}}, "nameserver 127.0.0.1:5353") as net:
        net.client.socks_port; net["plain"].onion

A process of Debian's tor for each; they stop with this one (each is told
its process id). Four relays are the fewest that do not fail now and then. Every
destination but 127.0.0.1 is refused by the kernel: that is the address that all
connections are bound to. It is ready in about ten seconds.

What takes Tor long is a relay that asks for the consensus before there is one,
and waits longer and longer to ask again. So the first vote is put off until all
relays have told the authority of themselves, and the relays are told to read
their configuration again when it is done.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from peers import LOOPBACK, free_ports, need, until

RELAYS = 4
SECONDS = 90.0  # for any one step; a busy machine has taken 20 for all of them

# For every node. OutboundBindAddress: see above. The default scheduler waits ten milliseconds at each hop.
COMMON = """\
AssumeReachable 1
CircuitBuildTimeout 10
ClientUseIPv6 0
ControlPort unix:{top}/control
CookieAuthFile {top}/cookie
CookieAuthentication 1
DataDirectory {top}
DirAuthority {authority}
GeoIPFile
GeoIPv6File
LearnCircuitBuildTimeout 0
Log notice file {top}/log
Nickname {name}
OutboundBindAddress 127.0.0.1
PathsNeededToBuildCircuits 0.67
ProtocolWarnings 1
SafeLogging 0
Schedulers Vanilla
ShutdownWaitLength 0
TestingTorNetwork 1
TestingV3AuthInitialDistDelay 2 seconds
TestingV3AuthInitialVoteDelay 2 seconds
UseDefaultFallbackDirs 0
V3AuthDistDelay 2 seconds
V3AuthVoteDelay 2 seconds
V3AuthVotingInterval 20 seconds
__OwningControllerProcess {pid}
"""
RELAY = """\
Address 127.0.0.1
ExitPolicy accept *:*
ExitPolicyRejectLocalInterfaces 0
ExitPolicyRejectPrivate 0
ExitRelay 1
ExtendAllowPrivateAddresses 1
ORPort 127.0.0.1:{orport} IPv4Only
ServerDNSAllowBrokenConfig 1
ServerDNSDetectHijacking 0
ServerDNSResolvConfFile {resolv_conf}
SocksPort 0
"""
# The first vote waits for SETCONF.
AUTHORITY = """\
AuthoritativeDirectory 1
DirPort 127.0.0.1:{dirport}
TestingAuthDirTimeToLearnReachability 0 minutes
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0 KBytes
TestingV3AuthInitialVotingInterval 300 seconds
V3AuthNIntervalsValid 3
V3AuthoritativeDirectory 1
"""
CLIENT = """\
ClientDNSRejectInternalAddresses 0
ClientOnionAuthDir {top}/auth
ClientRejectInternalAddresses 0
SocksPort 127.0.0.1:{socks_port}
SocksPort 127.0.0.1:{extended_port} ExtendedErrors
SocksPort unix:{top}/socks ExtendedErrors
SocksTimeout 30 seconds
TestSocks 1
"""


class Control:
    """A connection to a tor's control port: commands, and the events that they ask for (control-spec)."""

    def __init__(self, path: Path, cookie: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._replies: queue.Queue[list[str]] = queue.Queue()
        self.events: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.ask(f"AUTHENTICATE {cookie.hex()}")

    def _read(self) -> None:
        lines: list[str] = []
        with self._socket.makefile("r", newline="\r\n") as file:
            for line in map(str.rstrip, file):
                text = line[4:]
                if line[3:4] == "+":
                    text = "\n".join([text, *_data(file)])
                if line.startswith("650"):
                    self.events.put(text)
                    continue
                lines.append(line if line[0] != "2" else text)
                if line[3:4] == " ":
                    self._replies.put(lines)
                    lines = []

    def ask(self, command: str) -> list[str]:
        """Do a command and return the lines of the reply, without their codes."""
        self._socket.sendall(f"{command}\r\n".encode())
        lines = self._replies.get(timeout=SECONDS)
        assert not lines[-1][:3].isdigit(), (command, lines)
        return lines

    def get(self, key: str) -> str:
        """GETINFO."""
        return self.ask(f"GETINFO {key}")[0].partition("=")[2]

    def wait(self, wanted: Callable[[str], bool]) -> str:
        """The next event that is wanted; those before it are thrown away."""
        while not wanted(event := self.events.get(timeout=SECONDS)):
            pass
        return event

    def so_far(self) -> list[str]:
        """The events that have happened and not been read."""
        self.ask("GETINFO version")  # what was to be told before this has been told now
        found = []
        while not self.events.empty():
            found.append(self.events.get())
        return found

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def _data(file: Iterable[str]) -> Iterator[str]:
    """The lines of a multi-line reply, up to its full stop."""
    for line in file:
        if line == ".\r\n":
            return
        yield line.rstrip()


class Node:
    """One tor process."""

    def __init__(self, top: Path, torrc: str) -> None:
        self.top = top
        top.mkdir(mode=0o700, exist_ok=True)
        self._torrc = top / "torrc"
        self._torrc.write_text(torrc)
        self._process: subprocess.Popen[bytes] | None = None
        self._controls: list[Control] = []

    def command(self, *arguments: str) -> list[str]:
        """A tor with this node's configuration, and no other."""
        return [need("tor"), "--quiet", "--defaults-torrc", os.devnull, "-f", str(self._torrc), *arguments]

    def start(self) -> None:
        self._process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def control(self, *events: str) -> Control:
        """A connection to its control port, once it has one, for these events."""
        until(lambda: (self.top / "cookie").exists() and self._listens(), f"control port of {self.top.name}")
        control = Control(self.top / "control", (self.top / "cookie").read_bytes())
        self._controls.append(control)
        if events:
            control.ask(f"SETEVENTS {' '.join(events)}")
        return control

    def _listens(self) -> bool:
        assert self._process is None or self._process.poll() is None, self.log()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.top / "control")) == 0

    def bootstrapped(self, control: Control) -> None:
        """Wait until it is ready to work."""
        control.ask("SETEVENTS STATUS_CLIENT")
        if "PROGRESS=100" not in control.get("status/bootstrap-phase"):
            control.wait(lambda event: "BOOTSTRAP PROGRESS=100" in event)
        control.ask("SETEVENTS")

    def log(self) -> str:
        path = self.top / "log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        for control in self._controls:
            control.close()
        self._controls.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Client(Node):
    """The tor that pyrelay asks. Its ports: an ordinary one, one with ExtendedErrors, a unix socket with them."""

    socks_port: int
    extended_port: int

    @property
    def socks_path(self) -> Path:
        return self.top / "socks"

    def authorize(self, name: str, line: str) -> None:
        """Put a line into a file of ClientOnionAuthDir and let Tor read it, as the manual has it."""
        (self.top / "auth" / f"{name}.auth_private").write_text(f"{line}\n")
        self.control().ask("SIGNAL RELOAD")


class Host(Node):
    """The tor of one onion service; `directory` is its HiddenServiceDir, and may be filled before it starts."""

    directory: Path

    @property
    def onion(self) -> str:
        """The address, a name ending in .onion."""
        return (self.directory / "hostname").read_text().strip()

    def vanish(self) -> None:
        """Stop, with nothing left at the introduction points, which else may take introductions for a long while."""
        control = self.control()
        circuits = "\n".join(control.ask("GETINFO circuit-status")).splitlines()
        for circuit in [line.split()[0] for line in circuits if "PURPOSE=HS_SERVICE_INTRO" in line]:
            control.ask(f"CLOSECIRCUIT {circuit}")
        self.stop()


class Network:
    """The whole network, started by `with`.

    services: for each onion service by name its ports, virtual to real.
    clients: who may see a service, by its name: the lines of its authorized_clients.
    resolv_conf: what the exits look names up by.
    """

    def __init__(
        self,
        top: Path,
        services: Mapping[str, Mapping[int, int]],
        resolv_conf: str,
        clients: Mapping[str, str] | None = None,
    ) -> None:
        self.top = top
        self._services = services
        self._clients = clients or {}
        (top / "resolv.conf").write_text(resolv_conf)
        self._nodes: list[Node] = []
        self._hosts: dict[str, Host] = {}
        self._ports = free_ports()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __getitem__(self, service: str) -> Host:
        return self._hosts[service]

    def stop(self) -> None:
        for node in self._nodes:
            node.stop()

    def _start(self) -> None:
        relays = self._start_relays()
        self.client = self._client()
        self._hosts = {service: self._host(service) for service in self._services}
        self._vote(relays)
        others = [*self._hosts.values(), self.client]
        self._nodes += others
        for node in others:
            node.start()
        for control in [host.control("HS_DESC") for host in self._hosts.values()]:
            _published(control)
        self.client.bootstrapped(self.client.control())

    def _start_relays(self) -> list[Node]:
        """The authority, first in the list, and the relays."""
        top = self.top / "authority"
        keys = top / "keys"
        keys.mkdir(mode=0o700, parents=True)
        top.chmod(0o700)
        self._dirport, orport = next(self._ports), next(self._ports)
        v3ident = self._generate_keys(keys)
        # To tell its fingerprint, it must be configured; to be configured as an authority, it must know one.
        fingerprint = "0" * 40
        for _ in range(2):
            place = f"{LOOPBACK}:{self._dirport} {fingerprint}"
            self._authority = f"authority orport={orport} no-v2 v3ident={v3ident} {place}"
            authority = Node(top, self._torrc(top) + self._relay(orport) + AUTHORITY.format(dirport=self._dirport))
            subprocess.run(authority.command("--list-fingerprint"), check=True, stdout=subprocess.DEVNULL)
            fingerprint = (top / "fingerprint").read_text().split()[1]
        nodes = [authority]
        for number in range(RELAYS):
            top = self.top / f"relay{number}"
            nodes.append(Node(top, self._torrc(top) + self._relay(next(self._ports))))
        self._nodes += nodes
        # It describes itself before any relay has made it do something: if it alone had a bandwidth to tell of,
        # it would be every hop that is chosen by bandwidth, and circuits lead through no relay twice.
        authority.start()
        until(lambda: self._descriptors() == 1, "descriptor of the authority")
        for node in nodes[1:]:
            node.start()
        return nodes

    def _generate_keys(self, keys: Path) -> str:
        """The authority's keys; the fingerprint of its identity."""
        argv = [need("tor-gencert"), "--create-identity-key", "--passphrase-fd", "0", "-m", "1"]
        argv += ["-a", f"{LOOPBACK}:{self._dirport}"]
        for option, name in (("-i", "identity_key"), ("-s", "signing_key"), ("-c", "certificate")):
            argv += [option, str(keys / f"authority_{name}")]
        subprocess.run(argv, input=b"\n", check=True, capture_output=True)
        lines = (keys / "authority_certificate").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("fingerprint "))

    def _torrc(self, top: Path) -> str:
        return COMMON.format(top=top, name=top.name, authority=self._authority, pid=os.getpid())

    def _relay(self, orport: int) -> str:
        return RELAY.format(orport=orport, resolv_conf=self.top / "resolv.conf")

    def _client(self) -> Client:
        top = self.top / "client"
        socks_port, extended_port = next(self._ports), next(self._ports)
        torrc = self._torrc(top) + CLIENT.format(top=top, socks_port=socks_port, extended_port=extended_port)
        client = Client(top, torrc)
        client.socks_port, client.extended_port = socks_port, extended_port
        (top / "auth").mkdir(mode=0o700)
        return client

    def _host(self, service: str) -> Host:
        top = self.top / service
        directory = top / "service"
        torrc = f"{self._torrc(top)}SocksPort 0\nHiddenServiceDir {directory}\n"
        for virtual, real in self._services[service].items():
            torrc += f"HiddenServicePort {virtual} {LOOPBACK}:{real}\n"
        host = Host(top, torrc)
        host.directory = directory
        directory.mkdir(mode=0o700)
        if service in self._clients:
            (directory / "authorized_clients").mkdir(mode=0o700)
            (directory / "authorized_clients" / "alice.auth").write_text(self._clients[service])
        return host

    def _vote(self, relays: list[Node]) -> None:
        """Let the authority vote as soon as it knows every relay, and every relay learn of it."""
        controls = [relay.control() for relay in relays]
        until(lambda: self._descriptors() == len(relays), "descriptors of the relays")
        # The vote comes four seconds (two for votes, two for signatures) before what it says holds.
        offset = int(time.time() + 3 + 4) % 5
        controls[0].ask(f"SETCONF TestingV3AuthInitialVotingInterval=5 TestingV3AuthVotingStartOffset={offset}")
        until(lambda: bool(self._directory("status-vote/current/consensus-microdesc")), "consensus")
        for control in controls:
            control.ask("SIGNAL RELOAD")
        until(lambda: all(c.get("md/all").count("onion-key\n") == len(relays) for c in controls), "microdescriptors")

    def _descriptors(self) -> int:
        """How many nodes the authority knows, itself among them."""
        return self._directory("server/all").count(b"\nonion-key\n")

    def _directory(self, what: str) -> bytes:
        """What the authority has to tell; nothing when it has not."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._dirport}/tor/{what}", timeout=SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            error.close()
            return b""
        except (urllib.error.URLError, ConnectionError):
            return b""


def _published(control: Control) -> None:
    """Wait until a host has told every directory of its service, in two descriptors: of this period and the next.

    Tor 0.4.7 begins all uploads at once, 0.4.9 those of one descriptor after the other.
    """
    under_way = 0
    descriptors: set[str] = set()
    while under_way or len(descriptors) < 2:
        action, *words = control.wait(lambda event: event.startswith("HS_DESC ")).split()[1:]
        under_way += {"UPLOAD": 1, "UPLOADED": -1, "FAILED": -1}.get(action, 0)
        if action == "UPLOAD":
            descriptors.add(words[3])  # address, authorization, directory, descriptor
