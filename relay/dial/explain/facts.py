"""What is known of each leg of a plan before anything is dialled: the keys to offer, the host keys, the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.config.settings import is_loopback
from relay.dial.engine import memory_of
from relay.dial.plan import CLIENT, COMMAND, HOP, MASTER, PROXY, TCP, TOR
from relay.errors import Unserved, printable
from relay.spec.proxy import SOCKS4
from relay.spec.route import is_ipv4, is_ipv6, is_onion
from relay.ssh.login.agent import Agent, AgentFailed, AgentKey, socket_path
from relay.ssh.login.identities import Identity, gather
from relay.ssh.login.methods import ASKING, allowed
from relay.ssh.memory import name_of
from relay.ssh.trust import hosts_command, known_hosts, refusals
from relay.ssh.trust.known_hosts import CA, REVOKED, Entry
from relay.ssh.trust.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import HopSettings
    from relay.dial import plan as planning
    from relay.run import Run
    from relay.ssh.memory import Shown
    from relay.ssh.pubkey import PublicKey

LOOPBACK, EXEMPT = "127.0.0.1", "NoHostAuthenticationForLocalhost"
AGENT_SECONDS = 1.0  # for an agent to list its keys
KNOWN, CERTIFIED, IS_REVOKED, NEW, NOT_CHECKED = "known", "certified", "revoked", "new", "not checked"


class Key(NamedTuple):
    """A key to offer.

    key: its type and fingerprint, "" if the file does not show them before it is unlocked. signer: "the agent",
    "its file", or "its file, with a passphrase".
    """

    name: str
    key: str
    signer: str


class HostKey(NamedTuple):
    """A host key that a file holds. state: KNOWN, CERTIFIED (its CA is known) or IS_REVOKED. by: FILE:LINE."""

    key: str
    fingerprint: str
    state: str
    by: str


class HostKeys(NamedTuple):
    """What is known of a host's key.

    state: KNOWN, CERTIFIED, IS_REVOKED, NEW or NOT_CHECKED. name: what the files are searched for. then: what follows
    from the state, "" if the key is known. refused: whether the host cannot be entered.
    """

    state: str
    name: str
    keys: tuple[HostKey, ...]
    then: str
    refused: bool = False


class Leg(NamedTuple):
    """A leg. plan: the way that is chosen. looked_up: who looks the host's name up. memory: what the hop has shown."""

    plan: planning.Leg
    user: str
    looked_up: str
    keys: tuple[Key, ...]
    host_keys: HostKeys
    memory: Shown | None
    notes: tuple[str, ...]


