"""`pyrelay --check`: each column and each failure with real hops; and that nothing is left behind."""

from __future__ import annotations

import json
import re
import socket
import sys
from typing import Any

import pytest
from agents import RealAgent
from desk import blocks
from lab import LACKS, ROOT, Lab
from login_server import SUCCESS, Request, asking, failure
from masters import start_master
from peers import LOOPBACK, closed_port
from scripted_proxy import Peer, socks5
from terminal import Terminal

from relay.dial.report import Report

WARNED = r"note: hop \d of \d \(h\d\): no post-quantum key exchange: "
ONION = "a hop cannot be asked for a .onion name: it would give the name to its resolver (RFC 7686)"
MS = r" +[\d.]+ ms"


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


def checked(lab: Lab, *words: str, ok: bool = True) -> dict[str, Any]:
    """The report of a check, as --json has it."""
    done = lab.pyrelay("--check", "--json", *words)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] is ok, done
    assert done.returncode == (0 if ok else 1)
    return found


def stages(leg: dict[str, Any]) -> list[str]:
    return [stage["stage"] if stage["ok"] else f"{stage['stage']} failed" for stage in leg["stages"]]


def lines(lab: Lab, *words: str) -> list[str]:
    """What a check prints, with times replaced."""
    done = lab.pyrelay("--check", *words)
    assert done.stderr == ""
    return [re.sub(MS, " N ms", line) for line in done.stdout.splitlines()]


