"""Logging in to a hop, as OpenSSH's client does: which method is tried when, and the words of a refusal.

After userauth and authmethod_get in sshconnect2.c. This module knows
the methods' names and their order; what each does stands in a file of its own.
"""

from __future__ import annotations

from relay.errors import RelayError, Unserved, printable
from relay.run.prompt import NobodyToAsk
from relay.ssh.login.asked import Interactive, Password
from relay.ssh.login.methods import METHODS, OURS, allowed
from relay.ssh.login.publickey import PublicKeys, name_of
from relay.ssh.memory import CHANNEL, KEY, Shown, today
from relay.ssh.pubkey import BadKey
from relay.ssh.record import Record
from relay.ssh.wire.userauth import Dialogue, Failure, LinkLost, More, Success

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from relay.config.settings import HopSettings
    from relay.ssh.login.client import Client
    from relay.ssh.wire.opening import Opening
    from relay.ssh.wire.transport import Transport
    from relay.ssh.wire.userauth import Answer

# ssh_config(5), PreferredAuthentications, without the methods that are not available here.
_MOST_STEPS = 16  # logins that a server may grant and still want another; sshd's AuthenticationMethods have a few
_MOST_NAMED = 2  # keys that an error lists; -v has a line for each


class AheadRefused(RelayError):
    """The server has refused the key that was sent ahead, and ssh might not have begun with that one.

    The refusal has cost one of the server's tries (MaxAuthTries), and a person may need all of them: the caller logs in
    on another connection, with nothing sent ahead and without this key. key: its name (publickey.name_of), or "" where
    the server only wants another signature by it.
    """

    def __init__(self, error: RelayError, key: str) -> None:
        super().__init__(error.cause, hint=error.hint)
        self.key = key


class LoggedIn(Record):
    """A login that got in.

    opening: the channel that was asked for along with it. shown: what the hop has shown in it.
    """

    opening: Opening | None
    shown: Shown


def login(
    transport: Transport,
    settings: HopSettings,
    client: Client,
    *,
    shown: Shown | None = None,
    ask: Callable[[], Opening] | None = None,
) -> LoggedIn:
    """Log in over a transport whose host key has been verified.

    shown: what the hop has shown before, None where it is not known yet. ask:
    asks for the channel that is wanted next, where that may travel with a login.
    Raises RelayError, which says what was tried and what the server would have
    taken; LinkLost when the link ended instead; AheadRefused.
    """
    return _Login(transport, settings, client, shown, ask).run()


