"""Which engine carries a hop: our own client, by paramiko, or the system's ssh.

Ours is the faster one, and the rule. ssh gets a hop that ours cannot serve, by
itself or because the user says so. What can be known from ssh_config is decided
before the hop is connected to, the rest at the key exchange: always before
anything of a login.
"""

from __future__ import annotations

import os

from relay.errors import Unserved
from relay.spec.options import ENGINES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    from relay.config.settings import HopSettings
    from relay.run.children import Children
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.ssh.session import Client
    from relay.ssh.wire.channel import ChannelStream

    Stream: TypeAlias = socket | ChannelStream
    # Makes a stream to a hop, a new one each time; with the hop's own address, when the stream is TCP to it.
    Reach: TypeAlias = Callable[[], tuple[Stream, str]]

    class Hop(Protocol):
        """A hop that has been entered."""

        def forward(self, host: str, port: int, progress: Progress, netcat: str | None = None) -> Stream:
            """A stream from the hop to host and port. netcat: the command that may be run there for it."""


_AUTO, _PARAMIKO, _SSH = ENGINES

# The methods of ssh, in its order, each with the keyword that turns it on and off (sshconnect2.c, authmethods).
_METHODS = {
    "gssapi-with-mic": "gssapiauthentication",
    "hostbased": "hostbasedauthentication",
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
_OURS = frozenset({"publickey", "keyboard-interactive", "password"})
_ASKING = frozenset({"keyboard-interactive", "password"})
_AGENT_SECONDS = 2.0


class Engines:
    """What enters the hops of one route.

    chosen: one of ENGINES.
    """

    def __init__(self, chosen: str, progress: Progress, prompt: Prompt, children: Children) -> None:
        self._chosen = chosen
        self._progress = progress
        self._prompt = prompt
        self._children = children
        self._client: Client | None = None
        self._carried: Hop | None = None  # the last hop that ssh carries

    def enter(self, settings: HopSettings, reach: Reach, before: Hop | None, following: HopSettings) -> Hop:
        """The hop, by the engine that is right for it; ours has logged in then, ssh does when it forwards.

        before: the hop that this one is reached through. following: what it is
        to lead to at once. Raises RelayError.
        """
        if reason := self._reason(settings, before):
            return self.by_ssh(settings, reach, reason)
        self._progress.note(1, "carried by paramiko" + (" (--engine paramiko)" if self._chosen == _PARAMIKO else ""))
        try:
            return self._by_paramiko(settings, reach, before, following)
        except Unserved as error:
            if self._chosen == _PARAMIKO:
                error.hint = error.hint or "--engine auto leaves such a hop to ssh"
                raise
            return self.by_ssh(settings, reach, error.cause)

    def _reason(self, settings: HopSettings, before: Hop | None) -> str:
        """Why this hop is for ssh, as far as that is known before it is connected to; "" when it is not."""
        if self._chosen == _SSH:
            return "--engine ssh"
        if self._chosen == _PARAMIKO:
            return ""
        if before is not None and before is self._carried:
            # If the key exchange showed that paramiko cannot, the hop before would have to be entered once more:
            # another ssh, another login there, and whatever that asks of a person.
            return "as the hop before, which a second try would log in to again"
        return objection(settings)

    def by_ssh(self, settings: HopSettings, reach: Reach, reason: str) -> Hop:
        """The hop, by ssh, which logs in when it forwards. reason: why it is not ours."""
        from relay.dial.openssh import OpensshHop  # few hops need it

        self._progress.note(1, f"carried by ssh ({reason})")
        self._carried = OpensshHop(settings, reach, self._progress, self._children)
        return self._carried

    def _by_paramiko(self, settings: HopSettings, reach: Reach, before: Hop | None, following: HopSettings) -> Hop:
        stream, address = reach()  # first: while the connection is made, our client is still being imported

        from relay.ssh.session import Client, Session  # ssh does without paramiko

        if self._client is None:
            self._client = Client(self._progress, self._prompt, self._children)
        outer = before if isinstance(before, Session) else None
        place = following.hostname, following.port
        return Session(self._client, stream, settings, outer, address, following=place)


def objection(settings: HopSettings) -> str:
    """Why paramiko cannot serve a hop with these settings, or "" when nothing is known against it."""
    return _no_method(settings) or _no_algorithm(settings) or _token(settings)


def _no_method(settings: HopSettings) -> str:
    """PreferredAuthentications, and what turns methods off, leave only methods that are ssh's alone.

    That GSSAPIAuthentication is on says nothing: distributions turn it on for all hosts.
    """
    preferred = settings.get("preferredauthentications")
    batch = settings.yes("batchmode")
    left = [
        name
        for name in (preferred.split(",") if preferred else _METHODS)
        if name in _METHODS and settings.get(_METHODS[name]) not in {"no", "false"} and not (batch and name in _ASKING)
    ]
    if not left or not _OURS.isdisjoint(left):
        return ""
    return f"only {' and '.join(left)} may be tried"


def _no_algorithm(settings: HopSettings) -> str:
    """A list of algorithms in ssh_config has none that paramiko knows."""
    if not any(settings.chosen(key) for key in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms")):
        return ""
    from relay.ssh.session import CHOICES
    from relay.ssh.trust.hostkeys import ALGORITHMS  # only where somebody chose

    for key, known in (*((key, known) for key, (_, known) in CHOICES.items()), ("hostkeyalgorithms", ALGORITHMS)):
        wanted = settings.algorithms(key)
        if wanted is not None and not set(wanted) & set(known):
            return f"none of the {key} that ssh_config asks for is to be had by paramiko"
    return ""


def _token(settings: HopSettings) -> str:
    """The key is in a token that only ssh can use: PKCS#11, or a security key whose handle is a file."""
    if settings.get("pubkeyauthentication") in {"no", "false"}:
        return ""
    if settings.get("pkcs11provider") not in {"", "none"}:
        return "PKCS11Provider"
    files = [path for path in settings.paths("identityfile") if os.path.exists(path)]
    handles = [path for path in files if _is_security_key(path)]
    if not handles:
        return ""
    from relay.ssh.login.agent import Agent, AgentFailed, socket_path  # only where it matters
    from relay.ssh.login.identities import gather

    held = []
    agent = socket_path(settings.get("identityagent"), settings.environ)
    if agent is not None:
        try:
            connection = Agent(agent, _AGENT_SECONDS)
            held = connection.keys()
            connection.close()
        except AgentFailed:
            pass
    found = gather(settings, held).identities
    names = {identity.name for identity in found}
    if not found or (settings.chosen("identityfile") and not names.issuperset(handles)):
        return f"{handles[0]} is a security key"
    return ""


def _is_security_key(path: str) -> bool:
    """Whether a private key file is the handle of a security key, as the public key beside it says."""
    try:
        with open(f"{path}.pub", "rb") as file:
            return file.read(3) == b"sk-"
    except OSError:
        return False
