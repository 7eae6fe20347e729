"""The method publickey (RFC 4252 section 7): which algorithm signs, and what a key may cost before it does.

A key that costs a person something (a passphrase, a touch, a confirmation) is
offered unsigned first; nobody types or touches for one that the server would
refuse. So is one whose signature might cost a try that the question does not
cost. Any other key signs at once, which saves a round trip.
"""

from __future__ import annotations

from collections import deque

from relay.errors import RelayError
from relay.ssh.login.agent import PATIENCE, Agent, AgentFailed, socket_path
from relay.ssh.login.identities import gather
from relay.ssh.login.keyfile import BadFile
from relay.ssh.login.waiting import AgentWait
from relay.ssh.memory import today
from relay.ssh.pubkey import CERT_SUFFIX, MIN_RSA_BITS, BadKey, string
from relay.ssh.trust.known_hosts import match_pattern
from relay.ssh.wire.userauth import Failure, More, Success, who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import HopSettings
    from relay.ssh.login.client import Client
    from relay.ssh.login.identities import Identity
    from relay.ssh.login.keyfile import PrivateKey
    from relay.ssh.memory import Shown
    from relay.ssh.pubkey import PublicKey
    from relay.ssh.wire.userauth import Answer, Dialogue

_AGENT_SECONDS = 20.0  # for an agent to answer; signatures may take longer, as a person may be asked
_LOCKED = "the agent has not listed its keys yet: does it ask you to unlock it?"
_HOSTBOUND = "publickey-hostbound-v00@openssh.com"  # OpenSSH's PROTOCOL, section 3.1
_QUESTIONS_ARE_FREE = (10, 6)  # from this OpenSSH on, for some keys
_RSA_SHA2 = ("rsa-sha2-512", "rsa-sha2-256")  # RFC 8332


class Unusable(Exception):
    """A key that cannot sign, and why; the next one may."""