def test_each_column(chain: Lab) -> None:
    memory = chain.top / "memory"
    known = chain.known_hosts.read_text()
    chain.options += ["--memory", str(memory)]
    ports = {name: chain[name].port for name in ("h1", "h2", "h3")}
    shown = lines(chain, "h1/h2/h3")
    warned = [line for line in shown if re.match(WARNED, line)]
    assert len(warned) == len([line for line in shown if "(not post-quantum)" in line])
    shown = [line for line in shown if line not in warned]
    fingerprint = r"ED25519 SHA256:[\w+/]{43}"
    ident = r"  ident         ok N ms  SSH-2\.0-OpenSSH_\S+.*"
    hop = [
        ident,
        r"  key exchange  ok N ms  \S+ \((not )?post-quantum\), aes128-gcm@openssh\.com, ssh-ed25519",
        rf"  host key      ok N ms  {fingerprint} known by {re.escape(str(chain.known_hosts))}:\d",
        rf"  login         ok N ms  as {chain.user} by publickey",
        r"  round trip    ok N ms",
    ]
    expected = [
        r"  ssh_config    ok N ms",
        rf"hop 1 of 2 \(h1\): {chain.user}@127\.0\.0\.1:{ports['h1']}",
        r"  look-up       ok N ms  127\.0\.0\.1",
        rf"  connection    ok N ms  127\.0\.0\.1 port {ports['h1']}",
        *hop,
        rf"hop 2 of 2 \(h2\): {chain.user}@127\.0\.0\.1:{ports['h2']}",
        r"  connection    ok N ms",
        *hop,
        rf"target \(h3\): 127\.0\.0\.1:{ports['h3']}",
        r"  connection    ok N ms",
        ident,
        r"ok: N ms",
        r"note: the target saw one connection, which ended after its ident; its log has that",
    ]
    assert len(shown) == len(expected), shown
    for line, pattern in zip(shown, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert chain["h3"].whole_log().count("Connection from") == len(chain["h3"].connections) == 1
    assert "Connection closed by 127.0.0.1" in chain["h3"].log()
    assert (chain.known_hosts.read_text(), memory.exists()) == (known, False)


def test_a_key_that_is_ignored_is_a_note(chain: Lab) -> None:
    key = chain.keygen("open")
    key.chmod(0o644)
    chain.host("h1", IdentityFile=f"{key}\n    IdentityFile {chain.identity}")
    [note] = [note for note in checked(chain, "-q", "h1/h3")["notes"] if "a key is ignored" in note]
    assert note.startswith(f"hop 1 of 1 (h1): a key is ignored: {key}: permissions 0644 are too open")


def test_a_hop_that_is_remembered_stays_as_it_is(chain: Lab) -> None:
    """The memory is read, and the target is still connected to once."""
    memory = chain.top / "memory"
    chain.options += ["--memory", str(memory)]
    assert chain.ssh("h1/h3", "true").returncode == 0
    before = {path.name: path.read_bytes() for path in memory.iterdir()}
    seen = len(chain["h3"].connections)
    checked(chain, "h1/h3")
    assert {path.name: path.read_bytes() for path in memory.iterdir()} == before
    assert len(chain["h3"].connections) == seen + 1


def test_the_object(chain: Lab) -> None:
    found = checked(chain, "h1/h3")
    assert (found["route"], found["stages"][0]["stage"]) == ("h1/h3", "ssh_config")
    hop, target = found["legs"]
    assert (hop["place"], target["place"]) == ("hop 1 of 1 (h1)", "target (h3)")
    assert (hop["user"], hop["host"], hop["port"]) == (chain.user, LOOPBACK, chain["h1"].port)
    assert hop["reached"] == {"by": "TCP", "why": ""}
    assert hop["entered"] == {"by": "our own client (paramiko)", "why": ""}
    assert stages(hop)[-4:] == ["key exchange", "host key", "login", "round trip"]
    assert hop["post_quantum"] == hop["key_exchange"].startswith(("mlkem", "sntrup"))
    assert 0 <= hop["round_trip_ms"] < 1000
    assert target["ident"].startswith("SSH-2.0-OpenSSH")


@pytest.mark.parametrize(
    ("exchange", "words"),
    [("mlkem768x25519-sha256", "post-quantum"), ("curve25519-sha256", "not post-quantum")],
)
def test_post_quantum_or_not(exchange: str, words: str) -> None:
    written: list[bytes] = []
    report = Report("h1/h2", as_json=False, write=written.append)
    report.begin("h1")
    report.fact("h1", "key_exchange", exchange)
    report.stage("h1", "key exchange", 0.01, ok=True, detail="")
    assert f"{exchange} ({words})".encode() in b"".join(written)


def test_without_hops(chain: Lab) -> None:
    (leg,) = checked(chain, LOOPBACK, str(chain["h1"].port))["legs"]
    assert stages(leg) == ["look-up", "connection", "ident"]
    assert len(chain["h1"].connections) == 1
    assert (leg["place"], leg["host"], leg["port"]) == (f"{LOOPBACK}:{chain['h1'].port}", LOOPBACK, chain["h1"].port)


def test_one_place_for_a_single_name(lab: Lab) -> None:
    """In a plan, a check and a message."""
    port = lab.closed("gone")
    for words, place in ((["gone"], f"{LOOPBACK}:{port}"), ([LOOPBACK, str(port)], f"{LOOPBACK}:{port}")):
        said = f"pyrelay: {place}: cannot connect to {LOOPBACK} port {port}: connection refused"
        shown = lines(lab, *words)
        assert (shown[0], shown[-1]) == (place, said)
        assert lab.pyrelay("--explain", *words).stdout.splitlines()[1].startswith(f"{place}  ")
    assert lab.pyrelay(LOOPBACK, str(port)).stderr == f"{said}\n"


def test_a_name_as_ssh_takes_it(chain: Lab) -> None:
    """A name of ssh_config, an alias of a route, and a user before it."""
    chain.host("web", HostName="h1+h3", ProxyCommand="pyrelay %h %p")
    (leg,) = checked(chain, "h1")["legs"]
    assert leg["stages"][1]["detail"] == f"{LOOPBACK} port {chain['h1'].port}"
    for words in ("web", "somebody@h1+h3"):
        found = checked(chain, words)
        assert [leg["place"] for leg in found["legs"]] == ["hop 1 of 1 (h1)", "target (h3)"]


def test_what_ssh_itself_would_do_with_the_name(chain: Lab) -> None:
    """The route is dialled as it is spelled; a note says where ssh would hand over something else."""
    chain.head = "Host *+h3\n    HostName elsewhere"
    assert checked(chain, "h1+h3")["notes"][0].startswith("HostName takes the route away: ")
    notes = checked(chain, "-w", "50", "h1/h3")["notes"]
    assert [note for note in notes if not re.match(WARNED.removeprefix("note: "), note)] == [
        "the target saw one connection, which ended after its ident; its log has that"
    ]


# A new key


@pytest.mark.parametrize("engine", ["auto", "ssh"])
def test_accept_new_writes_nothing_and_says_so(chain: Lab, engine: str) -> None:
    chain.known_hosts.write_text("")
    chain.host("h1", StrictHostKeyChecking="accept-new")
    found = checked(chain, "--engine", engine, "h1/h3")
    assert chain.known_hosts.read_text() == ""
    assert " new: ssh would add it" in found["legs"][0]["host_key"]
    assert any(note.startswith("hop 1 of 1 (h1): its host key is new") for note in found["notes"])


def test_the_answer_yes_writes_nothing_and_the_question_says_so(chain: Lab) -> None:
    chain.known_hosts.write_text("")
    chain.host("h1", StrictHostKeyChecking="ask", BatchMode="no")
    with Terminal(chain, chain.program, "-F", chain.config, "--check", "h1/h3") as terminal:
        terminal.expect("can't be established")
        terminal.expect("Nothing is written: a run of ssh will ask this again.\n")
        terminal.expect("(yes/no/[fingerprint])? ")
        terminal.type("yes\n")
        terminal.expect(f"new: ssh would add it to {chain.known_hosts}")
        terminal.expect("\nok: ")
        terminal.expect("note: hop 1 of 1 (h1): its host key is new")
        assert terminal.wait() == 0
    assert chain.known_hosts.read_text() == ""


def test_the_agent_gets_nothing(chain: Lab) -> None:
    agent = RealAgent(chain)
    chain.host("h1", IdentityAgent=agent.path, AddKeysToAgent="yes")
    for engine in ("auto", "ssh"):
        checked(chain, "--engine", engine, "h1/h3")
    listed = chain.run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(agent.path)})
    assert listed.stdout == "The agent has no identities.\n"


