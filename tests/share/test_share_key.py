"""Whether two relays share a hop: would the second have got it by itself?"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from lab import ROOT
from shared import logins

from relay.config.settings import HopSettings, parse
from relay.share.key import PASSING, key

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Lab

HERE = {"HOME": "/home/me"}


def known(lines: str, environ: dict[str, str] | None = None, directory: str = "/a", outer: str = "") -> str:
    settings = HopSettings("h1", parse(lines.encode()), environ={**HERE, **(environ or {})}, directory=directory)
    return key(settings, outer, [], directory)


@pytest.mark.parametrize(
    "line",
    [
        "userknownhostsfile known_hosts",
        "globalknownhostsfile known_hosts",
        "revokedhostkeys revoked",
        "certificatefile key-cert.pub",
        "identityfile key",
        "proxycommand ./proxy %h",
        "knownhostscommand bin/keys %H",
    ],
)
def test_a_file_is_another_one_elsewhere(line: str) -> None:
    assert known(line) == known(line)
    assert known(line) != known(line, directory="/b")


@pytest.mark.parametrize(
    "line",
    [
        "userknownhostsfile /known_hosts",
        "identityfile ~/.ssh/key",
        "proxycommand /usr/bin/nc %h %p",
        "proxycommand nc -X 5 -x proxy:1080 %h %p",
        "proxycommand curl http://example.com/%h",
        "knownhostscommand /bin/keys",
        "hostname h1",
    ],
)
def test_where_a_relay_runs_decides_nothing_else(line: str) -> None:
    assert known(line) == known(line, directory="/b")


@pytest.mark.parametrize("line", ["certificatefile /${WHO}", "identityagent $WHO"])
def test_a_variable_in_a_name_is_what_the_relay_has(line: str) -> None:
    assert known(line, {"WHO": "me"}) == known(line, {"WHO": "me", "OTHER": "x"})
    assert known(line, {"WHO": "me"}) != known(line, {"WHO": "you"})


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("hostname h1", False),
        ("identityagent SSH_AUTH_SOCK", False),
        ("identityagent $SSH_AUTH_SOCK", False),
        ("identityagent none", True),
        ("identityagent ~/.1password/agent.sock", True),
        ("knownhostscommand /bin/keys", False),
    ],
)
def test_where_an_agent_is_that_is_not_used_decides_nothing(line: str, same: bool) -> None:
    """tmux, an editor and `ssh -A` each have an SSH_AUTH_SOCK of their own."""
    assert (known(line, {"SSH_AUTH_SOCK": "/a"}) == known(line, {"SSH_AUTH_SOCK": "/b"})) is same


@pytest.mark.parametrize("line", ["proxycommand aws ssm %h", "knownhostscommand /bin/keys %H"])
def test_a_program_is_given_the_whole_environment(line: str) -> None:
    assert known(line, {"AWS_PROFILE": "a"}) != known(line, {"AWS_PROFILE": "b"})
    assert known(line, {"AWS_PROFILE": "a"}) == known(line, {"AWS_PROFILE": "a", **dict.fromkeys(PASSING, "x")})
    assert known("hostname h1", {"AWS_PROFILE": "a"}) == known("hostname h1", {"AWS_PROFILE": "b"})


def test_a_later_hop_has_no_proxy_command() -> None:
    line = "proxycommand aws ssm %h"
    assert known(line, {"AWS_PROFILE": "a"}, outer="x") == known(line, {"AWS_PROFILE": "b"}, outer="x")


def test_the_manual_lists_what_tells_terminals_apart() -> None:
    text = (ROOT / "man/pyrelay.1").read_text()
    listed = text.partition("only tell one terminal")[2].partition(".Pp")[0]
    assert set(re.findall(r"\b_(?!\w)|[A-Z][A-Z_]+", listed.replace(".Ev", ""))) == PASSING


# Two relays side by side


def ask(lab: Lab, directory: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A relay that runs there."""
    process = lab.start(lab.program, "-F", lab.config, "--share", "10m", "h1/h3", cwd=directory, env=env)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.mark.parametrize("keyword", ["UserKnownHostsFile", "GlobalKnownHostsFile", "RevokedHostKeys"])
def test_trust_is_not_lent(lab: Lab, keyword: str) -> None:
    """The first relay trusts h1, by files of the directory where it runs; the second does not."""
    lab.servers("h1", "h3")
    trusting, other = lab.top / "trusting", lab.top / "other"
    trusting.mkdir()
    other.mkdir()
    if keyword == "RevokedHostKeys":
        (trusting / "file").touch()
        (other / "file").write_text("\n".join(lab["h1"].host_keys) + "\n")
    else:
        (trusting / "file").write_bytes(lab.known_hosts.read_bytes())
        lab.known_hosts.write_text("")
    lab.host("h1", **{keyword: "file"})
    assert ask(lab, trusting).stdout.startswith(b"SSH-2.0-")
    refused = ask(lab, other)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert ask(lab, trusting).stdout.startswith(b"SSH-2.0-")
    assert logins(lab, "h1") == [1]


def test_nor_is_what_a_command_knows(lab: Lab) -> None:
    lab.servers("h1", "h3")
    keys = lab.top / "keys"
    line = " ".join(lab["h1"].host_keys[0].split()[:2])
    keys.write_text(f'#!/bin/sh\n[ "$WHO" = me ] && echo "$1 {line}"\nexit 0\n')
    keys.chmod(0o755)
    lab.known_hosts.write_text("")
    lab.host("h1", KnownHostsCommand=f"{keys} %H")
    assert ask(lab, lab.top, WHO="me", TERM="a").stdout.startswith(b"SSH-2.0-")
    assert ask(lab, lab.top, WHO="you").returncode == 1
    assert ask(lab, lab.top, WHO="me", TERM="b", WINDOWID="7").stdout.startswith(b"SSH-2.0-")
    assert logins(lab, "h1") == [1]