class PublicKeys:
    """The keys for one hop, offered one at a time.

    offered: those that the server has been asked about. ignored: the others,
    and what kept them from being offered or from signing. problems: those,
    and what else could not be used. All in words. last: the fingerprint of the key
    that signed last, and by which algorithm. refused: what `exactly` calls those that the server has refused today.
    """

    def __init__(self, dialogue: Dialogue, settings: HopSettings, client: Client, shown: Shown | None) -> None:
        """shown: what the hop has shown before, None where it is not known yet."""
        self.last = "", ""
        self._skipped = client.skips
        self.began_in_order = True  # the first key that was tried was the first in order
        self.offered: list[str] = []
        self.refused: list[str] = []
        self.problems: list[str] = []
        self.ignored: list[str] = []
        self._dialogue = dialogue
        self._settings = settings
        self._progress = client.progress
        self._prompt = client.prompt
        self._keyring = client.keyring
        self._writes = client.writes
        self._shown = shown
        self._who = who(settings)
        self._agent: Agent | None = None
        self._untried: deque[Identity] | None = None
        self._tried: list[Identity] = []

    def close(self) -> None:
        """Leave the agent."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def foreign(self) -> Sequence[tuple[bytes, str]]:
        """The agent's keys of types that our client lacks, as blobs, each with its comment."""
        self._all()
        return self._agent.foreign if self._agent is not None else ()

    def start_over(self) -> None:
        """The server wants one more key (AuthenticationMethods publickey,publickey): those not tried, then the others.

        After pubkey_reset in sshconnect2.c.
        """
        self._skipped = ""
        if self._untried is not None:
            self._untried.extend(self._tried)
            self._tried.clear()

    def attempt(self) -> Answer | None:
        """Offer the next key, and sign with it if the server accepts it. None: no key is left."""
        untried = self._all()
        while untried:
            answer = self._next(untried.popleft())
            if answer is not None:
                return answer
        return None

    def attempt_remembered(self) -> Answer | None:
        """Try the key that logged in before. None: ssh might log in with another one now.

        That is the case if the key is not there any more, or comes behind one that is not known to be refused. A hop
        may take a key that it has refused: a refusal counts for the day.
        A key that needs no person signs at once. Any other key is offered first, so that nobody is asked in vain.
        """
        untried, shown = self._all(), self._shown
        assert shown is not None  # noqa: S101  (for the type checker: the caller has looked)
        day, *refused = shown.refused.split(" ")
        if day != today():
            refused = []
        for identity in untried:
            public = identity.public
            if public is None:
                return None
            if (refused and exactly(public) in refused) or self._cannot_sign(public, shown):
                continue
            if name_of(public.fingerprint(), public.type) != name_of(shown.key, shown.algorithm):
                return None
            self.began_in_order = untried[0] is identity
            untried.remove(identity)
            answer = self._next(identity, remembered=True)
            if answer is not None and not self.began_in_order:
                self.refused = [*refused, *self.refused]
            return answer
        return None

    def _cannot_sign(self, public: PublicKey, shown: Shown) -> bool:
        """Whether ssh_config, or what the server has taken before, rules out every signature by a key."""
        accepted, taken = accepted_algorithms(self._settings), self._taken(shown.sig_algs)
        return bool(too_short(public, self._settings)) or not signature_algorithms(public.type, accepted, taken)

    def _taken(self, said: str | None) -> list[str] | None:
        """What the server takes that has said this in its server-sig-algs."""
        if said is None:
            return None
        # OpenSSH 7.4 takes them and forgets to say so (compat.c, SSH_BUG_SIGTYPE74).
        more = _RSA_SHA2[::-1] if "OpenSSH_7.4" in self._dialogue.server_version else ()
        return [*said.split(","), *more]

    def is_out_of_date(self) -> bool:
        """Whether the key that was sent ahead would sign otherwise, now that the server has said what it takes."""
        public = self._tried[-1].public
        if public is None:
            return False
        try:
            algorithm = self._algorithm(public, remembered=False)
        except Unusable:
            return False
        return algorithm != self.last[1] or self.bound_to_host(remembered=True) != self.bound_to_host(remembered=False)

    def tries_are_dear(self) -> bool:
        """Whether a signature that the server refuses costs one of its tries, a question does not, and more may follow.

        OpenSSH 10.6 and later count questions by themselves (max-pk-ok of PubkeyOptions, sshd_config(5)).
        """
        if self._prompt.batch and not self._untried:
            return False
        from relay.config.version import number  # a remembered hop does not need it

        return number(self._dialogue.server_version) >= _QUESTIONS_ARE_FREE

    def _all(self) -> deque[Identity]:
        if self._untried is None:
            self._untried = deque(self._prepare())
            if self._skipped:
                self._skip()
        return self._untried

    def _skip(self) -> None:
        """Count the key that was refused on another connection as tried."""
        for identity in list(self._all()):
            public = identity.public
            if public is not None and name_of(public.fingerprint(), public.type) == self._skipped:
                self._all().remove(identity)
                self._tried.append(identity)
                self.offered.append(str(identity))
                self.refused.append(exactly(public))

    def _next(self, identity: Identity, *, remembered: bool = False) -> Answer | None:
        """The answer to one key; None when it cannot sign."""
        self._tried.append(identity)
        try:
            answer = self._try(identity, remembered=remembered)
        except Unusable as error:
            self._ignore(f"{identity}: {error}")
            return None
        if isinstance(answer, Failure) and not answer.partial and identity.public is not None:
            self.refused.append(exactly(identity.public))
        return answer

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        self._progress.note(1, text)

    def _ignore(self, text: str) -> None:
        self.ignored.append(text)
        self._progress.learn("remark", f"a key is ignored: {text}")
        self._problem(text)

    def _prepare(self) -> list[Identity]:
        """What there is to offer, in order."""
        held = []
        path = socket_path(self._settings.get("identityagent"), self._settings.environ)
        if path is not None:
            try:
                self._agent = Agent(path, self._progress.left(_AGENT_SECONDS))
                with AgentWait(self._prompt, self._progress, _LOCKED, self._time_to_list) as waiting:
                    self._agent.bind(*self._dialogue.session, waiting)
                    held = self._agent.keys(waiting)
            except AgentFailed as error:
                self._problem(f"the agent cannot be used: {error}")
                self.close()
        found = gather(self._settings, held)
        for problem in found.problems:
            self._ignore(problem)
        return found.identities

    def _time_to_list(self) -> float:
        """Seconds for an agent to list its keys, of which PATIENCE are over."""
        return self._progress.left(_AGENT_SECONDS - PATIENCE)

    def _algorithm(self, public: PublicKey, *, remembered: bool) -> str:
        """The algorithm for a signature by that key. remembered: it has got in before. Raises Unusable."""
        known = self._shown.algorithm if remembered and self._shown is not None else ""
        if public.plain == "ssh-rsa" and not known:  # others sign in one way only, whatever the server says
            self._dialogue.await_extensions()
        if short := too_short(public, self._settings):
            raise Unusable(short)
        taken = [known.removesuffix(CERT_SUFFIX)] if known else self._taken(self._dialogue.extension("server-sig-algs"))
        algorithms = signature_algorithms(public.type, accepted_algorithms(self._settings), taken)
        if not algorithms and known:  # ssh_config has changed since
            return self._algorithm(public, remembered=False)
        if not algorithms:
            raise Unusable("no signature algorithm that both PubkeyAcceptedAlgorithms and the server take")
        return algorithms[0]

    def _try(self, identity: Identity, *, remembered: bool) -> Answer | None:
        """Ask the server about a key, sign, return the answer. remembered: it has got in before. Raises Unusable."""
        public = identity.public
        if public is None:  # then nothing can be asked: the passphrase comes first
            public = self._unlock(identity).public
            identity = identity._replace(public=public)
        algorithm = self._algorithm(public, remembered=remembered)
        key = string(algorithm.encode()) + string(public.blob)
        self.offered.append(str(identity))
        request = self._dialogue.request if self._untried and not remembered else self._dialogue.request_last
        costs = identity.costs and not self._keyring.holds(identity)
        if costs or (not remembered and self.tries_are_dear()):
            self._progress.note(1, f"offering {identity}")
            answer = self._dialogue.request("publickey", b"\0" + key)
            if not isinstance(answer, More):
                return answer
            # SSH_MSG_USERAUTH_PK_OK names what was offered. Some servers give the key's type as the algorithm.
            answer.body.string()
            if answer.body.string() != public.blob:
                raise BadKey("it takes another key than was offered")
            self._progress.note(1, f"the server takes {identity}")
            request = self._dialogue.request_last
        else:
            self._progress.note(1, f"trying {identity}")
        method, bound = "publickey", b""
        if self.bound_to_host(remembered=remembered):
            method, bound = _HOSTBOUND, string(self._dialogue.session[0])
        self.last = public.fingerprint(), algorithm
        fields = b"\1" + key + bound
        signature = self._sign(identity, self._dialogue.to_be_signed(method, fields), algorithm)
        answer = request(method, fields + string(signature))
        if identity.agent is None and (isinstance(answer, Success) or (isinstance(answer, Failure) and answer.partial)):
            self._give_to_agent(identity)
        return answer

    def _give_to_agent(self, identity: Identity) -> None:
        """AddKeysToAgent: the server has taken this key from a file."""
        if not self._writes or self._settings.get("addkeystoagent") in {"", "no", "false"}:
            return
        from relay.ssh.login.adding import add  # few want it

        add(self._settings, self._unlock(identity), identity.path, self._progress, self._prompt)

    def bound_to_host(self, *, remembered: bool = False) -> bool:
        """Whether signatures name the host key, too; keys of a forwarded agent may demand it.

        remembered: a server that is remembered need not have said so yet.
        """
        known = self._dialogue.extension("publickey-hostbound@openssh.com") == "0"
        known = known or (remembered and self._shown is not None and self._shown.hostbound)
        return known and self._settings.get("pubkeyauthentication") != "unbound"

    def _sign(self, identity: Identity, data: bytes, algorithm: str) -> bytes:
        """Have the key's holder make the signature. Raises Unusable."""
        if identity.agent is None:
            return self._unlock(identity).sign(data, algorithm)
        if self._agent is None:
            raise Unusable("the agent has gone")
        touch = identity.agent.plain.startswith("sk-")
        words = "touch your security key" if touch else "the agent has not signed yet: does it ask you to confirm?"
        self._progress.stage("waiting for the agent's signature")
        try:
            with AgentWait(self._prompt, self._progress, f"{words} ({identity})", self._progress.left) as waiting:
                signature = self._agent.sign(identity.agent, data, algorithm, waiting)
        except AgentFailed as error:
            self._progress.stage("login")
            raise Unusable(f"the agent does not sign with it: {error}") from error
        self._progress.stage("login")  # not when time is up: what it was up for is to be said
        return signature

    def _unlock(self, identity: Identity) -> PrivateKey:
        """The private key of an identity file; its passphrase is asked for. Raises Unusable."""
        try:
            key = self._keyring.unlock(identity, self._who, self._settings.number("numberofpasswordprompts", 3))
        except BadFile as error:
            raise Unusable(str(error)) from error
        except RelayError as error:
            raise Unusable(f"no passphrase: {error.cause}") from error
        if identity.public is not None and not key.public.has_same_key(identity.public):
            raise Unusable("the private key is not that of the public key beside it")
        return key