# A person


def test_a_persons_time_is_left_out(chain: Lab) -> None:
    def script(request: Request) -> list[bytes]:
        return [SUCCESS] if request.method == "password" else [failure("password")]

    asking(chain, "asks", script)
    with Terminal(chain, chain.program, "-F", chain.config, "--check", "--json", "asks/h3") as terminal:
        terminal.expect("@asks's password: ")
        terminal.stays_as_it_is(1.0)
        terminal.type("secret\n")
        terminal.wait()
        found = json.loads(terminal.shown[terminal.shown.index("{") :])
    assert found["ok"]
    login = next(stage["ms"] for stage in found["legs"][0]["stages"] if stage["stage"] == "login")
    assert login < 1000


# What fails


def test_a_login_that_is_refused(chain: Lab) -> None:
    chain.server("h4", authorized_keys="")
    found = checked(chain, "h1/h4/h3", ok=False)
    first, second, target = found["legs"]
    assert (first["ok"], second["ok"], target["ok"]) == (True, False, None)
    assert stages(second)[-1] == "login failed"
    assert second["error"].startswith(f"login as {chain.user} refused: Permission denied")
    assert not chain["h3"].connections
    shown = lines(chain, "h1/h4/h3")
    at = shown.index("  login         failed N ms")
    assert shown[at + 1].startswith(f"pyrelay: hop 2 of 2 (h4): login as {chain.user} refused: Permission denied")


def test_a_key_that_has_changed(chain: Lab) -> None:
    chain.know("h1", chain["h1"].port, chain["h2"].host_keys)
    chain.known_hosts.write_text(chain.known_hosts.read_text().splitlines()[-1] + "\n")
    leg, _ = checked(chain, "h1/h3", ok=False)["legs"]
    assert stages(leg)[-1] == "host key failed"
    assert leg["error"].startswith("REMOTE HOST IDENTIFICATION HAS CHANGED")


def test_a_key_that_has_changed_to_ssh(chain: Lab) -> None:
    """Its words are notes, but for one about the file that it was given in the place of the user's."""
    [other] = chain["h2"].host_keys
    chain.known_hosts.write_text(f"[{LOOPBACK}]:{chain['h1'].port} {other}\n")
    found = checked(chain, "--engine", "ssh", "h1/h3", ok=False)
    said = "\n".join(found["notes"])
    assert f"Offending ED25519 key in {chain.known_hosts}:1" in said
    assert "/dev/null" not in said