class Reader:
    """Reads what is known of the legs of one route. `first` is the first of them."""

    def __init__(self, run: Run, first: planning.Leg) -> None:
        self._run = run
        self._memory = memory_of(run, first.reached, first.settings.hostname)
        self._jumps = ""
        self._before = ""
        self._agents: dict[str, tuple[list[AgentKey], str]] = {}

    def hop(self, leg: planning.Leg) -> Leg:
        """Return what is known of the next hop. Raises RelayError if a file cannot be read."""
        settings = leg.settings
        jumps, self._jumps = self._jumps, settings.jumps(self._jumps)
        looked_up, self._before = self._looked_up(leg), settings.name
        assert leg.entered is not None  # noqa: S101  (for the type checker: a hop's leg has one)
        if leg.entered.kind == MASTER:
            keys = HostKeys(NOT_CHECKED, "", (), "the master has checked it")
            return Leg(leg, settings.user, looked_up, (), keys, None, ())
        offered, notes = self._keys(settings)
        memory = self._memory.recall(name_of(settings, jumps)) if leg.entered.kind == CLIENT else None
        return Leg(leg, settings.user, looked_up, offered, self._hops_keys(leg), memory, notes)

    def target(self, leg: planning.Leg, typed: HopSettings) -> Leg:
        """Return what is known of the target. typed: the settings of the name that ssh was given."""
        looked_up = self._looked_up(leg)
        offered, notes = self._keys(typed)
        host_keys = self._host_keys(typed)
        if "--known-hosts" in typed.get("knownhostscommand"):  # ours: it prints the keys of the target's own name
            own = self._host_keys(leg.settings)
            host_keys = own if own.keys else host_keys
        return Leg(leg, typed.user, looked_up, offered, host_keys, None, notes)

    def _looked_up(self, leg: planning.Leg) -> str:
        """Return who looks up the host's name."""
        host, kind = leg.settings.hostname, leg.reached.kind
        if is_ipv6(host) or is_ipv4(host):
            return "an address"
        if leg.entered is not None and leg.entered.kind == MASTER:
            return "nobody"
        if kind == COMMAND:
            return "its ProxyCommand"
        if kind == TOR:
            return "Tor, an onion service" if is_onion(host) else "Tor's exit"
        if kind == PROXY:
            proxy = self._run.options.proxy
            return "the proxy" if proxy is None or proxy.kind != SOCKS4 else "the proxy (SOCKS4a)"
        return self._before if kind == HOP else "this machine"

    # Keys to offer

    def _keys(self, settings: HopSettings) -> tuple[tuple[Key, ...], tuple[str, ...]]:
        """Return the keys that would be offered, in their order, and what is wrong with others, or with all of them."""
        if settings.no("pubkeyauthentication"):
            return (), ("no key is offered: PubkeyAuthentication no", *_no_method(settings))
        if "publickey" not in allowed(settings):
            chosen = settings.get("preferredauthentications")
            return (), (f"no key is offered: PreferredAuthentications {chosen}", *_no_method(settings))
        held, failed = self._held(settings)
        found = gather(settings, held)
        notes = [f"the agent cannot be used: {failed}"] if failed else []
        keys = []
        for identity in found.identities:
            if idle := _idle(identity, settings):
                notes.append(f"{identity.name} is not offered: {idle}")
                continue
            keys.append(_key(identity))
            if identity.agent is None and identity.costs and settings.yes("batchmode"):
                notes.append(f"{identity.name} cannot be used: nobody may be asked for its passphrase (BatchMode yes)")
        return tuple(keys), tuple(map(printable, (*notes, *found.problems)))

    def _held(self, settings: HopSettings) -> tuple[list[AgentKey], str]:
        """Return the keys in the agent, and why it does not list them; each agent is asked once."""
        path = socket_path(settings.get("identityagent"), settings.environ)
        if path is None:
            return [], ""
        if path not in self._agents:
            self._agents[path] = _listed(path)
        return self._agents[path]

    # Host keys

    def _hops_keys(self, leg: planning.Leg) -> HostKeys:
        """Return what is known of a hop's key, which ssh may not check on this machine."""
        settings = leg.settings
        keys, is_checked = self._judged(settings)
        is_address = is_ipv6(settings.hostname) or is_ipv4(settings.hostname)
        may_be_here = not is_address or is_loopback(settings.hostname)
        if is_checked or not (leg.reached.kind == TCP and settings.exempts(LOOPBACK) and may_be_here):
            return keys
        if is_address:
            return HostKeys(NOT_CHECKED, "", (), EXEMPT)
        if keys.refused:  # where the name leads to is not known before it is looked up
            return keys._replace(then=f"{keys.then}, unless it is this machine ({EXEMPT})", refused=False)
        return keys

    def _host_keys(self, settings: HopSettings) -> HostKeys:
        return self._judged(settings)[0]

    def _judged(self, settings: HopSettings) -> tuple[HostKeys, bool]:
        """Return what is known of a host's key, and whether that holds even where the check of it is exempted."""
        run = self._run
        name, entries, foreign = Trust(settings, run.progress, run.prompt, children=run.children).known()
        try:
            for path in settings.paths("revokedhostkeys"):  # ssh trusts no key where it cannot read one
                hosts_command.check_readable(path, run.children)
            lists = [refusals.revoked_by(settings, entry.key, None, run.children) for entry in entries]
        except Unserved as error:
            return HostKeys(NOT_CHECKED, name, (), f"{error.cause}: for ssh to read"), True
        permitted = refusals.permitted_types(settings)
        always = [
            bool(path or refusals.too_short(entry.key, settings))
            for entry, path in zip(entries, lists, strict=True)
            if not entry.marker and entry.key.type in permitted
        ]
        return _of_known(settings, name, entries, lists, foreign), bool(always) and all(always)


def _of_known(
    settings: HopSettings, name: str, entries: Sequence[Entry], lists: Sequence[str], foreign: str
) -> HostKeys:
    """Return what follows from the keys that are known of a host.

    lists: for each of them, the file of RevokedHostKeys that revokes it, or "". foreign: as Trust.known returns it.
    """
    digest = settings.get("fingerprinthash", "sha256")
    marked = [entry.key for entry in entries if entry.marker == REVOKED]
    keys, unrevoked, no_authority = [], [], ""
    for entry, path in zip(entries, lists, strict=True):
        by = _revoked_by(entry, path, marked)
        if not by and entry.marker == CA and (why := refusals.of_authority(entry.key, settings)):
            no_authority = why
            continue
        state = IS_REVOKED if by else CERTIFIED if entry.marker == CA else KNOWN
        keys.append(HostKey(entry.key.short, entry.key.fingerprint(digest), state, by or entry.place))
        unrevoked += [] if by else [entry]
    keys = list(dict.fromkeys(keys))
    states = [key.state for key in keys]
    state = next((each for each in (KNOWN, CERTIFIED, IS_REVOKED) if each in states), NEW)
    if state in {KNOWN, CERTIFIED}:
        then = _never_trusted(settings, unrevoked)
        return HostKeys(state, name, tuple(keys), then, bool(then))
    if foreign:
        return HostKeys(NOT_CHECKED, name, tuple(keys), f"one of the type {foreign} is known, which only ssh has")
    if any(not entry.marker for entry in entries):  # the key that the host has shown is revoked
        return HostKeys(state, name, tuple(keys), "it is refused", refused=True)
    then, refused = _if_new(settings)
    then = f"{no_authority}: {then}" if no_authority else then
    return HostKeys(state, name, tuple(keys), then if state == NEW else f"another: {then}", refused)


