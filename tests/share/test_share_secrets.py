"""Secrets have no home: what a person has typed for a login is not kept by the process that holds the hop."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from login_server import asking, passwords
from peers import free_ports, until
from proxies import PASSWORD, microsocks_with_password
from shared import holder, program
from terminal import askpass

if TYPE_CHECKING:
    from lab import Lab

VARIABLE = "PYRELAY_PROXY_PASSWORD"
TYPED = "sesame-4711"

# Looks through all that lives, whatever holds it, at SIGUSR2. It knows the secrets backwards: it does not find its own.
LOOK = """
import gc, signal, sys, threading
SECRETS = {secrets!r}
def look(number, frame):
    gc.unfreeze()  # else what was there when the relay began is not among the objects
    stacks = [*sys._current_frames().values(), frame]
    left, seen, found = list(gc.get_objects()), set(), set()
    for each in stacks:
        while each is not None:
            if each.f_code is not look.__code__:
                left.extend(each.f_locals.values())
            each = each.f_back
    while left:
        each = left.pop()
        if id(each) in seen or each is SECRETS or each is stacks:
            continue
        seen.add(id(each))
        if isinstance(each, (str, bytes, bytearray)):
            text = each if isinstance(each, str) else bytes(each).decode("latin-1")
            found.update(name for name, secret in SECRETS.items() if secret in text[::-1])
        elif type(each).__name__ in ("PrivateKey", "PrivateFile", "Keyring"):
            found.add(type(each).__name__)
        left.extend(gc.get_referents(each))
    with open({out!r} + ".new", "w") as file:
        print(*sorted(found), file=file)
    import os
    os.rename({out!r} + ".new", {out!r})
signal.signal(signal.SIGUSR2, look)
"""


def watched(lab: Lab, **secrets: str) -> None:
    """Have the lab run a pyrelay that can be asked which secrets it holds."""
    backwards = {name: secret[::-1] for name, secret in secrets.items()}
    program(lab, LOOK.format(secrets=backwards, out=str(lab.top / "found")))


def held(lab: Lab) -> list[str]:
    """Which of them the holder does hold."""
    out = lab.top / "found"
    out.unlink(missing_ok=True)
    os.kill(holder(lab), signal.SIGUSR2)
    until(out.exists, "look")
    return out.read_text().split()


@pytest.fixture
def secretive(lab: Lab) -> Lab:
    """h1 behind a proxy with a password and for a key with a passphrase, h2 for a password, and h3."""
    lab.servers("h1", "h3")
    encrypted = lab.keygen("encrypted", "ed25519", "-N", TYPED)
    (lab.top / "h1" / "authorized_keys").write_text(Path(f"{encrypted}.pub").read_text())
    lab.host("h1", IdentityFile=encrypted, BatchMode="no")
    asking(lab, "h2", passwords(TYPED))
    proxy = microsocks_with_password(next(free_ports()), lab.top)
    lab.at_end(proxy.stop)
    lab.options = ["--share", "10m", *proxy.options]
    return lab


def run(lab: Lab, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """ssh, with the proxy's password in its environment, and somebody who types the other secrets."""
    env = {**askpass(lab, f"env >{lab.top}/env-askpass; echo {TYPED}"), VARIABLE: PASSWORD, **more}
    return lab.run("ssh", "-F", lab.config, *arguments, env=env)


def test_the_holder_keeps_none_once_the_login_is_over(secretive: Lab) -> None:
    pieces = Path(secretive.top / "encrypted").read_text().splitlines()
    watched(secretive, proxy=PASSWORD, typed=TYPED, key=pieces[3])
    assert run(secretive, "h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert held(secretive) == []
    assert run(secretive, "h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert held(secretive) == []
    if not secretive.elsewhere:  # without /proc there is no way to it, neither for us nor for who looks
        assert PASSWORD.encode() not in Path(f"/proc/{holder(secretive)}/environ").read_bytes()
    assert VARIABLE not in (secretive.top / "env-askpass").read_text()


def test_it_is_seen_when_the_holder_does_hold_one(secretive: Lab) -> None:
    """The look itself is looked at."""
    watched(secretive, typed=TYPED)
    kept = f"KEPT = [{TYPED[:4]!r}, {TYPED[4:]!r}]\nKEPT.append(''.join(KEPT))\nfrom relay.cli"
    secretive.program.write_text(secretive.program.read_text().replace("from relay.cli", kept))
    assert run(secretive, "h1/h2/h3", "echo $SERVER").stdout == "h3\n"
    assert held(secretive) == ["typed"]


@pytest.mark.parametrize("share", [[], ["--share", "10m"]])
def test_only_a_proxy_command_inherits_the_password_of_a_proxy(lab: Lab, share: list[str]) -> None:
    h1, _ = lab.servers("h1", "h3")
    for name, body in (("proxy", f"exec nc 127.0.0.1 {h1.port}"), ("known-hosts", ""), ("match", "true")):
        (lab.top / name).write_text(f"#!/bin/sh\nenv >>{lab.top}/env-{name}\n{body}\n")
        (lab.top / name).chmod(0o755)
    lab.host("h1", ProxyCommand=lab.top / "proxy", KnownHostsCommand=lab.top / "known-hosts")
    lab.head = f'Match originalhost h1 exec "{lab.top}/match"\n    ServerAliveInterval 60'
    lab.write_config()
    done = lab.run(lab.program, "-F", lab.config, *share, "h1/h3", env={VARIABLE: PASSWORD, "MARK": "1"})
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    seen = {name: (lab.top / f"env-{name}").read_text() for name in ("proxy", "known-hosts", "match")}
    assert all("MARK=1" in text for text in seen.values())
    assert [name for name, text in seen.items() if VARIABLE in text] == ["proxy"]


def test_another_password_is_another_way(secretive: Lab) -> None:
    assert run(secretive, "h1/h3", "echo $SERVER").stdout == "h3\n"
    wrong = run(secretive, "h1/h3", "echo $SERVER", **{VARIABLE: "wrong"})
    assert wrong.returncode == 255
    assert "hop 1 of 1 (h1)" in wrong.stderr
    assert len(secretive["h1"].logins()) == 1
