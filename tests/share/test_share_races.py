"""Shared hops under stress: holders and relays that start, stop and are killed at any moment, and very many of them."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from contract import SOON
from lab import Lab
from peers import LOOPBACK, Listener, free_ports, need, until
from shared import control, holder, holders

PARALLEL = 8  # relays at once
SECONDS = 12.0  # that the random test goes on
SIZE = 300_000  # bytes of its transfers: more than a pipe holds
SEED = int(os.environ.get("PYRELAY_SEED", "0")) or random.randrange(2**32)


def pattern(size: int) -> bytes:
    """Bytes of which a lost or swapped block shows."""
    return random.Random(size).randbytes(size)


DATA = pattern(SIZE)


class Echo:
    """A port that sends back whatever it gets, on any number of connections."""

    def __init__(self) -> None:
        self._listener = Listener(lambda sock: threading.Thread(target=self._serve, args=(sock,), daemon=True).start())
        self.port = self._listener.port

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):  # relays are killed here
            while data := sock.recv(65536):
                sock.sendall(data)

    def stop(self) -> None:
        self._listener.stop()


class Brief:
    """A port that says a byte and closes."""

    def __init__(self) -> None:
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.sendall(b"x")

    def stop(self) -> None:
        self._listener.stop()


@pytest.fixture
def shared(lab: Lab) -> Lab:
    """Two servers, and relays that share them for a second."""
    lab.servers("h1", "h2")
    lab.options += ("--share", "1")
    lab.write_config()
    return lab


@pytest.fixture
def echo(lab: Lab) -> Iterator[int]:
    server = Echo()
    yield server.port
    server.stop()


def start(lab: Lab, route: str, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [lab.program, "-F", lab.config, *lab.options, f"{route}/{LOOPBACK}:{port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=lab.environment(),
        start_new_session=True,
    )


class Relays:
    """Relays that come and transfer, some of which are killed, from threads of their own.

    faults: what should not have been. disturbed: how often something was begun or done to a holder; odd meanwhile.
    """

    def __init__(self, lab: Lab, port: int) -> None:
        self.faults: list[str] = []
        self.disturbed = 0
        self._lab = lab
        self._port = port

    def one(self, seed: int) -> None:
        """A relay, which gets back what it has sent, unless it or its holder is disturbed."""
        chance = random.Random(seed)
        before = self.disturbed
        process = start(self._lab, chance.choice(["h1", "h1/h2"]), self._port)
        killer = threading.Timer(chance.uniform(0, 0.6), process.kill)
        if killed := chance.random() < 0.3:
            killer.start()
        try:
            out, said = process.communicate(DATA, timeout=2 * SOON)
        except subprocess.TimeoutExpired:
            self.faults.append(f"a relay hangs ({seed})")
            process.kill()
            process.communicate()
            return
        finally:
            killer.cancel()
        if not DATA.startswith(out):
            self.faults.append(f"wrong bytes ({seed})")
        undisturbed = not killed and before % 2 == 0 and before == self.disturbed
        if (out != DATA or process.returncode) and undisturbed:
            self.faults.append(f"{len(out)} bytes, status {process.returncode} ({seed}): {said.decode()}")

    def disturb(self, what: str) -> None:
        """Do something to the holder, if there is one."""
        self.disturbed += 1
        if what == "kill":
            for pid in holders(self._lab):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            self._lab.pyrelay("-O", what)
        self.disturbed += 1


def test_anything_at_any_moment(shared: Lab, echo: int) -> None:
    """Relays come, transfer, and are killed; the holder is stopped, ended, killed, and ends by itself.

    None hangs, none delivers a wrong byte, one that nobody has disturbed succeeds, and nothing is left running.
    """
    print(f"PYRELAY_SEED={SEED}")
    chance = random.Random(SEED)
    end = time.monotonic() + SECONDS
    relays = Relays(shared, echo)

    def many() -> None:
        while time.monotonic() < end:
            relays.one(chance.randrange(2**32))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        what = chance.choice(["stop", "exit", "kill", "nothing", "nothing"])
        time.sleep(chance.uniform(0, 1.5))  # any moment is what is tested: waiting for an event would choose one
        if what != "nothing":
            relays.disturb(what)
    for thread in threads:
        thread.join()
    relays.one(0)
    assert relays.faults == []
    assert shared.remaining(SOON) == {}


# Many


def descriptors_and_threads(lab: Lab) -> tuple[int, int]:
    """What the holder has open, once no relay is left."""
    until(lambda: control(lab, "list").count(" 0 relays") == 2, "end of the relays")
    process = Path(f"/proc/{holder(lab)}")
    return len(os.listdir(process / "fd")), len(os.listdir(process / "task"))


def memory(lab: Lab) -> int:
    """The holder's, in KiB."""
    lines = Path(f"/proc/{holder(lab)}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it")
