"""The grammar of routes: tables of cases, properties, and ssh itself as the judge of what a host may be."""

from __future__ import annotations

import inspect
import os
import string
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peers import need

from relay.spec import route
from relay.spec.route import (
    DEFAULT_DELIMITERS,
    MAX_NAME,
    MAX_ROUTE,
    POSSIBLE_DELIMITERS,
    Delimiters,
    Element,
    Route,
    RouteError,
    behind,
    check_host,
    check_user,
    is_ipv6,
    parse,
    parse_jump,
    parse_port,
)

UNDERSCORE = Delimiters(port="_")
SLASH_ONLY = Delimiters(hop="/")


def spelled(found: Route) -> list[str]:
    return [str(element) for element in (*found.hops, found.target)]


# ── tables ──────────────────────────────────────────────────────────────────


def documented(heading: str, until: str) -> list[str]:
    """The lines of a table in the module's docstring."""
    text = inspect.getdoc(route) or ""
    lines = text[text.index(heading) :].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.strip() or line.strip().startswith(until):
            break
        rows.append(line.strip())
    assert rows
    return rows


@pytest.mark.parametrize("row", documented("accepted", "rejected"))
def test_accepted_examples_of_the_docstring(row: str) -> None:
    text, _, rest = row.partition(" ")
    expected = rest.split("(")[0].replace(",", " ").split()
    assert spelled(parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [word for row in documented("rejected", "none") for word in row.split("  ") if word and " " not in word.strip()],
)
def test_rejected_examples_of_the_docstring(text: str) -> None:
    with pytest.raises(RouteError):
        parse(text.strip())


ACCEPTED = [
    # (text, hops and target as messages show them)
    ("h3", "h3"),
    ("h3:2200", "h3:2200"),
    ("h1/h2+h3", "h1 h2 h3"),
    ("H1+H2", "H1 H2"),
    ("u1=h1~22+h3", "u1@h1:22 h3"),
    ("u1%h1:22/h2", "u1@h1:22 h2"),
    ("h1:0022+h3", "h1:22 h3"),
    ("h1:65535+h3", "h1:65535 h3"),
    # IPv6: the whole text first, then in brackets
    ("::1", "::1"),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ("fe80::1%eth0.5", "fe80::1%eth0.5"),
    ("[::1]", "::1"),
    ("[::1]:22", "[::1]:22"),
    ("[fe80::1%lo]~22+h3", "[fe80::1%lo]:22 h3"),
    ("u1%[fe80::1%lo]+[::1]:2200", "u1@fe80::1%lo [::1]:2200"),
    ("127.1+192.0.2.7:22", "127.1 192.0.2.7:22"),
    # brackets around any host; inside nothing is a delimiter
    ("[h1]+[h3]:22", "h1 h3:22"),
    ("[h1/h2]+h3", "h1/h2 h3"),
    ("[u%h1]+h3", "u%h1 h3"),
    ("u%[h1:22]~22+h3", "u@[h1:22]:22 h3"),
    # the first user delimiter, the last port delimiter
    ("u=a%b+h3", "u@a%b h3"),
    ("h1~1~2+h3", "h1~1:2 h3"),
    ("h1~x+h3", "h1~x h3"),
    ("h1~+h3", "h1~ h3"),
    # users
    ("CORP\\alice%h1+h3", "CORP\\alice@h1 h3"),
    ("alice@corp%h1+h3", "alice@corp@h1 h3"),
    ("a:b%h1+h3", "a:b@h1 h3"),
    # hosts that ssh takes
    ("h_1+bücher.example", "h_1 bücher.example"),
    ("h1.+h3", "h1. h3"),
    ("1+2", "1 2"),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED)
def test_accepted(text: str, expected: str) -> None:
    found = parse(text)
    assert spelled(found) == expected.split()
    assert parse(str(found)) == found


