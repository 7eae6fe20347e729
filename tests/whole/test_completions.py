"""Completion in the real shells: what a person who presses TAB is offered, with and without us."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import ROOT
from peers import SYSTEM_PATH, need

from relay.config.names import _known, names
from relay.spec.options import FLAGS

HERE = ROOT / "completions"
SSH_CONFIG = """\
Include conf.d/*
Host gate Gate-EU
    HostName 192.0.2.1
Host *.example !not.example alpha?
    User x
match host omega
host=beta
Host "quoted" 'single' "two words" # comment
"""
KNOWN_HOSTS = """\
[gamma]:2022,192.0.2.9 ssh-ed25519 AAAA
@cert-authority *.test,delta ssh-rsa B
|1|a|b ssh-rsa C
h1+h2 ssh-rsa D
::1,fe80::1%eth0,x:22,u@x,a%b,c~d ssh-rsa E
# no
"""
NAMES = ["192.0.2.9", "Gate-EU", "beta", "delta", "gamma", "gate", "included", "quoted", "single"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an ssh_config, and a folder that is called as the beginning of a route might be."""
    tmp_path = tmp_path_factory.mktemp("home")
    (tmp_path / ".ssh/conf.d").mkdir(parents=True)
    (tmp_path / ".ssh/config").write_text(SSH_CONFIG)
    (tmp_path / ".ssh/conf.d/one").write_text("Host included\n")
    (tmp_path / ".ssh/known_hosts").write_text(KNOWN_HOSTS)
    (tmp_path / "folder/gatefile").mkdir(parents=True)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    """A person's, with pyrelay in PATH."""
    tools = home / "bin"
    if not tools.exists():
        tools.mkdir()
        (tools / "pyrelay").write_text(f'#!/bin/sh\nexec env PYTHONPATH={ROOT} {sys.executable} -m relay "$@"\n')
        (tools / "pyrelay").chmod(0o755)
    return {"HOME": str(home), "PATH": f"{tools}:{SYSTEM_PATH}", "LANG": "C.UTF-8", "TERM": "dumb"}


def test_the_names_of_the_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    local = set(names(str(home / ".ssh/config"))) | set(_known(str(home / ".ssh/known_hosts")))
    assert local == set(NAMES)
    assert set(NAMES) <= set(names())
    assert not {"*.example", "alpha?", "omega", "h1+h2", "*.test", "@cert-authority"} & set(names())
    (home / "other").write_text("Host other\nInclude other\n")  # it includes itself
    assert "other" in names(str(home / "other"))
    assert "beta" not in names(str(home / "other"))
    done = subprocess.run(
        [sys.executable, "-m", "relay", "--names"],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(NAMES) <= set(done.stdout.splitlines())


BASH = """\
source {system}
{ours}
cd {home}
words=({words})
COMP_LINE={line}
COMP_POINT=${{#COMP_LINE}}
COMP_WORDS=(${{words[@]}})
COMP_CWORD=$((${{#words[@]}} - 1))
COMP_TYPE=9
COMP_KEY=9
spec=$(complete -p ${{words[0]}} 2>/dev/null) || {{
    _completion_loader ${{words[0]}}
    spec=$(complete -p ${{words[0]}})
}}
function=${{spec##* -F }}
function=${{function%% *}}
$function ${{words[0]}} "${{words[COMP_CWORD]}}" "${{words[COMP_CWORD-1]}}" 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def bash(home: Path, line: str, *, ours: bool = True) -> set[str]:
    """What bash offers for a line. (By hand, as readline would, since it has no terminal.)"""
    system = "/usr/share/bash-completion/bash_completion"
    if not os.path.exists(system):
        need("bash-completion")
    words = line.split(" ")
    script = BASH.format(
        system=system,
        ours=f"source {HERE / 'bash/pyrelay'}" if ours else "",
        home=home,
        line=shlex.quote(line),
        words=" ".join(shlex.quote(word) for word in words),
    )
    done = subprocess.run(
        [need("bash"), "--norc", "-c", script],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return {name.strip() for name in done.stdout.splitlines() if name.strip()}


# The widget shows what each completion adds, in angles.
ZSH_SETTING = """\
PS1=READY
fpath=({ours} $fpath)
autoload -Uz compinit
compinit -u -d {dump}
show() {{
    compadd() {{
        local -a found end
        builtin compadd -O found "$@"
        zparseopts -E S:=end
        print -rl -- "<${{^found[@]}}$end[2]>"
        builtin compadd "$@"
    }}
    _main_complete
    unfunction compadd
}}
zle -C show complete-word show
bindkey "^I" show
print INI""TIAL
"""
ZSH = """\
zmodload zsh/zpty
cd {home}
zpty z "zsh -f -i"
zpty -w z 'source {setting}'
zpty -r z out "*INITIAL*READY*"
zpty -w -n z {line}$'\\t'
zpty -w -n z $'\\x15'
zpty -w z 'print; print THE""END'
zpty -r z out "*THEEND*"
print -r -- $out
"""


def zsh(home: Path, line: str, *, ours: bool = True) -> set[str]:
    """What zsh offers for a line: each word that a completion adds."""
    setting = home / "setting"
    setting.write_text(ZSH_SETTING.format(ours=HERE / "zsh" if ours else "", dump=home / f"dump{ours}"))
    script = ZSH.format(home=home, setting=setting, line=shlex.quote(line))
    done = subprocess.run(
        [need("zsh"), "-f", "-c", script],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    text = done.stdout.replace("\r", "")
    return {part.partition(">")[0] for part in text.split("<")[1:]}


def fish(home: Path, line: str, *, ours: bool = True) -> set[str]:
    """What fish offers for a line."""
    config = home / ".config/fish"
    if ours:
        for kind, name in (("conf.d", "pyrelay-ssh.fish"), ("completions", "pyrelay.fish")):
            (config / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / "fish" / name, config / kind)
    elif config.exists():
        shutil.rmtree(config)
    done = subprocess.run(
        [need("fish"), "-c", f"complete -C {shlex.quote(line)}"],
        cwd=home, env=environment(home), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    noise = "lost connection\n" if ":" in line else ""  # of fish itself, which may look for a file over there
    assert done.stderr in {"", noise}, done.stderr
    return {row.partition("\t")[0] for row in done.stdout.splitlines()}


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ssh h1/ga", {"h1/gate"}),
        ("ssh h1+h2/", {f"h1+h2/{name}" for name in NAMES}),
        ("ssh -v -p 22 u1%h1+de", {"u1%h1+delta"}),
        ("ssh -l u3 h1+u2=be", {"h1+u2=beta"}),
        ("sftp h1/Ga", {"h1/Gate-EU"}),
        ("scp file h1+ga", {"h1+gate:", "h1+gamma:"}),  # without a colon it is a local file
        ("rsync -a h1+in", {"h1+included:"}),
        ("pyrelay h1/ga", {"h1/gate"}),
    ],
)
def test_names_behind_a_delimiter(home: Path, shell: str, line: str, wanted: set[str]) -> None:
    offered = SHELLS[shell](home, line)
    if shell == "zsh":  # it offers what follows the delimiter
        wanted = {re.split("[/+%=]", word)[-1] for word in wanted}
    elif shell == "bash":  # readline has a word begin behind a =
        wanted = {word.rpartition("=")[2] for word in wanted}
    assert wanted <= offered


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line",
    [
        "ssh ga",
        "ssh -",
        "ssh folder/ga",  # there is such a folder here
        "ssh -i keys/ga",
        "ssh -F x+ga",
        "ssh gate cat a/ga",  # a command's word
        "sftp ./h1+ga",
        "scp folder/ga",
        "scp h1+gate:x",
        "scp file h1/ga",  # a local file, whatever follows
        "rsync u1@h1/h2+ga",
        "rsync -e a/ga",
        "rsync ~/ga",
    ],
)
def test_every_other_word_is_completed_as_before(home: Path, shell: str, line: str) -> None:
    assert SHELLS[shell](home, line) == SHELLS[shell](home, line, ours=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_the_system_offers_is_offered_still(home: Path, shell: str) -> None:
    for line in ("scp fol+x/", "ssh h1/ga", "rsync h1+ga"):
        assert SHELLS[shell](home, line) >= SHELLS[shell](home, line, ours=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_pyrelays_own_options(home: Path, shell: str) -> None:
    offered = SHELLS[shell](home, "pyrelay --")
    long = {flag.name for flag in FLAGS if flag.name.startswith("--")}
    assert {word.rstrip("=") for word in offered} >= long
    assert SHELLS[shell](home, "pyrelay -O ") == {"list", "check", "stop", "exit"}


def test_the_files_have_the_options_of_the_table() -> None:
    spec = importlib.util.spec_from_file_location("write", HERE / "write.py")
    assert spec is not None
    assert spec.loader is not None
    write = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write)
    for name in write.SHELLS:
        assert (HERE / name).read_text() == write.written(name), "run: python completions/write.py"
