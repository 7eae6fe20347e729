"""The soak: real ssh through two hops for hours, with every party stopped and killed on the way.

`make soak`, or python tests/beds/soak.py [--seconds N] [--seed N]. (With --beside it is
soak_beside.py.) Two hours, by default, are 5,000
connections in a row, 200 at a time, 20 GB through one, and for what is left of them sessions in
which a random party is stopped for a while, or killed. Less time is less of each.

What must hold: every byte that arrives is the right one; what is stopped goes on, and loses
nothing; what is killed ends the session, and nothing of it remains; a relay that has carried
gigabytes has neither more memory nor more descriptors than at their beginning; and no file is left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab import Lab
from peers import until
from soak_beside import Beside
from sshd import privilege_separation

HOURS = 7200  # seconds; for which the numbers here are meant
IN_A_ROW = 5000
AT_ONCE = 200
BYTES = 20 * 10**9  # through one connection, half of them in each direction
HARMED = 16 << 20  # bytes, through a session that is harmed
REKEY = "RekeyLimit 64M"
BLOCK = 65536
BODY = random.Random(1).randbytes(BLOCK - 8)
LEFT_MOST = 60.0  # seconds within which all of a session must have gone
PARTIES = ("ssh", "pyrelay", "h1", "h2", "h3", "target")
GROWTH = 4 << 20  # bytes of memory; what an allocator may keep, but no leak of so many bytes in a million
ROUTE = "h1/h2/h3"
CONFIG = "config"  # in the lab's directory


class Session:
    """ssh to a target that says what it hears: so many bytes there and back.

    received: bytes so far, all of them right. wrong: why not.
    """

    def __init__(self, lab: Lab, size: int) -> None:
        self.size = size - size % BLOCK
        self.received = 0
        self.wrong = ""
        self.began = time.monotonic()
        self.up = 0.0  # seconds until the first byte came back
        self.said = ""
        argv: list[str | Path] = ["ssh", "-F", lab.top / CONFIG, "-o", REKEY.replace(" ", "="), ROUTE, "exec cat"]
        self.process = lab.start(*argv, stdin=subprocess.PIPE, env={"TMPDIR": str(lab.top / "tmp")})
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._receive, self._hear)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as stdin:
            for number in range(self.size // BLOCK):
                stdin.write(number.to_bytes(8) + BODY)

    def _receive(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        while data := os.read(self.process.stdout.fileno(), 16 * BLOCK):
            self.up = self.up or time.monotonic() - self.began
            rest += data
            whole = len(rest) - len(rest) % BLOCK
            for at in range(0, whole, BLOCK):
                if rest[at : at + 8] != (self.received // BLOCK).to_bytes(8) or rest[at + 8 : at + BLOCK] != BODY:
                    self.wrong = f"block {self.received // BLOCK} is not the right one"
                    return
                self.received += BLOCK
            rest = rest[whole:]
        if rest != ((self.received // BLOCK).to_bytes(8) + BODY)[: len(rest)]:
            self.wrong = "the last bytes are not the right ones"
        self.received += len(rest)

    def _hear(self) -> None:
        """What everybody says on stderr, until nobody has it any more."""
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            self.said = stderr.read().decode(errors="replace")

    def finish(self, seconds: float = HOURS) -> int:
        """Wait for the end; return ssh's exit status. Raises AssertionError for a wrong byte, or no end."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive(), "no end"
        assert not self.wrong, self.wrong
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(LEFT_MOST)

    def succeed(self) -> None:
        """Wait until every byte has come back."""
        status = self.finish()
        assert (status, self.received) == (0, self.size), (status, self.received, self.size, self.said)


