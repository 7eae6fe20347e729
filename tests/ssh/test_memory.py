"""What hops have shown to take, from one run to the next: the file, where it lies, and that it is never an error."""

from __future__ import annotations

import hmac
import importlib
import os
import resource
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import missing

from relay.ssh import memory
from relay.ssh.mac import mac
from relay.ssh.memory import AHEAD, CHANNEL, HEAD, SALT, Memory, Shown, read, write

HOP = ("u1", "h1", "22", "")
SHOWN = Shown(
    ident="SSH-2.0-OpenSSH_9.2p1 Debian-2",
    kex="sntrup761x25519-sha512@openssh.com",
    host_key="rsa-sha2-512",
    method="publickey",
    key="SHA256:abc",
    algorithm="ssh-ed25519",
    refused="2026-11-28 abc def",
    sig_algs="ssh-ed25519,rsa-sha2-512",
    hostbound=True,
    in_vain=frozenset({CHANNEL}),
)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {SALT}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pyrelay" / "hops"


def test_it_is_kept_from_one_run_to_the_next(place: Path) -> None:
    Memory(str(place)).keep(HOP, SHOWN)
    found = Memory(str(place)).recall(HOP)
    assert found is not None
    assert found.but(used="") == SHOWN
    assert len(found.used) == len("2026-11-28")


@pytest.mark.parametrize(
    "other",
    [
        *[("u2", *HOP[1:]), ("u1", "h2", "22", ""), ("u1", "h1", "2022", ""), ("u1", "h1", "22", "j")],
        *[("u1h", "1", "22", ""), ("u1", "h12", "2", ""), ("u1", "h1", "2", "2")],  # the same, one after another
    ],
)
def test_another_user_host_port_or_way_is_another_hop(place: Path, other: tuple[str, ...]) -> None:
    Memory(str(place)).keep(HOP, SHOWN)
    assert Memory(str(place)).recall(other) is None
    assert Memory(str(place), "by Tor").recall(HOP) is None


