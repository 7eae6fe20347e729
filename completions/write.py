"""python completions/write.py: the options in these files, from the table that the program has of them.

A test holds that it has been run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from relay.spec.options import FLAGS  # noqa: E402  (behind the path to it)

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.spec.options import Flag

BEGIN, END = "# >>> options\n", "# <<< options\n"
FILES = frozenset({"-F", "-i", "--proxy-cacert"})  # of which the value is a file
WORDS = {
    "-O": "list check stop exit",
    "-X": "4 4a 5 connect",
    "--engine": "auto paramiko ssh",
    "--proxy-auth": "negotiate digest basic gssapi",
    "--proxy-protection": "none integrity confidentiality",
}


def names(flag: Flag) -> list[str]:
    """How an option may be typed."""
    return [flag.short, flag.name] if flag.short else [flag.name]


def bash() -> str:
    """Two lists: all options, and those whose value is the next word."""
    every = [name for flag in FLAGS for name in names(flag)]
    valued = [flag.name for flag in FLAGS if flag.value and not flag.is_optional]
    return f'_pyrelay_flags="{" ".join(every)}"\n_pyrelay_valued="{" ".join(valued)}"\n'


def zsh() -> str:
    """Specifications for _arguments."""
    lines = ["local -a _pyrelay_options", "_pyrelay_options=("]
    for flag in FLAGS:
        words = re.sub(r"([\[\]:])", r"\\\1", flag.words).replace("'", "'\\''")
        what = flag.value.strip("[]=").lower().replace(":", "\\:")
        action = "_files" if flag.name in FILES else f"({WORDS[flag.name]})" if flag.name in WORDS else " "
        value = ""
        if flag.is_optional:
            value = f"::{what}:{action}"
        elif flag.value:
            value = f":{what}:{action}"
        for name in names(flag):
            sign = ("=-" if flag.is_optional else "=" if name.startswith("--") else "+") if flag.value else ""
            lines.append(f"    '*{name}{sign}[{words}]{value}'")
    return "\n".join([*lines, ")", ""])


def fish() -> str:
    """A line for each option."""
    lines = []
    for flag in FLAGS:
        kinds = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in names(flag))
        value = " -r" if flag.value and not flag.is_optional else ""
        if flag.name in WORDS:
            value += f" -f -a '{WORDS[flag.name]}'"
        elif value and flag.name not in FILES:
            value += " -f"
        quoted = flag.words.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c pyrelay {kinds}{value} -d '{quoted}'")
    return "\n".join([*lines, ""])


SHELLS: dict[str, Callable[[], str]] = {"bash/pyrelay": bash, "zsh/_pyrelay": zsh, "fish/pyrelay.fish": fish}


def written(name: str) -> str:
    """A file with the options as they are now."""
    text = (HERE / name).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + SHELLS[name]() + END + rest.partition(END)[2]


if __name__ == "__main__":
    for name in SHELLS:
        (HERE / name).write_text(written(name), encoding="utf-8")
