"""Real proxies on loopback: microsocks, Dante, ssh -D, tinyproxy and ncat, each with pyrelay's options for it."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import Lab
from peers import LOOPBACK, free_ports, need, until

USER, PASSWORD = "alice", "s3cret.1_x-y"  # tinyproxy takes no other punctuation

DANTE = """\
logoutput: {top}/dante.log
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.notprivileged: {user}
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""
TINYPROXY = """\
Listen 127.0.0.1
Port {port}
LogFile "{top}/tinyproxy.log"
LogLevel Connect
Timeout 600
MaxClients 20
StartServers 1
{more}
"""


class RealProxy:
    """A proxy that runs.

    options: what makes pyrelay use it; environment: what must be set for that.
    """

    def __init__(
        self,
        argv: list[str],
        port: int,
        protocol: str,
        user: str = "",
        *,
        host: str = LOOPBACK,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """user: whom it takes, with PASSWORD. host: what it is called. environment: its own."""
        self.port = port
        self.options = ["-X", protocol, "-x", f"{host}:{port}"]
        self.environment = {}
        if user:
            self.options += ["-P", user]
            self.environment["PYRELAY_PROXY_PASSWORD"] = PASSWORD
        # In a session of its own, since some fork: all of them end together.
        self._process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(self._listens, f"proxy ({argv[0]})")
        except BaseException:
            self.stop()
            raise

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._process.args
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0

    def stop(self) -> None:
        """Stop it; again is no harm."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def microsocks(port: int, _top: Path) -> RealProxy:
    return RealProxy([need("microsocks"), "-i", LOOPBACK, "-p", str(port)], port, "5")


def microsocks_with_password(port: int, _top: Path) -> RealProxy:
    argv = [need("microsocks"), "-i", LOOPBACK, "-p", str(port), "-u", USER, "-P", PASSWORD]
    return RealProxy(argv, port, "5", USER)


def dante(port: int, top: Path) -> RealProxy:
    """By SOCKS5 only: it takes 4a's mark of a name for an address."""
    config = top / "danted.conf"
    config.write_text(DANTE.format(top=top, port=port, user=pwd.getpwuid(os.geteuid()).pw_name))
    return RealProxy([need("danted"), "-f", str(config), "-p", str(top / "danted.pid")], port, "5")


def tinyproxy(port: int, top: Path, user: str = "") -> RealProxy:
    config = top / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(top=top, port=port, more=f"BasicAuth {user} {PASSWORD}" if user else ""))
    return RealProxy([need("tinyproxy"), "-d", "-c", str(config)], port, "connect", user)


def tinyproxy_with_password(port: int, top: Path) -> RealProxy:
    return tinyproxy(port, top, USER)


def ncat(port: int, _top: Path) -> RealProxy:
    argv = [need("ncat"), "-l", LOOPBACK, str(port), "-k", "--proxy-type", "http", "--proxy-auth", f"{USER}:{PASSWORD}"]
    return RealProxy(argv, port, "connect", USER)


PROXIES: dict[str, Callable[[int, Path], RealProxy]] = {
    "microsocks": microsocks,
    "microsocks with a password": microsocks_with_password,
    "dante": dante,
    "tinyproxy": tinyproxy,
    "tinyproxy with a password": tinyproxy_with_password,
    "ncat with a password": ncat,
}
SSH = ("ssh -D", "ssh -D by SOCKS4a")  # these need a server to log in to
ALL = (*PROXIES, *SSH)


def start(name: str, lab: Lab) -> RealProxy:
    """Start the proxy of that name; its files are in the lab."""
    port = next(free_ports())
    if name not in SSH:
        return PROXIES[name](port, lab.top)
    lab.server("gate")
    argv = [need("ssh"), "-F", str(lab.write_config()), "-N", "-D", f"{LOOPBACK}:{port}", "gate"]
    return RealProxy(argv, port, "4a" if "4a" in name else "5")
