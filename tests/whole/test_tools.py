"""Programs that run ssh, or speak SSH themselves: each line of docs/recipes.md's table, to h3 through two hops.

What such a program logs in by is its own affair; the hops are logged in to once for
each of its connections, and nothing is left of pyrelay when it has ended.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import RECIPES, Desk, code, table
from lab import Lab
from peers import missing, need

ROUTE = "h1+h2+h3"
LINES = {client: code(line) for client, line in table("program", RECIPES)[1:]}


@pytest.fixture
def desk(lab: Lab) -> Desk:
    return Desk(lab)


def succeeds(desk: Desk, line: str) -> str:
    """Run a line, which must say nothing but its answer, and leave nothing."""
    ran = desk.run(line)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    assert desk.lab.remaining(10) == {}
    return ran.stdout


def script(desk: Desk, text: str) -> str:
    """Run a script in Python, with these names: the lab's key, known_hosts (which spells the route out) and user."""
    with desk.lab.known_hosts.open("a") as known_hosts:  # paramiko takes no patterns there
        known_hosts.write(f"{ROUTE} {desk.lab['h3'].host_keys[0]}\n")
    path = desk.lab.top / "script.py"
    path.write_text(
        f"key, known_hosts, user = {str(desk.lab.identity)!r}, {str(desk.lab.known_hosts)!r}, {desk.lab.user!r}\n{text}"
    )
    return succeeds(desk, shlex.join([sys.executable, "-W", "ignore", str(path)]))


# Libraries of Python


def paramiko(desk: Desk, line: str) -> None:
    assert line in (
        text := f"""
import paramiko
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
sock = {line}
client.connect({ROUTE!r}, username=user, key_filename=key, sock=sock, allow_agent=False, look_for_keys=False)
print(client.exec_command("echo $SERVER")[1].read().decode(), end="")
client.close()
sock.close()
"""
    )
    assert script(desk, text) == "h3\n"


def fabric(desk: Desk, line: str) -> None:
    text = f"""
from fabric import Config, Connection
from paramiko import RejectPolicy
config = Config(overrides={{"run": {{"in_stream": False, "hide": True}}}}, runtime_ssh_path="{desk.lab.write_config()}")
settings = {{"key_filename": key, "allow_agent": False, "look_for_keys": False}}
with {line} as connection:
    connection.client.load_host_keys(known_hosts)
    connection.client.set_missing_host_key_policy(RejectPolicy())
    print(connection.run("echo $SERVER").stdout, end="")
"""
    assert script(desk, text) == "h3\n"


def asyncssh(desk: Desk, line: str) -> None:
    text = f"""
import asyncio, asyncssh
async def main():
    settings = dict(username=user, client_keys=[key], known_hosts=known_hosts, config=None)
    async with asyncssh.connect({ROUTE!r}, **settings, {line}) as client:
        print((await client.run("echo $SERVER")).stdout, end="")
asyncio.run(main())
"""
    assert script(desk, text) == "h3\n"


# Other clients


def dbclient(desk: Desk, line: str) -> None:
    lab = desk.lab
    argv = [need("dropbearconvert"), "openssh", "dropbear", str(lab.identity), f"{lab.top}/id.dropbear"]
    subprocess.run(argv, check=True, capture_output=True)
    (lab.home / ".ssh").mkdir()
    # Dropbear takes ~ from the account, and says so where it cannot write its known_hosts: -y takes any key.
    need("dbclient")
    assert succeeds(desk, f"{line} -y -i {lab.top}/id.dropbear {lab.user}@{ROUTE} 'echo $SERVER'") == "h3\n"


def plink(desk: Desk, line: str) -> None:
    lab = desk.lab
    need("plink")
    succeeds(desk, f"{need('puttygen')} {lab.identity} -o {lab.top}/id.ppk -O private")
    fingerprint = succeeds(desk, f"ssh-keygen -lf {lab.top}/h3/ed25519.pub").split()[1]
    options = f"-batch -noagent -i {lab.top}/id.ppk -hostkey {fingerprint}"
    assert succeeds(desk, f"{line.replace('plink', f'plink {options}')} 'echo $SERVER'") == "h3\n"


# Programs that run ssh


def plain(desk: Desk, line: str, answer: str = "h3\n") -> None:
    need(shlex.split(line)[0])
    assert succeeds(desk, line) == answer


def clush(desk: Desk, line: str) -> None:
    plain(desk, line, f"{ROUTE}: h3\n")


pdsh = clush


def sftp(desk: Desk, line: str) -> None:
    (desk.lab.home / "batch").write_text("ls file\n")
    assert "file" in succeeds(desk, line)


