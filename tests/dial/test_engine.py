"""Which engine carries a hop: paramiko, or the system's ssh where paramiko cannot; and servers of several makes."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from contract import SOON
from lab import LACKS, Lab, chain_with
from strangers import Asyncssh, Dropbear
from terminal import Terminal

from relay.config.settings import HopSettings
from relay.dial.objection import objection

ROUTE = "h1/h2/h3"
SIZE = 16 << 20  # bytes
SLOW = 2 << 20  # for servers that are slow


@pytest.fixture
def chain(lab: Lab) -> Lab:
    lab.servers("h1", "h2", "h3")
    return lab


def client(lab: Lab, name: str, connection: int = -1) -> str:
    """Which client a server has seen in one of its connections."""
    log = lab[name].connections[connection].log()
    found = re.search(r"remote software version (.*?)(?: \[preauth\])?$", log, re.MULTILINE)
    assert found
    return "ssh" if found[1].startswith("OpenSSH") else found[1]


def transfer(lab: Lab, *options: str, size: int = SIZE) -> None:
    """Send bytes to the target and get them back, under a real ssh, and see that they are the same."""
    data = os.urandom(size)
    lab.options += options
    process = lab.start("ssh", "-F", lab.config, ROUTE, "cat", stdin=subprocess.PIPE)
    out, err = process.communicate(data, 100)
    assert (process.returncode, err.decode()) == (0, ""), err.decode()
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert lab.remaining(10) == {}


# What is carried


@pytest.mark.parametrize("engine", ["auto", "paramiko", "ssh"])
def test_each_engine_carries_every_byte(chain: Lab, engine: str) -> None:
    transfer(chain, "--engine", engine)
    for name in ("h1", "h2"):
        assert chain[name].logins() == [chain.user]
        assert client(chain, name) == ("ssh" if engine == "ssh" else "pyrelay")


@pytest.mark.parametrize("hops", [("h1",), ("h2",), ("h1", "h2")], ids="+".join)
def test_hops_that_offer_only_what_paramiko_lacks(lab: Lab, hops: tuple[str, ...]) -> None:
    transfer(chain_with(lab, *hops))
    for name in ("h1", "h2"):
        # Once ssh carries a hop, our client does not try the next one: a second try could need another login here.
        assert client(lab, name) == ("ssh" if "h1" in hops or name in hops else "pyrelay")
        assert lab[name].logins() == [lab.user]


@pytest.mark.parametrize("alias", ["", "known"])
def test_the_host_key_of_this_machine_is_not_checked_by_ssh_either(lab: Lab, alias: str) -> None:
    """NoHostAuthenticationForLocalhost, with another key than the known one. It does nothing where HostKeyAlias is."""
    lab.servers("h1", "h2")
    lab.host("h1", NoHostAuthenticationForLocalhost="yes", **({"HostKeyAlias": alias} if alias else {}))
    other = Path(f"{lab.keygen('other')}.pub").read_text()
    lab.known_hosts.write_text(f"known,[127.0.0.1]:{lab['h1'].port} {other}")
    before = lab.known_hosts.read_bytes()
    for engine in ("ssh", "paramiko"):
        done = lab.pyrelay("--engine", engine, "h1/h2")
        assert done.stdout.startswith("SSH-2.0-") == (not alias), done.stderr
    assert (lab.ssh("h1", "true").returncode == 0) == (not alias)
    assert lab.known_hosts.read_bytes() == before


def test_only_the_one_hop_and_each_login_once(lab: Lab) -> None:
    chain_with(lab, "h2")
    assert lab.ssh(ROUTE, "echo $SERVER").stdout == "h3\n"
    assert lab["h1"].logins() == [lab.user]
    assert lab["h2"].logins() == [lab.user]
    # The key exchange failed once; nothing of a login was tried there.
    assert [client(lab, "h2", n) for n in (0, 1)] == ["pyrelay", "ssh"]
    assert len(lab["h1"].connections) == 1
    assert "userauth" not in lab["h2"].connections[0].log()


def test_half_close(lab: Lab) -> None:
    """The target sees the end of stdin, and what it says after that comes back."""
    chain_with(lab, "h1")
    done = lab.pyrelay("h1/h3", stdin="no SSH\n")
    assert "Invalid SSH identification string" in done.stdout
    assert done.returncode == 0


def test_the_first_hop_behind_its_own_proxycommand(lab: Lab) -> None:
    chain_with(lab, "h1").host("h1", ProxyCommand="nc %h %p")
    assert lab.ssh(ROUTE, "echo $SERVER").stdout == "h3\n"
    assert client(lab, "h1") == "ssh"


def test_no_controlmaster_of_the_users_is_used_or_made(lab: Lab) -> None:
    chain_with(lab, "h1").host("h1", ControlMaster="auto", ControlPath=lab.top / "master", ControlPersist="yes")
    assert lab.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert not (lab.top / "master").exists()


def test_settings_that_would_break_the_pipe_do_not(lab: Lab) -> None:
    chain_with(lab, "h1").host(
        "h1",
        StdinNull="yes",
        PermitLocalCommand="yes",
        LocalCommand="echo noise",
        LocalForward=f"{lab.top}/forwarded /nowhere",
        RequestTTY="force",
    )
    done = lab.ssh("h1/h3", "echo $SERVER")
    assert (done.stdout, done.stderr) == ("h3\n", ""), done.stderr
    assert not (lab.top / "forwarded").exists()


# The same settings


def test_its_host_key_is_checked_in_the_same_files(lab: Lab) -> None:
    chain_with(lab, "h1")
    known = lab.known_hosts.read_text()
    other = Path(f"{lab.keygen('other')}.pub").read_text()
    lab.known_hosts.write_text(f"[127.0.0.1]:{lab['h1'].port} {other}")
    done = lab.pyrelay("h1/h3")
    assert done.returncode == 1
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert lab["h1"].logins() == []
    lab.known_hosts.write_text(known)
    assert lab.pyrelay("h1/h3").stdout.startswith("SSH-2.0-")


@pytest.mark.parametrize("line", ["{other}", "@revoked {key}"])
@pytest.mark.parametrize("passwords", ["yes", "no"])
@pytest.mark.parametrize("checking", ["no", "off", "accept-new", "yes"])
def test_a_host_key_that_has_changed_is_refused_in_every_mode(
    lab: Lab, checking: str, passwords: str, line: str
) -> None:
    """With no and off, ssh itself lets such a key pass, and forwards nothing only where it would take passwords."""
    chain_with(lab, "h1")
    lab.host("h1", PasswordAuthentication=passwords, KbdInteractiveAuthentication=passwords)
    key = lab["h1"].host_keys[0]
    marker, _, name = line.rpartition(" ")
    shown = {"{other}": lab["h2"].host_keys[0], "{key}": key}[name]
    others = lab.known_hosts.read_text().replace(key.split()[1], lab["h2"].host_keys[0].split()[1])
    host = f"[127.0.0.1]:{lab['h1'].port}"
    lab.known_hosts.write_text(f"{marker} {host} {shown}\n{others}".lstrip())
    ran = lab.pyrelay("-o", f"StrictHostKeyChecking={checking}", "h1/h3")
    assert ran.returncode == 1
    assert ("REVOKED HOST KEY DETECTED" if marker else "REMOTE HOST IDENTIFICATION HAS CHANGED") in ran.stderr
    assert lab["h1"].logins() == []


def test_a_new_key_is_learned_where_every_key_is_accepted(lab: Lab) -> None:
    chain_with(lab, "h1")
    host = f"[127.0.0.1]:{lab['h1'].port}"
    lab.known_hosts.write_text("")
    ran = lab.pyrelay("-o", "StrictHostKeyChecking=no", "h1/h3")
    assert ran.stdout.startswith("SSH-2.0-")
    assert lab.known_hosts.read_text().startswith(f"{host} ")


def test_its_options_are_those_of_the_others(lab: Lab) -> None:
    """-F, -i, -l and -o reach it, and the port and the user that the route spells."""
    chain_with(lab, "h1")
    key = lab.keygen("another")
    lab["h1"].authorize(Path(f"{key}.pub").read_text())
    lab.host("h1", Port=1, User="nobody", IdentityFile="/nowhere")
    port = lab["h1"].port
    done = lab.pyrelay("-i", str(key), "-l", "wrong", "-o", "ServerAliveInterval=7", f"{lab.user}%h1:{port}/h3")
    assert done.stdout.startswith("SSH-2.0-"), done.stderr
    assert lab["h1"].logins() == [lab.user]


# Reasons


def test_v_says_which_engine_carries_which_hop_and_why(lab: Lab) -> None:
    chain_with(lab, "h2")
    said = lab.pyrelay("-v", ROUTE).stderr
    assert "pyrelay: hop 1 of 2 (h1): by our own client (paramiko)\n" in said
    assert "pyrelay: hop 2 of 2 (h2): by ssh: no MAC algorithm in common: we have " in said
    lab["h1"].configure(f"{LACKS}\n")
    said = lab.pyrelay("-v", ROUTE).stderr
    assert "pyrelay: hop 2 of 2 (h2): by ssh: as the hop before, which a second try would log in to again\n" in said
    said = lab.pyrelay("-v", "--engine", "ssh", ROUTE).stderr
    for place in ("hop 1 of 2 (h1)", "hop 2 of 2 (h2)"):
        assert f"pyrelay: {place}: by ssh: --engine ssh\n" in said
    said = lab.pyrelay("-v", "--engine", "paramiko", "h1/h3").stderr
    assert "pyrelay: hop 1 of 1 (h1): by our own client (paramiko): --engine paramiko\n" in said


def test_no_mac_in_common_where_the_cipher_makes_the_tag(lab: Lab) -> None:
    lab.server("h1", extra="MACs umac-64-etm@openssh.com")
    lab.server("h3")
    done = lab.pyrelay("-v", "h1/h3")
    assert "pyrelay: hop 1 of 1 (h1): by our own client (paramiko)\n" in done.stderr
    assert ", cipher aes128-gcm@openssh.com, MAC of the cipher's own" in done.stderr
    assert done.stdout.startswith("SSH-2.0-")


def test_an_engine_that_was_named_is_kept_to(lab: Lab) -> None:
    chain_with(lab, "h1")
    done = lab.pyrelay("--engine", "paramiko", "h1/h3")
    assert done.returncode == 1
    assert done.stderr.startswith("pyrelay: hop 1 of 1 (h1): no MAC algorithm in common: ")
    assert len(lab["h1"].connections) == 1


@pytest.mark.parametrize(
    "setting",
    [
        ("KexAlgorithms", "sntrup761x25519-sha512@openssh.com"),
        ("MACs", "umac-128-etm@openssh.com"),
    ],
    ids=lambda setting: setting[0],
)
def test_what_ssh_config_leaves_is_known_before_the_hop_is_connected_to(chain: Lab, setting: tuple[str, str]) -> None:
    chain.host("h1", **dict([setting]))
    assert chain.ssh("h1/h3", "echo $SERVER").stdout == "h3\n"
    assert len(chain["h1"].connections) == 1
    assert client(chain, "h1") == "ssh"


def test_lists_of_files_whose_names_only_ssh_knows(chain: Lab) -> None:
    """A file beside another one, a name with a space, and a directory whose name ends in one."""
    spaced = chain.top / "spaced "
    spaced.mkdir()
    (chain.top / "known").write_bytes(chain.known_hosts.read_bytes())
    for file in (chain.top / "two words", spaced / "known"):
        file.write_bytes(chain.known_hosts.read_bytes())
    for files in ("/nonexistent known", '"two words"', f'"{spaced}/known"'):
        chain.host("h1", UserKnownHostsFile=files)
        done = chain.start("ssh", "-F", chain.write_config(), "h1/h3", "echo $SERVER", cwd=chain.top)
        assert done.communicate(timeout=SOON)[0] == b"h3\n", files
    assert client(chain, "h1") == "ssh"


def test_methods_that_only_ssh_has(chain: Lab) -> None:
    chain.host("h1", PreferredAuthentications="gssapi-with-mic,hostbased")
    chain.host("h1", GSSAPIAuthentication="yes", HostbasedAuthentication="yes")
    done = chain.pyrelay("-v", "h1/h3")
    assert done.returncode == 1
    assert "hop 1 of 1 (h1): by ssh: only gssapi-with-mic and hostbased may be tried\n" in done.stderr
    assert "Permission denied" in done.stderr
    assert done.stderr.endswith(
        "pyrelay: hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255; it says why itself\n"
    )
    assert len(chain["h1"].connections) == 1


def settings(**values: str) -> HopSettings:
    return HopSettings("h1", {key: value.split("\n") for key, value in values.items()})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, ""),
        # A distribution's, on every host.
        ({"gssapiauthentication": "yes"}, ""),
        ({"preferredauthentications": "gssapi-with-mic,publickey"}, ""),
        ({"preferredauthentications": "gssapi-with-mic"}, "only gssapi-with-mic may be tried"),
        ({"preferredauthentications": "gssapi-with-mic", "gssapiauthentication": "no"}, ""),  # ssh has none either
        ({"preferredauthentications": "hostbased,password", "hostbasedauthentication": "yes"}, ""),
        (
            {"preferredauthentications": "hostbased,password", "batchmode": "yes", "hostbasedauthentication": "yes"},
            "only hostbased may be tried",
        ),
        (
            {
                "pubkeyauthentication": "no",
                "passwordauthentication": "no",
                "kbdinteractiveauthentication": "no",
                "gssapiauthentication": "yes",
                "hostbasedauthentication": "yes",
            },
            "only gssapi-with-mic and hostbased may be tried",
        ),
        # Built without Kerberos, ssh does not name it.
        ({"pubkeyauthentication": "no", "passwordauthentication": "no", "kbdinteractiveauthentication": "no"}, ""),
        ({"pkcs11provider": "none"}, ""),
        ({"revokedhostkeys": "/r%%"}, "its RevokedHostKeys has a token"),
        ({"revokedhostkeys": "/${HOME}"}, "its RevokedHostKeys has a token"),
        ({"revokedhostkeys": "/r"}, ""),
        ({"identityfile": "/k_%C"}, ""),
        ({"identityfile": "/k_%C", "proxyjump": "h0"}, "its identityfile has a token that not every ssh has"),
        ({"identityfile": "/k_%%C", "proxyjump": "h0"}, ""),
        ({"knownhostscommand": "/c %j"}, "its knownhostscommand has a token that not every ssh has"),
        ({"pkcs11provider": "/usr/lib/token.so"}, "PKCS11Provider"),
        ({"pkcs11provider": "/usr/lib/token.so", "pubkeyauthentication": "false"}, ""),
        ({"ciphers": "aes128-ctr,none"}, ""),
        *(
            ({key: ""}, f"our client has none of the {key} that ssh_config asks for")
            for key in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms")  # -*
        ),
        ({"userknownhostsfile": "/a b/kh /c"}, ""),
        ({"userknownhostsfile": "/a/kh ~/kh"}, ""),  # that is one name: there is no ~/kh
        ({"userknownhostsfile": "/a/kh ."}, "only ssh knows where one name of its UserKnownHostsFile ends"),
        ({"globalknownhostsfile": "a b"}, "only ssh knows where one name of its GlobalKnownHostsFile ends"),
        ({"revokedhostkeys": "/a b/r /c"}, ""),
        ({"revokedhostkeys": "/a/r ."}, "only ssh knows where one name of its RevokedHostKeys ends"),
        ({"revokedhostkeys": "~/a r"}, "only ssh knows where one name of its RevokedHostKeys ends"),
        ({"hostkeyalgorithms": "ssh-dss"}, "our client has none of the hostkeyalgorithms that ssh_config asks for"),
    ],
)
def test_what_settings_say_against_paramiko(values: dict[str, str], why: str) -> None:
    assert objection(settings(**values)).startswith(why)
    assert bool(objection(settings(**values))) == bool(why)


def security_key(path: Path) -> None:
    """The files of a security key as ssh-keygen writes them, as far as they can be made without such a key."""
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    path.chmod(0o600)
    Path(f"{path}.pub").write_text(
        "sk-ssh-ed25519@openssh.com "
        "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAAABHNzaDo= me\n"
    )


def test_a_security_key_on_disk_is_for_ssh(lab: Lab) -> None:
    key = lab.top / "id_ed25519_sk"
    security_key(key)
    why = f"{key} is a security key"
    assert objection(settings(identityfile=str(key), identityagent="none")) == why
    assert objection(settings(identityfile=f"{lab.identity}\n{key}", identityagent="none")) == why
    Path(f"{key}.pub").unlink()
    assert objection(settings(identityfile=str(key), identityagent="none")) == ""


def test_a_security_key_among_the_default_files_counts_only_when_there_is_no_other(lab: Lab) -> None:
    key = lab.top / "id_ed25519_sk"
    security_key(key)

    def default(*paths: Path) -> HopSettings:
        values = {"identityfile": [str(path) for path in paths], "identityagent": ["none"]}
        return HopSettings("h1", values, values)

    assert objection(default(key)) == f"{key} is a security key"
    assert objection(default(lab.identity, key)) == ""


# When it fails


def test_what_ssh_says_is_shown_and_the_hop_is_named(lab: Lab) -> None:
    chain_with(lab, "h1")
    port = lab.closed("h3")
    done = lab.pyrelay("h1/h3", stdin=None)
    assert done.returncode == 1
    assert "connect failed: Connection refused" in done.stderr
    assert done.stderr.endswith(
        "pyrelay: hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255; it says why itself\n"
    ), port


@pytest.mark.parametrize("netcat", [False, True])
def test_a_hop_that_it_carries_and_that_denies_forwarding(lab: Lab, netcat: bool) -> None:
    """What the client has sent by then is unread, so the end of that ssh resets its socket."""
    lab.server("h1", extra=f"{LACKS}\nAllowTcpForwarding no")
    lab.server("h3")
    lab.options += ["--netcat"] * netcat
    said = lab.ssh("h1/h3", "true").stderr
    assert "pyrelay: hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255; it says why itself\n" in said
    assert ("hint: --netcat has no effect on a hop that ssh carries\n" in said) == netcat


def test_a_hop_whose_ssh_would_go_to_the_background_fails_all_the_same(lab: Lab) -> None:
    chain_with(lab, "h1")
    lab.host("h1", ForkAfterAuthentication="yes")
    lab.closed("h3")
    done = lab.pyrelay("h1/h3", stdin=None)
    assert done.returncode == 1
    assert "connect failed: Connection refused" in done.stderr


def test_what_ssh_does_not_say(lab: Lab) -> None:
    chain_with(lab, "h1")
    lab.host("h1", LogLevel="QUIET")
    lab.closed("h3")
    assert lab.pyrelay("h1/h3", stdin=None).stderr == (
        "pyrelay: hop 1 of 1 (h1): ssh, which carries this hop, ended with status 255; "
        "LogLevel QUIET keeps it from saying why\n"
    )


def test_the_hop_behind_it_is_not_blamed(lab: Lab) -> None:
    chain_with(lab, "h1")
    lab.closed("h2")
    done = lab.pyrelay(ROUTE, stdin=None)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "pyrelay: hop 1 of 2 (h1): ssh, which carries this hop, ended with status 255; it says why itself\n"
    )


@pytest.mark.parametrize("hop", ["h1", "h2"])
def test_a_hop_that_dies_is_named(lab: Lab, hop: str) -> None:
    chain_with(lab, "h2")
    with lab.start(lab.program, "-F", lab.config, ROUTE, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.read(4) == b"SSH-"
        os.killpg(lab[hop].connections[-1].process.pid, signal.SIGKILL)
        assert program.wait(20) == 1
        said = program.stderr.read().decode()
    assert f"pyrelay: hop {hop[1]} of 2 ({hop}): " in said.splitlines()[-1]
    assert lab.remaining(10) == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_when_the_program_is_ended(lab: Lab, number: signal.Signals) -> None:
    chain_with(lab, "h1", "h2")
    with lab.start(lab.program, "-F", lab.config, ROUTE, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.read(4) == b"SSH-"
        assert len(lab.processes()) == 3
        program.send_signal(number)
        program.wait(20)
        assert lab.remaining(10) == {}
        if number != signal.SIGKILL:
            assert program.stderr.read() == b""


def test_a_server_that_is_silent_to_ssh_is_given_up_at_the_deadline(lab: Lab) -> None:
    lab.silent("h1")
    done = lab.pyrelay("--engine", "ssh", "-w", "1", "h1/h3", stdin=None)
    assert done.returncode == 1
    assert done.stderr == "pyrelay: hop 1 of 1 (h1): no answer within 1 second (login by ssh)\n"
    assert lab.remaining(10) == {}


# Which program asks


def locked(lab: Lab, name: str) -> Path:
    """A key with the passphrase "open", which a server takes; it is not asked for under BatchMode."""
    key = lab.keygen(f"{name}-key", "ed25519", "-N", "open")
    lab[name].authorize(Path(f"{key}.pub").read_text())
    lab.host(name, IdentityFile=key, BatchMode="no")
    return key


def on_a_terminal(lab: Lab) -> Terminal:
    lab.write_config()
    return Terminal(lab, "ssh", "-F", lab.config, ROUTE, "echo $SERVER")


def test_what_an_earlier_hop_has_asked_is_not_asked_again(lab: Lab) -> None:
    key = locked(chain_with(lab, "h2"), "h1")
    with on_a_terminal(lab) as terminal:
        terminal.answer(f"pyrelay: passphrase for key '{key}' ", "open")
        assert "passphrase" not in terminal.expect("h3\n")
        assert terminal.wait() == 0
    assert [client(lab, "h2", n) for n in (0, 1)] == ["pyrelay", "ssh"]


@pytest.mark.parametrize("hops", [("h1",), ("h1", "h2")], ids="+".join)
def test_ssh_asks_by_itself_and_once(lab: Lab, hops: tuple[str, ...]) -> None:
    key = locked(chain_with(lab, *hops), "h1")
    with on_a_terminal(lab) as terminal:
        terminal.answer(f"Enter passphrase for key '{key}': ", "open")
        assert "passphrase" not in terminal.expect("h3\n")
        assert terminal.wait() == 0
        assert "pyrelay: " not in terminal.shown


def test_nobody_is_asked_under_batchmode(lab: Lab) -> None:
    locked(chain_with(lab, "h1"), "h1")
    lab.host("h1", BatchMode="yes")
    with on_a_terminal(lab) as terminal:
        terminal.expect("ssh, which carries this hop, ended with status 255")
        assert "passphrase" not in terminal.shown


def test_ctrl_c_at_its_question_puts_the_terminal_right(lab: Lab) -> None:
    key = locked(chain_with(lab, "h1"), "h1")
    with on_a_terminal(lab) as terminal:
        terminal.expect(f"Enter passphrase for key '{key}': ")
        assert not terminal.echo
        terminal.type("\x03")
        terminal.wait_for_all()
        assert terminal.echo
        assert "Traceback" not in terminal.shown


# Other servers


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def dropbear(lab: Lab, ends: ExitStack, kind: str, *options: str) -> None:
    """Dropbear as h2, between two of OpenSSH."""
    top = lab.top / "h2"
    top.mkdir()
    # dropbearconvert reads OpenSSH's own form of an ed25519 key, which has no other; of the rest it knows PEM.
    key = lab.keygen("h2/key", kind, *([] if kind == "ed25519" else ["-m", "PEM"]))
    server = Dropbear(top, key, Path(f"{lab.identity}.pub").read_text(), options)
    ends.callback(server.stop)
    lab.servers("h1", "h3")
    lab.host("h2", Port=server.port)
    lab.know("h2", server.port, [Path(f"{key}.pub").read_text().strip()])


@pytest.mark.parametrize(
    ("engine", "kind"),
    [("auto", "ed25519"), ("auto", "ecdsa"), ("auto", "rsa"), ("paramiko", "ed25519"), ("ssh", "ed25519")],
)
def test_dropbear(lab: Lab, ends: ExitStack, engine: str, kind: str) -> None:
    dropbear(lab, ends, kind)
    transfer(lab, "--engine", engine, size=SLOW)


@pytest.mark.parametrize(
    ("cipher", "mac"),
    [("chacha20-poly1305@openssh.com", ""), ("aes128-ctr", "hmac-sha2-256"), ("aes256-ctr", "hmac-sha2-256")],
)
def test_dropbears_ciphers(lab: Lab, ends: ExitStack, cipher: str, mac: str) -> None:
    """All that it has; new keys are asked for every megabyte."""
    dropbear(lab, ends, "ed25519")
    lab.host("h2", Ciphers=cipher, RekeyLimit="1M", **({"MACs": mac} if mac else {}))
    transfer(lab, "--engine", "paramiko", size=SLOW)


def test_dropbear_that_denies_forwarding(lab: Lab, ends: ExitStack) -> None:
    dropbear(lab, ends, "ed25519", "-j")
    done = lab.pyrelay(ROUTE)
    # It gives no text with its refusal, and has no sshd_config.
    assert re.search(r"hop 2 of 2 \(h2\): the server does not forward to \S+ port \d+: \w+.*\n", done.stderr)
    assert "\nhint: --netcat goes by a command" in done.stderr
    transfer(lab, "--netcat", size=SLOW)


@pytest.mark.parametrize("engine", ["auto", "paramiko", "ssh"])
def test_asyncssh(lab: Lab, ends: ExitStack, engine: str) -> None:
    top = lab.top / "h2"
    top.mkdir()
    key = lab.keygen("h2/key")
    server = Asyncssh(key, Path(f"{lab.identity}.pub"))
    ends.callback(server.stop)
    lab.servers("h1", "h3")
    lab.host("h2", Port=server.port)
    lab.know("h2", server.port, [Path(f"{key}.pub").read_text().strip()])
    transfer(lab, "--engine", engine, size=SLOW)
    assert server.forwards == [("127.0.0.1", lab["h3"].port)]
