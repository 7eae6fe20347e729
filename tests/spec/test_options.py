"""The command line: what is read, what is refused, and that usage and help come from the one table."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import need

from relay.errors import UsageError
from relay.spec.options import FLAGS, PROXY, SPELLING, WIDTH, Options, help_text, parse, usage
from relay.spec.proxy import CONNECT, Proxy
from relay.spec.route import Delimiters


def test_a_host_alone_has_the_defaults() -> None:
    assert parse(["h1+h3"]) == Options(destination="h1+h3")
    options = parse(["h3"])
    assert (options.port, options.deadline, options.verbosity, options.family) == (22, 120.0, 0, 0)
    assert options.delimiters == Delimiters("/+", "%=", ":~")


def test_every_option_of_the_table() -> None:
    proxy = "-x alice@proxy -X connect --fdpass"
    line = f"{proxy} -F cfg -i k1 -i k2 -J j1,j2:22 -l u -o A=b -o C=d -6 -s ::1 -w 3.5 -vv h1_h3 2222"
    words = [*line.split(), "--hop-delimiter=_", "--user-delimiter", "^", "--port-delimiter=~"]
    assert parse(words) == Options(
        destination="h1_h3",
        port=2222,
        config="cfg",
        identities=("k1", "k2"),
        jump="j1,j2:22",
        user="u",
        ssh_options=("A=b", "C=d"),
        family=socket.AF_INET6,
        source="::1",
        deadline=3.5,
        proxy=Proxy(CONNECT, "proxy", 3128, user="alice"),
        fdpass=True,
        verbosity=2,
        delimiters=Delimiters("_", "^", "~"),
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # clusters, values in the same word or the next
        ("-4vv h", Options(destination="h", family=socket.AF_INET, verbosity=2)),
        ("-vw3 h", Options(destination="h", deadline=3.0, verbosity=1)),
        ("-lu h", Options(destination="h", user="u")),
        ("-l u h", Options(destination="h", user="u")),
        ("-vlv h", Options(destination="h", user="v", verbosity=1)),
        ("--hop-delimiter=! h", Options(destination="h", delimiters=Delimiters(hop="!"))),
        ("--hop-delimiter ! h", Options(destination="h", delimiters=Delimiters(hop="!"))),
        ("--user-delimiter== --hop-delimiter=% h", Options(destination="h", delimiters=Delimiters("%", "="))),
        # options after HOST, and their end
        ("h -v 2222 -l u", Options(destination="h", port=2222, user="u", verbosity=1)),
        ("-v -- -h 22", Options(destination="-h", verbosity=1)),
        ("h -- -v", None),
        ("- 22", Options(destination="-")),
        ("h --", Options(destination="h")),
        # the last counts
        ("-4 -6 h", Options(destination="h", family=socket.AF_INET6)),
        ("-l a -l b h", Options(destination="h", user="b")),
        ("-v -q h", Options(destination="h", verbosity=-1)),
        ("-q -v h", Options(destination="h", verbosity=1)),
        # a value may look like an option, as getopt has it
        ("-F -v h", Options(destination="h", config="-v")),
        ("-o Name=-x h", Options(destination="h", ssh_options=("Name=-x",))),
        # help and version end the reading where they stand
        ("--help", Options(action="help")),
        ("--version --bogus", Options(action="version")),
        ("-h", Options(action="help")),
        ("-vV", Options(action="version", verbosity=1)),
    ],
)
def test_shapes(line: str, expected: Options | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            parse(line.split())
    else:
        assert parse(line.split()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BatchMode=yes", "BatchMode=yes"),
        ("BatchMode yes", "BatchMode=yes"),
        ("BatchMode = yes", "BatchMode=yes"),
        ("BatchMode\t=yes ", "BatchMode=yes"),
        ("ProxyCommand nc -X 5 %h %p", "ProxyCommand=nc -X 5 %h %p"),
        ("Ciphers==x", "Ciphers==x"),
        ('User="a b"', 'User="a b"'),
    ],
)
def test_settings_in_ssh_configs_two_spellings(text: str, expected: str) -> None:
    assert parse(["-o", text, "h"]).ssh_options == (expected,)
    name, _, value = expected.partition("=")
    if "yes" in value or "nc" in value:  # ssh reads both alike
        said = [
            subprocess.run(
                [need("ssh"), "-F", "none", "-G", "-o", each, "--", "h"], capture_output=True, check=True
            ).stdout
            for each in (text, expected)
        ]
        assert said[0] == said[1]
        assert f"{name.lower()} {value}".encode() in said[0]


ONE_WORD = "hint: a route is one word, such as h1/h2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("h -l", "pyrelay: -l needs a value, USER\nhint: "),
        ("h --hop-delimiter", "pyrelay: --hop-delimiter needs a value, CHARS\nhint: "),
        ("--help=x", "pyrelay: --help takes no value\nhint: "),
        ("", f"pyrelay: no HOST is given\n{ONE_WORD}; "),
        ("-v", f"pyrelay: no HOST is given\n{ONE_WORD}; "),
        ("--explain ", f"pyrelay: HOST is empty\n{ONE_WORD}; "),
        ("h 22 x", f"pyrelay: one word too many: x\n{ONE_WORD}; "),
        ("--names x", "pyrelay: one word too many: x\nhint: "),
    ],
)
def test_a_wrong_shape_is_answered_in_two_lines(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split(" ") if line else [])
    assert str(caught.value) == f"{message}pyrelay --help shows all"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("-z h", "unknown option -z"),
        ("-vz h", "unknown option -z"),
        ("-f h", "unknown option -f; the nearest is -F"),
        ("--bogus=x h", "unknown option --bogus"),
        ("--hop h", "unknown option --hop; the nearest is --hop-delimiter"),
        ("--shared=1m h", "unknown option --shared; the nearest is --share"),
        ("--tro h", "unknown option --tro; the nearest is --tor"),
        ("--known-host h", "unknown option --known-host; the nearest is --known-hosts"),
        ("-\x1b[31m h", "unknown option -"),
    ],
)
def test_an_unknown_option_is_answered_in_two_lines(line: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split(" "))
    assert str(caught.value) == f"pyrelay: {cause}\nhint: pyrelay --help shows all"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("line", ["-p 2022 h1/h3", "-p2022 h3", "-vp 2022 h3"])
def test_sshs_option_for_the_port_is_answered_with_where_a_port_stands(line: str) -> None:
    """Not with the nearest: -P names the user of a proxy."""
    with pytest.raises(UsageError) as caught:
        parse(line.split(" "))
    said = "pyrelay: unknown option -p\nhint: a port stands in the route, h3:2022, or after it: pyrelay h1/h3 2022"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--explain --check h", "--explain and --check"),
        ("--check h --explain", "--check and --explain"),
        ("--known-hosts --explain h", "--known-hosts and --explain"),
        ("--known-hosts=x --ssh-config", "--known-hosts and --ssh-config"),
        ("--names --ssh-config", "--names and --ssh-config"),
        ("--explain -O list h", "--explain and -O"),
        ("-O list --check h", "-O and --check"),
    ],
)
def test_two_things_instead_of_a_relay(line: str, names: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert str(caught.value) == f"pyrelay: {names} cannot be used together\nhint: give one of them"


@pytest.mark.parametrize("line", ["-O exit h1", "--names h1", "--ssh-config h1"])
def test_what_takes_no_host(line: str) -> None:
    with pytest.raises(UsageError, match="one word too many: h1"):
        parse(line.split())


def test_the_same_thing_twice() -> None:
    assert parse(["--check", "--check", "h"]) == Options(action="check", destination="h")
    assert parse(["-O", "list", "-O", "check", "-F", "cfg"]) == Options(control="check", config="cfg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["h", "0"], "pyrelay: PORT: port 0 is not between 1 and 65535"),
        (["h1", "h2"], f"pyrelay: PORT: 'h2' is not a port number\n{ONE_WORD}"),
        (["h", ""], "pyrelay: PORT: the port is empty"),
        (["-F", "", "h"], "pyrelay: -F: FILE is empty"),
        (["--hop-delimiter=", "h"], "pyrelay: --hop-delimiter: CHARS is empty"),
        (["-l", "-x", "h"], "pyrelay: -l: a user cannot begin with '-'"),
        (["-l$(id)", "h"], "pyrelay: -l: a user cannot hold '$'"),
        (["-J", "h1,h:0", "h"], "pyrelay: jump 2 of 2 (h:0): port 0 is not between 1 and 65535"),
        (["-o", "BatchMode", "h"], "pyrelay: -o: BatchMode has no value\nhint: write BatchMode=value"),
        (["-o", "BatchMode=", "h"], "pyrelay: -o: BatchMode has no value\nhint: write BatchMode=value"),
        (["-o", "=yes", "h"], "pyrelay: -o: '=yes' is not NAME=VALUE"),
        (["-o", "Batch-Mode=yes", "h"], "pyrelay: -o: 'Batch-Mode=yes' is not NAME=VALUE"),
        (
            ["--port-delimiter", "#", "h"],
            "pyrelay: '#' cannot be a port delimiter\nhint: choose from ! % + / : = ^ _ ~",
        ),
        (
            ["--hop-delimiter", ":", "h"],
            """pyrelay: ':' cannot be both hop and port delimiter
