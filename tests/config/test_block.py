"""`pyrelay --ssh-config`: the block that it prints, by the real ssh, and what it says is in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lab import Lab
from peers import SYSTEM_PATH, need
from sshd import laid_over

from relay.config import block, version
from relay.errors import UsageError
from relay.spec.options import Options, parse

ENDING = "mine: terminating, 1 bad configuration options"
OLD, MIDDLE, NEW = (8, 0), (8, 4), (9, 2)


def printed(lab: Lab, *options: str) -> str:
    done = lab.run(lab.program, *options, "--ssh-config")
    assert done.returncode == 0, done.stderr
    return done.stdout


def forget_chains(lab: Lab, *names: str) -> None:
    """Take the names that end with these hosts out of known_hosts, where the lab has written them."""
    for name in names:
        text = lab.known_hosts.read_text()
        lab.known_hosts.write_text(text.replace(f",*/{name},*+{name} ", " "))


@pytest.fixture
def installed(lab: Lab) -> Lab:
    """The lab as after the two commands of the README: the block in a file of its own, included first."""
    file = lab.top / block.FILE
    file.write_text(printed(lab, "-F", str(lab.config)))
    lab.head = f"Include {file}"
    return lab


def test_its_first_line_says_what_to_do_with_it() -> None:
    first, *rest = block.text("/bin/pyrelay", NEW, Options()).splitlines()
    assert first.startswith("# pyrelay --ssh-config > ~/.ssh/pyrelay.conf")
    assert "`Include pyrelay.conf` as the first line of ~/.ssh/config" in first
    assert rest[0] == "Host */* *+*"


@pytest.mark.parametrize(
    ("version", "name", "asks"),
    [(OLD, "%h", False), (MIDDLE, "'%n'", False), (NEW, "'%n'", True), ((0, 0), "%h", False)],
)
def test_it_has_what_the_installed_ssh_takes(version: tuple[int, int], name: str, asks: bool) -> None:
    text = block.text("/usr/bin/pyrelay", version, Options())
    assert text.count(f"    ProxyCommand /usr/bin/pyrelay {name} %p\n") == 2
    assert ("KnownHostsCommand" in text) is asks


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026", (9, 2)),
        ("OpenSSH_10.0p2, OpenSSL", (10, 0)),
        ("OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS 25 Mar 2021", (8, 0)),
        ("OpenSSH_for_Windows_9.5p1", (0, 0)),
        ("Dropbear", (0, 0)),
        (f"SSH-2.0-OpenSSH_{'9' * 5000}.1", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_version_of_ssh(said: str, number: tuple[int, int]) -> None:
    assert version.number(said) == number


def test_options_beside_it_go_into_the_command() -> None:
    words = ["--share", "10m", "-F", "/a b/c%d", "-oUser=x", "--ssh-config"]
    assert parse(words).action == "ssh-config"
    text = block.text("/opt/a b/pyrelay", NEW, parse(words), words)
    assert "    ProxyCommand '/opt/a b/pyrelay' --share 10m -F '/a b/c%%d' -oUser=x '%n' %p\n" in text
    assert "    KnownHostsCommand '/opt/a b/pyrelay' -F '/a b/c%%d' -o User=x --known-hosts=%H %n %p\n" in text


def test_a_path_with_white_space_and_a_percent_sign(lab: Lab) -> None:
    lab.servers("h1", "h2")
    odd = lab.top / "a b%c"
    odd.mkdir()
    program = odd / "pyrelay"
    program.symlink_to(lab.program.resolve())
    done = lab.run(program, "-F", lab.config, "--ssh-config")
    lab.head = done.stdout
    forget_chains(lab, "h2")  # so that KnownHostsCommand has to know it
    assert lab.ssh("h1/h2", "echo $SERVER").stdout == "h2\n"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--hop-delimiter", "^"), "h1^h2"),
        (("--hop-delimiter=^!", "--port-delimiter", "_"), "h1!127.0.0.1_{port}"),
        (("--user-delimiter", "+", "--hop-delimiter", "~", "--port-delimiter", ":"), "{user}+h1~h2"),
        (("-4F{config}",), "h1/h2"),
        (("-4oHostKeyAlias=known",), "h1+h2"),
    ],
)
def test_the_options_beside_it_count_for_keys_and_names_too(lab: Lab, words: tuple[str, ...], name: str) -> None:
    lab.servers("h1", "h2")
    if "HostKeyAlias" in words[0]:
        with lab.known_hosts.open("a") as known:
            known.writelines(f"known {lab[each].host_keys[0]}\n" for each in ("h1", "h2"))
    given = [word.format(config=lab.config) for word in words]
    if "-4F" not in words[0]:
        given = ["-F", str(lab.config), *given]
    lab.head = lab.run(lab.program, *given, "--ssh-config").stdout
    forget_chains(lab, "h1", "h2")
    done = lab.ssh(name.format(port=lab["h2"].port, user=lab.user), "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h2\n", "")


def test_no_name_of_a_route_is_for_the_resolver(installed: Lab) -> None:
    installed.servers("h1", "h2")
    canonical = "CanonicalizeHostname always\nCanonicalDomains example.invalid\nCanonicalizeFallbackLocal no"
    installed.head += f"\n{canonical}\nVerifyHostKeyDNS yes"
    done = installed.ssh("h1/h2", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h2\n", "")


def test_kerberos_is_off_for_onion_names_where_ssh_has_it() -> None:
    text = block.text("/bin/pyrelay", NEW, Options(), known=("gssapiauthentication", "port"))
    assert text.partition("Host *.onion*\n")[2].count("    GSSAPIAuthentication no\n") == 1
    assert text.count("GSSAPI") == 1
    assert "GSSAPI" not in block.text("/bin/pyrelay", NEW, Options())
    text = block.text(
        "/bin/pyrelay", NEW, parse(["--hop-delimiter", "_", "--ssh-config"]), known=("gssapiauthentication",)
    )
    assert text.count("    GSSAPIAuthentication no\n") == 2  # such a name is one that a resolver takes
    assert "port" in block.keywords()


@pytest.mark.parametrize("name", ["h1/h3", "h1+h2/h3", "[h1]+[h3]", "h1/h3:{h3}"])
def test_ssh_goes_through_a_chain_and_trusts_what_it_trusts_without(installed: Lab, name: str) -> None:
    installed.servers("h1", "h2", "h3")
    forget_chains(installed, "h1", "h2", "h3")
    done = installed.ssh("--", name.format(h3=installed["h3"].port), "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")


@pytest.mark.parametrize("others", [{}, {"ProxyJump": "h1"}])
def test_before_what_stands_in_ssh_config_already(installed: Lab, others: dict[str, str]) -> None:
    """README's own example of a file that has `Host *` and a ProxyJump."""
    installed.servers("h1", "h2", "h3")
    installed.host("h1", ProxyJump="none")
    installed.host("**", **others)  # ("*" is the lab's own block, further down)
    assert installed.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(installed["h1"].logins()) == 1
    assert installed.ssh("h2/h3", "echo $SERVER").stdout == "h3\n"
    assert len(installed["h1"].logins()) == 1 + len(others)  # h2 is reached as ssh_config says


