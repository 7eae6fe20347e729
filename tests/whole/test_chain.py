"""The main job: ssh through chains of real servers; each one's log says who came and where to."""

from __future__ import annotations

from itertools import pairwise

import pytest
from lab import Lab, hop_users

WHERE = "echo $SERVER"


def assert_travelled(lab: Lab, *names: str) -> None:
    """Each hop was asked to forward to the next one, once, and nowhere else; the last one to nowhere."""
    for name, following in pairwise(names):
        assert lab[name].forwards() == [(lab[following].host, lab[following].port)], name
    assert lab[names[-1]].forwards() == []


@pytest.mark.parametrize("name", ["h1/h2/h3", "h1+h2+h3", "h1/h2+h3"])
def test_a_command_runs_on_the_last_host(lab: Lab, name: str) -> None:
    servers = lab.servers("h1", "h2", "h3")
    ran = lab.ssh(name, WHERE)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("h3\n", "", 0)
    assert [server.logins() for server in servers] == [[lab.user]] * 3
    assert_travelled(lab, "h1", "h2", "h3")


def test_eight_hops(lab: Lab) -> None:
    names = [f"h{number}" for number in range(1, 10)]
    lab.servers(*names)
    assert lab.ssh("/".join(names), WHERE).stdout == "h9\n"
    assert_travelled(lab, *names)


def test_no_hop_at_all(lab: Lab) -> None:
    lab.server("h1")
    lab.host("h1", ProxyCommand="pyrelay %h %p")
    assert lab.ssh("h1", WHERE).stdout == "h1\n"
    assert len(lab["h1"].connections) == 1


def test_input_output_and_exit_status_are_those_of_the_command(lab: Lab) -> None:
    lab.servers("h1", "h2")
    ran = lab.ssh("h1/h2", "cat; echo no >&2; exit 7", stdin="one\ntwo\n")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("one\ntwo\n", "no\n", 7)


# Users


def test_a_user_in_the_chain_is_that_hops_alone(lab: Lab) -> None:
    user = hop_users()[0]
    servers = lab.servers("h1", "h2", "h3")
    assert lab.ssh(f"{user}%h1+h2+h3", WHERE).stdout == "h3\n"
    assert [server.logins() for server in servers] == [[user], [lab.user], [lab.user]]


def test_every_hop_has_its_own_user(lab: Lab) -> None:
    first, second, _ = hop_users()
    servers = lab.servers("h1", "h2", "h3")
    assert lab.ssh(f"{lab.user}@{first}=h1/{second}%h2/h3", WHERE).stdout == "h3\n"
    assert [server.logins() for server in servers] == [[first], [second], [lab.user]]


def test_the_login_name_of_ssh_is_the_targets_alone(lab: Lab) -> None:
    first, second, _ = hop_users()
    servers = [lab.server("h1", User=first), lab.server("h2", User=second), lab.server("h3")]
    assert lab.ssh("-l", lab.user, f"h1+h2:{lab['h2'].port}+h3", WHERE).stdout == "h3\n"
    assert [server.logins() for server in servers] == [[first], [second], [lab.user]]


def test_the_login_name_of_pyrelay_is_the_hops(lab: Lab) -> None:
    first, second, third = hop_users()
    servers = [lab.server("h1", User=third), lab.server("h2"), lab.server("h3")]
    lab.options = ["-l", first]
    assert lab.ssh(f"h1/{second}%h2/h3", WHERE).stdout == "h3\n"
    # Spelling beats option, option beats ssh_config.
    assert [server.logins() for server in servers] == [[first], [second], [lab.user]]


# Ports, identities and other options


