"""Links that fail: a table of stages and faults, each cell with a real sshd behind what does the harm.

Each outcome: exit status 1, a message that names the hop and the cause, within
the deadline, nothing on stdout that the target has not said, nothing left running.
"""

from __future__ import annotations

import re
import subprocess

import pytest
import tamper
from lab import Lab
from tamper import KEXINIT, NEWKEYS, Tamper, after, in_packet, never

DEADLINE = 2  # seconds; of each cell that waits for it
STAGES = {
    "connected": after(0),
    "ident": after(4),
    "key exchange": in_packet(KEXINIT, 100),
    "host key": in_packet(31, 20),  # SSH_MSG_KEX_ECDH_REPLY (RFC 5656 section 7.1)
    "new keys": in_packet(NEWKEYS, 10),
    "login": in_packet(NEWKEYS, 60),
}
GONE = (
    "the connection was closed before the server's SSH ident|the server closed the connection|the connection was lost"
)
LATE = f"no answer within {DEADLINE} seconds"
BROKEN = "this is no SSH server|the server's message cannot be read"
# What is said. Bytes that are none of a server's may look like a packet that never ends, or be followed by an end.
OUTCOMES = {
    "reset": f"connection reset by peer|{GONE}",
    "end": GONE,
    "silence": LATE,
    "drip": LATE,
    "garbage": f"{BROKEN}|{GONE}",
    "zeros": f"{BROKEN}|{GONE}|{LATE}",
    "oversize": f"{BROKEN}|{GONE}|{LATE}",
}


def between(lab: Lab, name: str, stage: str, fault: str) -> Tamper:
    """Put a fault between the clients and a server."""
    tampering = Tamper(lab[name].port, STAGES[stage], getattr(tamper, fault))
    lab.at_end(tampering.stop)
    lab.know(name, tampering.port, lab[name].host_keys)
    lab.host(name, Port=tampering.port)
    return tampering


@pytest.mark.parametrize("fault", OUTCOMES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("hop", ["h1", "h2"])
def test_while_it_is_set_up(lab: Lab, hop: str, stage: str, fault: str) -> None:
    lab.servers("h1", "h2", "h3")
    between(lab, hop, stage, fault)
    done = lab.pyrelay("-w", str(DEADLINE), "h1/h2/h3", stdin=None, timeout=20)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    place = re.escape(f"hop {hop[1]} of 2 ({hop})")
    assert re.match(rf"pyrelay: {place}: ({OUTCOMES[fault]})", done.stderr, re.IGNORECASE), done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert lab["h3"].connections == []
    assert lab.remaining(5) == {}


@pytest.mark.parametrize("fault", ["reset", "end", "garbage", "zeros", "oversize"])
@pytest.mark.parametrize("hop", ["h1", "h2"])
def test_while_it_relays(lab: Lab, hop: str, fault: str) -> None:
    lab.servers("h1", "h2", "h3")
    tampering = Tamper(lab[hop].port, never, getattr(tamper, fault))
    lab.at_end(tampering.stop)
    lab.know(hop, tampering.port, lab[hop].host_keys)
    lab.host(hop, Port=tampering.port)
    with lab.start(lab.program, "-F", lab.write_config(), "h1/h2/h3", stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        ident = program.stdout.readline()
        assert ident.startswith(b"SSH-2.0-")
        tampering.now()
        assert program.wait(20) == 1
        assert program.stdout.read() == b""  # sshd says no more before it is spoken to
        said = program.stderr.read().decode()
    assert re.match(rf"pyrelay: hop {hop[1]} of 2 \({hop}\): ", said), said
    assert len(said.splitlines()) <= 2, said
    assert lab.remaining(5) == {}
