"""What a run of pyrelay connects to, as strace sees it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from lab import Lab
from peers import need


def traced(lab: Lab, *argv: str | Path, env: dict[str, str] | None = None) -> tuple[set[str], str]:
    """Run pyrelay under strace: the addresses that it and its children connect or send to, and all else it does."""
    trace = lab.top / "trace"
    strace = [need("strace"), "-f", "-qq", "-o", str(trace), "-e", "trace=connect,sendto,sendmsg,sendmmsg,openat,open"]
    # stdin stays open: not every proxy knows a half-close.
    process = lab.start(*strace, lab.program, "-F", lab.config, *argv, env=env, stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    said = process.stdout.readline()
    assert said.startswith(b"SSH-2.0-"), process.communicate()
    process.communicate()
    text = trace.read_text()
    calls = [line for line in text.splitlines() if re.search(r" (connect|send\w+)\(", line)]
    found = {f"{port} {address}" for port, address in re.findall(r'port=htons\((\d+)\).*?"([^"]+)"', "\n".join(calls))}
    assert len([line for line in calls if "AF_INET" in line]) == len(re.findall(r"port=htons", "\n".join(calls)))
    return found, text


# What a resolver reads, and the sockets of those that look names up for others.
RESOLVER = re.compile(r"/etc/(resolv\.conf|hosts|host\.conf|gai\.conf)|/systemd/resolve|avahi|/nscd/socket.*hosts")
