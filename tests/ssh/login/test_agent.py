"""The agent's protocol: what an agent may answer, or not; which algorithm signs. Real agents are in test_login.py."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from agents import FAILURE, IDENTITIES, SIGNATURE, Script, ScriptedAgent, SecurityKey, listing
from contract import SOON
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.ssh.login.agent import Agent, AgentFailed, socket_path
from relay.ssh.login.publickey import signature_algorithms
from relay.ssh.pubkey import PublicKey, string

KEY = PublicKey(SecurityKey().blob)
RSA = PublicKey(string(b"ssh-rsa") + string(b"\1\0\1") + string(b"\0" + b"\xff" * 256))
Start = Callable[[Script], Agent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start an agent that follows a script, and connect to it; it may take a second to answer."""
    ends: list[Callable[[], None]] = []

    def connect(script: Script) -> Agent:
        peer = ScriptedAgent(tmp_path / "agent", script)
        agent = Agent(str(peer.path), 1.0)
        ends.extend([peer.stop, agent.close])
        return agent

    yield connect
    for end in ends:
        end()


def never() -> float:
    raise AssertionError("the agent has answered at once")


def test_keys(start: Start) -> None:
    unknown = string(b"ssh-xmss@openssh.com") + string(b"x")
    agent = start(lambda _: listing((KEY.blob, b"one"), (unknown, b"two"), (RSA.blob, b"thr\xffee")))
    held = agent.keys()
    assert [(key.public.blob, key.comment) for key in held] == [(KEY.blob, "one"), (RSA.blob, "thr\ufffdee")]


@pytest.mark.parametrize(
    "answer",
    [
        FAILURE,
        b"",
        IDENTITIES,
        IDENTITIES + b"\0\0\0\1",
        IDENTITIES + b"\xff\xff\xff\xff",
        IDENTITIES + b"\0\0\0\1" + b"\xff\xff\xff\xff",
        b"x" * (256 * 1024 + 1),
        None,
    ],
)
def test_lists_that_are_none(start: Start, answer: bytes | None) -> None:
    with pytest.raises(AgentFailed):
        start(lambda _: answer).keys()


def test_a_comment_that_would_steer_the_terminal(start: Start) -> None:
    said = b"key\x1b]0;title\x07\npyrelay: hop 2 of 2 (h2): all is well"
    (key,) = start(lambda _: listing((KEY.blob, said))).keys()
    assert key.comment == "key ]0;title pyrelay: hop 2 of 2 (h2): all is well"


def test_an_agent_that_drips(start: Start) -> None:
    """The time is for the whole answer, not for each byte: this one would take a minute."""
    never = threading.Event()

    def drip() -> Iterator[bytes]:
        for byte in listing((KEY.blob, b"x" * 600)):
            yield bytes([byte])
            never.wait(0.1)

    began = time.monotonic()
    with pytest.raises(AgentFailed, match="it does not answer"):
        start(lambda _: drip()).keys()
    assert time.monotonic() - began < 30


def test_signature(start: Start) -> None:
    asked: list[bytes] = []

    def script(message: bytes) -> bytes:
        asked.append(message)
        return SIGNATURE + string(string(b"rsa-sha2-512") + string(b"signature"))

    signature = start(script).sign(RSA, b"data", "rsa-sha2-512-cert-v01@openssh.com", never)
    assert signature == string(b"rsa-sha2-512") + string(b"signature")
    assert asked == [b"\x0d" + string(RSA.blob) + string(b"data") + b"\0\0\0\4"]


def test_an_agent_that_signs_with_sha_1(start: Start) -> None:
    agent = start(lambda _: SIGNATURE + string(string(b"ssh-rsa") + string(b"signature")))
    with pytest.raises(AgentFailed, match="it signs with ssh-rsa instead of rsa-sha2-256"):
        agent.sign(RSA, b"data", "rsa-sha2-256", never)


@pytest.mark.parametrize("answer", [FAILURE, SIGNATURE, SIGNATURE + string(b"xx"), IDENTITIES])
def test_signatures_that_are_none(start: Start, answer: bytes) -> None:
    with pytest.raises(AgentFailed):
        start(lambda _: answer).sign(KEY, b"data", KEY.type, never)


