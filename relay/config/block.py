"""The block of ssh_config that `--ssh-config` prints, and whatever in the user's ssh_config keeps it from working.

The block fits the installed ssh, and has the path at which this program is
installed. It is printed; no file is written.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch

from relay.config.lookup import AS_IT_IS, IF_IT_WERE, is_old, what_ssh_said, without_cnames
from relay.config.settings import parse, with_home
from relay.errors import RelayError
from relay.spec.route import DEFAULT_DELIMITERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from relay.spec.options import Options

FILE = "pyrelay.conf"  # beside ~/.ssh/config
HOW = f"# pyrelay --ssh-config > ~/.ssh/{FILE}, and `Include {FILE}` as the first line of ~/.ssh/config"
CONFIG = "~/.ssh/config"
SAMPLE = "h1/h2"  # a route that only the block for chains should match
TYPED = (8, 1)  # the first OpenSSH that knows %n in a ProxyCommand; an older one exits at it
ASKS = (8, 5)  # the first OpenSSH with KnownHostsCommand
ACTION = "--ssh-config"
_MARK = "ours"
# ssh's Kerberos asks our resolver for the name that it logs in to, ticket or none.
_KERBEROS = ("GSSAPIAuthentication", "GSSAPIKeyExchange")


def text(
    program: str, version: tuple[int, int], chosen: Options, argv: Sequence[str] = (), known: Container[str] = ()
) -> str:
    """Return the block.

    program: an absolute path. version: that of the installed ssh. argv: the options given, for the ProxyCommand.
    chosen: what they mean. known: the keywords of ssh_config, in lower case, that the ssh has.
    """
    command = " ".join(_quoted(word) for word in (program, *argv) if word != ACTION)
    # %n is the name as it was typed, with its capitals; ssh puts %h in lower case. The quotes keep a shell from taking
    # brackets for a pattern.
    name = "'%n'" if version >= TYPED else "%h"
    # No name of a route is for our resolver.
    unseen = ["    VerifyHostKeyDNS no", "    CanonicalizeHostname no"]
    routes = " ".join(f"*{delimiter}*" for delimiter in chosen.delimiters.hop)
    lines = [HOW, f"Host {routes}", f"    ProxyCommand {command} {name} %p"]
    if version >= ASKS:
        asks = " ".join([shlex.quote(program), *map(_quoted, _for_keys(chosen))])  # ssh expands no token in the first
        lines.append(f"    KnownHostsCommand {asks} --known-hosts=%H %n %p")
    kerberos = [f"    {keyword} no" for keyword in _KERBEROS if keyword.lower() in known]
    lines += [*unseen, *(kerberos if "_" in chosen.delimiters.hop else [])]  # the only one that a resolver takes
    lines += ["Host *.onion*", f"    ProxyCommand {command} {name} %p", *unseen, *kerberos]
    return "\n".join([*lines, ""])


def _quoted(word: str) -> str:
    """Quote a word for a shell, and double its % for ssh, which would take it for a token."""
    return shlex.quote(word).replace("%", "%%")


def _for_keys(chosen: Options) -> list[str]:
    """Return those of our options that affect --known-hosts."""
    found = ["-F", chosen.config] if chosen.config is not None else []
    for pair in chosen.ssh_options:
        found += ["-o", pair]
    given, usual = chosen.delimiters, DEFAULT_DELIMITERS
    for option, characters, default in (
        ("--hop-delimiter", given.hop, usual.hop),
        ("--user-delimiter", given.user, usual.user),
        ("--port-delimiter", given.port, usual.port),
    ):
        if characters != default:
            found += [option, characters]
    return found


def keywords() -> Container[str]:
    """Return the keywords of ssh_config that the installed ssh has, in lower case; none if it does not say them."""
    return _ask([])[0] or ()


def program() -> str:
    """Return the absolute path by which ssh can run this program. Raises RelayError."""
    started = os.path.abspath(sys.argv[0])
    if os.access(started, os.X_OK) and not started.endswith(".py"):
        return started
    found = shutil.which("pyrelay")
    if found is None:
        raise RelayError(
            "there is no program called pyrelay in PATH, and ssh has to run one",
            hint="install it, by `pipx install .` for instance",
        )
    return os.path.abspath(found)


def obstacles(config: str | None, written: str) -> Iterator[str]:
    """Yield a line for each thing in the user's ssh_config that keeps the block from working.

    config: the file that ssh reads instead of ~/.ssh/config. written: the block.
    """
    if config is not None and config.lower() == "none":  # ssh then reads no file
        return
    path = with_home(config or CONFIG)
    shown = config or CONFIG
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            before, included = _before_include(file.read().splitlines())
    except FileNotFoundError:
        if config is not None:
            yield f"-F {shown}: there is no such file, and ssh ends there"
        return
    except OSError as error:
        yield f"{shown} cannot be read: {error.strerror}"
        return
    if config is not None and not os.path.isabs(path):
        yield f"-F {shown}: ssh may start pyrelay in another directory; give {os.path.abspath(path)}"
    wins = f"its first value wins, so `Include {FILE}` must be the first line of {shown}"
    if included and before:
        others, said = _others(before, written)
        if said:
            yield f"ssh cannot read {shown}: {said}"
            return
        for name in others:
            yield f"a block before the Include gives {SAMPLE} a {name} of its own; {wins}"
        if any(line.split()[:1] and line.split()[0].lower() in {"host", "match"} for line in before):
            yield f"the Include stands in a Host or Match block, and counts only for what that matches; {wins}"
    yield from _whole(config)


def _others(before: list[str], written: str) -> tuple[list[str], str]:
    """Return the keywords of our block that lines before it set for a route; or ssh's error."""
    ours = _settings(written)
    settings, said = _ask([*before, *ours], IF_IT_WERE)
    if settings is None:
        return [], said
    wanted = _ask(ours, IF_IT_WERE)[0] or {}
    names = [line.partition(" ")[0] for line in ours[1:]]
    others = [name for name in names if settings.get(name.lower()) != wanted.get(name.lower())]
    if "ProxyCommand" in others and "proxyjump" in settings:  # (a ProxyCommand that is "none" is not printed, either)
        others[others.index("ProxyCommand")] = "ProxyJump"
    return others, ""


