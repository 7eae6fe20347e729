"""What `ssh -G` says of a hop, asked of the real ssh."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import SYSTEM_PATH

from relay.config.lookup import Lookup, Query, checked
from relay.config.lookup import look_up as look_up_route
from relay.config.settings import HopSettings, parse
from relay.errors import RelayError
from relay.run.children import Children
from relay.run.progress import Progress
from relay.spec import options
from relay.spec.route import Element, behind, parse_jump
from relay.spec.route import parse as parse_route

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = r"""
Include {included}
Host h1
    HostName 192.0.2.1
    User u1
    IdentityFile ~/.ssh/key_%r_%%_${{PYRELAY_TEST}}
    IdentityFile "/keys/with space"
    ConnectTimeout 5
    Ciphers aes256-gcm@openssh.com,aes128-ctr
    UserKnownHostsFile /first/%h "/sec ond/kh  x" /third
    ProxyJump %h-gate
Host h2
    ProxyCommand nc -s $SOURCE %h %p %r %n %k 100%%
    User u2
    HostKeyAlias alias
Host shelly
    HostName $(id)
Host nouser
    User -oProxyCommand=x
Host doe
    User "John Doe"
    ProxyCommand nc %h %p # %%r
Host corp
    User CORP\jdoe
    ProxyCommand nc %h %p %r
Host tokens
    IdentityFile /keys/%Z
Host unset
    IdentityFile /keys/${{PYRELAY_UNSET}}
Host none
    ProxyJump none
    IdentityFile none
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    included = tmp_path / "included"
    included.write_text("Host inc\n    Port 2022\n")
    path = tmp_path / "config"
    path.write_text(CONFIG.format(included=included))
    return str(path)


def look_up(config: str, *names: str, argv: tuple[str, ...] = ()) -> list[HopSettings]:
    chosen = options.parse(["-F", config, *argv, "x"])
    return Lookup([Query(Element(None, name, None), chosen) for name in names], Children()).read(Progress())