def test_a_target_that_refuses(chain: Lab) -> None:
    with closed_port() as port:
        found = checked(chain, f"h1/{LOOPBACK}:{port}", ok=False)
    hop, target = found["legs"]
    assert (hop["ok"], target["ok"]) == (True, False)
    assert stages(target) == ["connection failed"]
    assert target["error"] == f"h1 cannot connect to {LOOPBACK} port {port}: connection refused"


def test_the_hop_that_denies_forwarding_has_failed_and_not_the_target(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.server("h3")
    hop, target = checked(lab, "h1/h3", ok=False)["legs"]
    assert hop["error"].startswith("the server does not forward to")
    assert (hop["ok"], target["ok"]) == (False, None)


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"", "the connection was closed before the server's SSH ident"),
        (b"Not allowed at this time\r\n", "; it said: Not allowed at this time"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n</html>\r\n", "; it said: HTTP/1.1 400 Bad Request"),
        (b"\x15\x03\x01\0\2\2F", "not an SSH server: it sent binary data"),  # a TLS server's alert
    ],
)
def test_a_target_that_closes_before_its_ident(chain: Lab, greeting: bytes, error: str) -> None:
    chain.dying("h4", greeting)
    target = checked(chain, "h1/h4", ok=False)["legs"][-1]
    assert stages(target) == ["connection", "ident failed"]
    assert target["error"].endswith(error)
    as_a_hop = checked(chain, "h4/h3", ok=False)["legs"][0]
    assert (as_a_hop["error"], as_a_hop["hint"]) == (target["error"], target["hint"])


def test_a_target_that_says_nothing(chain: Lab) -> None:
    chain.silent("h4")
    target = checked(chain, "-w", "2", "h1/h4", ok=False)["legs"][-1]
    assert stages(target)[-1] == "ident failed"
    assert target["error"] == "no answer within 2 seconds (waiting for the server's ident)"


def test_no_such_host(chain: Lab) -> None:
    chain.host("gone", HostName="gone.invalid")
    leg, target = checked(chain, "gone/h3", ok=False)["legs"]
    assert (stages(leg), target["ok"]) == (["look-up failed"], None)


def test_a_route_that_cannot_be_read(chain: Lab) -> None:
    """A program that asks for JSON gets it, as from --explain."""
    found = checked(chain, "h1//h3", ok=False)
    assert (found["route"], found["error"], found["hint"]) == ("h1//h3", "hop 2 of 2: the name is empty", None)
    assert (found["legs"], found["stages"], found["notes"]) == ([], [], [])
    assert lines(chain, "h1//h3") == ["pyrelay: hop 2 of 2: the name is empty"]


def test_where_there_is_no_ssh(chain: Lab) -> None:
    """A program that asks for JSON gets it."""
    for action in ("--check", "--explain"):
        done = chain.run(
            chain.program, "-F", chain.config, "--json", "h1/h3", action, env={"PATH": str(chain.program.parent)}
        )
        assert (done.returncode, json.loads(done.stdout)["error"].partition(";")[0]) == (1, "ssh is not in PATH")


def test_a_name_that_ssh_refuses(chain: Lab) -> None:
    """pyrelay could dial it, but ssh would not ask for it; --explain says so, too."""
    found = checked(chain, f"$({LOOPBACK})@{LOOPBACK}", str(chain["h1"].port), ok=False)
    assert found["error"] == "ssh refuses the name: remote username contains invalid characters"
    chain.head = "Nonsense yes"
    found = checked(chain, LOOPBACK, str(chain["h1"].port), ok=False)
    assert found["error"].startswith(f"ssh_config of {LOOPBACK}: {chain.config}: line 1: Bad configuration option: ")
    assert chain.pyrelay("--explain", LOOPBACK).returncode == 1
    assert not chain["h1"].connections


def test_an_onion_name_behind_a_hop(chain: Lab) -> None:
    """It is refused before anything is connected: said once, and reading ssh_config has gone well."""
    assert lines(chain, "h1/abc.onion") == [
        "  ssh_config    ok N ms",
        f"pyrelay: target (abc.onion): {ONION}",
        "hint: begin with it: abc.onion/...; Tor is then found here",
    ]
    found = checked(chain, "h1/abc.onion", ok=False)
    assert found["error"] == f"target (abc.onion): {ONION}"
    assert (found["notes"], chain["h1"].connections) == ([], [])


