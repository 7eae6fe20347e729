"""What is known of a hop's names: what its known_hosts files hold, and what its KnownHostsCommand prints."""

from __future__ import annotations

from relay.errors import Unserved
from relay.ssh.trust import known_hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.ssh.pubkey import PublicKey
    from relay.ssh.trust.known_hosts import Entry


class Known:
    """Reads the files once. warn: is told of each bad line. note: of a file of the system's that may not be read.

    own, system: the names of the files. Raises RelayError when one of them cannot be read.
    """

    def __init__(
        self,
        settings: HopSettings,
        children: Children,
        warn: Callable[[str], object],
        note: Callable[[str], object],
    ) -> None:
        self.own = settings.paths("userknownhostsfile")
        self.system = settings.paths("globalknownhostsfile")
        self._settings = settings
        self._children = children
        self._warn = warn
        self._files = known_hosts.read_files(self.own, self.system, note)
        self._foreign: dict[str, str] = {}  # a type that our client lacks, by a name that has a key of it

    def by_files(self, name: str) -> list[Entry]:
        """What the files hold for a name."""
        found: list[Entry] = []
        for path, data in self._files:
            entries, complaints = self._read(name, data, path)
            found += entries
            for complaint in complaints:
                self._warn(complaint)
        return found

    def by_command(self, what: str, name: str, key: PublicKey | None) -> list[Entry]:
        """What KnownHostsCommand holds for a name; what: as for hosts_command.known_hosts. Raises RelayError."""
        if not self._settings.named("knownhostscommand"):
            return []
        from relay.ssh.trust import hosts_command  # few hops have one

        data = hosts_command.known_hosts(self._settings, self._children, what, name, key, warn=self._warn)
        return self._read(name, data, f"KnownHostsCommand-{what}")[0]

    def foreign(self, name: str) -> str:
        """The type of a key that a name has, and that ssh alone may have; "" where there is none."""
        return self._foreign.get(name, "")

    def check_foreign(self, name: str) -> None:
        """Raise Unserved where the name has a key of a type that ssh alone may have: to ssh, any other has changed."""
        if kind := self.foreign(name):
            raise Unserved(f"a key of it is known of the type {kind}, which our client lacks")

    def other_names(self, name: str, key: PublicKey) -> list[str]:
        """Where the files have a key under other names, in ssh's form."""
        return [found for path, data in self._files for found in known_hosts.other_names(data, name, key, path)]

    def is_in_a_file(self, entry: Entry) -> bool:
        """Whether an entry comes from a file, and not from the command."""
        return any(entry.path == path for path, _ in self._files)

    def _read(self, name: str, data: bytes, path: str) -> tuple[list[Entry], list[str]]:
        entries, complaints, foreign = known_hosts.lookup(data, name, path)
        if foreign:
            self._foreign[name] = foreign
        return entries, complaints


def once(tell: Callable[[str], object]) -> Callable[[str], None]:
    """Return what tells each thing once.

    (It is no method: whoever has it must not hold a hop's trust, and all that this knows, once the login is over.)
    """
    told: set[str] = set()

    def tell_once(text: str) -> None:
        if text not in told:
            tell(text)
        told.add(text)

    return tell_once