def test_who_waits_for_a_person_is_told_once(start: Start) -> None:
    told: list[str] = []

    def waiting() -> float:
        told.append("touch")
        return 0.1

    with pytest.raises(AgentFailed, match="does not answer"):
        start(lambda _: None).sign(KEY, b"data", KEY.type, waiting)
    assert told == ["touch"]


def test_an_agent_whose_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        with pytest.raises(AgentFailed, match="nobody answers there"):
            Agent(path, 0.1)
        monkeypatch.setattr("relay.run.unix.sleep", lambda _: listener.accept()[0].close())
        Agent(path, SOON).close()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(AgentFailed, match="No such file or directory"):
        Agent(str(tmp_path / "none"), 1.0)
    with pytest.raises(AgentFailed):
        Agent("x" * 200, 1.0)


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("", "/auth"),
        ("SSH_AUTH_SOCK", "/auth"),
        ("none", None),
        ("$OTHER", "/other"),
        ("$UNSET", None),
        ("/a/path", "/a/path"),
    ],
)
def test_which_socket(setting: str, path: str | None) -> None:
    assert socket_path(setting, {"SSH_AUTH_SOCK": "/auth", "OTHER": "/other"}) == path


def test_no_socket() -> None:
    assert socket_path("", {}) is None
    assert socket_path("SSH_AUTH_SOCK", {"SSH_AUTH_SOCK": ""}) is None


CERT = "-cert-v01@openssh.com"
SHA2 = ["rsa-sha2-512", "rsa-sha2-256"]


@pytest.mark.parametrize(
    ("key", "accepted", "taken", "algorithms"),
    [
        ("ssh-ed25519", None, None, ["ssh-ed25519"]),
        ("ssh-ed25519", ["ssh-ed25519"], ["rsa-sha2-256"], ["ssh-ed25519"]),  # as with ssh: only RSA keys have a choice
        ("ssh-ed25519", ["ecdsa-*", "ssh-ed*"], None, ["ssh-ed25519"]),
        ("ssh-ed25519", ["rsa-*"], None, []),
        ("ssh-ed25519" + CERT, ["ssh-ed25519"], None, []),
        ("ssh-rsa", None, SHA2, SHA2),
        ("ssh-rsa", None, ["rsa-sha2-256", "ssh-ed25519"], ["rsa-sha2-256"]),
        ("ssh-rsa", ["rsa-sha2-256", "rsa-sha2-512"], SHA2, ["rsa-sha2-256", "rsa-sha2-512"]),
        ("ssh-rsa", ["rsa-*"], SHA2, SHA2),
        ("ssh-rsa", ["ssh-rsa", "rsa-sha2-512"], SHA2, ["rsa-sha2-512"]),
        ("ssh-rsa", ["rsa-sha2-512", "ssh-rsa"], ["ssh-rsa"], ["ssh-rsa"]),
        ("ssh-rsa", ["rsa-sha2-512"], ["ssh-rsa"], []),
        ("ssh-rsa", None, None, SHA2),
        ("ssh-rsa", ["rsa-sha2-512", "ssh-rsa"], None, ["ssh-rsa", "rsa-sha2-512"]),
        ("ssh-rsa" + CERT, None, SHA2, [name + CERT for name in SHA2]),
        ("ssh-rsa" + CERT, ["rsa-sha2-256"], SHA2, []),
        ("ssh-rsa" + CERT, ["rsa-sha2-256" + CERT], SHA2, ["rsa-sha2-256" + CERT]),
    ],
)
def test_algorithms(key: str, accepted: list[str] | None, taken: list[str] | None, algorithms: list[str]) -> None:
    assert signature_algorithms(key, accepted, taken) == algorithms


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3))
def test_any_answer_gives_keys_or_our_error(answers: list[bytes]) -> None:
    with TemporaryDirectory(prefix="pyrelay-") as top:
        left = list(answers)
        peer = ScriptedAgent(Path(top, "agent"), lambda _: IDENTITIES + left.pop(0) if left else FAILURE)
        agent = Agent(str(peer.path), 5.0)
        try:
            for _ in answers:
                agent.keys()
        except AgentFailed:
            pass
        finally:
            agent.close()
            peer.stop()