class _Login:
    """One login."""

    def __init__(
        self,
        transport: Transport,
        settings: HopSettings,
        client: Client,
        shown: Shown | None,
        ask: Callable[[], Opening] | None,
    ) -> None:
        progress, prompt = client.progress, client.prompt
        self._client = client
        self._shown = shown
        self._settings = settings
        self._progress = progress
        self._prompt = prompt
        self._banner_begun = False
        self._dialogue = Dialogue(transport, settings.user, progress, self._show_banner, ask)
        self._keys = PublicKeys(self._dialogue, settings, client, shown)
        self._password = Password(self._dialogue, settings, prompt)
        self._interactive = Interactive(self._dialogue, settings, prompt)
        self._attempts = {
            "publickey": self._keys.attempt,
            "keyboard-interactive": self._interactive.attempt,
            "password": self._password.attempt,
        }
        self._unasked: NobodyToAsk | None = None
        if prompt.batch or settings.yes("batchmode"):
            self._unasked = NobodyToAsk("BatchMode")
            for name in ("keyboard-interactive", "password"):
                del self._attempts[name]
        self._told: list[str] = []  # of keys that were ignored, what was printed
        self._taken: tuple[str, ...] = ()  # the methods that the server takes, as it said last
        self._granted: list[str] = []  # those it has granted, which were not enough
        self._first = "", "", ""  # the first one that it has granted, its key, and how that signed
        self._refused_before = ""  # the keys that it has refused before that one, as Shown has them

    def run(self) -> LoggedIn:
        """Log in or raise."""
        try:
            method = self._run()
            self._grant(method)
            return LoggedIn(self._dialogue.opening, self._now_shown())
        except LinkLost as error:
            raise self._cut_off(error) from error
        except BadKey as error:
            raise RelayError(f"the server's message cannot be read: {error}") from error
        finally:
            self._keys.close()
            self._dialogue.leave()

    def _grant(self, method: str) -> None:
        """Note what the server has granted. What it takes first can be sent ahead; what it takes later cannot."""
        if not self._granted:
            self._first = (method, *(self._keys.last if method == "publickey" else ("", "")))
            self._refused_before = " ".join([today(), *self._keys.refused]) if self._keys.refused else ""
        self._granted.append(method)

    def _now_shown(self) -> Shown:
        """What the hop has shown: what it took first, and what it says of keys."""
        method, key, algorithm = self._first
        dialogue = self._dialogue
        in_vain = self._shown.in_vain if self._shown is not None else frozenset()
        return Shown(
            method=method,
            key=key,
            algorithm=algorithm,
            refused=self._refused_before,
            sig_algs=dialogue.extension("server-sig-algs"),
            hostbound=self._keys.bound_to_host(),
            in_vain=in_vain | {CHANNEL} if dialogue.channel_was_too_early else in_vain,
        )

    def _run(self) -> str:
        """Try the methods in order, as far as the server's answers allow; return the one that got in."""
        method, answer = self._open()
        queue: list[str] = []
        while not isinstance(answer, Success):
            if isinstance(answer, More):
                raise RelayError("the server's answer belongs to another request")
            if isinstance(answer, Failure):
                if answer.partial:
                    self._progress.note(1, f"{method} was granted; the server wants more")
                    self._grant(method or "none")
                    if len(self._granted) > _MOST_STEPS:
                        raise RelayError(f"the server wants yet another login after {_MOST_STEPS} that it has granted")
                    self._keys.start_over()
                if answer.methods != self._taken:
                    self._taken = answer.methods
                    self._leave_to_ssh()
                    queue = self._in_order()
            else:  # the method has nothing left to try
                self._attempts.pop(method, None)
            queue = [name for name in queue if name in self._attempts]
            if not queue:
                raise self._refused()
            method = queue[0]
            self._progress.note(2, f"trying {method}")
            answer = self._attempt(method)
        self._progress.note(1, f"logged in as {self._settings.user} ({method or 'none'})")
        self._progress.learn("login", f"as {self._settings.user} by {method or 'none'}")
        return method or "none"

    def _leave_to_ssh(self) -> None:
        """Raise Unserved if ssh has something to log in with that comes first, and nothing of ours has been tried."""
        if not self._dialogue.refusals and not self._granted and (reason := self._only_ssh(self._taken)):
            raise Unserved(reason)

    def _only_ssh(self, methods: Sequence[str]) -> str:
        """Why ssh should log in by one of these methods, or ""."""
        client = self._client
        if client.leave is None or client.stays:
            return ""
        algorithms = (self._dialogue.extension("server-sig-algs") or "").split(",")
        return client.leave(self._settings, methods, algorithms, self._keys.foreign)

    def _open(self) -> tuple[str, Answer | None]:
        """The first request and its answer, which says what the server takes. It travels with the service request.

        It is `none`, as with ssh; or the key that has got in before, where that is the first thing to try. Raises
        AheadRefused if that is refused, unless ssh would have begun with that key, too, and for the same price.
        """
        shown = self._shown
        if shown is not None and shown.takes(KEY) and self._in_order()[:1] == [shown.method] == ["publickey"]:
            try:
                answer = self._keys.attempt_remembered()
            except LinkLost as error:
                if error.refused:
                    raise AheadRefused(self._cut_off(error), name_of(shown.key, shown.algorithm)) from error
                raise
            if isinstance(answer, Failure) and not answer.partial:
                self._taken = answer.methods
                if self._keys.is_out_of_date():
                    raise AheadRefused(self._refused(), "")
                in_order = "publickey" in self._in_order() and self._keys.began_in_order
                if not in_order or self._keys.tries_are_dear() or self._only_ssh(["publickey"]):
                    raise AheadRefused(self._refused(), name_of(shown.key, shown.algorithm))
                self._taken = ()
            if answer is not None:
                return "publickey", answer
        return "", self._dialogue.request("none")

    def _attempt(self, method: str) -> Answer | None:
        """The answer to one attempt; None when there is nothing left to try by that method.

        If a person is asked because a key cannot be used, they are told why it cannot.
        """
        if method != "publickey" and "publickey" in self._in_order():
            self._tell_of_keys()
        try:
            return self._attempts[method]()
        except NobodyToAsk as error:
            self._unasked = error
            return None

    def _tell_of_keys(self) -> None:
        """Say which keys were ignored, and why; under -v it has been said, and -q and a low LogLevel silence it."""
        for text in self._keys.ignored:
            if text not in self._told and (
                self._progress.verbosity >= 1 or self._progress.note(0, f"a key is ignored: {text}")
            ):
                self._told.append(text)

    def _in_order(self) -> list[str]:
        """The methods that the server takes and ssh_config allows, in the order of PreferredAuthentications.

        A server that names none gets all (authmethod_get).
        """
        ours = [name for name in allowed(self._settings) if name in OURS]
        return [name for name in ours if name in self._taken or not any(self._taken)]

    def _show_banner(self, line: str) -> bool:
        """Print a line of the server's banner; -q and a low LogLevel silence it (input_userauth_banner).

        It returns whether somebody can see the line: it may be a URL to visit before the server goes on.
        """
        if not self._settings.shows_banners or self._progress.verbosity < 0:
            return False
        if not self._banner_begun:
            self._banner_begun = True
            self._progress.note(0, "the server says:")
        self._progress.note(0, f"  {line}")
        return self._prompt.sees(on_stderr=True)

    def _refused(self) -> RelayError:
        """The error when the server has refused everything that could be tried."""
        from os import getuid
        from pwd import getpwuid  # a login that is not refused does not need it

        hint = ""
        by_key = "publickey" in self._in_order()
        in_vain = self._keys.offered or self._interactive.attempts or self._password.attempts
        # Where nothing was tried, what is wrong with the keys is the reason, and is said once more.
        problems = [text for text in self._keys.problems if not (in_vain and text in self._told)]
        if by_key and problems:
            hint = "; ".join(problems[:_MOST_NAMED])
        elif self._unasked is not None and not (by_key and self._keys.ignored):
            hint = self._unasked.hint
        elif by_key and not self._keys.offered and not self._keys.ignored:
            hint = "there is no key to offer: `ssh-add` one, or name its file with -i or IdentityFile"
        others = [name for name in METHODS if name not in OURS and self._settings.yes(METHODS[name])]
        if others := [name for name in others if name in self._taken]:  # with nothing at hand for them, or tried by ssh
            left = f"{' and '.join(others)} is for ssh to try: --engine ssh"
            hint = f"{hint}; {left}" if hint else left
        if not hint and not self._granted and self._settings.user == getpwuid(getuid()).pw_name:
            name = printable(self._settings.name, 60)
            hint = f"{self._settings.user} is your user here; write another as user%{name}, or as User in ssh_config"
        return RelayError(
            "; ".join([f"login as {self._settings.user} refused: Permission denied", *self._story()]), hint=hint
        )

    def _cut_off(self, error: LinkLost) -> LinkLost:
        """The error when the link ended during the login; the server may have said why."""
        hint = ""
        cause = error.cause
        if error.disconnected:
            cause = f"the server ended the login as {self._settings.user}: {cause}"
            if "too many authentication failures" in cause.lower() and len(self._keys.offered) > 1:
                hint = "IdentitiesOnly=yes offers only the keys that IdentityFile (-i) names"
        cause = "; ".join([cause, *self._story()])
        return LinkLost(cause, disconnected=error.disconnected, refused=error.refused, hint=hint)

    def _story(self) -> list[str]:
        """What the server would have taken, and what was tried, as parts of a message."""
        story = []
        if any(self._taken):
            story.append(f"the server takes {','.join(self._taken)}")
        if self._granted:
            story.append(f"{' and '.join(self._granted)} granted, which is not enough")
        offered = [printable(key) for key in dict.fromkeys(self._keys.offered)]
        if len(offered) > _MOST_NAMED:
            for key in offered:
                self._progress.note(1, f"offered: {key}")
            offered = [f"{len(offered)} keys (-v names them)"]
        for count, what in (
            (self._interactive.attempts, "keyboard-interactive"),
            (self._password.attempts, "password"),
        ):
            if count:
                offered.append(f"{what} ({count} time{'s' * (count > 1)})")
        story.append(f"offered: {', '.join(offered) or 'nothing'}")
        if self._unasked is not None and not set(self._taken).isdisjoint({"keyboard-interactive", "password"}):
            story.append(f"nobody was asked for a password: {self._unasked.cause}")
        return story