REJECTED = [
    # (text, place, cause, hint)
    ("", "", "the route is empty", ""),
    ("h1++h3", "hop 2 of 2", "the name is empty", ""),
    ("+h3", "hop 1 of 1", "the name is empty", ""),
    ("h1+", "target", "the name is empty", ""),
    ("/", "hop 1 of 1", "the name is empty", ""),
    ("%h1+h3", "hop 1 of 1 (%h1)", "the user is empty", ""),
    ("u%+h3", "hop 1 of 1 (u%)", "the host is empty", ""),
    (":22+h3", "hop 1 of 1 (:22)", "the host is empty", ""),
    ("h1+[]", "target ([])", "the host is empty", ""),
    # the target's user
    ("h1+u3%h3", "target (u3%h3)", "the target's user belongs to ssh, not to the route", "ssh -l u3 h1+h3"),
    ("u3=h3:22", "target (u3=h3:22)", "the target's user belongs to ssh, not to the route", "ssh -l u3 h3:22"),
    ("h1+u3@h3", "target (u3@h3)", "'@' cannot stand in a host", "the target's user is ssh's: ssh -l user"),
    (
        "u1@h1+h3",
        "hop 1 of 1 (u1@h1)",
        "'@' cannot stand in a host",
        "a hop's user is written user%host or user=host",
    ),
    # ports
    ("h1:0+h3", "hop 1 of 1 (h1:0)", "port 0 is not between 1 and 65535", ""),
    ("h1~000+h3", "hop 1 of 1 (h1~000)", "port 000 is not between 1 and 65535", ""),
    ("h1+h3:70000", "target (h3:70000)", "port 70000 is not between 1 and 65535", ""),
    ("h1:x+h3", "hop 1 of 1 (h1:x)", "'x' is not a port number", ""),
    ("h1:٣+h3", "hop 1 of 1 (h1:٣)", "'٣' is not a port number", ""),
    ("h1:+h3", "hop 1 of 1 (h1:)", "the port is empty", ""),
    ("[h1]:+h3", "hop 1 of 1 ([h1]:)", "the port is empty", ""),
    ("[h1]:x+h3", "hop 1 of 1 ([h1]:x)", "'x' is not a port number", ""),
    # IPv6 outside brackets, and what looks like it
    (
        "h1+2001:db8::1",
        "target (2001:db8::1)",
        "an IPv6 address outside brackets",
        "write [2001:db8::1]",
    ),
    ("u1%::1+h3", "hop 1 of 1 (u1%::1)", "an IPv6 address outside brackets", "write [::1]"),
    ("fe80::1%lo+h3", "hop 1 of 1 (fe80::1%lo)", "an IPv6 address outside brackets", "write [fe80::1%lo]"),
    ("fe80::1%eth0:22", "target (fe80::1%eth0:22)", "an IPv6 address outside brackets", "write [fe80::1%eth0:22]"),
    (
        "2001:db8:::1",
        "target (2001:db8:::1)",
        "':' cannot stand in a host outside brackets",
        "write an IPv6 address as [2001:db8::1]",
    ),
    # brackets
    ("[::1+h3", "target ([::1+h3)", "'[' is never closed", ""),
    ("u1%[h1+h3", "target (u1%[h1+h3)", "'[' is never closed", ""),
    ("[h1]x+h3", "hop 1 of 1 ([h1]x)", "'x' after ']' is not a port", "write [host]:22"),
    ("a[b]+h3", "hop 1 of 1 (a[b])", "a host cannot hold '['", ""),
    ("a]+h3", "hop 1 of 1 (a])", "a host cannot hold ']'", ""),
    ("[[::1]]+h3", "hop 1 of 1 ([[::1]])", "']' after ']' is not a port", "write [host]:22"),
    # what ssh would take for something else, or a shell
    ("h1+-v+h3", "hop 2 of 2 (-v)", "a host cannot begin with '-'", ""),
    ("h1+-oProxyCommand=x+h3", "hop 2 of 2 (-oProxyCommand=x)", "a user cannot begin with '-'", ""),
    ("[-v]+h3", "hop 1 of 1 ([-v])", "a host cannot begin with '-'", ""),
    ("h1+$(id)+h3", "hop 2 of 2 ($(id))", "a host cannot hold '$'", ""),
    ("[ssh://h1]+h3", "hop 1 of 1 ([ssh://h1])", "a host cannot be a URI", ""),
    ("[SSH://h1]+h3", "hop 1 of 1 ([SSH://h1])", "a host cannot be a URI", ""),
    ("h1+a b", "target (a b)", "a host cannot hold a space", ""),
    ("h1\n+h3", "hop 1 of 1 (h1)", "a host cannot hold the character U+000A", ""),
    ("h1+\x1b]0;x", "target (]0;x)", "a host cannot hold the character U+001B", ""),
    ("h1\ud8ff+h3", "hop 1 of 1 (h1)", "a host cannot hold the character U+D8FF", ""),
    ("u\\%h1+h3", "hop 1 of 1 (u\\%h1)", "a user cannot end with '\\'", ""),
    # lengths
    ("a" * 256, f"target ({'a' * 59}…)", "a host of 256 bytes is too long; 255 is the most", ""),
    ("ü" * 128, f"target ({'ü' * 59}…)", "a host of 256 bytes is too long; 255 is the most", ""),
    ("::1%" + "a" * 255, "", "a host of 259 bytes is too long; 255 is the most", ""),
    ("h+" * 5000, "", "a route of 10000 characters is too long; 4096 is the most", ""),
]


