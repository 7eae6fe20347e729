"""What an HTTP proxy says when it refuses: its challenges read by RFC 9110, and the causes that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dial.proxy.auth import Challenge, challenges
from relay.dial.proxy.causes import refusal
from relay.dial.proxy.message import Head

BASIC = Challenge("basic", parameters={"realm": "x"})
LISTS = [
    (['Negotiate, NTLM, Basic realm="x"'], [Challenge("negotiate"), Challenge("ntlm"), BASIC]),
    (["Basic, NTLM"], [Challenge("basic"), Challenge("ntlm")]),
    (["Negotiate", "NTLM", 'Basic realm="x"'], [Challenge("negotiate"), Challenge("ntlm"), BASIC]),
    (["Negotiate , ,", 'BASIC realm="x",'], [Challenge("negotiate"), BASIC]),
    (['Digest realm="a, Basic b"'], [Challenge("digest", parameters={"realm": "a, Basic b"})]),
    (
        [r'Digest realm="say \"a\", Basic", nonce = "n" ,qop="auth,auth-int",algorithm=MD5, basic Realm=x'],
        [
            Challenge(
                "digest",
                parameters={"realm": 'say "a", Basic', "nonce": "n", "qop": "auth,auth-int", "algorithm": "MD5"},
            ),
            BASIC,
        ],
    ),
    # A list goes on over lines (section 5.3).
    (['Digest realm="x"', 'nonce="n"'], [Challenge("digest", parameters={"realm": "x", "nonce": "n"})]),
    (["Negotiate YII+/-._~==, Basic"], [Challenge("negotiate", "YII+/-._~=="), Challenge("basic")]),
    (["NTLM TlRMTVNTUAAC"], [Challenge("ntlm", "TlRMTVNTUAAC")]),
    (['Basic realm="no end, NTLM'], [Challenge("basic", parameters={"realm": "no end, NTLM"})]),
    (['{}"a, b" c, Basic'], [Challenge("basic")]),
    ([""], []),
    ([], []),
]


@pytest.mark.parametrize(("lines", "wanted"), LISTS)
def test_challenges(lines: list[str], wanted: list[Challenge]) -> None:
    assert challenges(lines) == wanted


@given(st.lists(st.text(max_size=60) | st.text('abc=", \t\\', max_size=60), max_size=4))
def test_any_field_is_read_to_its_end(lines: list[str]) -> None:
    for challenge in challenges(lines):
        assert challenge.scheme and " " not in challenge.scheme


def said(status: int, *fields: tuple[str, str]) -> tuple[str, str]:
    head = Head(status, "No")
    head.fields += fields
    return refusal(head, login=None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("x-squid-error", "ERR_CONNECT_FAIL 111")], "it cannot connect: connection refused (ERR_CONNECT_FAIL 111)"),
        ([("x-squid-error", "ERR_DNS_FAIL 0")], "it cannot find the host (ERR_DNS_FAIL 0)"),
        ([("x-squid-error", "ERR_OF_OUR_OWN 0")], "ERR_OF_OUR_OWN 0"),
        ([("x-squid-error", "ERR_CONNECT_FAIL ²")], "it cannot connect (ERR_CONNECT_FAIL ²)"),
        (
            [("proxy-status", 'r34.example; error=http_request_error, edge.example; details="x"')],
            "http request error, says r34.example",
        ),
        (
            [("proxy-status", 'a; received-status=200, "b; c" ;error=dns_error; details="say \\"no\\", or; not"')],
            'dns error: say "no", or; not, says b; c',
        ),
        ([("proxy-status", "a"), ("proxy-status", "b;error=connection_refused")], "connection refused, says b"),
        ([("proxy-status", "a;received-status=503")], ""),
        ([("location", "http://portal/\x1b[1m")], ""),
    ],
)
def test_the_cause_that_a_field_names(fields: list[tuple[str, str]], words: str) -> None:
    assert said(503, *fields)[0] == (f"503 No: {words}" if words else "503 No")


@pytest.mark.parametrize("status", [302, 511])
def test_where_a_redirection_points_to(status: int) -> None:
    words, hint = said(status, ("location", "http://portal.example/login\x1b[1m"))
    assert words == f"{status} No: it points to http://portal.example/login [1m"
    assert "browser" in hint


def test_a_network_that_wants_a_login_first() -> None:
    assert "log in" in said(511)[1]


def test_a_403_may_be_for_the_port_or_for_the_user_agent() -> None:
    hint = said(403)[1]
    assert "443" in hint and "User-Agent" in hint
