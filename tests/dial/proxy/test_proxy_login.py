"""Logging in to an HTTP proxy: which way is taken, what goes out and when, and what is said when it fails.

By a scripted proxy; squid, tinyproxy and ncat are in test_proxy_peers.py.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from peers import LOOPBACK
from scripted_proxy import BANNER, Line, Peer

from relay.dial.proxy import digest
from relay.dial.proxy.auth import Challenge, challenges
from relay.dial.proxy.leg import connect
from relay.errors import RelayError
from relay.run import Run
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import Prompt
from relay.spec.options import Options
from relay.spec.proxy import BASIC, CONNECT, DIGEST, NEGOTIATE, Manner, Proxy

DIGEST_OFFER = 'Digest realm="proxy", nonce="abc", qop="auth", algorithm='
REQUEST = b"CONNECT target.example:22 HTTP/1.1\r\nHost: target.example:22\r\n"


@pytest.fixture(autouse=True)
def no_ticket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has logged in to any Kerberos."""
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")


class Wanting:
    """A proxy that wants a login.

    offers: the lines of the 407, one list for each connection; one that is None is the tunnel.
    """

    def __init__(self, *offers: list[str] | None) -> None:
        self.offers = list(offers)
        self.peer = Peer(self._serve)

    def _serve(self, line: Line) -> None:
        line.hear_headers()
        lines = self.offers.pop(0)
        if lines is None:
            line.say(b"HTTP/1.1 200 OK\r\n\r\n" + BANNER)
        else:
            fields = "".join(f"Proxy-Authenticate: {each}\r\n" for each in lines)
            line.say(f"HTTP/1.1 407 No\r\n{fields}\r\n".encode())
        line.last()

    def said(self) -> list[str]:
        """What each connection has said behind the request itself."""
        heard = [bytes(each) for each in self.peer.heard]
        assert all(each.startswith(REQUEST) for each in heard)
        return [each.removeprefix(REQUEST).decode().strip() for each in heard]


@pytest.fixture
def wanting() -> Iterator[Callable[..., Wanting]]:
    started: list[Wanting] = []

    def start(*offers: list[str] | None) -> Wanting:
        started.append(Wanting(*offers))
        return started[-1]

    yield start
    for each in started:
        each.peer.stop()


def ask(proxy: Wanting, manner: Manner | None = None, user: str | None = "alice", password: str = "secret") -> bytes:
    progress = Progress(30, verbosity=-1)
    asked = Proxy(CONNECT, LOOPBACK, proxy.peer.port, user=user, password=password if user else None)
    run = Run(Options(), progress, Prompt(progress, Children(), batch=True), Children())
    with closing(connect(asked.asked(manner or Manner()), "target.example", 22, run)) as sock:
        return sock.recv(100)


def refused(proxy: Wanting, manner: Manner | None = None, user: str | None = "alice") -> RelayError:
    with pytest.raises(RelayError) as caught:
        ask(proxy, manner, user)
    assert "secret" not in str(caught.value)
    return caught.value


def basic(user: str = "alice", password: str = "secret") -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def test_nothing_is_said_before_it_is_asked_for(wanting: Callable[..., Wanting]) -> None:
    proxy = wanting(None)
    assert ask(proxy) == BANNER
    assert proxy.said() == [""]


def test_basic_is_said_when_nothing_better_is_offered(wanting: Callable[..., Wanting]) -> None:
    proxy = wanting(['NTLM, Basic realm="x"'], None)
    password = "p:" + "\u00fc" * 100
    assert ask(proxy, password=password) == BANNER
    assert proxy.said() == ["", basic(password=password)]


def test_basic_is_said_to_a_proxy_that_names_nothing(wanting: Callable[..., Wanting]) -> None:
    """As nc does."""
    proxy = wanting([], None)
    assert ask(proxy) == BANNER
    assert proxy.said() == ["", basic()]
    assert refused(wanting([]), user=None).hint.startswith("give the user by -P")


def test_a_folded_line_is_one(wanting: Callable[..., Wanting]) -> None:
    """RFC 9112 section 5.2."""
    proxy = wanting(['Digest realm="x",\r\n nonce="abc",\r\n\tqop="auth"'], None)
    assert ask(proxy) == BANNER
    given, wanted = response_of(proxy.said()[1], "MD5")
    assert given == wanted


def test_basic_is_said_at_once_where_that_is_chosen(wanting: Callable[..., Wanting]) -> None:
    proxy = wanting(None)
    assert ask(proxy, Manner(auth=BASIC)) == BANNER
    assert proxy.said() == [basic()]


def test_a_way_that_is_chosen_is_the_only_one(wanting: Callable[..., Wanting]) -> None:
    proxy = wanting(["Basic"])
    assert "it wants basic; pyrelay has" in refused(proxy, Manner(auth=DIGEST)).hint
    assert proxy.said() == [""]
    proxy = wanting([DIGEST_OFFER + "MD5", "Basic"], None)
    assert ask(proxy, Manner(auth=DIGEST)) == BANNER
    assert proxy.said()[1].startswith("Proxy-Authorization: Digest ")