def name_of(fingerprint: str, kind: str) -> str:
    """What a key is called among others: a certificate has its key's fingerprint. kind: its type, or how it signs."""
    return fingerprint + (CERT_SUFFIX if kind.endswith(CERT_SUFFIX) else "")


def exactly(public: PublicKey) -> str:
    """What a key or certificate is called among others; two certificates of one key have two such names."""
    from relay.ssh.digest import Sha256  # --explain needs none

    return Sha256(public.blob).digest().hex()


def too_short(public: PublicKey, settings: HopSettings) -> str:
    """Why RequiredRSASize keeps a key from being offered, or ""."""
    smallest = settings.number("requiredrsasize", MIN_RSA_BITS)
    if public.plain != "ssh-rsa" or public.bits >= smallest:
        return ""
    return f"it has {public.bits} bits (RequiredRSASize {smallest})"


def accepted_algorithms(settings: HopSettings) -> list[str] | None:
    """PubkeyAcceptedAlgorithms, for `signature_algorithms`: "-*" leaves none. None if ssh does not say."""
    said = settings.all("pubkeyacceptedalgorithms")
    return said[0].split(",") if said else None


def signature_algorithms(key_type: str, accepted: Sequence[str] | None, taken: Sequence[str] | None) -> list[str]:
    """How a key or certificate of that type may sign, the best first (key_sig_algorithm in sshconnect2.c).

    accepted: PubkeyAcceptedAlgorithms, patterns allowed; None is all but
    SHA-1. taken: the server's server-sig-algs (RFC 8308 section 3.1), None
    when it sent none: then SHA-1 is what a server of that age takes, if it is
    accepted at all, and else SHA-2 is worth a try.
    """
    if not key_type.startswith("ssh-rsa"):
        return [key_type] if accepted is None or any(_matches(key_type, pattern) for pattern in accepted) else []
    suffix = CERT_SUFFIX if key_type.endswith(CERT_SUFFIX) else ""
    mine = [name + suffix for name in _RSA_SHA2]
    if accepted is not None:
        candidates = [*mine, key_type]
        mine = [name for pattern in accepted for name in candidates if _matches(name, pattern)]
    if taken is None:
        return sorted(dict.fromkeys(mine), key=lambda name: name != key_type)
    return [name for name in dict.fromkeys(mine) if name.removesuffix(CERT_SUFFIX) in taken]


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern of a list of algorithms allows one (match.c, match_pattern_list)."""
    return match_pattern(name.encode(), pattern.encode())