def test_names_with_capitals(installed: Lab) -> None:
    """ssh hands %h over in lower case; the block takes the name as it was typed."""
    gate, web = installed.servers("Bastion-EU", "Web01")
    forget_chains(installed, "Web01")
    done = installed.ssh("Bastion-EU/Web01", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("Web01\n", "")
    assert gate.logins() == web.logins() == [installed.user]


def test_the_port_that_ssh_was_given(installed: Lab) -> None:
    """Its key is looked up with that port, and printed under the name that ssh has for it."""
    installed.servers("h1", "h3")
    port = installed["h3"].port
    installed.host("h3", Port=1)
    forget_chains(installed, "h3")
    done = installed.ssh("-p", str(port), "h1/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", "")


def test_a_name_without_capitals_that_is_not_found_has_the_hint(lab: Lab) -> None:
    lab.server("Bastion-EU")
    lab.server("h3")
    done = lab.ssh("Bastion-EU/h3", "true")
    assert "pyrelay: hop 1 of 1 (bastion-eu): no such host: bastion-eu\n" in done.stderr
    assert "hint: ssh_config has Bastion-EU: capitals count, " in done.stderr
    for typo in ("nowhere", "nowhere.example", "bastion-us"):
        assert "hint:" not in lab.ssh(f"{typo}/h3", "true").stderr
    of_a_family = lab.pyrelay("-6", "bastion-eu/h3").stderr
    assert "no such host: bastion-eu, or it has no IPv6 address" in of_a_family
    assert "hint:" not in of_a_family
    lab.host("Nowhere")  # what follows is not typed so
    lab.host("jumping", ProxyJump="nowhere")
    for words in (
        ("-x", "nowhere", "127.0.0.1"),
        ("-s", "nowhere", "127.0.0.1"),
        ("fe80::1%nowhere",),
        ("-J", "nowhere", "h3"),
        ("jumping/h3",),
    ):
        assert "capitals" not in lab.pyrelay(*words).stderr


def test_an_alias_keeps_its_own_line(installed: Lab) -> None:
    installed.servers("h1", "h3")
    program = f"pyrelay -F {installed.config}"
    installed.host("web", HostName="h1+h3", HostKeyAlias="[127.0.0.1]:0", ProxyCommand=f"{program} %h %p")
    installed.host("web", StrictHostKeyChecking="accept-new")
    assert installed.ssh("web", "echo $SERVER").stdout == "h3\n"


# What is in the way


def written() -> str:
    return block.text("/bin/pyrelay", (9, 2), Options(), [], block.keywords())


def said(tmp_path: Path, text: str) -> list[str]:
    config = tmp_path / "config"
    config.write_text(text)
    return list(block.obstacles(str(config), written()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Include pyrelay.conf\nHost *\n    ProxyJump gate\n",
        "# mine\n\ninclude = ~/.ssh/pyrelay.conf\nHost *+*\n    ProxyCommand other\n",
        "Host *\n    ProxyJump gate\n",  # no Include yet: the first line says where it goes
        "Host gate\n    HostName gate.example\n",
        "ControlPath ~/%C\nInclude pyrelay.conf\n",
    ],
)
def test_nothing_is_in_the_way(tmp_path: Path, text: str) -> None:
    need("ssh")
    assert said(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host *\n    ProxyJump gate\nInclude pyrelay.conf\n", "gives h1/h2 a ProxyJump of its own"),
        ("ProxyCommand nc %h %p\nInclude pyrelay.conf\n", "gives h1/h2 a ProxyCommand of its own"),
        ("Host *\n    ProxyCommand none\nInclude pyrelay.conf\n", "gives h1/h2 a ProxyCommand of its own"),
        ("Host gate\n    HostName x\nInclude pyrelay.conf\n", "stands in a Host or Match block"),
        *(
            (f"{line}\nInclude *.conf\n", f"gives h1/h2 a {line.partition(' ')[0]} of its own")
            for line in ("VerifyHostKeyDNS yes", "KnownHostsCommand /bin/true", "CanonicalizeHostname always")
        ),
        ("ControlPath ~/.ssh/%r@%h\n", "a ControlPath with its name in it"),
        ("ProxyUseFdpass yes\n", "ProxyUseFdpass yes for h1/h2"),
        ("NoSuchKeyword yes\n", "Bad configuration option"),
        ("Host *\n    NoSuchKeyword yes\nInclude pyrelay.conf\n", "Bad configuration option"),
    ],
)
def test_what_is_in_the_way(tmp_path: Path, text: str, words: str) -> None:
    need("ssh")
    found = said(tmp_path, text)
    assert len([line for line in found if words in line]) == 1, found