def _settings(written: str) -> list[str]:
    """Return a block for every host with the keywords of ours, the programs in it replaced by marks."""
    marks = {"ProxyCommand": _MARK, "KnownHostsCommand": f"/{_MARK}"}
    pairs = (line.strip().partition(" ")[::2] for line in written.splitlines() if line.startswith(" "))
    return ["Host *", *(f"{name} {marks.get(name, value)}" for name, value in dict(pairs).items())]


def _whole(config: str | None) -> Iterator[str]:
    """Yield a line for each setting that affects a route wherever it stands, since the block does not set it."""
    settings, said = _ask_file(with_home(config) if config is not None else None)
    shown = config or "ssh_config"
    if settings is None:
        yield f"ssh cannot read {shown}: {said}"
        return
    if SAMPLE in settings.get("controlpath", [""])[0]:
        yield f"{shown} gives {SAMPLE} a ControlPath with its name in it, which is not a file name: use %C for %h or %n"
    if settings.get("proxyusefdpass", ["no"])[0] in {"yes", "true"}:
        yield f"{shown} says ProxyUseFdpass yes for {SAMPLE}: then give --fdpass, too: pyrelay --fdpass --ssh-config"


def _before_include(lines: list[str]) -> tuple[list[str], bool]:
    """Return the lines of a file before the one that includes ours, without comments; and whether there is one."""
    before: list[str] = []
    for line in lines:
        words = line.strip().replace("=", " ", 1).split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].lower() == "include" and any(
            fnmatch(FILE, os.path.basename(word.strip('"'))) for word in words[1:]
        ):
            return before, True
        before.append(line)
    return before, False


def _ask(lines: list[str], treated: Sequence[str] = AS_IT_IS) -> tuple[Mapping[str, Sequence[str]] | None, str]:
    """Return the settings that lines of ssh_config give a route; or None, and ssh's error. treated: see lookup.py."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", suffix=".conf") as file:
        file.write("\n".join([*lines, ""]))
        file.flush()
        settings, said = _ask_file(file.name, treated)
        return settings, said.replace(file.name, CONFIG)


def _ask_file(path: str | None, treated: Sequence[str] = AS_IT_IS) -> tuple[Mapping[str, Sequence[str]] | None, str]:
    """Return the settings that a file gives a route; or None, and ssh's error.

    Without a path ssh reads the user's file, whose owner and permissions it checks, and the system's.
    """
    read = ("-F", path) if path is not None else ()
    argv = ("ssh", "-G", "-T", *(f"-o{setting}" for setting in treated), *read, "--", SAMPLE)
    done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if is_old(done.returncode, done.stderr):
        argv = without_cnames(argv)
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        return None, "; ".join(what_ssh_said(done.stderr))
    return parse(done.stdout), ""
