"""What a new user does once pyrelay is installed: the manual, TAB in three shells, the block, and `ssh h1/h2`.

packaging/first-hour runs this as that user, on a machine with servers called h1, h2 and gate that ask for a key.
It prints a line for each thing that was tried, `ok` or what was seen instead; the status is 1 when one has failed.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

SSH = Path.home() / ".ssh"
PATIENCE = 60.0  # seconds
INCLUDE = "Include pyrelay.conf\n"
PROXY_JUMP = INCLUDE + "Host gate\n    ProxyJump none\nHost *\n    ProxyJump gate\n"


class Terminal:
    """A program on a terminal, and all that it has shown."""

    def __init__(self, *argv: str) -> None:
        self.shown = ""
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.execvp(argv[0], argv)

    def expect(self, *texts: str) -> str:
        """Wait until one of the texts is shown, and return it; "" when the program ends or takes too long."""
        until = time.monotonic() + PATIENCE
        while not (found := [text for text in texts if text in self.shown]):
            ready, _, _ = select.select([self._terminal], [], [], max(until - time.monotonic(), 0))
            try:
                data = os.read(self._terminal, 65536) if ready else b""
            except OSError:  # the program has ended
                data = b""
            if not data:
                return ""
            self.shown += data.decode(errors="replace")
        return found[0]

    def type(self, keys: str) -> None:
        """Type something; what was shown before no longer counts."""
        self.shown = ""
        os.write(self._terminal, keys.encode())

    def end(self) -> int:
        """Hang up, and return the program's status."""
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def run(line: str) -> str:
    """What a line of shell prints, on both of its outputs."""
    done = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


# Each of these returns "" when all is as it should be, and otherwise what was seen.


def version() -> str:
    """The program is in PATH."""
    said = run("pyrelay --version")
    return "" if re.fullmatch(r"pyrelay \d+\.\d+\.\d+\n", said) else said


def manual() -> str:
    """`man pyrelay` shows the manual."""
    said = run("MANWIDTH=80 man pyrelay | cat")
    return "" if "PYRELAY(1)" in said and "ProxyCommand" in said else said[:200]


def completed(*shell: str) -> str:
    """Press TAB in a shell, after a hop and the beginning of a name that ssh_config has; "" when that is completed."""
    terminal = Terminal("env", "PS1=READY", "TERM=dumb", *shell)
    terminal.type("echo REA''DY1\n")
    if terminal.expect("READY1"):
        terminal.type("ssh h1/webs\t")
        if terminal.expect("webserver01"):
            terminal.type("\x15exit\n")
            return ""
    return terminal.shown[-200:] or "nothing"


def bash() -> str:
    """On a terminal."""
    return completed("bash", "-i")


def zsh() -> str:
    """On a terminal."""
    return completed("zsh", "-i")


def fish() -> str:
    """What it would offer: it says so without a terminal."""
    said = run("fish -c 'complete -C \"ssh h1/webs\"'")
    return "" if "h1/webserver01" in said else said or "nothing"


def logins(name: str) -> int:
    """How often somebody has logged in to a server."""
    return Path("/var/log", name).read_text().count("Accepted publickey")


def goes(config: str, hops: list[str]) -> str:
    """Whether `ssh h1/h2` ends on h2 with that ssh_config; as the first time, with its questions, and then without."""
    (SSH / "known_hosts").unlink(missing_ok=True)
    (SSH / "config").write_text(config)
    before = [logins(name) for name in hops]
    terminal = Terminal("ssh", "h1/h2", "echo on $SERVER")
    while asked := terminal.expect("(yes/no", "on h2"):
        if asked == "on h2":
            break
        terminal.type("yes\n")
    if not asked:
        return terminal.shown
    terminal.end()
    said = run("ssh -o BatchMode=yes h1/h2 'echo on $SERVER'")
    if said != "on h2\n":
        return said
    counted = [after - count for after, count in zip(map(logins, hops), before, strict=True)]
    return "" if counted == [2] * len(hops) else f"logins at {hops}: {counted}"


def block() -> str:
    """The block goes into a file of its own, and nothing is said."""
    return run("pyrelay --ssh-config > ~/.ssh/pyrelay.conf")


def empty() -> str:
    """Nothing but the Include line is in ssh_config."""
    return goes(INCLUDE, ["h1", "h2"])


def jump() -> str:
    """A ProxyJump for all other names follows the Include line."""
    return goes(PROXY_JUMP, ["gate", "h1", "h2"])


def main() -> int:
    """Try all, and say what was seen."""
    (SSH / "config").write_text("Host webserver01\n")
    failed = 0
    for name, check in {
        "version": version,
        "manual": manual,
        "bash": bash,
        "zsh": zsh,
        "fish": fish,
        "block": block,
        "ssh h1/h2": empty,
        "with ProxyJump": jump,
    }.items():
        seen = check()
        failed += seen != ""
        print(f"{name}: {seen or 'ok'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