def response_of(said: str, algorithm: str, password: str = "secret") -> tuple[str, str]:
    """The response in a Digest answer, and the right one."""
    (given,) = challenges([said.removeprefix("Proxy-Authorization: ")])
    told = given.parameters
    assert (given.scheme, told["username"], told["uri"], told["qop"]) == (
        "digest",
        "alice",
        "target.example:22",
        "auth",
    )

    def hashed(*parts: str) -> str:
        return hashlib.new(algorithm, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    secret = hashed("alice", told["realm"], password)
    request = hashed("CONNECT", told["uri"])
    return told["response"], hashed(secret, told["nonce"], told["nc"], told["cnonce"], told["qop"], request)


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_digest_goes_before_basic_and_sha_256_before_md5(wanting: Callable[..., Wanting], algorithm: str) -> None:
    offers = ["Basic realm=x", DIGEST_OFFER + "MD5", *([DIGEST_OFFER + algorithm] if algorithm != "MD5" else [])]
    proxy = wanting(offers, None)
    assert ask(proxy) == BANNER
    given, wanted = response_of(proxy.said()[1], algorithm.replace("-", ""))
    assert given == wanted
    assert f"algorithm={algorithm}" in proxy.said()[1]


@pytest.mark.parametrize(
    "offer",
    [
        'Digest realm="x\rX: y", nonce="n", qop="auth"',
        'Digest realm="x", nonce="n"',
        'Digest realm="x", nonce="n", qop="auth-int"',
        DIGEST_OFFER + "MD5-sess",
    ],
)
def test_what_digest_cannot_answer_is_passed_over(wanting: Callable[..., Wanting], offer: str) -> None:
    proxy = wanting([offer, "Basic"], None)
    assert ask(proxy) == BANNER
    assert proxy.said() == ["", basic()]
    assert ("no qop=auth" if "MD5" not in offer else "is by MD5-SESS; pyrelay has SHA-256 and MD5") in refused(
        wanting([offer])
    ).hint


def test_a_nonce_that_is_too_old_is_no_wrong_password(wanting: Callable[..., Wanting]) -> None:
    stale = f"{DIGEST_OFFER}MD5, stale=TRUE"
    proxy = wanting([DIGEST_OFFER + "MD5"], [stale.replace("abc", "def")], None)
    assert ask(proxy) == BANNER
    assert [response_of(said, "MD5") for said in proxy.said()[1:]] == [
        (given, given) for given, _ in (response_of(said, "MD5") for said in proxy.said()[1:])
    ]
    assert 'nonce="def"' in proxy.said()[2]
    proxy = wanting([DIGEST_OFFER + "MD5"], [stale], [stale])  # not for ever
    assert "does not accept the login by digest" in refused(proxy).cause


@pytest.mark.parametrize("offer", ["Basic realm=x", DIGEST_OFFER + "MD5"])
def test_a_wrong_password_is_said_once(wanting: Callable[..., Wanting], offer: str) -> None:
    proxy = wanting([offer], [offer], None)
    error = refused(proxy)
    scheme = offer.partition(" ")[0].lower()
    assert error.cause.endswith(f" refuses: 407 No: it does not accept the login by {scheme}")
    assert error.hint == "the password is taken from $PYRELAY_PROXY_PASSWORD, else it is asked for"
    assert len(proxy.said()) == 2


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (['Negotiate, Basic realm="x"'], "give the user by -P, the password by $PYRELAY_PROXY_PASSWORD"),
        (["NTLM"], "it wants ntlm; pyrelay has no NTLM; cntlm and px are proxies for this machine that do"),
        (['Foo realm="a, Basic b"', "Bar"], "it wants foo, bar; pyrelay has negotiate, digest, basic"),
    ],
)
def test_the_hint_names_what_the_proxy_wants(wanting: Callable[..., Wanting], lines: list[str], hint: str) -> None:
    assert hint in refused(wanting(lines), user=None).hint


def test_negotiate_cannot_be_begun_without_a_ticket(wanting: Callable[..., Wanting]) -> None:
    proxy = wanting(["Negotiate", "Basic"], None)
    assert ask(proxy) == BANNER  # so the next way is taken
    assert proxy.said() == ["", basic()]
    proxy = wanting(None)
    refused(proxy, Manner(auth=NEGOTIATE))
    assert proxy.said() == []  # not even connected to


def test_the_vectors_of_the_rfc() -> None:
    """RFC 7616 section 3.9.1."""
    for algorithm, response in (
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ):
        offer = Challenge(
            "digest",
            parameters={
                "realm": "http-auth@example.org",
                "qop": "auth, auth-int",
                "algorithm": algorithm,
                "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
            },
        )
        cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
        said = digest.answer(offer, "Mufasa", "Circle of Life", "/dir/index.html", method="GET", cnonce=cnonce)
        assert f'response="{response}"' in said
        assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in said


# Headers of the user's own


def test_headers_are_added(wanting: Callable[..., Wanting], tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("X-Secret: token\n\nX-Other: \u00fc\n")
    proxy = wanting(None)
    assert ask(proxy, Manner(headers=("User-Agent: Mozilla/5.0", f"@{file}"))) == BANNER
    assert proxy.said() == ["User-Agent: Mozilla/5.0\r\nX-Secret: token\r\nX-Other: \u00fc"]


def test_a_file_of_headers_that_cannot_be_used(wanting: Callable[..., Wanting], tmp_path: Path) -> None:
    error = refused(wanting(), Manner(headers=(f"@{tmp_path}/none",)))
    assert str(error) == f"pyrelay: --proxy-header: {tmp_path}/none: no such file or directory"
    file = tmp_path / "headers"
    file.write_text("X: y\nhunter2\n")
    error = refused(wanting(), Manner(headers=(f"@{file}",)))
    assert error.place == f"--proxy-header @{file}, header 2"
    assert "hunter2" not in str(error)