hint: give --hop-delimiter and --port-delimiter different ones""",
        ),
    ],
)
def test_a_wrong_value_is_answered_in_a_line_that_names_the_option(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text", ["0", "0.0", "-1", "x", "nan", "inf", "1e3", "1_0", ".", "1.2.3", "1000001", "9" * 5000]
)
def test_what_is_no_number_of_seconds(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number of seconds") as caught:
        parse(["-w", text, "h"])
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(("text", "seconds"), [("3", 3.0), ("0.5", 0.5), (".5", 0.5), ("007", 7.0), ("1000000", 1e6)])
def test_what_is_one(text: str, seconds: float) -> None:
    assert parse(["-w", text, "h"]).deadline == seconds


def test_the_delimiters_are_judged_together_whatever_their_order() -> None:
    wanted = Delimiters(hop=":", port="_")
    for words in (["--hop-delimiter=:", "--port-delimiter=_"], ["--port-delimiter=_", "--hop-delimiter=:"]):
        assert parse([*words, "h"]).delimiters == wanted


def test_the_table_sets_fields_that_options_have() -> None:
    names = [flag.name for flag in FLAGS]
    assert len(set(names)) == len(names)
    for flag in FLAGS:
        field = "delimiters" if flag in SPELLING else "proxy" if flag in PROXY else flag.field
        assert field in Options.__annotations__
        assert flag.name.startswith("--") or len(flag.name) == 2


@pytest.mark.parametrize(
    ("text", "batch"),
    [
        ("BatchMode=yes", True),
        ("batchmode true", True),
        ('BatchMode="Yes"', True),
        ("BatchMode=no", False),
        ("A=yes", False),
    ],
)
def test_whether_anybody_may_be_asked(text: str, batch: bool) -> None:
    assert parse(["-o", text, "h"]).batch is batch


def test_options_do_not_change() -> None:
    options = parse(["h"])
    with pytest.raises(AttributeError, match="do not change"):
        options.port = 23


def test_usage_and_help_have_every_option_and_fit_a_terminal() -> None:
    for text in (usage(), help_text()):
        assert all(len(line) <= WIDTH for line in text.splitlines())
    shown = help_text()
    for flag in FLAGS:
        assert f"\n  {flag.form} " in shown
        assert " ".join(flag.words.split()) in " ".join(shown.split())
        if flag.value:
            assert f"[{flag.form}]" in usage() or f" pyrelay {flag.form}" in usage()
    assert usage().startswith("usage: pyrelay [-46qv] ")
    assert usage().endswith(
        "HOST [PORT]\n       pyrelay --ssh-config\n       pyrelay --names\n       pyrelay -O COMMAND"
    )
    assert shown.startswith(usage())
    assert "    Host */* *+*\n        ProxyCommand pyrelay %h %p\n" in shown


def test_reading_the_command_line_imports_next_to_nothing() -> None:
    program = """if True:
        import sys
        sys.path.insert(0, ".")
        before = set(sys.modules)
        from relay.spec import options, route
        given = options.parse(["-v", "-l", "u", "-w3", "-o", "A=b", "-J", "j", "u1%h1+h2:2022+h3", "22"])
        route.parse(given.destination, given.port, given.delimiters)
        print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=True, text=True)
    ours = ["relay", "relay.errors", "relay.spec", "relay.spec.options", "relay.spec.route", "relay.value"]
    # _socket is the C half of socket: the first leg needs it in any case.
    assert done.stdout.split() == ["__future__", "_socket", *ours]


@given(st.lists(st.text(max_size=8) | st.sampled_from(["-v", "-l", "-w", "-o", "--", "--help", "h", "22", "-4vl"])))
def test_any_words_are_options_or_a_usage_error(words: list[str]) -> None:
    try:
        options = parse(words)
    except UsageError as error:
        assert all(len(line) < 240 for line in str(error).split("\n"))
    else:
        assert options.action or options.destination in words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90", 90),
        ("1h30m", 5400),
        ("2W", 1_209_600),
        ("1h30", 3630),
        ("yes", float("inf")),
        ("0", float("inf")),
        ("no", None),
    ],
)
def test_how_long_hops_are_shared(text: str, seconds: float | None) -> None:
    assert parse(["--share", text, "h1/h2"]).share == seconds