def git(desk: Desk, line: str) -> None:
    succeeds(desk, line.replace("repo", str(desk.lab["h3"].home / "repo")))


def files(desk: Desk, line: str) -> None:
    succeeds(desk, line.replace(":file", f":{desk.lab['h3'].home}/file"))
    assert (desk.lab.home / "file").read_text() == "from h3"


def scp_3(desk: Desk, line: str) -> None:
    lab = desk.lab
    lab.server("h4")
    succeeds(desk, line.replace("h3:file", f"h3:{lab['h3'].home}/file").replace("h4:file", f"h4:{lab['h4'].home}/file"))
    assert (lab["h4"].home / "file").read_text() == "from h3"


def sshfs(desk: Desk, line: str) -> None:
    if not Path("/dev/fuse").exists():
        missing("this machine has no /dev/fuse")
    lab = desk.lab
    (lab.home / "mountpoint").mkdir()
    need("sshfs")
    line = line.replace(":dir", f":{lab['h3'].home}")
    seen = succeeds(desk, f"{line} && cat mountpoint/file; {need('fusermount3', 'fusermount3')} -u mountpoint")
    assert seen == "from h3"


def borg(desk: Desk, line: str) -> None:
    need("borg")
    backup = desk.lab["h3"].home / "backup"
    succeeds(desk, line.replace(":repo", f":{backup}"))
    assert (backup / "README").exists()


RUNS: dict[str, tuple[Callable[[Desk, str], None], int]] = {
    "paramiko": (paramiko, 1),
    "Fabric": (fabric, 1),
    "asyncssh": (asyncssh, 1),
    "Dropbear's dbclient": (dbclient, 1),
    "PuTTY's plink": (plink, 1),
    "ClusterShell": (clush, 1),
    "pdsh": (pdsh, 1),
    "git": (git, 1),
    "rsync": (files, 1),
    "scp": (files, 1),
    "scp between two": (scp_3, 2),
    "sftp": (sftp, 1),
    "sshfs": (sshfs, 1),
    "borg": (borg, 1),
}


@pytest.mark.parametrize("program", [program for program in LINES if program != "Ansible"])
def test_each_program(desk: Desk, program: str) -> None:
    run, times = RUNS[program]
    (line,) = LINES[program]
    run(desk, line)
    logins = desk.logins()
    assert logins["h1"] == [desk.other] * times
    assert logins["h3"] == [desk.lab.user]


# Ansible: many hosts behind one bastion


def inventory(desk: Desk, hosts: int) -> None:
    """So many names of h3, which Ansible takes for as many hosts."""
    lab = desk.lab
    names = [f"t{number}" for number in range(hosts)]
    lab.host(" ".join(names), Port=lab["h3"].port, HostKeyAlias="h1+h3")
    lines = [f"{name} ansible_python_interpreter={sys.executable}" for name in names]
    (lab.home / "hosts").write_text("\n".join([*lines, "[all:vars]", *LINES["Ansible"], ""]))
    lab.write_config()


def ansible(desk: Desk, *words: str, pipelining: bool) -> str:
    need("ansible")
    settings = {
        "ANSIBLE_PIPELINING": str(pipelining),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",  # not its own: each of its connections is a relay
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_TIMEOUT": "60",  # seconds, ssh's ConnectTimeout: twenty logins at once take a busy machine 10
    }
    line = shlex.join(
        ["env", *(f"{name}={value}" for name, value in settings.items()), "ansible", "-i", "hosts", "all", *words]
    )
    ran = desk.run(line)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def test_ansible_logs_in_to_the_bastion_once_for_twenty_hosts(desk: Desk) -> None:
    inventory(desk, 20)
    said = ansible(desk, "-f", "20", "-m", "raw", "-a", "echo $SERVER", pipelining=True)
    assert said.replace("\r", "").count("\nh3\n") == 20  # (a newer Ansible leaves the \r out)
    logins = desk.logins()
    assert logins["h1"] == [desk.other]
    assert len(logins["h3"]) == 20
    assert desk.run("pyrelay -O exit").returncode == 0
    assert desk.lab.remaining(10) == {}


def test_ansible_without_pipelining_and_without_a_master_leaves_nothing(desk: Desk) -> None:
    inventory(desk, 3)
    said = ansible(desk, "-f", "3", "-m", "ping", pipelining=False)
    assert said.count('"ping": "pong"') == 3
    logins = desk.logins()
    assert logins["h1"] == [desk.other]
    assert len(logins["h3"]) > 9  # a directory, a file, the module, and away with it: each by a connection of its own
    assert desk.run("pyrelay -O exit").returncode == 0
    assert desk.lab.remaining(10) == {}
