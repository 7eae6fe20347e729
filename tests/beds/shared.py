"""Relays that share their hops, and the process that holds these."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from contract import Command, Ends
from lab import ROOT, SCRIPT, Lab
from peers import LOOPBACK

from relay import __version__

AGAIN = ("--share", "10m")
CLOSED = "the shared hops were closed (-O exit)\n"
STOPPED = "pyrelay: --share: the process that holds the shared hops does not answer\n"


def holders(lab: Lab) -> list[int]:
    """The processes that have the lock file open."""
    found = []
    for pid in lab.processes():
        with suppress(OSError):  # it has gone
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):  # it was just closed
                    if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(f"{__version__}.lock"):
                        found.append(pid)
    return found


def holder(lab: Lab) -> int:
    (pid,) = holders(lab)
    return pid


def logins(lab: Lab, *names: str) -> list[int]:
    """How often each of the three servers, or of those, has been logged in to."""
    return [len(lab[name].logins()) for name in names or ("h1", "h2", "h3")]


def command(lab: Lab, route: str = "h1", *options: str) -> Command:
    """A relay by shared hops to a port of loopback, in the lab's environment."""
    config = lab.write_config()
    return lambda port: [str(lab.program), "-F", str(config), *AGAIN, *options, f"{route}/{LOOPBACK}:{port}"]


def relay(lab: Lab, route: str = "h1", *options: str) -> Ends:
    return Ends(command(lab, route, *options), env=lab.environment())


def under_way(ends: Ends) -> Ends:
    """Wait until the holder moves a relay's bytes; return the relay."""
    ends.far.sendall(b"x")
    assert ends.receive(1) == b"x"
    return ends


def program(lab: Lab, *lines: str) -> None:
    """Have the lab run a pyrelay that has been changed by these lines of Python."""
    script = SCRIPT.format(python=sys.executable, root=str(ROOT))
    lab.program.unlink()
    lab.program.write_text(script.replace("from relay.cli", "\n".join([*lines, "from relay.cli"])))
    lab.program.chmod(0o755)


def control(lab: Lab, name: str) -> str:
    return lab.pyrelay("-O", name).stdout