@pytest.mark.parametrize("sha", ["sha1", "sha256"])
def test_a_name_is_hidden_alike_with_and_without_a_login(sha: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("relay.ssh.digest")
    by_login = mac(b"salt", b"bastion.example", sha)
    monkeypatch.delitem(sys.modules, "relay.ssh.digest")
    assert mac(b"salt", b"bastion.example", sha) == by_login == hmac.digest(b"salt", b"bastion.example", sha)


def test_no_name_stands_there_in_clear_and_nobody_else_may_look(place: Path) -> None:
    Memory(str(place)).keep(("somebody", "bastion.example", "22", "gate"), SHOWN)
    (name,) = names(place)
    assert len(name) == 64
    assert {"somebody", "bastion", "gate"}.isdisjoint((place / name).read_text().split())
    assert b"bastion" not in (place / name).read_bytes()
    for path in (place, place.parent, place.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in place.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_day_is_written_once(place: Path) -> None:
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    (name,) = names(place)
    before = (place / name).stat()
    kept.keep(HOP, SHOWN)
    assert (place / name).stat() == before
    kept.keep(HOP, SHOWN.but(key="SHA256:other"))
    assert (place / name).stat().st_ino != before.st_ino


def test_the_next_day_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is used every day were taken for the longest unused."""
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    (name,) = names(place)
    os.utime(place / name, (0, 0))
    tomorrow = time.gmtime(time.time() + 24 * 60 * 60)
    monkeypatch.setattr(time, "gmtime", lambda: tomorrow)
    kept.keep(HOP, SHOWN)
    assert (place / name).stat().st_mtime > 0
    found = kept.recall(HOP)
    assert found is not None
    assert found.used == time.strftime("%Y-%m-%d", tomorrow)


def test_none_keeps_nothing(place: Path) -> None:
    Memory().keep(HOP, SHOWN)
    assert Memory().recall(HOP) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"pyrelay-hop 2\nident SSH-2.0-x\n", HEAD, HEAD + b"ident telnet\n", HEAD * 4000]
)
def test_a_broken_file_is_no_memory_and_is_replaced(place: Path, content: bytes) -> None:
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    (name,) = names(place)
    (place / name).write_bytes(content)
    assert kept.recall(HOP) is None
    kept.keep(HOP, SHOWN)
    assert kept.recall(HOP) is not None


def test_a_salt_that_is_cut_short_is_replaced(place: Path) -> None:
    Memory(str(place)).keep(HOP, SHOWN)
    (place / SALT).write_bytes(b"short")
    assert Memory(str(place)).recall(HOP) is None
    Memory(str(place)).keep(HOP, SHOWN)
    assert len((place / SALT).read_bytes()) == memory.SALT_SIZE
    assert Memory(str(place)).recall(HOP) is not None


def test_what_is_no_file_of_ours_is_no_memory(place: Path) -> None:
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    (name,) = names(place)
    (place / name).rename(place / "elsewhere")
    (place / name).symlink_to(place / "elsewhere")
    assert kept.recall(HOP) is None
    (place / name).unlink()
    os.mkfifo(place / name)
    assert kept.recall(HOP) is None


def test_another_users_file_is_no_memory(place: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can make another user's file")
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    (name,) = names(place)
    os.chown(place / name, 65534, 65534)
    assert kept.recall(HOP) is None


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_place_that_others_may_write_to_is_left_alone(place: Path, mode: int) -> None:
    place.mkdir(parents=True)
    place.chmod(mode)
    Memory(str(place)).keep(HOP, SHOWN)
    assert list(place.iterdir()) == []


def test_a_link_in_the_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    """Where others may write, one of them may have made it."""
    (tmp_path / "mine").mkdir(0o700)
    (tmp_path / "hops").symlink_to(tmp_path / "mine")
    Memory(str(tmp_path / "hops")).keep(HOP, SHOWN)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Memory(str(tmp_path / "file" / "hops")).keep(HOP, SHOWN)
    assert Memory(str(tmp_path / "file" / "hops")).recall(HOP) is None
    Memory("/proc/pyrelay/hops").keep(HOP, SHOWN)


def test_a_full_disk_is_no_error_and_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    before = {path.name: path.read_bytes() for path in place.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    kept.keep(HOP, SHOWN.but(key="SHA256:other"))
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_a_disk_with_room_for_half_of_it_is_no_error_and_leaves_nothing(place: Path) -> None:
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        kept.keep(HOP, SHOWN.but(key="SHA256:other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files


def test_nothing_is_made_or_used_in_another_users_home(tmp_path: Path) -> None:
    """`sudo -E` leaves another user's HOME."""
    if os.geteuid() != 0:
        missing("only root can make another user's directory")
    os.chown(tmp_path, 65534, 65534)
    Memory(str(tmp_path / "state" / "hops")).keep(HOP, SHOWN)
    assert list(tmp_path.iterdir()) == []
    theirs = tmp_path / "hops"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    Memory(str(theirs)).keep(HOP, SHOWN)
    assert list(theirs.iterdir()) == []


def test_a_thousand_at_most_and_the_longest_unused_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST", 5)
    kept = Memory(str(place))
    for number in range(5):
        kept.keep((*HOP, str(number)), SHOWN)
        (newest,) = names(place) - {path.name for path in place.iterdir() if path.stat().st_mtime < 1000}
        os.utime(place / newest, (number, number))
    kept.keep((*HOP, "5"), SHOWN)
    assert [kept.recall((*HOP, str(number))) is not None for number in range(6)] == [
        False,
        True,
        True,
        True,
        True,
        True,
    ]


def test_other_files_of_the_directory_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--memory DIR may name a directory that somebody has files in."""
    monkeypatch.setattr(memory, "MOST", 3)
    others = {"letter", "a" * 63, "." + "b" * 33, "f" * 63 + "g", ".hidden", "c" * 32, "." + "d" * 64}
    place.mkdir(parents=True)
    for name in others:
        (place / name).touch()
    kept = Memory(str(place))
    for number in range(9):
        kept.keep((*HOP, str(number)), SHOWN)
    assert others < {path.name for path in place.iterdir()}
    assert len(names(place)) == len(others) + 3


def test_a_salt_that_is_none_of_ours_stays(place: Path) -> None:
    place.mkdir(parents=True)
    (place / SALT).write_bytes(b"a recipe for pickles, and no salt of ours")
    kept = Memory(str(place))
    kept.keep(HOP, SHOWN)
    assert kept.recall(HOP) is None
    assert [path.read_bytes()[:8] for path in place.iterdir()] == [b"a recipe"]


def test_fifty_at_once_agree_on_one_salt(place: Path) -> None:
    begin = threading.Barrier(50)

    def learn(number: int) -> None:
        begin.wait()
        Memory(str(place)).keep((*HOP, str(number)), SHOWN)

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(Memory(str(place)).recall((*HOP, str(number))) is not None for number in range(50))
    assert len(names(place)) == 50


@pytest.mark.parametrize(
    ("environ", "chosen", "where"),
    [
        ({"HOME": "/usr"}, None, "/usr/.local/state/pyrelay/hops"),
        ({"HOME": "/usr", "XDG_STATE_HOME": "/s"}, None, "/s/pyrelay/hops"),
        ({"HOME": "/usr", "XDG_STATE_HOME": "relative"}, None, "/usr/.local/state/pyrelay/hops"),
        ({}, None, ""),
        ({"HOME": "/nonexistent"}, None, ""),  # Debian's for those who have no home; none is made, though it be root
        ({"HOME": "/usr"}, "none", ""),
        ({"HOME": "/usr"}, "/elsewhere", "/elsewhere"),
    ],
)
def test_where_it_lies(environ: dict[str, str], chosen: str | None, where: str) -> None:
    assert memory.directory(environ, chosen) == where


def test_a_working_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert memory.directory({"HOME": "/usr"}, "relative") == ""
    assert memory.directory({"HOME": "/usr"}, "/elsewhere") == "/elsewhere"


WORD = st.text(max_size=30)


@given(WORD, WORD, WORD | st.none(), st.booleans(), st.sets(st.sampled_from(AHEAD)))
def test_what_is_written_is_read_again(
    ident: str, key: str, sig_algs: str | None, hostbound: bool, vain: set[str]
) -> None:
    shown = Shown(ident=f"SSH-{ident}", key=key, sig_algs=sig_algs, hostbound=hostbound, in_vain=frozenset(vain))
    found = read(write(shown))
    assert found is not None
    assert write(found) == write(shown)


def test_what_a_server_says_at_length_is_not_kept_and_the_rest_is() -> None:
    """Its ident and lists may be of any length; a file of any length would not be read."""
    long = "x" * memory.LONGEST
    found = read(write(SHOWN.but(kex=long, sig_algs=long, host_key="\xff" * memory.VALUE)))
    assert found == SHOWN.but(kex="", sig_algs=None, host_key="")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_memory_or_none(data: bytes) -> None:
    for content in (data, HEAD + data, HEAD + b"ident SSH-2.0-x\n" + data):
        found = read(content)
        assert found is None or read(write(found)) == found