def test_the_holder_stays_as_it_is(shared: Lab) -> None:
    """Descriptors, threads and memory after many relays are those after a few."""
    shared.options[-1] = "10m"
    brief = Brief()
    shared.at_end(brief.stop)

    def many(count: int) -> None:
        def some() -> None:
            for _ in range(count // PARALLEL):
                process = start(shared, "h1/h2", brief.port)
                done.append((*process.communicate(timeout=2 * SOON), process.returncode))

        done: list[tuple[bytes, bytes, int]] = []
        threads = [threading.Thread(target=some) for _ in range(PARALLEL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [(b"x", b"", 0)] * count

    many(40)
    before, memory_before = descriptors_and_threads(shared), memory(shared)
    count = int(os.environ.get("PYRELAY_RELAYS", "120"))
    many(count)
    fds, threads = descriptors_and_threads(shared)
    print(
        f"{count} relays: {before} -> {(fds, threads)} descriptors and threads, {memory_before} -> {memory(shared)} KiB"
    )
    assert fds <= before[0] + 1
    assert threads <= before[1] + 2
    assert memory(shared) < memory_before + 4096
    assert [len(shared[name].logins()) for name in ("h1", "h2")] == [1, 1]


def test_a_bastion_that_dies_under_ten_relays(shared: Lab, echo: int) -> None:
    """Each relay says why, none hangs, and the next one goes by a new holder."""
    running = [start(shared, "h1", echo) for _ in range(10)]
    for process in running:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
    for connection in shared["h1"].connections:
        os.killpg(connection.process.pid, signal.SIGKILL)
    for process in running:
        assert b"shared hop (h1): the connection was lost" in process.communicate(timeout=SOON)[1]
        assert process.returncode == 1
    again = start(shared, "h1", echo)
    assert again.communicate(DATA, timeout=SOON)[0] == DATA
    assert shared["h1"].logins() == [shared.user] * 2


def test_a_hundred_at_once_through_a_bastion_of_default_limits(lab: Lab, tmp_path: Path) -> None:
    """An sshd that listens itself and drops logins beyond its MaxStartups of 10:30:100 sees one."""
    server = lab.server("h1")
    port = next(free_ports())
    log = tmp_path / "sshd.log"
    config = tmp_path / "sshd_config"
    config.write_text(f"ListenAddress {LOOPBACK}:{port}\n" + (lab.top / "h1" / "sshd_config").read_text())
    daemon = lab.start(need("sshd"), "-D", "-f", config, "-E", log)
    until(lambda: log.exists() and "Server listening" in log.read_text(), "sshd")
    lab.know("h1", port, server.host_keys)
    lab.host("h1", Port=port)
    lab.options += ("--share", "1")
    lab.write_config()
    brief = Brief()
    lab.at_end(brief.stop)
    running = [start(lab, "h1", brief.port) for _ in range(100)]
    assert [process.communicate(timeout=120)[0] for process in running] == [b"x"] * 100
    assert log.read_text().count("Accepted publickey") == 1
    daemon.terminate()
