"""The program that a test calls as ssh: what it names is logged in to as a hop, a target behind it runs the command.

    python -m regress.in_place HOW BY SSH CONFIG PORT DIRECTORY [ssh's arguments]

HOW is pyrelay or ssh, BY the program of that name; CONFIG the lab's ssh_config, PORT the target's. What
is no login (-Q, -G, -O, forwards, a master) is left to SSH. Each login is one line in DIRECTORY/logins:
accepted or refused, and the arguments. The status is 255 when it was refused, else that of the command.
"""

from __future__ import annotations

import getopt
import os
import shlex
import subprocess
import sys
from pathlib import Path

OPTIONS = "1246ab:c:e:fgi:kl:m:no:p:qstvxyAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XY"  # ssh.c
NO_LOGIN = frozenset(["-f", "-s", "-D", "-G", "-J", "-L", "-M", "-N", "-O", "-Q", "-R", "-S", "-V", "-w", "-W"])
SETTINGS = {"-4": "AddressFamily=inet", "-6": "AddressFamily=inet6"}
NAMED = {"-b": "BindAddress", "-c": "Ciphers", "-m": "MACs", "-p": "Port"}
REFUSED = 255


def read(arguments: list[str]) -> tuple[list[tuple[str, str]], str, list[str]]:
    """Take ssh's arguments apart: options, the host, the command. Options may stand behind the host, too."""
    options, rest = getopt.getopt(arguments, OPTIONS)
    if not rest:
        return options, "", []
    more, command = getopt.getopt(rest[1:], OPTIONS)
    return options + more, rest[0], command


def ours(how: str, options: list[tuple[str, str]], host: str, port: str) -> list[str]:
    """The arguments that BY is called with, to reach the target's port behind the host."""
    words = []
    user, _, name = host.rpartition("@")
    for option, value in [*options, *([("-l", user)] if user else [])]:
        if option in ("-F", "-o", "-i", "-l"):
            words += [option, value]
        elif option in NAMED:
            words += ["-o", f"{NAMED[option]}={value}"]
        elif option in SETTINGS:
            words += ["-o", SETTINGS[option]]
    return [*words, "-W", f"127.0.0.1:{port}", name] if how == "ssh" else [*words, "-J", name, "127.0.0.1", port]


def main() -> int:
    """Log in, or leave it to ssh; return the exit status."""
    how, by, ssh, config, port, directory, *arguments = sys.argv[1:]
    options, host, command = read(arguments)
    if not host or "://" in host or any(option in NO_LOGIN for option, _ in options):
        os.execv(ssh, [ssh, *arguments])
    log = dict(options).get("-E", "/dev/null")
    carrier = shlex.join([by, *ours(how, options, host, port)]) + f" 2>>{shlex.quote(log)}"
    stamp = Path(directory, f"stamp.{os.getpid()}")
    target = ["-F", config, "-q", *(option for option, _ in options if option in ("-n", "-t", "-T"))]
    target += ["-o", f"ProxyCommand={carrier.replace('%', '%%')}"]
    target += ["-o", "PermitLocalCommand=yes", "-o", f"LocalCommand=touch {stamp}"]
    status = subprocess.run([ssh, *target, "target", *command], check=False).returncode
    accepted = stamp.exists()
    stamp.unlink(missing_ok=True)
    with Path(directory, "logins").open("a") as file:
        file.write(f"{'accepted' if accepted else 'refused '} {shlex.join(arguments)}\n")
    return status if accepted else REFUSED


if __name__ == "__main__":
    sys.exit(main())