@pytest.mark.parametrize("delimiter", [":", "~"])
def test_a_port_in_the_chain_beats_ssh_config(lab: Lab, delimiter: str) -> None:
    lab.servers("h1", "h2", "h3")
    lab.host("h2", Port=1)
    lab.host("h3", Port=1)
    name = f"h1+h2{delimiter}{lab['h2'].port}+h3{delimiter}{lab['h3'].port}"
    # The target's own name has the port in it, as far as ssh's known_hosts goes.
    assert lab.ssh("-o", "HostKeyAlias=*/h3", name, WHERE).stdout == "h3\n"
    assert_travelled(lab, "h1", "h2", "h3")


def test_the_port_that_ssh_was_given_is_the_targets(lab: Lab) -> None:
    lab.servers("h1", "h2")
    lab.host("h2", Port=1)
    port = lab["h2"].port
    assert lab.ssh("-o", "HostKeyAlias=*/h2", "-p", str(port), "h1/h2", WHERE).stdout == "h2\n"


def test_delimiters_of_the_users_choice(lab: Lab) -> None:
    lab.servers("h1", "h2")
    lab.host("h1", Port=1)
    lab.head = f"Host *^*\n    ProxyCommand pyrelay -F {lab.config} --hop-delimiter ^ --port-delimiter _ %h %p"
    assert lab.ssh("-o", "HostKeyAlias=*/h2", f"h1_{lab['h1'].port}^h2", WHERE).stdout == "h2\n"


def test_an_identity_for_the_hops(lab: Lab) -> None:
    key = lab.keygen("hops")
    lab.server("h1", authorized_keys=(key.with_suffix(".pub")).read_text())
    lab.server("h2")
    lab.options = ["-i", str(key)]
    assert lab.ssh("h1/h2", WHERE).stdout == "h2\n"


def test_an_identity_of_one_hop_in_ssh_config(lab: Lab) -> None:
    key = lab.keygen("h1key")
    lab.server("h1", authorized_keys=(key.with_suffix(".pub")).read_text(), IdentityFile=key)
    lab.server("h2")
    assert lab.ssh("h1/h2", WHERE).stdout == "h2\n"


def test_an_option_for_the_hops(lab: Lab) -> None:
    user = hop_users()[0]
    servers = lab.servers("h1", "h2", "h3")
    lab.options = ["-o", f"User={user}"]
    assert lab.ssh("h1/h2/h3", WHERE).stdout == "h3\n"
    assert [server.logins() for server in servers] == [[user], [user], [lab.user]]


# Hops that the name does not say


def test_jump_hosts_come_before_the_chain(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3", "h4")
    lab.options = ["-J", f"h1,ssh://{lab.user}@h2:{lab['h2'].port}"]
    assert lab.ssh("h3/h4", WHERE).stdout == "h4\n"
    assert_travelled(lab, "h1", "h2", "h3", "h4")


def test_the_first_hops_own_proxyjump_is_honoured(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3")
    lab.host("h2", ProxyJump="h1")
    assert lab.ssh("h2/h3", WHERE).stdout == "h3\n"
    assert_travelled(lab, "h1", "h2", "h3")


def test_the_first_hops_own_proxycommand_is_honoured(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3")
    lab.host("h2", ProxyCommand=f"{lab.ssh_command} -W %h:%p h1")
    assert lab.ssh("h2/h3", WHERE).stdout == "h3\n"
    assert_travelled(lab, "h1", "h2", "h3")


def test_a_later_hop_is_reached_through_the_hop_before_it(lab: Lab) -> None:
    lab.servers("h1", "h2", "h3")
    lab.host("h2", ProxyJump="nowhere")
    assert lab.ssh("h1/h2/h3", WHERE).stdout == "h3\n"
    assert_travelled(lab, "h1", "h2", "h3")


def test_a_hop_whose_ssh_would_go_to_the_background(lab: Lab) -> None:
    """ssh itself refuses that without a command; a hop has none."""
    lab.servers("h1", "h2")
    lab.host("h1", ForkAfterAuthentication="yes")
    assert lab.ssh("h1/h2", WHERE).stdout == "h2\n"
