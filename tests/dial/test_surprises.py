"""What `pyrelay --explain` says of a route that may surprise, by the real ssh -G."""

from __future__ import annotations

import re

import pytest
from explained import HOST_KEY, explained, text
from lab import ROOT, Lab

from relay.dial.explain.keywords import BUT_BY_TCP, BY_OUR_CLIENT, ON_ANY_HOP

TABLE = ROOT / "docs" / "ssh_config.md"


def test_a_hostname_that_takes_the_route_away(plan: Lab) -> None:
    plan.head = "Host *+h3\n    HostName elsewhere"
    found = explained(plan, "h1+h3")
    (note,) = found["notes"]
    assert note == (
        "HostName takes the route away: a block of ssh_config that matches h1+h3 gives it the HostName elsewhere, "
        "and ssh hands that over; write %n for %h, as pyrelay --ssh-config does"
    )
    assert found["ssh"]["proxycommand"].endswith(" elsewhere 22")
    assert found["route"] == "h1/h3"
    plan.head += "\n    ProxyCommand pyrelay '%n' %p"
    assert explained(plan, "h1+h3")["notes"] == []


def test_an_alias_is_followed(plan: Lab) -> None:
    plan.host("web", HostName="h1+h2+h3", ProxyCommand="pyrelay %h %p")
    found = explained(plan, "web")
    assert (found["route"], len(found["legs"])) == ("h1/h2/h3", 3)
    assert found["notes"] == ["web is an alias: ssh hands h1/h2/h3 over"]
    plan.host("web", HostName="h1+h2+h3", ProxyCommand="env A=1 pyrelay -l gate -J j1 %h 2202")
    found = explained(plan, "web")
    assert [leg["port"] for leg in found["legs"]][-1] == 2202
    other = f"ssh runs pyrelay with other options; pyrelay --explain -F {plan.config} -l gate -J j1 web explains that"
    assert found["notes"] == ["web is an alias: ssh hands h1/h2/h3:2202 over", other]
    plan.host("Bastion-EU")
    plan.host("web", HostName="Bastion-EU+h3", ProxyCommand="pyrelay %h %p")
    capitals = "ssh_config has Bastion-EU, which bastion-eu does not match: capitals count"
    assert explained(plan, "web", status=1)["notes"] == ["web is an alias: ssh hands bastion-eu/h3 over", capitals]
    plan.host("web", HostName="h1+h2+h3", ProxyCommand="none")
    assert explained(plan, "web")["notes"] == [
        "ssh_config gives web no ProxyCommand: ssh looks h1+h2+h3 up as one name; see pyrelay --ssh-config"
    ]
    plan.host("web", HostName="h3", ProxyCommand="exec pyrelay -q h1/%h %p", Port=2200)
    found = explained(plan, "web")
    legs = [(leg["place"], leg["port"]) for leg in found["legs"]]
    assert legs == [("hop 1 of 1 (h1)", 2201), ("target (h3:2200)", 2200)]


def test_a_single_name_that_ssh_goes_to_by_another_way(plan: Lab) -> None:
    plan.host("h3", ProxyJump="h1")
    note = "ssh goes through its ProxyJump h1, and this is the straight way; pyrelay --check -J h1 h3 tries that one"
    assert explained(plan, "h3")["notes"] == [note]
    assert explained(plan, "-J", "h1", "h3")["notes"] == []
    assert explained(plan, "--tor", "h3")["notes"] == []
    plan.host("h3", ProxyJump="none", ProxyCommand="nc -x p:1 %h %p")
    assert explained(plan, "h3")["notes"] == [
        "ssh goes by its ProxyCommand, nc -x p:1 h3.example 22, and this is the straight way"
    ]


def test_an_onion_name_that_ssh_asks_the_resolver_for(plan: Lab) -> None:
    note = "ssh_config gives it no ProxyCommand: ssh asks the resolver for it; see pyrelay --ssh-config"
    plan.host("hidden", HostName="x.onion")
    for name in ("x.onion", "hidden"):
        assert explained(plan, name)["notes"] == [note]
    plan.head = "Host *.onion\n    ProxyCommand pyrelay %h %p"
    assert explained(plan, "x.onion")["notes"] == []
    plan.head = "Host *.onion\n    ProxyJump h1"
    (note,) = explained(plan, "x.onion")["notes"]
    assert note == "ssh_config gives it no ProxyCommand: ssh goes through its ProxyJump h1; see pyrelay --ssh-config"


