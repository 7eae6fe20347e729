"""What carries each leg, and why: lines of `ssh -G` and options in, legs and reasons out, no socket opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pytest

from relay.config.settings import HopSettings, parse
from relay.dial import plan as planning
from relay.dial.plan import CLIENT, COMMAND, HELD, HOP, MASTER, PROXY, SSH, TCP, TOR, Names, Plan
from relay.errors import RelayError, Unserved
from relay.spec import options, route
from relay.spec.netcat import Netcat
from relay.spec.route import Element

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
AFTER_SSH = "as the hop before, which a second try would log in to again"
GSSAPI = "preferredauthentications gssapi-with-mic"

_watching = False


def _no_socket(event: str, _: tuple[object, ...]) -> None:
    if _watching and event in {"socket.__new__", "socket.connect", "socket.getaddrinfo"}:
        raise AssertionError(f"a plan opens no socket: {event}")


sys.addaudithook(_no_socket)


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    global _watching  # noqa: PLW0603  (an audit hook cannot be taken away)
    _watching = True
    yield
    _watching = False


def make(argv: str, config: dict[str, str] | None = None, lives: Sequence[str] = (), held: Sequence[int] = ()) -> Plan:
    """The plan of a command line. config: lines of `ssh -G` by name. lives: names whose ControlMaster does."""
    chosen = options.parse(argv.split())
    asked = route.parse(chosen.destination, chosen.port, chosen.delimiters)

    def found(elements: Sequence[Element]) -> list[HopSettings]:
        return [HopSettings(each.host, parse((config or {}).get(each.host, "").encode())) for each in elements]

    elements = [*asked.hops, asked.target]
    names: Names = planning.names(elements, found(elements), chosen, look_up=found, lives=lambda hop: hop.name in lives)
    return planning.plan(
        names.places(), names.found, chosen, master=names.master, is_held=lambda number: number in held
    )


def told(legs: Plan) -> list[str]:
    """A plan in a line for each leg."""
    return [
        f"{leg.settings.name}: {leg.reached}" + (f", entered {leg.entered}" if leg.entered is not None else "")
        for leg in legs.legs
    ]


CASES = [
    ("h", {}, [f"h: by {TCP}"]),
    ("h1/h2/t", {}, [f"h1: by {TCP}, entered by {CLIENT}", f"h2: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"]),
    ("-x p:1080 h1/t", {}, [f"h1: by {PROXY}: the SOCKS5 proxy p:1080, entered by {CLIENT}", f"t: by {HOP}"]),
    (
        "-x p:1080 h1/t",
        {"h1": "proxycommand nc a b\nproxyjump j"},
        [f"h1: by {PROXY}: the SOCKS5 proxy p:1080, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    (f"{ONION}/t", {}, [f"{ONION}: by {TOR}: a .onion name, entered by {CLIENT}", f"t: by {HOP}"]),
    ("h1/t", {"h1": f"hostname {ONION}"}, [f"h1: by {TOR}: a .onion name, entered by {CLIENT}", f"t: by {HOP}"]),
    # The name itself says how it is reached.
    (
        f"{ONION}/t",
        {ONION: "proxycommand nc a b\nproxyjump j"},
        [f"{ONION}: by {TOR}: a .onion name, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    ("h1/t", {"h1": "proxycommand nc a b"}, [f"h1: by {COMMAND}, entered by {CLIENT}", f"t: by {HOP}"]),
    ("h1/t", {"h1": "proxycommand none"}, [f"h1: by {TCP}, entered by {CLIENT}", f"t: by {HOP}"]),
    # A ProxyCommand counts for the first name only: the others are reached through the hop before them.
    (
        "h1/h2/t",
        {"h2": "proxycommand nc a b"},
        [f"h1: by {TCP}, entered by {CLIENT}", f"h2: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    (
        "h1/t",
        {"h1": "proxyjump j1,j2"},
        [
            f"j1: by {TCP}, entered by {CLIENT}",
            f"j2: by {HOP}, entered by {CLIENT}",
            f"h1: by {HOP}, entered by {CLIENT}",
            f"t: by {HOP}",
        ],
    ),
    # What a ProxyJump brings in may have one itself.
    (
        "h1/t",
        {"h1": "proxyjump j1", "j1": "proxyjump j2"},
        [
            *(f"{name}: by {by}, entered by {CLIENT}" for name, by in (("j2", TCP), ("j1", HOP), ("h1", HOP))),
            f"t: by {HOP}",
        ],
    ),
    ("--engine ssh h1/t", {}, [f"h1: by {TCP}, entered by {SSH}: --engine ssh", f"t: by {HOP}"]),
    (
        "--engine paramiko h1/t",
        {"h1": GSSAPI},
        [f"h1: by {TCP}, entered by {CLIENT}: --engine paramiko", f"t: by {HOP}"],
    ),
    (
        "h1/h2/h3/t",
        {"h2": GSSAPI},
        [
            f"h1: by {TCP}, entered by {CLIENT}",
            f"h2: by {HOP}, entered by {SSH}: only gssapi-with-mic may be tried",
            f"h3: by {HOP}, entered by {SSH}: {AFTER_SSH}",
            f"t: by {HOP}",
        ],
    ),
    (
        "h1/t",
        {"h1": "pkcs11provider /usr/lib/p11.so"},
        [f"h1: by {TCP}, entered by {SSH}: PKCS11Provider", f"t: by {HOP}"],
    ),
]


@pytest.mark.parametrize(("argv", "config", "legs"), CASES, ids=[f"{argv} {config}"[:70] for argv, config, _ in CASES])
def test_what_carries_each_leg(argv: str, config: dict[str, str], legs: list[str]) -> None:
    assert told(make(argv, config)) == legs


MASTER_CASES = [
    # A master that lives is asked before ssh_config's ProxyJump is looked at, as ssh does it.
    (
        "h1/h2/t",
        {"h1": "controlpath /m\nproxyjump j"},
        [f"h1: by {TCP}, entered by {MASTER}: /m", f"h2: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    # The first name that is travelled has a say, whoever brought it in.
    (
        "h1/t",
        {"h1": "proxyjump j", "j": "controlpath /j"},
        [f"j: by {TCP}, entered by {MASTER}: /j", f"h1: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    ("h1/t", {"h1": ""}, [f"h1: by {TCP}, entered by {CLIENT}", f"t: by {HOP}"]),
    (
        "--engine paramiko h1/t",
        {"h1": "controlpath /m"},
        [f"h1: by {TCP}, entered by {CLIENT}: --engine paramiko", f"t: by {HOP}"],
    ),
    (
        "--netcat h1/t",
        {"h1": "controlpath /m"},
        [f"h1: by {TCP}, entered by {CLIENT}", f"t: by {HOP}: by a netcat there, if it denies forwarding"],
    ),
    ("--netcat=h1 h1/t", {}, [f"h1: by {TCP}, entered by {CLIENT}", f"t: by {HOP}: by a netcat there"]),
    (
        "-x p:1080 h1/t",
        {"h1": "controlpath /m"},
        [f"h1: by {PROXY}: the SOCKS5 proxy p:1080, entered by {CLIENT}", f"t: by {HOP}"],
    ),
    (
        "h1/h2/t",
        {"h2": "controlpath /m"},
        [f"h1: by {TCP}, entered by {CLIENT}", f"h2: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"],
    ),
]


@pytest.mark.parametrize(("argv", "config", "legs"), MASTER_CASES)
def test_a_master_that_lives(argv: str, config: dict[str, str], legs: list[str]) -> None:
    assert told(make(argv, config, lives=["h1", "h2", "j"])) == legs


def test_a_master_that_does_not() -> None:
    assert told(make("h1/t", {"h1": "controlpath /m"})) == [f"h1: by {TCP}, entered by {CLIENT}", f"t: by {HOP}"]


@pytest.mark.parametrize(
    ("argv", "on"),
    [("h1/h2/t", True), ("-x p:1080 h1/h2/t", False), ("--tor h1/h2/t", False), (f"{ONION}/h2/t", False)],
)
def test_gss_api_is_off_where_a_name_is_kept_from_our_resolver(argv: str, on: bool) -> None:
    """Its library asks that for the name that it logs in to."""
    wanted = "gssapiauthentication yes\ngssapikeyexchange yes"
    for leg in make(argv, dict.fromkeys(("h1", "h2", ONION), wanted)).legs[:-1]:
        assert [leg.settings.yes(key) for key in ("gssapiauthentication", "gssapikeyexchange")] == [on, on]


def test_a_hop_that_is_held_needs_no_engine() -> None:
    legs = make("h1/h2/t", {"h1": "pkcs11provider /p.so"}, held=[0])
    assert told(legs) == [f"h1: by {TCP}, entered by {HELD}", f"h2: by {HOP}, entered by {CLIENT}", f"t: by {HOP}"]


def test_a_refusal_at_the_key_exchange_replaces_the_rest() -> None:
    legs = make("h1/h2/h3/t").without_client(1, Unserved("no cipher in common"))
    assert told(legs) == [
        f"h1: by {TCP}, entered by {CLIENT}",
        f"h2: by {HOP}, entered by {SSH}: no cipher in common",
        f"h3: by {HOP}, entered by {SSH}: {AFTER_SSH}",
        f"t: by {HOP}",
    ]
    assert [leg.settings.name for leg in legs.rest(1).legs] == ["h2", "h3", "t"]


def test_who_wants_our_client_hears_why_it_does_not_do() -> None:
    refusal = Unserved("no cipher in common")
    with pytest.raises(Unserved) as caught:
        make("--engine paramiko h1/t").without_client(0, refusal)
    assert caught.value is refusal
    assert refusal.hint == "--engine auto leaves such a hop to ssh"
    with pytest.raises(Unserved) as caught:
        make("--engine paramiko h1/t").without_client(0, Unserved("no host key", hint="its own"))
    assert caught.value.hint == "its own"


REFUSED = [
    ("h1/t", {"h1": "proxyjump j", "j": "proxyjump h1"}, "the ProxyJump of j leads back to h1"),
    ("h1/t", {"h1": "proxyjump j", "j": "proxyjump k", "k": "proxyjump j"}, "the ProxyJump of k leads back to j"),
    ("h1/t", {"h1": "proxyjump j,$x@k"}, r"ssh_config: the ProxyJump of h1, j,\$x@k: a user cannot hold '\$'"),
    (f"h1/{ONION}", {}, "a hop cannot be asked for a .onion name"),
    ("h1/t", {"t": f"hostname {ONION}"}, "a hop cannot be asked for a .onion name"),
    ("h1/t", {"h1": "proxycommand nc %Z"}, "unknown token %Z"),
]


@pytest.mark.parametrize(("argv", "config", "why"), REFUSED)
def test_a_route_that_cannot_be_travelled(argv: str, config: dict[str, str], why: str) -> None:
    with pytest.raises(RelayError, match=why.replace(".", r"\.")):
        make(argv, config)


def test_netcat_goes_with_the_hop_that_it_was_named_for() -> None:
    legs = make("--netcat=h2 --netcat-command nc:%h:%p h1/h2/t")
    assert [leg.netcat for leg in legs.legs] == [None, Netcat("nc:%h:%p", named=True), None]