def test_a_way_that_fails_before_another_is_tried(chain: Lab) -> None:
    """Tor at its first port; our own client at a hop whose algorithms only ssh has."""
    with closed_port() as first, closed_port() as second:
        code = f"from relay.dial.proxy import tor; tor.PORTS = {first}, {second}; from relay import cli; cli.main()"
        done = chain.run(sys.executable, "-c", code, "--check", "--json", "abc.onion", env={"PYTHONPATH": str(ROOT)})
    (leg,) = json.loads(done.stdout)["legs"]
    assert stages(leg) == ["look-up", "connection failed"] * 2
    assert [stage["detail"] for stage in leg["stages"][1::2]] == [f"{LOOPBACK} port {port}" for port in (first, second)]
    chain.server("h4", extra=LACKS)
    found = checked(chain, "h4/h3")["legs"][0]
    assert stages(found)[-5:-3] == ["ident", "key exchange failed"]
    assert (found["ok"], stages(found)[-1], found["entered"]["by"]) == (True, "login by ssh", "ssh")


# Other ways


def test_a_new_key_that_ssh_could_not_keep(chain: Lab) -> None:
    """Without a file of the user's own ssh takes none, whatever StrictHostKeyChecking says."""
    chain.host("h1", UserKnownHostsFile="none", GlobalKnownHostsFile="none", StrictHostKeyChecking="accept-new")
    assert chain.pyrelay("--engine", "ssh", "h1/h3").returncode == 1
    checked(chain, "--engine", "ssh", "h1/h3", ok=False)


def test_a_hop_that_ssh_carries(chain: Lab) -> None:
    found = checked(chain, "--engine", "ssh", "h1/h3")
    hop, target = found["legs"]
    assert hop["entered"] == {"by": "ssh", "why": "--engine ssh"}
    assert stages(hop) == ["look-up", "connection", "login by ssh"]
    assert hop["ident"].startswith("SSH-2.0-OpenSSH_")
    assert hop["post_quantum"] == hop["key_exchange"].startswith(("mlkem", "sntrup"))
    assert re.fullmatch(rf"ssh-ed25519 SHA256:\S+ known by {re.escape(str(chain.known_hosts))}:1", hop["host_key"])
    assert hop["login"] == f"as {chain.user} by publickey"
    assert stages(target)[-1] == "ident"
    assert "hop 1 of 1 (h1): the round trip is not known" in " ".join(found["notes"])
    assert len(chain["h3"].connections) == 1
    shown = lines(chain, "--engine", "ssh", "h1/h3")
    assert shown[1].startswith("hop 1 of 1 (h1): ")
    assert shown[2] == "  by ssh: --engine ssh"
    assert shown[5].startswith("  login by ssh  ok N ms  SSH-2.0-OpenSSH_")


def test_each_hop_that_ssh_carries_stands_once(chain: Lab) -> None:
    """The first of two is logged in to only when the second is."""
    shown = [line.partition(" ok ")[0].strip() for line in lines(chain, "--engine", "ssh", "h1/h2/h3")]
    places = [
        f"{place}: {chain.user}@{LOOPBACK}:{chain[place[-3:-1]].port}"
        for place in ("hop 1 of 2 (h1)", "hop 2 of 2 (h2)")
    ]
    assert shown[1:10] == [
        *(places[0], "by ssh: --engine ssh", "look-up", "connection", "login by ssh"),
        *(places[1], "by ssh: --engine ssh", "login by ssh"),
        f"target (h3): {LOOPBACK}:{chain['h3'].port}",
    ]


def test_why_a_hop_that_ssh_carries_does_not_connect(chain: Lab) -> None:
    """ssh says it itself; a program that asks for JSON gets that, too."""
    chain.closed("gone")
    found = checked(chain, "--engine", "ssh", "h1/gone", ok=False)
    assert found["error"].startswith("hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255")
    assert "target (gone): channel 0: open failed: connect failed: Connection refused" in found["notes"]
    found = checked(chain, "--engine", "ssh", "h1/gone/h3", ok=False)
    assert not [note for note in found["notes"] if "round trip" in note]