class Soak:
    """The phases; each adds to figures, and raises AssertionError at what must not be."""

    def __init__(self, lab: Lab, seconds: float, chance: random.Random, tell: Callable[[str], object]) -> None:
        self.lab = lab
        self.end = time.monotonic() + seconds
        self.part = seconds / HOURS
        self.chance = chance
        self.tell = tell
        for name in ("h1", "h2", "h3"):
            lab.server(name, extra=f"LogLevel ERROR\n{REKEY}")
        lab.options += ["-o", REKEY.replace(" ", "=")]
        (lab.top / "tmp").mkdir()
        # The lab writes its own anew whenever it starts something, while others read it.
        config = lab.top / CONFIG
        config.write_text(lab.write_config().read_text().replace(str(lab.config), str(config)))
        self.at_start = files(lab.top)

    def run(self) -> None:
        self.in_a_row(max(int(IN_A_ROW * self.part), 5))
        self.at_once(max(min(int(AT_ONCE * self.part * 10), AT_ONCE), 5))
        self.transfer(max(int(BYTES * self.part), 10**8))
        self.harm()
        # What hops take is remembered, one file for each; nothing else may be left.
        kept = self.lab.home / ".local"
        left = {path for path in files(self.lab.top) - self.at_start if not path.is_relative_to(kept)}
        assert len(files(kept / "state/pyrelay/hops")) <= 3, "more is remembered than two hops and a salt"
        assert not left, f"files are left: {left}"

    def in_a_row(self, count: int) -> None:
        """Connection after connection."""
        took = []
        began = time.monotonic()
        for number in range(count):
            session = Session(self.lab, BLOCK)
            session.succeed()
            took.append(session.up)
            if number % 50 == 49:
                self.clear()
        self.clear()
        seconds = time.monotonic() - began
        middle, last = statistics.median(took), statistics.median(took[-max(count // 10, 1) :])
        self.tell(
            f"{count} connections in a row: {seconds:.0f} s; to the first byte {middle * 1000:.0f} ms "
            f"(median; {last * 1000:.0f} ms for the last tenth), {max(took) * 1000:.0f} ms at most"
        )

    def at_once(self, count: int) -> None:
        """All of them open at the same time, each with a transfer of its own."""
        began = time.monotonic()
        sessions = [Session(self.lab, 16 * BLOCK) for _ in range(count)]
        for session in sessions:
            session.succeed()
        seconds = time.monotonic() - began
        self.clear()
        self.tell(f"{count} connections at a time, 1 MiB there and back in each: {seconds:.0f} s")

    def transfer(self, size: int) -> None:
        """Bytes there and back through one connection; what its relay needs at a tenth of them and at the end."""
        session = Session(self.lab, size // 2)
        relay = party(self.lab, session, "pyrelay")
        until(lambda: session.received > session.size // 10 or bool(session.wrong), "first tenth", HOURS)
        early = needs(relay)
        late = early
        until(lambda: session.received >= session.size * 9 // 10 or bool(session.wrong), "nine tenths", HOURS)
        with suppress(FileNotFoundError, ProcessLookupError):
            late = needs(relay)
        session.succeed()
        seconds = time.monotonic() - session.began
        self.clear()
        assert late[1] <= early[1], f"descriptors: {early[1]}, then {late[1]}"
        assert late[0] <= early[0] + GROWTH, f"memory: {early[0]} bytes, then {late[0]}"
        self.tell(
            f"{2 * session.size / 1e9:.1f} GB through two hops, new keys every 64 MiB: {seconds:.0f} s, "
            f"{2 * session.size / 1e6 / seconds:.0f} MB/s both ways together; the relay's memory "
            f"{early[0] / 2**20:.1f} MiB after a tenth, {late[0] / 2**20:.1f} MiB near the end; "
            f"descriptors {early[1]}, {late[1]}"
        )

    def harm(self) -> None:
        """Session after session, each with one party stopped or killed, at its start or amid its bytes."""
        every = [(number, who) for number in (signal.SIGSTOP, signal.SIGKILL) for who in PARTIES]
        counts: Counter[str] = Counter()
        began = time.monotonic()
        slowest = 0.0
        rounds = 0
        while rounds == 0 or time.monotonic() < self.end:
            rounds += 1
            self.chance.shuffle(every)
            for number, who in every:
                slowest = max(slowest, self.harm_one(number, who, early=self.chance.random() < 0.3))
                counts["stopped" if number == signal.SIGSTOP else "killed"] += 1
                if rounds > 1 and time.monotonic() >= self.end:
                    break
        self.tell(
            f"{sum(counts.values())} sessions in which ssh, pyrelay, a hop's sshd, the target's, or the target was "
            f"stopped ({counts['stopped']}) or killed ({counts['killed']}): {time.monotonic() - began:.0f} s; "
            f"after a kill all had gone within {slowest:.1f} s"
        )

    def harm_one(self, number: signal.Signals, who: str, *, early: bool) -> float:
        """Return how long it took, after a kill, until all had gone."""
        session = Session(self.lab, HARMED)
        if not early:
            place = self.chance.randrange(1, session.size // 2)
            until(lambda: session.received > place or bool(session.wrong), f"byte {place}")
        victim = party(self.lab, session, who)
        everybody = [pid for each in (session.process.pid, *self.servers()) for pid in family(each)]
        with suppress(ProcessLookupError):  # a session that is fast may be over
            os.kill(victim, number)
            if number == signal.SIGSTOP:
                time.sleep(self.chance.random())  # how long it is stopped: nothing ends that but we
                os.kill(victim, signal.SIGCONT)
        began = time.monotonic()
        if number == signal.SIGSTOP:
            session.succeed()
        else:
            status = session.finish(LEFT_MOST)
            assert status != 0 or session.received == session.size, (who, session.said)
        until(lambda: not any(alive(pid) for pid in everybody), f"end of all after {who} got {number.name}", LEFT_MOST)
        took = time.monotonic() - began
        self.clear()
        return took if number == signal.SIGKILL else 0.0

    def servers(self) -> list[int]:
        """Every sshd that was started and has not been seen to end."""
        return [each.process.pid for name in ("h1", "h2", "h3") for each in list(self.lab[name].connections)]

    def clear(self) -> None:
        """Nothing of the sessions so far may be left; forget them."""
        left = self.lab.remaining(LEFT_MOST)
        assert left == {}, f"processes are left: {left}"
        for name in ("h1", "h2", "h3"):
            connections = self.lab[name].connections
            for each in list(connections):
                each.process.wait(LEFT_MOST)
                connections.remove(each)
            for log in (self.lab.top / name).glob("log.*"):
                log.unlink()


def party(lab: Lab, session: Session, who: str) -> int:
    """The process of a party, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        if session.process.poll() is not None:
            found.append(session.process.pid)  # it is all over
        elif who == "ssh":
            found.append(session.process.pid)
        elif who == "pyrelay":
            # The first one: a program that it starts is called so, too, for a moment.
            found.extend([pid for pid in family(session.process.pid) if "pyrelay" in command(pid).split(" -F ")[0]][:1])
        elif connections := list(lab["h3" if who == "target" else who].connections):
            # Not what sshd starts for a login: its sandbox kills it when it has been stopped (seccomp and
            # restart_syscall).
            sshd = connections[-1].process.pid
            found.extend([sshd] if who != "target" else [pid for pid in family(sshd) if command(pid) == "cat"])
        return bool(found)

    until(look, who)
    return found[-1]


def family(pid: int) -> list[int]:
    """A process and all that it has started, as far as they live."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(each for child in tasks for each in family(int(child)))]
    return []


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def alive(pid: int) -> bool:
    """Whether it runs: one that has ended and is not yet waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def needs(pid: int) -> tuple[int, int]:
    """What a process has: bytes of memory of its own, and descriptors."""
    memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return memory, len(os.listdir(f"/proc/{pid}/fd"))


def files(top: Path) -> set[Path]:
    return set(top.rglob("*"))


@contextmanager
def laboratory() -> Iterator[Lab]:
    """A lab outside of pytest."""
    with privilege_separation(), tempfile.TemporaryDirectory(prefix="pyrelay-soak-") as name:
        top = Path(name)
        top.chmod(0o755)
        lab = Lab(top)
        try:
            yield lab
        finally:
            lab.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Real ssh through two hops for hours, with every party harmed.")
    parser.add_argument("--seconds", type=float, default=HOURS, help="how long (default: %(default)s)")
    parser.add_argument("--beside", action="store_true", help="instead: the echo of a shared hop beside hostile ones")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of what is harmed when")
    chosen = parser.parse_args()
    print(f"soak: {chosen.seconds:.0f} seconds, seed {chosen.seed}", flush=True)
    with laboratory() as lab:
        phases = Beside if chosen.beside else Soak
        phases(lab, chosen.seconds, random.Random(chosen.seed), lambda line: print(line, flush=True)).run()
    print("soak: clean", flush=True)


if __name__ == "__main__":
    main()
