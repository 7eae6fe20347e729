"""One hop, h1, and a person who is asked about its host key: the bed of the tests of trust."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from relay.config.lookup import Lookup, Query
from relay.config.settings import HopSettings
from relay.errors import RelayError
from relay.run.children import Children
from relay.run.progress import Progress
from relay.run.prompt import NobodyToAsk, Prompt
from relay.spec import options
from relay.spec.route import Element
from relay.ssh.trust.trust import Trust
from relay.ssh.wire.transport import Transport

if TYPE_CHECKING:
    from lab import Lab


class Person(Prompt):
    """Somebody who gives these answers to what is asked."""

    def __init__(self, progress: Progress, *answers: str) -> None:
        super().__init__(progress, Children(), batch=not answers)
        self._answers = list(answers)
        self.asked: list[str] = []

    def ask(
        self, question: str, *, mark: str = "", echo: bool = False, askpass: str = "", confirm: bool = False
    ) -> str:
        if self.batch:
            raise NobodyToAsk("nobody may be asked (BatchMode)")
        assert echo
        self.asked.append(question)
        return self._answers.pop(0)


class Listener(Progress):
    """Keeps what would be said on stderr."""

    def __init__(self) -> None:
        super().__init__(30)
        self.place = "hop 1 of 2 (h1)"
        self.said: list[str] = []

    def tell(self, text: str, *, place: str = "") -> None:
        self.said.append(text)


class Meeting(NamedTuple):
    """What came of it: the error or "", what was said, what was asked."""

    error: str
    said: list[str]
    asked: list[str]


def settings_of_h1(lab: Lab) -> HopSettings:
    chosen = options.parse(["-F", str(lab.write_config()), "x"])
    return Lookup([Query(Element(None, "h1", None), chosen)], Children()).read(Progress())[0]


def meet(lab: Lab, *answers: str, address: str = "") -> Meeting:
    """Exchange keys with h1 and see whether it is trusted."""
    settings = settings_of_h1(lab)
    progress = Listener()
    person = Person(progress, *answers)
    with socket.create_connection(("127.0.0.1", settings.port)) as stream:
        transport = Transport(stream, None, progress)
        try:
            judge = Trust(settings, progress, person, address=address)
            transport._preferred_keys = tuple(judge.algorithms())
            transport.start_client(timeout=30)
            judge.verify(transport.host_key_blob)
        except RelayError as error:
            return Meeting(str(error), progress.said, person.asked)
        finally:
            transport.close()
            if transport.ident is not None:  # it was started
                transport.join()
    return Meeting("", progress.said, person.asked)


def write(lab: Lab, text: str) -> None:
    """Write known_hosts: {host} stands for h1 and its port, {key}, {rsa}, {ecdsa} for its keys."""
    words = {"host": f"[127.0.0.1]:{lab['h1'].port}", "port": str(lab["h1"].port)}
    for name in ("ca", "other"):
        words[name] = key(lab, name)
    for line in lab["h1"].host_keys:
        kind, base64 = line.split()[:2]
        words[{"ssh-ed25519": "key", "ssh-rsa": "rsa"}.get(kind, "ecdsa")] = f"{kind} {base64}"
    lab.known_hosts.write_text(text.format(**words))


def key(lab: Lab, name: str, kind: str = "ed25519") -> str:
    """The public key of that name, made when it is not there."""
    path = lab.top / f"{name}.pub"
    return (path if path.exists() else Path(f"{lab.keygen(name, kind)}.pub")).read_text().strip()


def certify(
    lab: Lab, options_: str = "", *, named: bool = True, kind: str = "ed25519", ca: str = "ca", ca_kind: str = "ed25519"
) -> None:
    """Give h1 a host certificate with these options of ssh-keygen; for one day and 127.0.0.1 unless they say else."""
    key(lab, ca, ca_kind)
    words = options_.split()
    words += ["-V", "-1d:+1d"] if "-V" not in words else []
    words += ["-n", "127.0.0.1"] if named and "-n" not in words else []
    subprocess.run(
        ["ssh-keygen", "-q", "-s", lab.top / ca, "-h", "-I", "h1", *words, lab.top / f"h1/{kind}.pub"], check=True
    )


def server(lab: Lab, *kinds: str, certified: str = "") -> None:
    """Start h1, by default with one key."""
    extra = f"HostCertificate {lab.top}/h1/{certified}-cert.pub" if certified else ""
    lab.server("h1", host_key_types=kinds or ("ed25519",), extra=extra)
    key(lab, "ca")
    key(lab, "other")


def agree(lab: Lab, expected: str, *, as_ssh: bool = True) -> Meeting:
    """Meet h1; the error has the expected words, or there is none. as_ssh: and ssh decides so, too."""
    before = lab.known_hosts.read_bytes()
    if as_ssh:
        done = lab.ssh("h1", "true")
        assert (done.returncode == 0) == (not expected), done.stderr
        lab.known_hosts.write_bytes(before)
    met = meet(lab)
    assert expected in met.error
    assert bool(expected) == bool(met.error)
    if expected:
        assert lab.known_hosts.read_bytes() == before
    return met


UNKNOWN = "no host key is known for "
CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
REVOKED = "REVOKED HOST KEY"