def test_no_config_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    assert list(block.obstacles("none", written())) == list(block.obstacles("NONE", written())) == []  # as to ssh
    (line,) = block.obstacles(str(tmp_path / "none"), written())
    assert line == f"-F {tmp_path}/none: there is no such file, and ssh ends there"
    (line,) = block.obstacles(str(tmp_path), written())
    assert line.endswith("cannot be read: Is a directory")


def test_the_users_own_file_with_permissions_that_ssh_refuses(lab: Lab, tmp_path: Path) -> None:
    """ssh checks those of ~/.ssh/config alone, and of what it includes; ~ is the home in the password database."""
    passwd = tmp_path / "passwd"
    passwd.write_text(f"{lab.user}:x:{os.geteuid()}:{os.getegid()}::{lab.home}:/bin/sh\n")
    config = lab.home / ".ssh" / "config"
    config.parent.mkdir(0o700)
    config.write_text("Host h1\n    User u1\n")
    within = laid_over(passwd, "/etc/passwd")
    for mode, said in (
        (0o644, ""),
        (0o666, f"pyrelay: ssh cannot read ssh_config: Bad owner or permissions on {config}\n"),
    ):
        config.chmod(mode)
        done = lab.run(*within, lab.program, "--ssh-config", env={"HOME": "/"})
        assert (done.returncode, done.stderr) == (0, said)


def test_a_file_by_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("Bogus x\n")
    assert list(block.obstacles("mine", written())) == [
        f"-F mine: ssh may start pyrelay in another directory; give {tmp_path}/mine",
        f"ssh cannot read mine: mine: line 1: Bad configuration option: bogus; {ENDING}",
    ]


def test_it_is_said_on_stderr_and_the_block_printed_all_the_same(lab: Lab) -> None:
    (lab.top / "mine").write_text("Host *\n    ProxyJump gate\nInclude pyrelay.conf\n")
    done = lab.run(lab.program, "-F", lab.top / "mine", "--ssh-config")
    assert done.returncode == 0
    assert done.stdout.startswith("# pyrelay --ssh-config")
    assert "pyrelay: a block before the Include gives h1/h2 a ProxyJump of its own" in done.stderr
    assert str(lab.program) in done.stdout


def test_without_ssh(lab: Lab) -> None:
    done = lab.run(lab.program.resolve(), "--ssh-config", env={"PATH": str(lab.home)})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pyrelay: ssh is not in PATH")


def test_as_a_module_it_names_the_program_in_path(lab: Lab) -> None:
    done = lab.run(sys.executable, "-m", "relay", "--ssh-config")
    assert f"ProxyCommand {lab.program} " in done.stdout
    done = lab.run(sys.executable, "-m", "relay", "--ssh-config", env={"PATH": SYSTEM_PATH})
    if done.returncode:
        assert done.stderr.startswith("pyrelay: there is no program called pyrelay in PATH")


def test_a_host_beside_it_is_refused() -> None:
    with pytest.raises(UsageError, match="one word too many: h1"):
        parse(["--ssh-config", "h1"])
