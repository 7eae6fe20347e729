"""A command through three SSH servers, and what each of them saw; then the same with the second one stopped.

Everything is on loopback and in a temporary directory; needs pyrelay beside
this Python and OpenSSH's client. Exits with 1 when anything is not as promised.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import paramiko
from server import Server

ROUTE = "h1/h2/h3"
COMMAND = 'echo "hello from $SERVER"'
ANSWER = "hello from h3\n"
CHAINS = "Host */* *+*"
PROXY_COMMAND = "ProxyCommand pyrelay -F {config} %h %p"


class NotAsPromised(Exception):
    """Something that the demo says did not happen."""


def promise(kept: object, what: str) -> None:
    """Raise NotAsPromised unless the promise was kept."""
    if not kept:
        raise NotAsPromised(what)


def new_key(path: Path) -> paramiko.PKey:
    """Make a key with ssh-keygen; paths are path and path.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", path], check=True)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def start(top: Path) -> list[Server]:
    """Start h1, h2 and h3, and write the ssh_config and known_hosts that know them."""
    key = new_key(top / "key")
    servers = [Server(name, new_key(top / name), key) for name in ROUTE.split("/")]
    lines = [
        CHAINS,
        "    " + PROXY_COMMAND.format(config=top / "config"),
        *(f"Host {server.name}\n    HostName 127.0.0.1\n    Port {server.port}" for server in servers),
        "Host *",
        "    User demo",
        f"    IdentityFile {top}/key",
        "    IdentitiesOnly yes",
        "    BatchMode yes",
        "    StrictHostKeyChecking yes",
        f"    UserKnownHostsFile {top}/known_hosts",
        "    GlobalKnownHostsFile /dev/null",
    ]
    (top / "config").write_text("\n".join(lines) + "\n")
    with (top / "known_hosts").open("w") as known_hosts:
        for server in servers:
            public = (top / f"{server.name}.pub").read_text()
            known_hosts.write(f"[127.0.0.1]:{server.port},*/{server.name} {public}")
    return servers


def ssh(top: Path) -> subprocess.CompletedProcess[str]:
    """Run the command through the chain with the real ssh; show it and what it says."""
    print(f"\n$ ssh {ROUTE} '{COMMAND}'")
    environment = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    environment["XDG_STATE_HOME"] = str(top / "state")  # nothing is remembered of the demo
    environment.pop("SSH_AUTH_SOCK", None)
    ran = subprocess.run(
        ["ssh", "-F", top / "config", ROUTE, COMMAND],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    print("".join(f"  {line}\n" for line in ran.stdout.splitlines()), end="")
    return ran


def show(servers: list[Server]) -> None:
    """Say what went where, from the servers' own records."""
    names = {server.port: server.name for server in servers}
    print("\nWhat each server saw:")
    for server in servers:
        did = [f"ran {command}" for command in server.commands]
        did += [f"passed {len(one.passed)} bytes to and from {names[one.place[1]]}" for one in server.forwards]
        print(f"  {server.name}  {', '.join(server.logins) or 'nobody'} logged in; {', '.join(did) or 'did nothing'}")


def demo(top: Path) -> None:
    """Run both halves; raises NotAsPromised."""
    h1, h2, h3 = servers = start(top)
    print(f"Three SSH servers on 127.0.0.1 (h1 on port {h1.port}, h2 on {h2.port}, h3 on {h3.port}); in ssh_config:")
    print(f"\n  {CHAINS}\n      {PROXY_COMMAND.format(config='...')}")

    ran = ssh(top)
    for server in servers:
        server.settle()
    show(servers)
    promise(ran.returncode == 0 and ran.stdout == ANSWER, "the command did not run on h3")
    promise(h3.commands == [COMMAND] and not h1.commands + h2.commands, "the command ran elsewhere")
    for hop, following in ((h1, h2), (h2, h3)):
        promise([forward.place[1] for forward in hop.forwards] == [following.port], f"{hop.name} forwarded elsewhere")
        secret = all(text.strip().encode() not in hop.forwards[0].passed for text in (COMMAND, ANSWER))
        promise(secret, f"{hop.name} could read the session")

    print("Neither the command nor the answer can be found in what h1 and h2 passed.")

    print("\nNow h2 is stopped.")
    h2.stop()
    failed = ssh(top)
    promise(failed.returncode != 0, "it did not fail with h2 stopped")
    promise("pyrelay: hop 2 of 2 (h2): " in failed.stdout, "the error does not name h2")
    promise(h3.commands == [COMMAND], "the command ran all the same")
    for server in (h1, h3):
        server.settle()
        server.stop()


def main() -> int:
    """Run the demo in a directory of its own; return the exit status."""
    try:
        with tempfile.TemporaryDirectory(prefix="pyrelay-demo-") as top:
            demo(Path(top))
    except NotAsPromised as failure:
        print(f"\nNOT as promised: {failure}.")
        return 1
    print("\nAll as promised; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