def _revoked_by(entry: Entry, path: str, marked: Sequence[PublicKey]) -> str:
    """Return the file that revokes a key, with the line if it is of known_hosts; "" if none does.

    path: the file of RevokedHostKeys that does, or "". marked: the keys that known_hosts marks as revoked.
    """
    if entry.marker == REVOKED:
        return entry.place
    return path or (entry.place if any(entry.key.has_same_key(key) for key in marked) else "")


def _idle(identity: Identity, settings: HopSettings) -> str:
    """Return why ssh_config keeps a key from being offered, "" if it does not."""
    from relay.ssh.login.publickey import accepted_algorithms, signature_algorithms, too_short

    public = identity.public
    if public is None:
        return ""
    if short := too_short(public, settings):
        return short
    if signature_algorithms(public.type, accepted_algorithms(settings), None):
        return ""
    return "PubkeyAcceptedAlgorithms leaves no signature for it"


def _no_method(settings: HopSettings) -> tuple[str, ...]:
    """Return a note if no method of login is left, or, where nobody may be asked, none that asks nobody."""
    batch = settings.yes("batchmode")
    if any(not batch or method not in ASKING for method in allowed(settings)):
        return ()
    return (f"no method of login is left{' that asks nobody (BatchMode yes)' if batch else ''}",)


def _key(identity: Identity) -> Key:
    public = identity.public
    signer = "the agent"
    if identity.agent is None:
        signer = "its file, with a passphrase" if identity.costs else "its file"
    words = f"{public.short} {public.fingerprint()}" if public is not None else ""
    return Key(printable(identity.name), words, signer)


def _listed(path: str) -> tuple[list[AgentKey], str]:
    """Return the keys that the agent at a socket lists, and why it does not."""
    try:
        agent = Agent(path, AGENT_SECONDS)
    except AgentFailed as error:
        return [], str(error)
    try:
        return agent.keys(), ""
    except AgentFailed as error:
        late = "does not answer" in str(error)
        return [], f"{path}: it does not answer within {AGENT_SECONDS:g} second" if late else f"{path}: {error}"
    finally:
        agent.close()


def _never_trusted(settings: HopSettings, entries: Sequence[Entry]) -> str:
    """Return why no known key can be trusted: HostKeyAlgorithms leaves all out, or they are too short. Else ""."""
    if any(entry.marker == CA for entry in entries):
        return ""
    keys = [entry.key for entry in entries]
    if settings.algorithms("hostkeyalgorithms") is not None:
        permitted = refusals.permitted_types(settings)
        keys = [key for key in keys if key.type in permitted]
    if not keys:
        return "HostKeyAlgorithms leaves it out, and any other is refused"
    refused = [refusals.too_short(key, settings) for key in keys]
    return refused[0] if all(refused) else ""


def _if_new(settings: HopSettings) -> tuple[str, bool]:
    """Return what happens to a key that is not known, and whether it is refused."""
    then, refused = _strict(settings)
    if settings.named("knownhostscommand"):
        return f"unless KnownHostsCommand knows it, {then}", False
    return then, refused


def _strict(settings: HopSettings) -> tuple[str, bool]:
    """Return what StrictHostKeyChecking does to a key that is not known, and whether it is refused."""
    if not refusals.permitted_types(settings):
        return "it is refused: HostKeyAlgorithms leaves certificates only", True
    host = settings.get("hostkeyalias") or known_hosts.lowered(settings.hostname)
    try:
        refused, _ = refusals.of_new(settings, host)
    except Unserved as error:
        return f"ssh decides: {error.cause}", False
    if refused:
        return f"it is refused: {refused}", True
    if settings.strictness != "ask":
        return f"it is accepted, and added to {settings.paths('userknownhostsfile')[0]}", False
    if settings.yes("batchmode"):
        return "it is refused: nobody may be asked (BatchMode yes)", True
    return "you are asked", False
