"""The key of a shared hop: everything that decides which host it is, who logs in there, and what is trusted.

A relay may use a hop that another relay has logged in to, if its own login would have led to the same hop in the same
way. So the key holds what ssh_config says about the hop, with every file name as the relay would open it, and the way
to the hop. Where a program decides (ProxyCommand, KnownHostsCommand), the key also holds the environment that the
program would get.
"""

from __future__ import annotations

import hashlib
import os
import re

from relay.ssh.login.agent import socket_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.config.settings import HopSettings

# Variables that only tell one terminal, or one session, from another; they decide nothing. The manual lists them.
PASSING = frozenset(
    {
        "COLORFGBG",
        "COLORTERM",
        "COLUMNS",
        "GPG_TTY",
        "ITERM_SESSION_ID",
        "KITTY_PID",
        "KITTY_WINDOW_ID",
        "LINES",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_TTY",
        "STY",
        "TERM",
        "TERM_PROGRAM",
        "TERM_PROGRAM_VERSION",
        "TERM_SESSION_ID",
        "TMUX",
        "TMUX_PANE",
        "VTE_VERSION",
        "WEZTERM_PANE",
        "WINDOW",
        "WINDOWID",
        "WINDOWPATH",
        "WT_SESSION",
        "XDG_SESSION_ID",
        "XDG_VTNR",
        "_",
    }
)
# Variables that decide which host a hop is, or who logs in there, even if no program is run.
# SSH_AUTH_SOCK is not among them: what counts is the agent's socket, which IdentityAgent may name.
_MATTERS = ("HOME", "KRB5CCNAME", "TOR_SOCKS_HOST", "TOR_SOCKS_IPC_PATH", "TOR_SOCKS_PORT")
_FILES = ("certificatefile", "globalknownhostsfile", "identityfile", "revokedhostkeys", "userknownhostsfile")
_SALT = os.urandom(32)  # new in each process: nobody can guess a password from its digest


def key(settings: HopSettings, outer: str, first: Sequence[str], directory: str) -> str:
    """The key of a hop.

    outer: the key of the hop before it. first: what else decides how a first hop is reached. directory: where the
    relay's programs run. Raises RelayError when a file's name needs a variable that the relay does not have.
    """
    environ = settings.environ
    parts = [outer, settings.lines(), *(f"{name}={environ.get(name)}" for name in _MATTERS), *first]
    for keyword in _FILES:
        parts += [keyword, *settings.paths(keyword)]
    parts += ["agent", socket_path(settings.get("identityagent"), environ) or ""]
    commands = [settings.named("knownhostscommand"), settings.named("proxycommand") if not outer else ""]
    for command in commands:
        if command:
            parts += lasting(environ)
            parts.append(directory if _is_relative(command) else "")
    return digest(parts)


def lasting(environ: Mapping[str, str]) -> list[str]:
    """An environment without the variables that only tell one terminal from another."""
    return sorted(f"{name}={value}" for name, value in environ.items() if name not in PASSING)


def _is_relative(command: str) -> bool:
    """Whether a command names a file by a path that starts at its working directory: "./proxy %h"."""
    return any(
        "/" in word and word[0] not in "/~$" and "://" not in word for word in re.findall(r"[^\s'\"=;|&<>]+", command)
    )


def digest(parts: Sequence[str]) -> str:
    """A digest of some texts, as hex digits. It is of use in this process only."""
    whole = hashlib.sha256(_SALT)
    for part in parts:
        data = os.fsencode(part)
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()