def test_a_host_key_that_is_not_checked_on_this_machine(plan: Lab) -> None:
    plan.known_hosts.write_text("")
    exempt = {"NoHostAuthenticationForLocalhost": "yes", "StrictHostKeyChecking": "yes"}
    plan.host("h1", HostName="127.0.0.1", **exempt)
    (first, _) = explained(plan, "h1/h3")["legs"]
    assert first["host_key"]["state"] == "not checked"
    assert first["host_key"]["then"] == "NoHostAuthenticationForLocalhost"
    plan.host("h1", HostName="localhost", **exempt)
    (first, _) = explained(plan, "h1/h3")["legs"]
    assert first["host_key"]["then"].endswith(", unless it is this machine (NoHostAuthenticationForLocalhost)")
    plan.host("h1", HostName="192.0.2.1", **exempt)
    assert "it is refused" in explained(plan, "h1/h3", status=1)["error"]


@pytest.mark.parametrize("on", ["yes", "always", "no"])
def test_a_name_that_ssh_may_make_another_of(plan: Lab, on: str) -> None:
    """Its key may be known under the other one."""
    plan.known_hosts.write_text("")
    plan.host("h2", CanonicalizeHostname=on, CanonicalDomains="example")
    note = "CanonicalizeHostname is on: ssh may give it another name, and the settings of that, when it looks it up"
    found = explained(plan, "h2/h3", status=int(on == "no"))
    assert found["notes"] == [f"hop 1 of 1 (h2): {note}"] * (on != "no")
    assert found["legs"][0]["host_key"]["refused"] is (on == "no")
    assert explained(plan, "h2")["notes"] == [f"h2: {note}"] * (on != "no")
    plan.host("h2", HostName="127.0.0.1")
    assert explained(plan, "h2/h3", status=1)["notes"] == explained(plan, "h2")["notes"] == []


def test_a_user_that_ssh_has_cut_off_before_more_hops(plan: Lab) -> None:
    (note,) = explained(plan, "u1@h1/u2@h2/h3")["notes"]
    assert note.endswith("as the user u1@h1/u2; write ssh u1%h1/u2%h2/h3")


def test_a_user_that_ssh_has_cut_off(plan: Lab) -> None:
    plan.host("h3", ProxyCommand="none")
    found = explained(plan, "u1@h1/u3@h3")
    assert [(leg["place"], leg["user"]) for leg in found["legs"]] == [("h3.example", "u1@h1/u3")]
    assert found["notes"] == [
        "ssh cuts the name at its last '@': it goes straight to h3, as the user u1@h1/u3; write ssh -l u3 u1%h1/h3"
    ]
    assert found["ssh"]["user"] == "u1@h1/u3"
    plain = explained(plan, "root@h1/h3")
    assert [leg["user"] for leg in plain["legs"]] == ["u1", "root"]
    assert plain["notes"] == ["ssh takes root for the user of h3, the target; a hop's user is written root%h1"]


def test_a_uri_is_no_route(plan: Lab) -> None:
    (leg,) = explained(plan, "ssh://u@h3:2200/")["legs"]
    assert (leg["user"], leg["host"], leg["port"]) == ("u", "h3.example", 2200)


def test_a_name_with_capitals(plan: Lab) -> None:
    plan.host("Bastion-EU", HostName="127.0.0.1", Port=2201)
    (note,) = explained(plan, "Bastion-EU/h3")["notes"]
    assert note == (
        "Bastion-EU is known with its capitals only, and ssh hands over bastion-eu: "
        "write %n for %h, as pyrelay --ssh-config does"
    )
    (note,) = explained(plan, "bastion-eu/h3", status=1)["notes"][:1]
    assert note == "ssh_config has Bastion-EU, which bastion-eu does not match: capitals count"
    assert explained(plan, "u1%Bastion-EU/h3")["notes"] == []  # ssh leaves a name with a % as it is
    plan.head = "Host */*\n    ProxyCommand pyrelay '%n' %p"
    assert explained(plan, "Bastion-EU/h3")["notes"] == []


def test_a_user_with_capitals(plan: Lab) -> None:
    note = "ssh hands over {} for the user {}: write %n for %h, as pyrelay --ssh-config does".format
    found = explained(plan, "Root=h1+U2=h2+h3")
    assert found["notes"] == [note("root", "Root"), note("u2", "U2")]
    assert " root=h1+u2=h2+h3 " in found["ssh"]["proxycommand"]
    for name in ("Root%h1/h3", "root=h1+h3"):  # ssh leaves a name with a % as it is
        assert explained(plan, name)["notes"] == []
    plan.head = "Host *+*\n    ProxyCommand pyrelay '%n' %p"
    assert explained(plan, "Root=h1+h3")["notes"] == []


def test_a_netcat_for_a_host_that_is_not_a_hop(plan: Lab) -> None:
    notes = explained(plan, "--netcat=h1", "--netcat=h3", "h1/h3")["notes"]
    assert [note for note in notes if note.startswith("--netcat")] == [
        "--netcat=h3 names a host that is not a hop of this route"  # but its target
    ]


