"""The soak's other half: the echo of a good shared hop beside hostile ones in the same holder, and without them.

`make soak ARGS="--beside"`, or python tests/beds/soak.py --beside [--seconds N]. The holder of shared hops has one good
hop, through which a relay sends bytes to an echo all the time. By turns, hostile hops (hostile_hop.py) are entered
through the same holder: floods with a reader and without one, logins over giant groups, logins without end.

What must hold: every byte that comes back is the right one; with the hostile hops, 99 of 100 round trips take at most
BOUND longer than without; the holder is the same process from beginning to end, and does not grow.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hostile_hop import KINDS
from lab import Lab, end
from peers import LOOPBACK, Listener

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = ("--share", "10m")
BOUND = 0.1  # seconds
SLICE = 60.0  # seconds with the hostile hops, and seconds without
PAUSE = 0.01  # seconds between two round trips
SIZE = 64  # bytes of a round trip
GROWTH = 64 << 20  # bytes of memory that the holder may have more at the end than after the first turn
SAME = 2  # relays of each kind at a time


class Hostile:
    """The hostile hops of one turn. entered: how many relays have gone to them."""

    def __init__(self, lab: Lab, listeners: dict[str, socket.socket], key: Path) -> None:
        self.entered = 0
        self._lab = lab
        self._over = threading.Event()
        self._one = threading.Lock()
        self._servers = []
        for kind in KINDS:
            argv: list[str | Path] = [sys.executable, Path(__file__).with_name("hostile_hop.py"), kind, key]
            descriptor = listeners[kind].fileno()
            server = lab.start(
                *argv, str(descriptor), env={"PYTHONPATH": os.pathsep.join(sys.path)}, pass_fds=(descriptor,)
            )
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            self._servers.append(server)
        self._threads = [
            threading.Thread(target=self._enter, args=(kind, number)) for kind in KINDS for number in range(SAME)
        ]
        for thread in self._threads:
            thread.start()

    def _enter(self, kind: str, number: int) -> None:
        """Relay after relay to a hop; of two to a flood, one is never read."""
        argv: list[str | Path] = [self._lab.program, "-F", self._lab.config, *SHARE, "-w", "30"]
        while not self._over.is_set():
            self.entered += 1
            with self._one:  # each start writes the lab's ssh_config
                process = self._lab.start("nice", *argv, f"{kind}/target:9", stdin=subprocess.PIPE)
            drain = threading.Thread(target=_drain, args=(process,))
            if number % 2:
                drain.start()
            while process.poll() is None and not self._over.wait(0.05):
                pass
            process.kill()
            if number % 2:
                drain.join()
            end(process)

    def stop(self) -> None:
        self._over.set()
        for server in self._servers:
            server.kill()
            server.wait()
        for thread in self._threads:
            thread.join()


def _drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    with suppress(OSError, ValueError):
        while os.read(process.stdout.fileno(), 1 << 16):
            pass


class Beside:
    """seconds: of all turns together; a turn is SLICE, or an eighth of seconds where that is less."""

    def __init__(self, lab: Lab, seconds: float, chance: random.Random, tell: Callable[[str], object]) -> None:
        self._lab = lab
        self._seconds = seconds
        self._chance = chance
        self._tell = tell
        self._key = lab.keygen("hostile")
        lab.server("good", extra="LogLevel ERROR")
        # They listen from beginning to end: between two turns another program might take a port that is free.
        self._listeners = {kind: socket.create_server((LOOPBACK, 0)) for kind in KINDS}
        for kind, listener in self._listeners.items():
            port = listener.getsockname()[1]
            lab.host(kind, Port=port, LogLevel="ERROR")
            lab.know(kind, port, [Path(f"{self._key}.pub").read_text().strip()])
        lab.write_config()

    def run(self) -> None:
        times: dict[bool, list[float]] = {False: [], True: []}
        turn = min(SLICE, self._seconds / 8)
        entered = 0
        with ExitStack() as stack:
            for each in self._listeners.values():
                stack.enter_context(each)
            listener = Listener(_echo)
            stack.callback(listener.stop)
            argv: list[str | Path] = [
                self._lab.program,
                "-F",
                self._lab.config,
                *SHARE,
                f"good/{LOOPBACK}:{listener.port}",
            ]
            ends = stack.enter_context(self._lab.start(*argv, stdin=subprocess.PIPE))
            stack.callback(ends.kill)
            self._trips(ends, turn / 4)
            pid = self._holder()
            until = time.monotonic() + self._seconds
            early = 0
            while time.monotonic() < until:
                times[False] += self._trips(ends, turn)
                hostile = Hostile(self._lab, self._listeners, self._key)
                try:
                    times[True] += self._trips(ends, turn)
                finally:
                    hostile.stop()
                entered += hostile.entered
                early = early or _memory(pid)
            assert self._holder() == pid, "the holder is another one"
            grown = _memory(pid) - early
        without, beside = (_percentile(times[hostile]) for hostile in (False, True))
        self._tell(
            f"{len(times[False]) + len(times[True])} round trips through a good shared hop, {entered} relays to "
            f"hostile ones in the same holder: 99 of 100 within {without * 1000:.1f} ms without them, "
            f"{beside * 1000:.1f} ms beside them (medians {statistics.median(times[False]) * 1000:.1f} and "
            f"{statistics.median(times[True]) * 1000:.1f}); the holder grew by {grown / 2**20:.1f} MiB"
        )
        assert beside <= without + BOUND, f"{beside * 1000:.0f} ms beside hostile hops, {without * 1000:.0f} without"
        assert grown <= GROWTH, f"the holder has {grown} bytes more than after the first turn"

    def _holder(self) -> int:
        """The process id of the holder."""
        return int(self._lab.pyrelay("-O", "check").stdout.rpartition("=")[2].rstrip(")\n"))

    def _trips(self, ends: subprocess.Popen[bytes], seconds: float) -> list[float]:
        """Round trips for so long; the seconds that each has taken."""
        assert ends.stdin is not None
        assert ends.stdout is not None
        took = []
        until = time.monotonic() + seconds
        while (began := time.monotonic()) < until:
            said = self._chance.randbytes(SIZE)
            ends.stdin.write(said)
            ends.stdin.flush()
            heard = ends.stdout.read(SIZE)
            took.append(time.monotonic() - began)
            assert heard == said, f"{heard.hex()} came back for {said.hex()}"
            time.sleep(PAUSE)  # not a wait: a person types with pauses, and a stream without any would load the machine
        return took


def _echo(far: socket.socket) -> None:
    with far, suppress(OSError):
        while data := far.recv(1 << 16):
            far.sendall(data)


def _percentile(times: list[float]) -> float:
    """The 99th."""
    return statistics.quantiles(times, n=100)[98]


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