def test_values_of_several_names(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRELAY_TEST", "env")
    monkeypatch.setenv("HOME", "/elsewhere")  # which is nothing to ssh
    h1, inc = look_up(config, "h1", "inc")
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert (h1.name, h1.hostname, h1.user, h1.port) == ("h1", "192.0.2.1", "u1", 22)
    assert h1.paths("identityfile") == (f"{home}/.ssh/key_u1_%_env", "/keys/with space")
    assert h1.expand("%d") == home
    assert h1.paths("userknownhostsfile") == ("/first/192.0.2.1", "/sec ond/kh  x", "/third")
    assert h1.seconds("connecttimeout") == 5
    assert h1.algorithms("ciphers") == ("aes256-gcm@openssh.com", "aes128-ctr")
    assert h1.algorithms("macs") is None
    assert h1.proxy_jump() == "192.0.2.1-gate"
    assert (inc.hostname, inc.port) == ("inc", 2022)
    assert inc.seconds("connecttimeout") == 0
    assert inc.proxy_jump() == ""


def test_options_beat_ssh_config_and_the_route_beats_options(config: str) -> None:
    more = ["-o", "ServerAliveInterval=9", "-o", "User=other", "-o", "Port=1"]
    chosen = options.parse(["-F", config, "-l", "me", "-i", config, *more, "x"])
    queries = [
        Query(Element(None, "h1", None), chosen),
        Query(Element("him", "h1", 2222), chosen),
        Query(Element(None, "h1", None), chosen, chosen=False),
        Query(Element(None, "inc", None), chosen, is_hop=False),
    ]
    by_option, by_route, jump, target = Lookup(queries, Children()).read(Progress())
    assert (by_option.user, by_option.get("serveraliveinterval")) == ("me", "9")
    assert config in by_option.all("identityfile")
    assert (by_route.user, by_route.port) == ("him", 2222)
    assert (jump.user, jump.get("serveraliveinterval")) == ("u1", "0")
    assert (target.port, target.get("serveraliveinterval")) == (2022, "0")


def test_a_target_that_ssh_has_resolved_is_not_looked_up_again(config: str) -> None:
    """`ssh inc` with `ProxyCommand pyrelay -J h2 %h %p`; a name that came with a hop is looked up."""
    chosen = options.parse(["-F", config, "x"])
    for name, port in (("inc", 22), ("h1/inc", 2022)):
        way = behind(parse_jump("h2"), parse_route(name))
        *hops, target = look_up_route(way, chosen, Children()).read(Progress())
        assert (hops[0].user, target.hostname, target.port) == ("u2", "inc", port)


def test_the_user_of_a_target_is_nothing_to_us(config: str) -> None:
    chosen = options.parse(["-F", config, "x"])
    assert Lookup([Query(Element(None, "nouser", None), chosen, is_hop=False)], Children()).read(Progress())


def test_proxy_command_leaves_variables_to_the_shell(config: str) -> None:
    (h2,) = look_up(config, "h2")
    assert h2.proxy_command() == "nc -s $SOURCE h2 22 u2 h2 alias 100%"


def test_none_is_no_jump_and_no_file(config: str) -> None:
    (none,) = look_up(config, "none")
    assert (none.proxy_jump(), none.proxy_command(), none.paths("identityfile")) == ("", "", ())


@pytest.mark.parametrize(
    ("line", "names"), [("/a b /c", ("/a b", "/c")), ("~/a b", (f"{pwd.getpwuid(os.getuid()).pw_dir}/a b",))]
)
def test_files_of_revoked_keys(line: str, names: tuple[str, ...]) -> None:
    """Several since OpenSSH 10.6, which replaces ~ itself; one before it."""
    assert HopSettings("h1", {"revokedhostkeys": [line]}).paths("revokedhostkeys") == names


@pytest.mark.parametrize("name", ["shelly", "nouser"])
def test_a_hostname_or_user_unfit_for_a_command_is_refused(config: str, name: str) -> None:
    with pytest.raises(RelayError, match=f"ssh_config of {name}"):
        look_up(config, name)


def test_a_user_that_no_route_can_hold_is_data(config: str) -> None:
    """It is refused only where a shell would read it."""
    doe, corp = look_up(config, "doe", "corp")
    assert (doe.user, doe.proxy_command(), doe.jumps()) == ("John Doe", "nc doe 22 # %r", "doe")
    assert (corp.user, corp.jumps("h1")) == ("CORP\\jdoe", "h1,corp")
    with pytest.raises(RelayError, match=r"ssh_config of corp: its ProxyCommand has %r, and .* CORP\\jdoe"):
        corp.proxy_command()


def test_a_user_that_ssh_refuses_on_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenSSH 10.6 does with a backslash."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho remote username contains invalid characters >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{SYSTEM_PATH}")
    with pytest.raises(RelayError) as caught:
        Lookup([Query(Element("CORP\\jdoe", "h1", None), options.parse(["x"]))], Children()).read(Progress())
    assert caught.value.line == "ssh_config of CORP\\jdoe@h1: remote username contains invalid characters"
    assert caught.value.hint == "ssh takes such a user from ssh_config (User)"


@pytest.mark.parametrize("user", ["", "-l", "a\tb", "a\x1bb", "x" * 256])
def test_a_user_that_is_none(user: str) -> None:
    with pytest.raises(RelayError, match=r"ssh_config of h1: (a|the) user"):
        checked(HopSettings("h1", {"user": [user]}))


@pytest.mark.parametrize(("name", "words"), [("tokens", "unknown token %Z"), ("unset", "PYRELAY_UNSET")])
def test_unknown_tokens_and_variables_are_errors(config: str, name: str, words: str) -> None:
    (settings,) = look_up(config, name)
    with pytest.raises(RelayError, match=words):
        settings.paths("identityfile")


def test_a_broken_config_gives_the_words_of_ssh(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_text("Host *\n    NoSuchKeyword yes\n")
    with pytest.raises(RelayError, match="line 2: Bad configuration option: nosuchkeyword"):
        look_up(str(path), "h1")


def test_no_ssh_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RelayError, match="ssh is not in PATH"):
        look_up("none", "h1")
    (tmp_path / "ssh").touch(0o600)
    with pytest.raises(RelayError, match="ssh cannot be run, permission denied"):
        look_up("none", "h1")
    (tmp_path / "ssh").write_text("#!/nonexistent/sh\n")
    (tmp_path / "ssh").chmod(0o700)
    with pytest.raises(RelayError, match="ssh cannot be run, no such file") as caught:
        look_up("none", "h1")
    assert caught.value.hint.startswith(f"there is {tmp_path}/ssh; ")


@given(st.binary())
def test_any_output_gives_a_table(output: bytes) -> None:
    assert all(key and values for key, values in parse(output).items())
