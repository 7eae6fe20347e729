"""Files that are there and cannot be read: "could not find out" is not "there is none"."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from trusting import Listener, Person, agree, meet, server, settings_of_h1, write

from relay.config.lookup import Defaults
from relay.errors import RelayError
from relay.run.children import Children
from relay.ssh.trust.trust import Trust

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Lab


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Opening anything is EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def nobody_special() -> Iterator[None]:
    """Root may read any file; whoever else runs the tests is already nobody special."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize("strict", ["accept-new", "no", "ask"])
@pytest.mark.parametrize("keyword", ["UserKnownHostsFile", "GlobalKnownHostsFile"])
def test_a_changed_key_is_not_new_where_descriptors_run_out(lab: Lab, keyword: str, strict: str) -> None:
    server(lab)
    write(lab, "{host} {other}\n")
    (lab.top / "system").write_bytes(lab.known_hosts.read_bytes())
    lab.host("h1", StrictHostKeyChecking=strict, GlobalKnownHostsFile=lab.top / "system")
    settings = settings_of_h1(lab)
    with no_more_descriptors(), pytest.raises(RelayError) as refused:
        Trust(settings, Listener(), Person(Listener(), "yes"))
    assert str(refused.value).startswith(f"pyrelay: {lab.known_hosts} cannot be read: too many open files\nhint: ")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/proc/self/mem", "input/output error"),  # its first page is not there
        ("{top}", "is a directory"),
        ("{top}/loop", "too many levels of symbolic links"),
        ("{top}/socket", "no such device or address"),
        ("{top}/absent", ""),
        ("{top}/known_hosts/absent", ""),
    ],
)
@pytest.mark.parametrize("keyword", ["UserKnownHostsFile", "GlobalKnownHostsFile"])
def test_only_a_file_that_is_not_there_is_empty(lab: Lab, keyword: str, path: str, words: str) -> None:
    server(lab)
    (lab.top / "loop").symlink_to(lab.top / "loop")
    path = path.format(top=lab.top)
    lab.host("h1", StrictHostKeyChecking="accept-new", **{keyword: path})
    lab.known_hosts.write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(lab.top / "socket"))
        error = meet(lab).error
    assert error.partition("\n")[0] == (f"pyrelay: {path} cannot be read: {words}" if words else "")


def test_the_systems_file_may_be_closed_to_the_user_and_their_own_may_not(lab: Lab) -> None:
    """As for ssh, the first says nothing; ssh takes the second for empty, too."""
    server(lab)
    closed = lab.top / "closed"
    closed.write_bytes(b"")
    closed.chmod(0)
    lab.host("h1", GlobalKnownHostsFile=closed)
    write(lab, "{host} {key}\n")
    agree(lab, "")
    settings, progress = settings_of_h1(lab), Listener()
    progress.verbosity = 1
    lab.top.chmod(0o755)
    with nobody_special():
        Trust(settings, progress, Person(progress))
    assert f"{closed} says nothing: permission denied" in progress.said
    lab.host("h1", UserKnownHostsFile=closed, StrictHostKeyChecking="accept-new")
    settings = settings_of_h1(lab)
    with nobody_special(), pytest.raises(RelayError, match="closed cannot be read: permission denied"):
        Trust(settings, progress, Person(progress))


def test_defaults_that_ssh_could_not_say_are_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho a plug is missing >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RelayError, match="ssh's own defaults: a plug is missing"):
        Defaults(Children())()