def test_a_port_that_a_block_hands_over(plan: Lab) -> None:
    plan.head = "Host h1*\n    Port 2201"
    found = explained(plan, "h1/h3")
    assert found["legs"][1]["port"] == 2201
    assert found["notes"] == ["ssh_config gives h1/h3 the Port 2201, which ssh hands over for the target"]
    found = explained(plan, "h1/h3:2200")
    assert (found["legs"][1]["port"], found["notes"]) == (2200, [])


def test_settings_without_effect(plan: Lab) -> None:
    plan.host("h1", ForwardAgent="yes", VerifyHostKeyDNS="yes", BindAddress="127.0.0.1")
    plan.host("h2", ProxyJump="other", BindAddress="127.0.0.1", LocalForward="8080 localhost:80")
    assert explained(plan, "h1/h2/h3")["notes"] == [
        "hop 1 of 2 (h1): without effect on a hop: ForwardAgent, VerifyHostKeyDNS",
        "hop 2 of 2 (h2): its ProxyJump has no effect: it is reached through h1",
        "hop 2 of 2 (h2): without effect on a hop: BindAddress, LocalForward",
    ]
    plan.host("h1", ProxyCommand="false")
    notes = explained(plan, "--tor", "h1/h3")["notes"]
    assert notes[1] == "hop 1 of 1 (h1): its ProxyCommand has no effect: it is reached by Tor"


# Distributions set these for all hosts.
EVERYWHERE = {"SendEnv", "GSSAPIAuthentication"}
# And these are set by ourselves when ssh -G is asked.
OURS = {"RequestTTY", "SessionType", "CanonicalizeHostname", "CanonicalizePermittedCNAMEs"}


