"""The private keys that have been unlocked: a passphrase is asked for once, however many hops take the key."""

from __future__ import annotations

import os

from relay.run.prompt import NobodyToAsk
from relay.ssh.login.keyfile import BadFile, WrongPassphrase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.run.prompt import Prompt
    from relay.ssh.login.identities import Identity
    from relay.ssh.login.keyfile import PrivateFile, PrivateKey

# Bytes of a file's name that ssh asks with (load_identity_file in sshconnect2.c). Askpass programs such as ksshaskpass
# look passphrases up by that sentence.
_SHOWN = 100


class Keyring:
    """What is unlocked, by the name of its file; for one run of the program."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._keys: dict[str, PrivateKey] = {}

    def holds(self, identity: Identity) -> bool:
        """Whether the identity's file has been unlocked."""
        return identity.agent is None and identity.path in self._keys

    def unlock(self, identity: Identity, who: str, tries: int) -> PrivateKey:
        """The identity's private key; its passphrase is asked for, at most `tries` times.

        who: for whom, which the question says. An empty answer gives up, as
        with ssh (load_identity_file in sshconnect2.c). Raises BadFile, and
        NobodyToAsk and Cancelled of the prompt.
        """
        key = self._keys.get(identity.path)
        if key is None:
            if identity.private is None:
                raise BadFile("there is no private key")
            key = self._open(identity.private, identity.path, who, tries)
            self._keys[identity.path] = key
        return key

    def _open(self, private: PrivateFile, path: str, who: str, tries: int) -> PrivateKey:
        """The key in a file, with a person's help if it is encrypted."""
        if not private.encrypted:
            return private.unlock()
        for _ in range(tries):
            answer = self._prompt.ask(
                f"passphrase for key '{path}' ({who}): ",
                askpass=f"Enter passphrase for key '{os.fsdecode(os.fsencode(path)[:_SHOWN])}': ",
            )
            if not answer:
                raise NobodyToAsk("none was given")
            try:
                return private.unlock(os.fsencode(answer))
            except WrongPassphrase:
                self._prompt.tell(f"wrong passphrase for key '{path}'")
        raise NobodyToAsk("none was right")
