"""The target's host keys, for ssh's KnownHostsCommand: `ssh h1/h2/h3` trusts what `ssh h3` trusts.

ssh runs this twice for a connection, so it imports next to nothing: no
paramiko, no subprocess, one `ssh -G`, no network.
"""

from __future__ import annotations

import os
import sys

from relay.config.lookup import Query, no_ssh
from relay.config.settings import HopSettings
from relay.config.settings import parse as parse_settings
from relay.errors import RelayError, printable
from relay.spec.route import RouteError, parse
from relay.ssh.pubkey import BadKey, TooShort, Unsupported
from relay.ssh.trust import known_hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.spec.options import Options
    from relay.spec.route import Element


def lines(options: Options) -> bytes:
    """What the user's files hold for the target of a route, as lines for the name that ssh asks for.

    That name is options.known_hosts, and the route stands beside it, as it was
    typed (ssh hands the name over in lower case). Else it is
    options.destination: the route, or "[route]:port" when ssh was given
    another port than 22. Nothing when no key is known, or when the name is
    not a route (then it is not a target of ours). Raises RelayError when
    ssh_config or one of the files cannot be read.
    """
    host, port = (options.destination, options.port) if options.known_hosts else split(options.destination)
    try:
        target = parse(host, port, options.delimiters).target
    except RouteError:
        return b""
    settings = _ask_ssh(target, options)

    def note(text: str) -> None:
        if options.verbosity >= 1:
            sys.stderr.write(f"pyrelay: {text}\n")

    asked = os.fsencode(options.known_hosts or options.destination)
    return b"".join(
        b" ".join((line.marker.encode(), asked, line.key_text()) if line.marker else (asked, line.key_text())) + b"\n"
        for line in _known(settings, note)
    )


def split(name: str) -> tuple[str, int]:
    """A name as ssh asks for it, and the port in it: "[h1/h3]:2200" (misc.c, put_host_port), 22 when it has none.

    A route may have brackets of its own: "[2001:db8::1]:2022+h3" has no port
    in this sense, and in "[[a]+[b]]:2200" the outer ones go.
    """
    inner, bracket, port = name.rpartition("]:")
    if not (name.startswith("[") and bracket and port.isdecimal() and port.isascii() and 0 < int(port[:6]) < 65536):
        return name, known_hosts.SSH_PORT
    depth = 0
    for char in inner[1:]:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if depth < 0:  # the first bracket ends before the last
            return name, known_hosts.SSH_PORT
    return inner[1:], int(port)


def _known(settings: HopSettings, note: Callable[[str], object]) -> list[known_hosts.Line]:
    """The good lines for a host. A key that is known without a port counts where none is known with it, as for ssh."""
    host = known_hosts.lowered(settings.hostname)
    alias = settings.get("hostkeyalias")
    own, system = settings.paths("userknownhostsfile"), settings.paths("globalknownhostsfile")
    files = [data for _, data in known_hosts.read_files(own, system, note)]
    if alias or settings.port == known_hosts.SSH_PORT:
        return _matching(files, alias or host)
    found = _matching(files, known_hosts.with_port(host, settings.port))
    if all(line.marker for line in found):
        found += _matching(files, host)
    return found


def _matching(files: list[bytes], host: str) -> list[known_hosts.Line]:
    """The lines of files that are about host and hold a key, or may hold one to ssh."""
    found = []
    for data in files:
        for line in known_hosts.about(data, os.fsencode(host)):
            try:
                if not line.error:
                    line.key()
                    found.append(line)
            except TooShort:
                continue
            except Unsupported:  # ssh may know the type; where it does, another key of the host's has changed
                found.append(line)
            except BadKey:
                continue
    return found


def _ask_ssh(target: Element, options: Options) -> HopSettings:
    """What ssh_config gives the target. Raises RelayError; ssh itself says on stderr what is wrong with the file."""
    query = Query(target, options)
    read, write = os.pipe()
    try:
        # os.posix_spawn: importing subprocess takes longer than all that is done here.
        child = os.posix_spawnp("ssh", query.argv(), os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    except OSError as error:
        os.close(read)
        raise no_ssh(error, "target") from None
    finally:
        os.close(write)
    with open(read, "rb") as output:
        said = output.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise RelayError(f"ssh_config of {printable(target.host)} cannot be read")
    return HopSettings(target.host, parse_settings(said))
