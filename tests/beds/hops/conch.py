"""An SSH server by Twisted Conch: one key logs in, and direct-tcpip channels are passed on.

    python conch.py HOSTKEY AUTHORIZED_KEYS

It prints its port, and ends with its stdin.
"""

from __future__ import annotations

import os
import sys

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.forwarding import openConnectForwardingClient
from twisted.conch.ssh.keys import Key
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO


class User(ConchUser):
    """Whoever has logged in."""

    def __init__(self) -> None:
        super().__init__()
        self.channelLookup = {b"direct-tcpip": openConnectForwardingClient}


class Realm:
    """Gives each name a User."""

    def requestAvatar(self, name: object, mind: object, *interfaces: object) -> tuple[object, User, object]:  # noqa: N802
        return interfaces[0], User(), lambda: None


class EndOfStdin(Protocol):
    """Ends the program."""

    def connectionLost(self, reason: object = None) -> None:  # noqa: N802
        if reactor.running:
            reactor.stop()


def main() -> None:
    host_key, authorized_keys = sys.argv[1:]
    known = Key.fromFile(authorized_keys)
    names = [name.encode() for name in os.environ["USERS"].split()]
    factory = SSHFactory()
    factory.portal = Portal(Realm(), [SSHPublicKeyChecker(InMemorySSHKeyDB({name: [known] for name in names}))])
    key = Key.fromFile(host_key)
    factory.publicKeys = {key.sshType(): key.public()}
    factory.privateKeys = {key.sshType(): key}
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    StandardIO(EndOfStdin())
    reactor.run()


if __name__ == "__main__":
    main()
