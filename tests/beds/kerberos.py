"""Kerberos on loopback, and proxies that want it: MIT's KDC, a dante with GSS-API, a squid with negotiate and more."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import ROOT
from peers import free_ports, need, until
from proxies import PASSWORD, USER, RealProxy

REALM = "PYRELAY.TEST"
SECRET = "ticket-please"
SOCKD = ROOT / "build" / "dante" / "sockd"
HELPERS = Path("/usr/lib/squid")

KRB5 = """\
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  qualify_shortname = ""
  default_ccache_name = FILE:{top}/tickets
[realms]
  {realm} = {{
    kdc = 127.0.0.1:{port}
  }}
[domain_realm]
  localhost = {realm}
"""
KDC = """\
[kdcdefaults]
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
[realms]
  {realm} = {{
    database_name = {top}/principal
    key_stash_file = {top}/stash
    acl_file = {top}/acl
  }}
[logging]
  kdc = FILE:{top}/kdc.log
"""
DANTE = """\
logoutput: {top}/sockd.log
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: gssapi
user.privileged: {user}
user.unprivileged: {user}
client pass {{
  from: 127.0.0.0/8 to: 0.0.0.0/0
  gssapi.servicename: rcmd
  gssapi.keytab: FILE:{top}/keytab
  gssapi.enctype: {levels}
}}
socks pass {{
  from: 127.0.0.0/8 to: 0.0.0.0/0
  socksmethod: gssapi
  gssapi.servicename: rcmd
  gssapi.keytab: FILE:{top}/keytab
  gssapi.enctype: {levels}
}}
"""
SQUID = """\
http_port 127.0.0.1:{port}
pid_filename none
cache_log {top}/squid.log
access_log none
netdb_filename none
coredump_dir {top}
cache deny all
visible_hostname localhost
dns_nameservers 127.0.0.1
shutdown_lifetime 0 seconds
auth_param negotiate program {helpers}/negotiate_kerberos_auth -k {top}/keytab -s GSS_C_NO_NAME
auth_param negotiate children 2 startup=1
auth_param digest program {helpers}/digest_file_auth {top}/digest
auth_param digest children 2 startup=1
auth_param digest realm pyrelay, Basic
auth_param basic program {helpers}/basic_ncsa_auth {top}/basic
auth_param basic children 2 startup=1
auth_param basic realm pyrelay
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"""


def need_dante() -> str:
    """The dante with GSS-API that the Makefile builds. Not skipped anywhere: its lack is a failure."""
    if not SOCKD.exists():
        pytest.fail(f"{SOCKD} is not there; `make test` builds it, or says why it cannot", pytrace=False)
    return str(SOCKD)


class Realm:
    """A KDC with one user, and the services of both proxies. `environment` is what its clients need.

    top: an empty directory, which other accounts may read.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self.port = next(free_ports())
        self._ends = ExitStack()
        (top / "krb5.conf").write_text(KRB5.format(top=top, port=self.port, realm=REALM))
        (top / "kdc.conf").write_text(KDC.format(top=top, port=self.port, realm=REALM))
        self.environment = {"KRB5_CONFIG": str(top / "krb5.conf")}
        self._own = {
            **os.environ,
            **self.environment,
            "KRB5_KDC_PROFILE": str(top / "kdc.conf"),
            "KRB5RCACHENAME": "none:",
        }
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
        self._admin(
            f"addprinc -pw {SECRET} {USER}", "addprinc -randkey rcmd/localhost", "addprinc -randkey HTTP/localhost"
        )
        self._admin("addprinc -randkey nobody/localhost", f"ktadd -k {top}/keytab rcmd/localhost HTTP/localhost")
        (top / "keytab").chmod(0o644)  # squid is another account where it is started by root
        self.start("krb5kdc", "-n")
        until(lambda: self._log("kdc.log", "commencing operation"), "KDC")
        self.log_in()

    def ssh(self, user: str) -> dict[str, str]:
        """Make this host an SSH service, in which alice is that user; what its sshd needs in its environment."""
        self._admin("addprinc -randkey host/localhost", f"ktadd -k {self.top}/host-keytab host/localhost")
        config = (self.top / "krb5.conf").read_text()
        rule = f"    auth_to_local = RULE:[1:$1]({USER})s/.*/{user}/\n    auth_to_local = DEFAULT\n"
        server = self.top / "krb5-server.conf"
        server.write_text(config.replace("    kdc = ", f"{rule}    kdc = "))
        return {
            "KRB5_CONFIG": str(server),
            "KRB5_KTNAME": f"FILE:{self.top}/host-keytab",
            "KRB5RCACHENAME": "none:",
        }

    def log_in(self, *options: str, cache: Path | None = None) -> dict[str, str]:
        """Get a ticket; the environment of whoever has it. options: kinit's."""
        where = f"FILE:{cache or self.top / 'tickets'}"
        self._run("kinit", *options, "-c", where, USER, stdin=f"{SECRET}\n")
        return {**self.environment, "KRB5CCNAME": where}

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program that ends with the realm, in a session of its own."""
        process = subprocess.Popen(
            [need(program), *arguments],
            env=self._own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._ends.callback(_end, process)
        return process

    def dante(self, levels: str = "clear integrity confidentiality") -> RealProxy:
        """A SOCKS5 proxy that takes GSS-API only, with these levels of protection."""
        port = next(free_ports())
        user = pwd.getpwuid(os.geteuid()).pw_name
        config = self.top / f"sockd-{port}.conf"
        config.write_text(DANTE.format(top=self.top, port=port, user=user, levels=levels))
        return self._proxy([need_dante(), "-f", str(config), "-p", str(self.top / f"sockd-{port}.pid")], port, "5")

    def squid(self) -> RealProxy:
        """An HTTP proxy that takes negotiate, digest and basic; alice has `PASSWORD` with the last two."""
        port = next(free_ports())
        (self.top / "digest").write_text(f"{USER}:{PASSWORD}\n")
        crypted = subprocess.check_output([need("openssl"), "passwd", "-apr1", PASSWORD], text=True)
        (self.top / "basic").write_text(f"{USER}:{crypted}")
        config = self.top / "squid.conf"
        config.write_text(SQUID.format(top=self.top, port=port, helpers=HELPERS))
        self.top.chmod(0o777)  # for its log, where it is another account
        return self._proxy([need("squid"), "-N", "-f", str(config)], port, "connect")

    def _proxy(self, argv: list[str], port: int, protocol: str) -> RealProxy:
        """A proxy that is a service of the realm."""
        proxy = RealProxy(argv, port, protocol, host="localhost", environment=self._own)
        self._ends.callback(proxy.stop)
        return proxy

    def stop(self) -> None:
        """End everything."""
        self._ends.close()

    def _admin(self, *queries: str) -> None:
        for query in queries:
            self._run("kadmin.local", "-r", REALM, "-q", query)

    def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        done: Any = subprocess.run(
            [need(program), *arguments], input=stdin, env=self._own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (program, done.stdout, done.stderr)

    def _log(self, name: str, words: str) -> bool:
        log = self.top / name
        return log.exists() and words in log.read_text()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