def test_the_settings_without_effect_are_those_of_the_table() -> None:
    said = next(line for line in TABLE.read_text().splitlines() if line.startswith("`pyrelay --explain` names"))
    assert set(re.findall(r"`(\w+)`", said)) == EVERYWHERE | OURS
    rows = [line.strip("| \n").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    found = {
        words: {row[0] for row in rows if words in row[1:2]} for words in ("without effect", "by ssh's engine only")
    }
    assert found["without effect"] - EVERYWHERE - OURS == set(ON_ANY_HOP)
    assert found["by ssh's engine only"] - EVERYWHERE == set(BY_OUR_CLIENT)
    by_tcp = {row[0] for row in rows if row[2:] and row[2].startswith("the first hop, by TCP")}
    assert set(BUT_BY_TCP) == by_tcp - OURS


def test_a_control_path_that_cannot_be_a_file_name(plan: Lab) -> None:
    for path, note in (
        (f"{plan.top}/%h", f"ControlPath {plan.top}/h1/h3 cannot be a file name, since the route has a / in it: "),
        (f"{plan.top}/%n", f"ControlPath {plan.top}/h1/h3 cannot be a file name, since the route has a / in it: "),
        (f"{plan.top}/none/%C", f"ControlPath {plan.top}/none/"),
        (f"{plan.top}/{'x' * 90}", f"ControlPath {plan.top}/xx"),
        (f"{plan.top}/%C", ""),
    ):
        plan.head = f"Host */*\n    ControlPath {path}"
        notes = explained(plan, "h1/h3")["notes"]
        assert [each.startswith(note) for each in notes] == [True] * bool(note)


def test_other_options_than_those_of_the_proxy_command(plan: Lab) -> None:
    plan.options = ["--tor", "-q"]
    assert explained(plan, "h2/h3")["notes"] == [
        f"ssh runs pyrelay with other options; pyrelay --explain -F {plan.config} --tor -q h2/h3 explains that"
    ]
    assert explained(plan, "--tor", "h2/h3")["notes"] == []
    plan.options = ["--tro"]
    (note,) = explained(plan, "h2/h3")["notes"]
    assert note.startswith("ssh runs pyrelay with what it does not take: unknown option --tr")


def test_the_options_of_an_alias_explain_it(plan: Lab) -> None:
    """They are shown with the name as it was typed, since ssh_config gives that its HOST."""
    plan.known_hosts.write_text(f"* {HOST_KEY}\n")
    plan.host("web", HostName="h3", ProxyCommand="pyrelay -l gate -J j1 h1+%h %p")
    (note,) = explained(plan, "web")["notes"][1:]
    *words, last = note.partition("; pyrelay --explain ")[2].removesuffix(" explains that").split()
    assert (words, last) == (["-F", str(plan.config), "-l", "gate", "-J", "j1"], "web")
    found = explained(plan, *words, last)
    assert (found["route"], found["legs"][0]["user"], found["notes"]) == ("j1/h1/h3", "gate", [])
    plan.host("web", HostName="h3", ProxyCommand="pyrelay --netcat=h1 -qv h1+%h %p")
    (note,) = explained(plan, "u@web", "2200")["notes"][1:]
    assert note.endswith(" --netcat=h1 -q -v u@web 2200 explains that")


def test_a_proxy_command_whose_host_is_no_route(plan: Lab) -> None:
    """A run would end with these words, though the name as it was typed is in order."""
    plan.head = "Host */*\n    ProxyCommand pyrelay %r@%h %p"
    does_not_take = "ssh runs pyrelay with what it does not take: "
    assert explained(plan, "h1/h3")["notes"] == [
        f"{does_not_take}hop 1 of 1 ({plan.user}@h1): '@' cannot stand in a host"
    ]
    assert "'@' cannot stand in a host" in plan.ssh("h1/h3", "true").stderr
    plan.head = "Host */*\n    ProxyCommand pyrelay %h/ %p"
    assert explained(plan, "h1/h3")["notes"] == [f"{does_not_take}target: the name is empty"]


def test_a_proxy_command_that_no_program_has_the_name_of(plan: Lab) -> None:
    plan.head = "Host */*\n    ProxyCommand pyrelai %h %p"
    note = "the ProxyCommand of h1/h3 cannot be run: there is no program pyrelai in PATH"
    assert explained(plan, "h1/h3")["notes"] == [note]
    assert "pyrelai: not found" in plan.ssh("h1/h3", "true").stderr
    plan.host("h2", ProxyCommand=f"{plan.home}/gone -x %h")
    gone = f"cannot be run: there is no program {plan.home}/gone"
    assert explained(plan, "h2")["notes"][0] == f"the ProxyCommand of h2 {gone}"
    assert explained(plan, "h2+h3")["notes"] == [f"hop 1 of 1 (h2): its ProxyCommand {gone}"]
    for name in ("two words", "program"):
        (plan.home / name).symlink_to("/bin/true")
    for command in (f"'{plan.home}/two words' %h %p", "~/program %h", "$HOME/gone %h", "(gone)", "env gone %h"):
        plan.head = f"Host */*\n    ProxyCommand {command}"
        assert explained(plan, "h1/h3")["notes"] == [], command


# What ssh itself does


def test_which_proxy_command_and_host_key_alias(plan: Lab) -> None:
    printed = text(plan, "h1/h3", "2200")
    assert f"\nssh runs the ProxyCommand pyrelay -F {plan.config} h1/h3 2200\n" in printed
    assert "\nssh looks the target's key up under [h1/h3]:2200: no HostKeyAlias\n" in printed
    plan.head = "Host */h3\n    HostKeyAlias the-third"
    assert "\nssh looks the target's key up under the HostKeyAlias the-third\n" in text(plan, "h1/h3")
    plan.head = "Host */h3\n    ProxyJump j1"
    found = explained(plan, "h1/h3")
    assert found["ssh"]["proxyjump"] == "j1"
    assert found["notes"][0] == (
        "ssh_config gives h1/h3 no ProxyCommand: ssh goes through its ProxyJump j1; see pyrelay --ssh-config"
    )


def test_no_block_for_routes(plan: Lab) -> None:
    plan.head = "Host */h3\n    ProxyCommand none"
    assert explained(plan, "h1/h3")["notes"] == [
        "ssh_config gives h1/h3 no ProxyCommand: ssh looks it up as one name; see pyrelay --ssh-config"
    ]


def test_a_name_whose_ssh_goes_to_the_background(plan: Lab) -> None:
    """ssh takes it where a command follows."""
    plan.host("h1/h3", ForkAfterAuthentication="yes")
    assert len(explained(plan, "h1/h3")["legs"]) == 2


def test_a_name_that_ssh_refuses(plan: Lab) -> None:
    found = explained(plan, "h1/$h3", status=1)
    assert found["error"] == "target ($h3): a host cannot hold '$'"
    assert found["ssh"]["refusal"].startswith("ssh refuses the name: ")
    assert found["legs"] == found["notes"] == []


@pytest.mark.parametrize("name", ["h3", "h1/h3"])
def test_a_config_that_ssh_refuses(plan: Lab, name: str) -> None:
    """The name is in order. The words are those of a run."""
    plan.head = "Nonsense yes\nHots foo"
    found = explained(plan, name, status=1)
    bad = f"{plan.config}: line {{}}: Bad configuration option: {{}}; ".format
    assert found["error"].startswith(f"ssh_config of {name}: {bad(1, 'nonsense')}{bad(2, 'hots')}{plan.config}: ")
    assert plan.pyrelay("h1/h3").stderr.startswith(f"pyrelay: ssh_config of h1: {bad(1, 'nonsense')}{bad(2, 'hots')}")
