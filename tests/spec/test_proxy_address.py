"""Which proxy: the spellings of -X, -x, -P and --proxy, as a table and as a property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.spec import options
from relay.spec.proxy import CONNECT, SOCKS4, SOCKS5, TOR, Manner, Proxy, parse_address, parse_url
from relay.spec.route import is_onion

ADDRESSES = [
    ("10.0.0.1", Proxy(SOCKS5, "10.0.0.1", 1080)),
    ("alice@proxy:3128", Proxy(SOCKS5, "proxy", 3128, user="alice")),
    (r"CORP\alice@corp@proxy", Proxy(SOCKS5, "proxy", 1080, user=r"CORP\alice@corp")),
    ("[::1]:9050", Proxy(SOCKS5, "::1", 9050)),
    ("[::1]", Proxy(SOCKS5, "::1", 1080)),
    ("::1", Proxy(SOCKS5, "::1", 1080)),
    ("fe80::1%lo", Proxy(SOCKS5, "fe80::1%lo", 1080)),
    ("/run/tor/socks", Proxy(SOCKS5, path="/run/tor/socks")),
    ("/run/a@b", Proxy(SOCKS5, path="/run/a@b")),
    ("alice@/run/proxy", Proxy(SOCKS5, path="/run/proxy", user="alice")),
]
URLS = [
    ("socks5h://proxy", Proxy(SOCKS5, "proxy", 1080)),
    ("socks5://proxy:9050/", Proxy(SOCKS5, "proxy", 9050)),
    ("SOCKS5H://alice:s%3Acret%40@[::1]:1", Proxy(SOCKS5, "::1", 1, user="alice", password="s:cret@")),
    ("socks5h:///run/tor/socks", Proxy(SOCKS5, path="/run/tor/socks")),
    ("socks4a://a%40b@proxy:1081/", Proxy(SOCKS4, "proxy", 1081, user="a@b")),
    ("socks://proxy", Proxy(SOCKS5, "proxy", 1080)),
    ("socks4://proxy", Proxy(SOCKS4, "proxy", 1080)),
    ("http://alice@corp@proxy", Proxy(CONNECT, "proxy", 3128, user="alice@corp")),
    ("http://alice:@proxy", Proxy(CONNECT, "proxy", 3128, user="alice", password="")),
]


@pytest.mark.parametrize(("text", "proxy"), ADDRESSES)
def test_addresses(text: str, proxy: Proxy) -> None:
    assert parse_address(text) == proxy


@pytest.mark.parametrize(("text", "proxy"), URLS)
def test_urls(text: str, proxy: Proxy) -> None:
    assert parse_url(text) == proxy


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("proxy:", "the port is empty"),
        ("proxy:x", "'x' is not a port number"),
        ("proxy:0", "port 0 is not between"),
        ("proxy:70000", "is not between"),
        ("a:b:c", "':' cannot stand in a host outside brackets"),
        ("[::1", "brackets stand around a whole host"),
        ("[::1]x", "brackets stand around a whole host"),
        ("", "the host is empty"),
        ("@proxy", "the proxy's user is empty"),
        ("-oProxyCommand=x", "a host cannot begin with '-'"),
        ("$(id)", "a host cannot hold '$'"),
        ("a/b", "'/' cannot stand in a proxy's host"),
        ("/" + "x" * 104, "less than 104 bytes"),
        ("x" * 256 + "@proxy", "at most 255 bytes"),
        ("http://proxy:3128", "this is a URL"),
        ("unix:/run/proxy", "'unix:' is not needed"),
    ],
)
def test_what_is_no_address(text: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert cause in caught.value.cause


@pytest.mark.parametrize("zone", ["%eth0", "%25eth0"])
def test_the_zone_of_an_address(zone: str) -> None:
    """RFC 6874 section 2 has "%25" in a URL; everybody writes "%", too."""
    assert parse_url(f"http://[fe80::1{zone}]:3128").host == "fe80::1%eth0"
    assert parse_url("http://[fe80::1%25]:3128").host == "fe80::1%25"


def test_a_password_may_hold_what_is_not_seen() -> None:
    """RFC 7617 section 2 forbids control characters alone."""
    assert parse_url("http://al:a%C2%A0b%E3%80%80@proxy").password == "a\u00a0b\u3000"
    with pytest.raises(UsageError, match="cannot be sent"):
        parse_url("http://al:a%C2%85b@proxy")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("proxy:1080", "a proxy's URL begins with SCHEME://"),
        ("https://", "the host is empty"),
        ("https:///run/proxy", "a unix socket has no name that a certificate could have"),
        ("ftp://proxy", "'ftp' is not a scheme of a proxy"),
        ("http://proxy/path", "a proxy's URL ends after the port"),
        ("http://", "the host is empty"),
        ("http://a%3Ab:x@proxy", "cannot hold ':'"),
        ("http://a%0D%0AX@proxy", "cannot be sent"),
        ("socks4a://a%00b@proxy", "cannot be sent"),
        ("socks5h://a:@proxy", "the proxy's password is empty"),
        ("socks5h://:b@proxy", "the proxy's user is empty"),
    ],
)
def test_what_is_no_url(text: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(text)
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://proxy:3128", "--proxy http://proxy:3128"),
        ("socks5://alice@proxy", "--proxy socks5://alice@proxy"),
        ("socks5://alice:hunter2@proxy", "--proxy socks5://alice@proxy"),
        ("unix:/run/proxy", "-x /run/proxy"),
    ],
)
def test_the_hint_for_what_other_programs_write(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.hint == hint


@given(st.text(st.characters(), max_size=300))
def test_any_text_is_a_proxy_or_our_error(text: str) -> None:
    for parse in (parse_address, parse_url, lambda text: parse_url(f"socks5h://{text}")):
        try:
            proxy = parse(text)
        except UsageError as error:
            assert "\n" not in error.cause
            continue
        assert bool(proxy.path) != bool(proxy.host)
        if proxy.host:
            assert parse_address(proxy.address) == Proxy(SOCKS5, proxy.host, proxy.port)


def test_the_default_ports_are_those_of_nc() -> None:
    assert parse_address("p", SOCKS4).port == 1080
    assert parse_address("p", CONNECT).port == 3128


def test_no_repr_and_no_message_has_the_password() -> None:
    proxy = parse_url("http://alice:hunter2@proxy")
    assert "hunter2" not in f"{proxy!r} {proxy}"


@pytest.mark.parametrize(
    ("line", "proxy"),
    [
        ("-x p", Proxy(SOCKS5, "p", 1080)),
        ("-X4 -x p", Proxy(SOCKS4, "p", 1080)),
        ("-X 4a -x p:1", Proxy(SOCKS4, "p", 1)),
        ("-x p -X connect -P u", Proxy(CONNECT, "p", 3128, user="u")),
        ("-P u -x v@p", Proxy(SOCKS5, "p", 1080, user="v")),
        ("--proxy socks5h://p", Proxy(SOCKS5, "p", 1080)),
        ("--tor", Proxy(TOR)),
    ],
)
def test_options(line: str, proxy: Proxy) -> None:
    assert options.parse([*line.split(), "h"]).proxy == proxy


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-X 6 -x p", "pyrelay: -X: '6' is not one of 4, 4a, 5, connect"),
        ("-x p:0", "pyrelay: -x: port 0 is not between 1 and 65535"),
        ("--proxy=x", "pyrelay: --proxy: a proxy's URL begins with SCHEME://"),
        ("-X 5", "pyrelay: -X says how to use -x, which is not given"),
        ("-P u --tor", "pyrelay: -P says how to use -x, which is not given"),
        ("-x p --tor", "pyrelay: -x and --tor each name a proxy"),
        ("-P u:v -X connect -x p", "pyrelay: -x: a user of an HTTP proxy cannot hold ':'"),
    ],
)
def test_options_that_cannot_be_read(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse([*line.split(), "h"])
    assert str(caught.value).splitlines()[0] == message


@pytest.mark.parametrize("host", ["x.onion", "a.x.onion", "X.ONION", "x.onion."])
def test_onion_names(host: str) -> None:
    assert is_onion(host)


@pytest.mark.parametrize("host", ["onion", "x.onion.example", "xonion", "127.0.0.1", ""])
def test_other_names(host: str) -> None:
    assert not is_onion(host)


# In which manner it is asked


@pytest.mark.parametrize(
    ("line", "manner"),
    [
        ("--proxy http://p --proxy-auth basic", Manner(auth="basic")),
        ("-X connect -x p --proxy-auth negotiate --proxy-service web", Manner(auth="negotiate", service="web")),
        ("-x p --proxy-auth gssapi --proxy-protection none", Manner(auth="gssapi", protection="none")),
        ("-x p --proxy-auth gssapi --proxy-service socks@p.example", Manner(auth="gssapi", service="socks@p.example")),
        ("--proxy https://p --proxy-cacert /ca.pem", Manner(cacert="/ca.pem")),
        ("--proxy http://p --proxy-header X:y --proxy-header @f", Manner(headers=("X:y", "@f"))),
    ],
)
def test_manners(line: str, manner: Manner) -> None:
    proxy = options.parse([*line.split(), "h"]).proxy
    assert proxy is not None
    assert proxy.manner == manner


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--proxy-auth basic", "pyrelay: --proxy-auth says how to use a proxy, and none is given"),
        ("-x p --proxy-auth ntlm", "pyrelay: --proxy-auth: 'ntlm' is not one of negotiate, digest, basic, gssapi"),
        ("-x p --proxy-auth basic", "pyrelay: --proxy-auth: SOCKS5 has no basic"),
        ("-X 4 -x p --proxy-auth gssapi", "pyrelay: --proxy-auth: SOCKS4 has no gssapi"),
        ("--tor --proxy-auth gssapi", "pyrelay: --proxy-auth: Tor has no gssapi"),
        ("--proxy http://p --proxy-auth gssapi", "pyrelay: --proxy-auth: HTTP has no gssapi"),
        ("-x p --proxy-header X:y", "pyrelay: --proxy-header: SOCKS5 has no headers"),
        ("--proxy http://p --proxy-header hunter2", "pyrelay: --proxy-header: a header is NAME: VALUE, or @FILE"),
        ("--proxy http://p --proxy-header :y", "pyrelay: --proxy-header: a header is NAME: VALUE, or @FILE"),
        ("--proxy http://p --proxy-header @", "pyrelay: --proxy-header: there is no name of a file behind '@'"),
        ("--proxy http://p --proxy-cacert f", "pyrelay: --proxy-cacert: only https:// proxies have a certificate"),
        ("-x p --proxy-protection none", "pyrelay: --proxy-protection: this is for --proxy-auth gssapi"),
        (
            "-x p --proxy-protection 3",
            "pyrelay: --proxy-protection: '3' is not one of none, integrity, confidentiality",
        ),
        ("-x p --proxy-service a/b", "pyrelay: --proxy-service: a service is NAME or NAME@HOST"),
        ("-x p --proxy-service a", "pyrelay: --proxy-service: this is for --proxy-auth gssapi"),
    ],
)  # fmt: skip
def test_manners_that_cannot_be(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse([*line.split(), "h"])
    assert str(caught.value).splitlines()[0] == message


def test_a_header_holds_no_line_of_its_own() -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        options.parse(["--proxy", "http://p", "--proxy-header", "X: y\r\nZ: z", "h"])


def test_nobody_reads_a_header_in_a_repr_but_two_differ() -> None:
    first, second = (Proxy(CONNECT, "p").asked(Manner(headers=(f"X: {text}",))) for text in ("hunter2", "other"))
    assert "hunter2" not in repr(first)
    assert repr(first) != repr(second)