@pytest.mark.parametrize(("text", "place", "cause", "hint"), REJECTED, ids=[repr(case[0])[:30] for case in REJECTED])
def test_rejected(text: str, place: str, cause: str, hint: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse(text)
    assert (caught.value.place, caught.value.cause, caught.value.hint) == (place, cause, hint)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("character", "'\"$\\;&<>|(){}`, \t\n\r\x00\x1b\x7f\x9b\u00a0\u200b\u202e\u2028\udc7f\ud800")
def test_no_host_or_user_holds_a_shell_space_or_control_character(character: str) -> None:
    with pytest.raises(RouteError):
        check_host(f"a{character}b")
    if character != "\\":
        with pytest.raises(RouteError):
            check_user(f"a{character}b")


def test_bytes_that_are_no_text_are_the_names_that_they_are_to_ssh() -> None:
    route = parse(os.fsdecode(b"\xfc%h\xfc+t\xff"))
    assert [(hop.user, hop.host) for hop in route.hops] == [(os.fsdecode(b"\xfc"), os.fsdecode(b"h\xfc"))]
    assert os.fsencode(str(route)) == b"\xfc%h\xfc/t\xff"


def test_the_longest_route_and_the_longest_name_are_accepted() -> None:
    assert len(parse("h+" * (MAX_ROUTE // 2 - 1) + "h3").hops) == MAX_ROUTE // 2 - 1
    assert parse("a" * MAX_NAME).target.host == "a" * MAX_NAME


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("h3", 22, None),
        ("h3", 2222, 2222),
        ("h3:22", 2222, 22),
        ("h3:2200", 22, 2200),
        ("h1:2022+h3", 2222, 2222),
        ("h1:2022+h3", 22, None),
        ("::1", 22, None),
        ("::1", 2222, 2222),
        ("[::1]:2200", 2222, 2200),
    ],
)
def test_the_targets_port_is_the_names_own_else_the_argument_unless_that_is_22(
    text: str, port: int, expected: int | None
) -> None:
    assert parse(text, port).target.port == expected


@pytest.mark.parametrize(
    ("text", "delimiters", "expected"),
    [
        ("h1_2022+h3", UNDERSCORE, "h1:2022 h3"),
        ("my_host_2022+h3", UNDERSCORE, "my_host:2022 h3"),
        ("my_host+h3", UNDERSCORE, "my_host h3"),
        ("[my_1]+h3", UNDERSCORE, "my_1 h3"),
        ("h1~2022+h3", UNDERSCORE, "h1~2022 h3"),
        ("fe80::1%my_1", UNDERSCORE, "fe80::1%my_1"),
        ("[::1]_22+h3", UNDERSCORE, "[::1]:22 h3"),
        ("CORP+alice%h1/h3", SLASH_ONLY, "CORP+alice@h1 h3"),
        ("h1:h2:h3_22", Delimiters(hop=":", port="_"), "h1 h2 h3:22"),
        ("2001:db8::1", Delimiters(hop=":", port="_"), "2001:db8::1"),
        ("u^h1!h3", Delimiters(hop="!", user="^"), "u@h1 h3"),
    ],
)
def test_other_delimiters_replace_the_default_ones(text: str, delimiters: Delimiters, expected: str) -> None:
    found = parse(text, delimiters=delimiters)
    assert spelled(found) == expected.split()
    assert parse(str(found), delimiters=delimiters) == found


def test_a_colon_is_no_port_delimiter_any_more_when_another_replaces_it() -> None:
    with pytest.raises(RouteError, match="outside brackets") as caught:
        parse("h1:2022+h3", delimiters=UNDERSCORE)
    assert caught.value.hint == "a port is written h1_22"


@pytest.mark.parametrize("character", sorted({*string.printable, "→", "\udc80"} - {*POSSIBLE_DELIMITERS}))
def test_what_cannot_be_a_delimiter(character: str) -> None:
    for kind in ("hop", "user", "port"):
        with pytest.raises(RouteError, match=f"cannot be a {kind} delimiter"):
            Delimiters(**{kind: character})


@pytest.mark.parametrize("character", POSSIBLE_DELIMITERS)
def test_what_can_be_a_delimiter(character: str) -> None:
    others = [c for c in POSSIBLE_DELIMITERS if c != character]
    delimiters = Delimiters(character, others[0], others[1])
    found = parse(f"u{others[0]}h1{others[1]}2022{character}h3", delimiters=delimiters)
    assert spelled(found) == ["u@h1:2022", "h3"]


def test_delimiters_do_not_overlap_and_are_not_empty() -> None:
    with pytest.raises(RouteError, match="':' cannot be both hop and port delimiter"):
        Delimiters(hop=":")
    with pytest.raises(RouteError, match="'%' cannot be both user and port delimiter"):
        Delimiters(port="_%")
    with pytest.raises(RouteError, match="no character is given as user delimiter"):
        Delimiters(user="")


JUMPS = [
    # (text, elements as messages show them); every one is a list that ssh takes, except where noted
    ("none", ""),
    ("NONE", ""),
    ("h1", "h1"),
    ("u1@h1:2022,h2", "u1@h1:2022 h2"),
    ("a@b@h1", "a@b@h1"),
    ("h1:", "h1"),
    ("[::1]", "::1"),
    ("u@[::1]:22,h2", "u@[::1]:22 h2"),
    ("ssh://u1@h1:2022", "u1@h1:2022"),
    ("ssh://h1/", "h1"),
    ("ssh://a%40b@h1,h2", "a@b@h1 h2"),
    ("h1+h2:22", "h1+h2:22"),
    ("h1~2", "h1~2"),
]


@pytest.mark.parametrize(("text", "expected"), JUMPS)
def test_jumps_as_ssh_reads_them(text: str, expected: str) -> None:
    assert [str(element) for element in parse_jump(text)] == expected.split()
    done = subprocess.run([need("ssh"), "-F", "none", "-G", "-J", text, "--", "h"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_target_is_resolved_only_where_the_name_was_no_chain() -> None:
    """ssh has put its HostName into %h then, and not into the last name of a chain."""
    jumps = parse_jump("j1,j2")
    assert behind(jumps, parse("h3")).is_resolved
    assert not behind(jumps, parse("h1/h3")).is_resolved
    assert not behind((), parse("h3")).is_resolved


def test_ipv6_in_a_uri() -> None:
    # ssh's own URIs take no brackets; ours do.
    assert parse_jump("ssh://u@[::1]:22") == (Element("u", "::1", 22),)


REJECTED_JUMPS = [
    ("", "", "the route is empty"),
    ("h1,,h2", "jump 2 of 3", "the name is empty"),
    ("h1,", "jump 2 of 2", "the name is empty"),
    ("@h1", "jump 1 of 1 (@h1)", "the user is empty"),
    ("u@", "jump 1 of 1 (u@)", "the host is empty"),
    ("ssh://", "jump 1 of 1 (ssh://)", "the host is empty"),
    ("h1:0", "jump 1 of 1 (h1:0)", "port 0 is not between 1 and 65535"),
    ("h1:70000", "jump 1 of 1 (h1:70000)", "port 70000 is not between 1 and 65535"),
    ("h1:x", "jump 1 of 1 (h1:x)", "'x' is not a port number"),
    ("2001:db8::1", "jump 1 of 1 (2001:db8::1)", "an IPv6 address outside brackets"),
    ("[h1", "jump 1 of 1 ([h1)", "'[' is never closed"),
    ("[h1]x", "jump 1 of 1 ([h1]x)", "'x' after ']' is not a port"),
    ("h1/h2", "jump 1 of 1 (h1/h2)", "'/' cannot stand in a jump host"),
    ("h1:22/h2", "jump 1 of 1 (h1:22/h2)", "'/' cannot stand in a jump host"),
    ("ssh://h1/path", "jump 1 of 1 (ssh://h1/path)", "'/' cannot stand in a jump host"),
    ("-oProxyCommand=x", "jump 1 of 1 (-oProxyCommand=x)", "a host cannot begin with '-'"),
    ("-v@h1", "jump 1 of 1 (-v@h1)", "a user cannot begin with '-'"),
    ("ssh://%2dv@h1", "jump 1 of 1 (ssh://%2dv@h1)", "a user cannot begin with '-'"),
    ("h1, h2", "jump 2 of 2 (h2)", "a host cannot hold a space"),
    ("$(id)@h1", "jump 1 of 1 ($(id)@h1)", "a user cannot hold '$'"),
]


@pytest.mark.parametrize(("text", "place", "cause"), REJECTED_JUMPS)
def test_jumps_rejected_as_ssh_rejects_them(text: str, place: str, cause: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse_jump(text)
    assert (caught.value.place, caught.value.cause) == (place, cause)
    if "$" not in text:  # OpenSSH takes a "$" in a user up to 10.0
        done = subprocess.run(
            [need("ssh"), "-F", "none", "-G", f"-J{text}", "--", "h"], capture_output=True, check=False
        )
        assert done.returncode != 0


@pytest.mark.parametrize("text", ["ssh://a%4@h", "ssh://a%zz@h", "ssh://%+1@h", "ssh://a%@h", "ssh://a%00@h"])
def test_escapes_that_are_none(text: str) -> None:
    with pytest.raises(RouteError):
        parse_jump(text)


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("22", 22), ("0022", 22), ("65535", 65535)])
def test_ports(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+1", "1.0", " 1", "0x16", "٣", "²", "9" * 10_000])
def test_no_ports(text: str) -> None:
    with pytest.raises(RouteError) as caught:
        parse_port(text)
    assert len(str(caught.value)) < 100


def test_values_are_values() -> None:
    one, other = Element("u", "h", 22), Element("u", "h", 22)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Element(None, "h", 22)
    assert Route((), one) != one
    assert parse("h1/h2") == parse("h1!h2", delimiters=Delimiters(hop="!"))
    assert "host='h'" in repr(one)
    with pytest.raises(AttributeError, match="do not change"):
        one.host = "x"
    with pytest.raises(AttributeError, match="do not change"):
        del one.host
    assert one == other


# ── properties ──────────────────────────────────────────────────────────────

anything = st.text(max_size=40) | st.text("h1u3/+%=:~[]@-._!^\\$ 02\x00ü", max_size=40)


@st.composite
def delimiter_sets(draw: st.DrawFn) -> Delimiters:
    shuffled = draw(st.permutations(POSSIBLE_DELIMITERS))
    hops, users, ports = (draw(st.integers(1, 3)) for _ in range(3))
    text = "".join(shuffled)
    return Delimiters(text[:hops], text[hops : hops + users], text[hops + users : hops + users + ports])


def valid(check: str, text: str) -> bool:
    try:
        {"host": check_host, "user": check_user}[check](text)
    except RouteError:
        return False
    return True


names = st.text("hu1-._!%+/:=^~ü\\@", min_size=1, max_size=12)
hosts = (names | st.sampled_from(["::1", "fe80::1%lo", "h1:22", "h_1"])).filter(lambda text: valid("host", text))
ports = st.none() | st.integers(1, 65535)


@st.composite
def routes(draw: st.DrawFn, delimiters: Delimiters) -> Route:
    """Any route that can be spelled with these delimiters."""
    kept = delimiters.hop + delimiters.user
    users = names.filter(lambda text: valid("user", text) and not is_ipv6(text) and not any(c in kept for c in text))
    hops = draw(st.lists(st.builds(Element, st.none() | users, hosts, ports), max_size=4))
    return Route(tuple(hops), Element(None, draw(hosts), draw(ports)), delimiters)


@given(st.data(), st.just(DEFAULT_DELIMITERS) | delimiter_sets())
def test_a_route_written_and_read_again_is_the_same(data: st.DataObject, delimiters: Delimiters) -> None:
    wanted = data.draw(routes(delimiters))
    assert parse(str(wanted), delimiters=delimiters) == wanted


@given(anything, st.just(DEFAULT_DELIMITERS) | delimiter_sets(), st.integers(1, 65535))
def test_any_text_is_a_route_or_an_error_of_two_short_lines(text: str, delimiters: Delimiters, port: int) -> None:
    try:
        found = parse(text, port, delimiters)
    except RouteError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 2
        assert all(line.isprintable() and len(line) < 240 for line in lines)
    else:
        for element in (*found.hops, found.target):
            check_host(element.host)
            if element.user is not None:
                check_user(element.user)
            assert element.port is None or 1 <= element.port <= 65535
        assert found.target.user is None
        assert parse(str(found), delimiters=delimiters) == parse(text, port, delimiters)


@given(anything)
def test_any_text_is_a_jump_list_or_an_error(text: str) -> None:
    try:
        found = parse_jump(text)
    except RouteError as error:
        assert len(str(error).split("\n")) <= 2
    else:
        for element in found:
            check_host(element.host)
            if element.user is not None:
                check_user(element.user)


words = st.text("h1-._!%+/:=^~@#*?[]\\$, sS", min_size=1, max_size=12) | st.text(min_size=1, max_size=5)


@settings(max_examples=60)
@given(words.filter(lambda text: valid("host", text)), names.filter(lambda text: valid("user", text)))
def test_ssh_takes_every_host_and_user_that_passes_as_just_that(host: str, user: str) -> None:
    done = subprocess.run([need("ssh"), "-F", "none", "-G", "-l", user, "--", host], capture_output=True, check=False)
    assume(b"remote username contains invalid characters" not in done.stderr)  # newer ones refuse more than others
    assert done.returncode == 0, done.stderr
    said = dict(line.split(b" ", 1) for line in done.stdout.splitlines() if b" " in line)
    assert said[b"user"] == user.encode()
    # "host" is what it was asked for; "hostname" has 0.0.0.1 for 1.
    assert said[b"host"] == host.encode()
