"""The manual page: sound mdoc, and the same options in the same words as --help."""

from __future__ import annotations

import re
import subprocess

import pytest
from lab import ROOT
from peers import need

from relay import errors
from relay.spec.options import FLAGS, GROUPS, Flag, usage
from relay.spec.route import MAX_NAME, MAX_ROUTE, POSSIBLE_DELIMITERS, RouteError, parse

PAGE = ROOT / "man" / "pyrelay.1"


def source(section: str) -> list[str]:
    """The lines of a section, as written."""
    return PAGE.read_text().split(f"\n.Sh {section}\n")[1].split("\n.Sh ")[0].splitlines()


def shown(section: str) -> str:
    """A section as a reader sees it, in one line."""
    argv = [need("mandoc"), "-T", "ascii", "-O", "width=1000", str(PAGE)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    text = re.sub(".\b", "", text)  # bold and underlined are overstruck
    found = re.search(rf"^{section}\n(.*?)^(?=\S)", text, re.MULTILINE | re.DOTALL)
    assert found, section
    return " ".join(found[1].split())


def test_mandoc_has_no_warning() -> None:
    done = subprocess.run(
        [need("mandoc"), "-T", "lint", "-W", "warning", PAGE], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_options_are_those_of_the_table_in_its_order() -> None:
    lines = source("OPTIONS")
    items = [line.removeprefix(".It Fl ").split(" , ")[-1] for line in lines if line.startswith(".It Fl ")]
    assert ["-" + item.split()[0] for item in items] == [flag.name for flag in FLAGS]
    assert [line.removeprefix(".Ss ") for line in lines if line.startswith(".Ss ")] == list(GROUPS)


@pytest.mark.parametrize("flag", FLAGS, ids=[flag.name for flag in FLAGS])
def test_each_option_begins_with_the_words_of_help(flag: Flag) -> None:
    # The manual writes FILE as an underlined "file".
    assert " ".join(f"{flag.form} {flag.words}".split()).lower() in shown("OPTIONS").lower()


def test_the_synopsis_is_the_usage() -> None:
    wanted = " ".join(usage().removeprefix("usage: ").split()).lower()
    assert shown("SYNOPSIS").lower() == f"{wanted} pyrelay --help | --version"


def test_the_exit_statuses_are_those_of_the_program() -> None:
    listed = [int(line.split()[1]) for line in source("EXIT STATUS") if line.startswith(".It ")]
    assert listed == [0, errors.EXIT_FAILED, errors.EXIT_USAGE, errors.EXIT_FAULT]


def test_the_limits_and_delimiters_are_those_of_the_program() -> None:
    assert f"at most {MAX_NAME} bytes long and a route {MAX_ROUTE} characters" in shown("DESCRIPTION")
    quoted = re.findall(r"^\.Ql (?:\\&)?(\S)(?: ,)?$", "\n".join(source("OPTIONS")), re.MULTILINE)
    assert "".join(quoted) == POSSIBLE_DELIMITERS


def test_the_message_in_the_manual_is_the_one_that_is_printed() -> None:
    with pytest.raises(RouteError) as caught:
        parse("h1+u3%h3")
    assert str(caught.value) in "\n".join(source("DIAGNOSTICS"))