def test_a_first_hop_with_a_proxy_command(chain: Lab) -> None:
    chain.host("h1", ProxyCommand="pyrelay %h %p")
    found = checked(chain, "h1/h3")
    assert stages(found["legs"][0])[:2] == ["ProxyCommand", "ident"]
    note = "hop 1 of 1 (h1): its ProxyCommand is run as it is, and may write something"
    assert note in found["notes"]
    chain.host("h1", ProxyCommand="none")
    assert note not in checked(chain, "h1/h3")["notes"]


def test_a_hop_by_its_control_master(chain: Lab) -> None:
    """The master opens the stream to the target, once."""
    path = chain.top / "m"
    chain.host("h1", ControlPath=path)
    start_master(chain, "h1", path)
    whole = checked(chain, "h1/h3")
    hop, target = whole["legs"]
    assert hop["entered"] == {"by": "a ControlMaster", "why": str(path)}
    assert stages(target) == ["connection", "ident"]
    assert stages(whole) == ["ssh_config", "ControlMaster"]
    assert whole["stages"][1]["detail"] == str(path)
    assert len(chain["h1"].connections) == len(chain["h3"].connections) == 1
    printed = chain.pyrelay("--check", "h1/h3").stdout.splitlines()
    assert f"  by a ControlMaster: {path}" in printed
    assert next(line for line in printed if line.startswith("hop 1 of 1 (h1)")).endswith(f":{chain['h1'].port}")


@pytest.mark.parametrize(("listens", "why"), [(False, "connection refused"), (True, "nobody answers there")])
def test_a_control_master_that_is_not_alive(chain: Lab, listens: bool, why: str) -> None:
    """We log in by ourselves then."""
    path = chain.top / "m"
    chain.host("h1", ControlPath=path)
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(path))
        if listens:
            master.listen()
        found = checked(chain, "h1/h3")
    assert stages(found) == ["ssh_config", "ControlMaster failed"]
    assert f"no master at {path}: {why}" in found["notes"]


def test_a_proxy(chain: Lab) -> None:
    peer = Peer(socks5)
    chain.at_end(peer.stop)
    (leg,) = checked(chain, "-x", f"{LOOPBACK}:{peer.port}", "target.example")["legs"]
    assert stages(leg) == ["look-up", "connection", "proxy", "ident"]
    assert leg["stages"][2]["detail"] == f"the SOCKS5 proxy {LOOPBACK}:{peer.port} to reach target.example port 22"
    assert len(peer.heard) == 1


def test_a_hop_that_is_crossed_by_a_netcat(lab: Lab) -> None:
    lab.server("h1", extra="AllowTcpForwarding no")
    lab.server("h3")
    target = checked(lab, "--netcat", "h1/h3")["legs"][-1]
    assert stages(target) == ["connection failed", "netcat", "ident"]
    assert len(lab["h3"].connections) == 1


def test_shared_hops_are_not_used(chain: Lab) -> None:
    chain.options += ["--share", "1"]
    found = checked(chain, "h1/h3")
    assert "--share is without effect: a check logs in by itself" in found["notes"]
    assert not chain.remaining(5)


def test_the_readme_shows_what_is_printed(chain: Lab) -> None:
    """But for times, addresses, versions, algorithms and keys."""
    shown = next(block for block in blocks("When it fails") if block.startswith("$ pyrelay --check "))
    command, _, expected = shown.partition("\n")
    printed = chain.pyrelay(*command.split()[2:]).stdout
    assert _shape(printed.replace(str(chain.known_hosts), "~/.ssh/known_hosts")) == _shape(expected)


def _shape(text: str) -> list[str]:
    for pattern, word in (
        (rf"{MS}|\d+ ms", " N ms"),
        (r"\S+@(?=[\d.]+:)", "me@"),
        (r"as \S+ by", "as me by"),
        (r"[\d.]{7,}(:| port )\d+", "HOST"),
        (r"(look-up .* )[\d.]+$", r"\1HOST"),
        (r"SSH-2\.0-.*", "IDENT"),
        (r"\S+ \((not )?post-quantum\)", "EXCHANGE"),
        (r"SHA256:\S+", "KEY"),
    ):
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return [line for line in text.splitlines() if not re.match(WARNED, line)]
