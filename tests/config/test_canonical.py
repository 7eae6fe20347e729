"""CanonicalizeHostname: of a first hop that is connected to directly, as ssh has it, and of no other name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from nameserver import NameServer
from namespaces import in_namespace
from peers import LOOPBACK, need

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from lab import Lab

GATE = "gate.bed.test"


class Bed:
    """A lab whose clients have a resolver of their own, in a network namespace; call it within that."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.names = NameServer(53)
        files = {"resolv.conf": f"nameserver {LOOPBACK}\n", "nsswitch.conf": "hosts: dns\n"}
        for name, text in files.items():
            (lab.top / name).write_text(text)
        mounts = "".join(f"mount --bind {lab.top}/{name} /etc/{name} && " for name in files)
        self._within = [need("unshare"), "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh"]
        gate = lab.server(GATE)
        lab.host("*.bed.test", HostKeyAlias=GATE)  # of the canonical name, whatever was typed
        lab.server("h3")
        with lab.known_hosts.open("a") as file:
            file.write(f"{GATE} {gate.host_keys[0]}\n")

    def sets(self, always: str = "yes", **more: str) -> None:
        settings = {"CanonicalizeHostname": always, "CanonicalDomains": "bed.test", **more}
        self.lab.head = "\n".join(f"{name} {value}" for name, value in settings.items())

    def ssh(self, *words: str) -> CompletedProcess[str]:
        return self.lab.run(*self._within, "ssh", "-F", self.lab.config, *words)

    def pyrelay(self, *words: str) -> CompletedProcess[str]:
        return self.lab.run(*self._within, self.lab.program, "-F", self.lab.config, *words)

    def asked(self) -> list[str]:
        """What the resolver was asked since the last call."""
        found = list(self.names.asked)
        self.names.asked.clear()
        return found


def within(lab: Lab, work: Callable[[Bed], None]) -> None:
    """Do the work in a network namespace, with a bed there."""

    def whole() -> None:
        bed = Bed(lab)
        try:
            work(bed)
        finally:
            bed.names.stop()

    in_namespace(whole)


def test_a_first_hop_has_its_canonical_name(lab: Lab) -> None:
    """Its block is that of the canonical name, and so is its known host key; by ssh's engine, too."""

    def work(bed: Bed) -> None:
        bed.sets()
        assert bed.ssh("gate", "echo $SERVER").stdout == f"{GATE}\n"
        bed.asked()
        for engine in ("auto", "ssh"):
            done = bed.pyrelay("--engine", engine, "gate/h3")
            assert done.stdout.startswith("SSH-2.0-"), done.stderr
            assert GATE in bed.asked()
        assert lab[GATE].logins() == [lab.user] * 3
        bed.sets("no")
        assert bed.pyrelay("gate/h3").returncode == 1
        assert GATE not in bed.asked()

    within(lab, work)


@pytest.mark.parametrize("setting", ["yes", "always"])
def test_no_other_name_meets_our_resolver(lab: Lab, setting: str) -> None:
    def work(bed: Bed) -> None:
        bed.sets(setting)
        lab.host("commanded", HostName="inner", ProxyCommand=f"nc {LOOPBACK} {lab['h3'].port}", HostKeyAlias="h3")
        lab.host("jumping", HostName="inner", ProxyJump="commanded")
        lab.host("hidden", HostName=f"{'a' * 56}.onion")
        for words in (
            ("commanded/inner",),
            ("jumping/inner",),
            ("-x", f"{LOOPBACK}:1", "gate/inner"),
            (f"{'b' * 56}.onion/inner",),
            ("hidden/inner",),
            ("--explain", "gate/h3"),
        ):
            bed.pyrelay("-w", "10", *words)
            assert bed.asked() == [], words

    within(lab, work)


def test_permitted_cnames_alone_look_nothing_up(lab: Lab) -> None:
    """With these `ssh -G` asks the resolver for any name without a ProxyCommand, and ends where it does not know it."""

    def work(bed: Bed) -> None:
        lab.head = "CanonicalizePermittedCNAMEs *.bed.test:*.bed.invalid"
        lab.host("inner", HostName=LOOPBACK, Port=str(lab["h3"].port))
        lab.host("h1", HostName=LOOPBACK, Port=str(lab[GATE].port), HostKeyAlias=GATE)
        onion = f"{'b' * 56}.onion"
        for words in (
            (f"{onion}/inner",),
            ("-x", f"{LOOPBACK}:1", "gate/other"),
            ("--explain", f"{onion}/other"),
            ("--explain", onion),
            ("--check", onion),
            ("--known-hosts", onion),
            ("--ssh-config",),
            ("h1/only.the.hop.knows",),
        ):
            bed.pyrelay("-w", "10", *words)
            assert bed.asked() in ([], ["only.the.hop.knows"] * 2), words  # (the hop's sshd uses this resolver, too)
        assert bed.pyrelay("h1/inner").stdout.startswith("SSH-2.0-")

    within(lab, work)


def test_an_ssh_before_8_8_knows_no_none(lab: Lab) -> None:
    """It ends at CanonicalizePermittedCNAMEs=none, so it is asked once more without that."""
    old = lab.top / "old" / "ssh"
    old.parent.mkdir()
    refusal = 'command-line line 0: Invalid permitted CNAME "none".'
    old.write_text(f"""#!/bin/sh
case " $* " in *CanonicalizePermittedCNAMEs=none*) echo '{refusal}' >&2; exit 255; esac
exec {need("ssh")} "$@"
""")
    old.chmod(0o755)
    environment = {"PATH": f"{old.parent}:{os.environ['PATH']}"}
    lab.server("h1")
    lab.server("h3")
    for words in (("h1/h3",), ("--engine", "ssh", "h1/h3"), ("--explain", "h1/h3"), ("--ssh-config",)):
        done = lab.pyrelay_in(environment, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert refusal not in done.stdout + done.stderr


def test_a_name_that_is_not_there(lab: Lab) -> None:
    """With CanonicalizeFallbackLocal no, ssh ends, and says why."""

    def work(bed: Bed) -> None:
        bed.sets(CanonicalDomains="bed.invalid", CanonicalizeFallbackLocal="no")
        assert "Could not resolve host" in bed.ssh("gate", "true").stderr
        assert 'ssh_config of gate: ssh: Could not resolve host "gate"' in bed.pyrelay("gate/h3").stderr

    within(lab, work)
