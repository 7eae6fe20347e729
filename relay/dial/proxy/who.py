"""Our side of a login to a proxy: the user, the password, and the headers that the user adds."""

from __future__ import annotations

import os

from relay.errors import RelayError, UsageError, printable, words
from relay.spec import PROXY_PASSWORD
from relay.spec.proxy import SOCKS4, check_field, check_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.dial.proxy.gss import Context
    from relay.run import Run
    from relay.spec.proxy import Proxy

MOST = 65536  # bytes; the largest file of headers


class Who:
    """The user of a proxy (None: no user is sent), and the password, tickets and headers that go with it."""

    def __init__(self, proxy: Proxy, run: Run) -> None:
        self.proxy = proxy
        self.user = proxy.user
        self.environ = run.children.environ
        self._progress = run.progress
        self._prompt = run.prompt
        self._directory = run.children.directory
        self._password = proxy.password
        self._secret = run.children.secret
        if proxy.password is not None:
            self._progress.note(
                0, f"a password on the command line can be read by everyone on this machine; ${PROXY_PASSWORD} cannot"
            )

    def isolate(self, host: str, port: int) -> None:
        """Set the user and password that give a target a circuit of its own. Tor uses them for nothing else."""
        from relay.dial.proxy.tor import isolation

        self.user, self._password = isolation(host, port)

    def note(self, text: str) -> None:
        """Print a text under -v."""
        self._progress.note(1, text)

    def password(self) -> str:
        """Return the password: from the command line, from the environment, or by asking once. Raises RelayError."""
        if self._password is None:
            password = self._secret.get(PROXY_PASSWORD)
            if password is None:
                password = self._ask()
            check_field(self.proxy.kind, "password", password)
            self._password = password
        return self._password

    def credentials(self) -> tuple[str | None, str | None]:
        """Return the user and the password for SOCKS; (None, None) for a login without. Raises RelayError."""
        if self.user is None or self.proxy.kind == SOCKS4:
            return self.user, None
        return self.user, self.password()

    def begin_kerberos(self, service: str, mechanism: bytes, flags: int) -> tuple[Context, bytes]:
        """Begin a context with the proxy. Return it and its first token. Raises RelayError.

        service: the proxy's name in Kerberos, unless the user gives one. The library may ask the KDC for a ticket.
        """
        from relay.dial.proxy.gss import KERBEROS, Context  # few users have Kerberos

        name, at, host = (self.proxy.manner.service or service).partition("@")
        host = host if at else self.proxy.host
        if not host:
            raise RelayError(f"Kerberos has no name for {self.proxy}", hint=f"--proxy-service {name}@HOST")
        self._progress.stage(f"asking Kerberos for a ticket of {name}@{host}")
        service = f"{name}@{host}"
        context = Context(service, mechanism, flags, self.environ)
        try:
            return context, context.step()
        except RelayError:
            if mechanism != KERBEROS:  # SPNEGO only says that no mechanism works; Kerberos says why
                Context(service, KERBEROS, flags, self.environ).step()
            raise

    def headers(self) -> list[str]:
        """Return the headers that the user adds to a request, those in files included. Raises RelayError."""
        found: list[str] = []
        for header in self.proxy.manner.headers:
            found += self._read(self.path(header[1:])) if header.startswith("@") else [header]
        return found

    @property
    def cacert(self) -> str | None:
        """Return the file of the authorities to trust about the proxy, None for the system's."""
        return self.proxy.manner.cacert and self.path(self.proxy.manner.cacert)

    def path(self, name: str) -> str:
        """Return a file's name as seen from the user's directory and home, which may differ from this process's."""
        if name.startswith("~/"):
            name = os.path.join(self.environ.get("HOME", "~"), name[2:])
        return os.path.join(self._directory or "", name)

    def _ask(self) -> str:
        from relay.run.prompt import NobodyToAsk

        user = printable(self.user or "")
        try:
            return self._prompt.ask(f"Password of {user} for {self.proxy}: ")
        except NobodyToAsk as error:
            cause = f"the password of {user} for {self.proxy} is not known: {error.cause}"
            raise RelayError(cause, hint=f"set ${PROXY_PASSWORD}") from error

    @staticmethod
    def _read(path: str) -> list[str]:
        """Read the headers in a file, one a line."""
        try:
            with open(path, "rb") as file:
                text = os.fsdecode(file.read(MOST))
        except OSError as error:
            raise RelayError(f"{printable(path)}: {words(error)}", place="--proxy-header") from error
        lines = [line for line in text.splitlines() if line.strip()]
        for number, line in enumerate(lines, 1):
            try:
                check_header(line)
            except UsageError as error:
                raise error.at(f"--proxy-header @{printable(path)}, header {number}") from error.__cause__
        return lines
