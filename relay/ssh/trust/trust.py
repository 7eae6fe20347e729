"""Whether a hop is who it says it is: OpenSSH's rules, on OpenSSH's files.

After sshconnect.c (verify_host_key, check_host_key). Where it deviates, that is
to the safe side: a key that has changed, contradicts its address (CheckHostIP)
or is revoked is refused whatever StrictHostKeyChecking says, a file that cannot
be read is an error, and a key that is not checked is warned of. It knows the
hop's settings and no socket: the key exchange has proved that the server holds
the key.
"""

from __future__ import annotations

import time

from relay.config.settings import is_loopback
from relay.errors import RelayError, Unserved
from relay.run.children import Children
from relay.run.prompt import Cancelled, NobodyToAsk
from relay.ssh.pubkey import BadKey, PublicKey, Unsupported
from relay.ssh.trust import known_hosts, refusals
from relay.ssh.trust.hostcert import Certificate
from relay.ssh.trust.hostkeys import ALGORITHMS, CHANGED, IS_REVOKED, KNOWN, UNKNOWN, HostKeys
from relay.ssh.trust.known import Known, once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.settings import HopSettings
    from relay.run.progress import Progress
    from relay.run.prompt import Prompt
    from relay.ssh.trust.known_hosts import Entry
    from relay.ssh.trust.update import Policy

_OTHER_NAMES = 8  # sshconnect.c, MAX_OTHER_NAMES


class Trust:
    """The host keys of one hop. Reads its known_hosts files once.

    address: the hop's own, when it is reached by TCP and not through another
    hop or a ProxyCommand. jumps: the hops before it, as ssh's -J has them.
    chosen: once `algorithms` was called, what HostKeyAlgorithms names, in the
    order to ask for it, with what we lack. writes: whether a new key may be
    written to known_hosts. straight: whether ssh's own -J goes the same way.
    Raises RelayError when one of the files cannot be read.
    """

    chosen: tuple[str, ...] = ()
    writes = True
    straight = True

    def __init__(
        self,
        settings: HopSettings,
        progress: Progress,
        prompt: Prompt,
        *,
        address: str = "",
        jumps: str = "",
        children: Children | None = None,
    ) -> None:
        self._settings = settings
        self._jumps = jumps
        self._progress = progress
        self._prompt = prompt
        self._address = address
        self._children = children or Children()
        self._warn = once(lambda text: progress.note(0, text))
        alias = settings.get("hostkeyalias")
        self._host = alias or known_hosts.lowered(settings.hostname)  # as a certificate names it
        self._name = alias or known_hosts.with_port(self._host, settings.port)  # as known_hosts does
        # Where a key without a port may be written down; ssh then takes it for every port.
        self._any_port = self._host if self._name != self._host else ""
        self._is_own = False  # whether the key stands in a file of the user's, or a person has just accepted it
        self._known = Known(settings, self._children, self._warn, lambda text: progress.note(1, text))
        self._user_files = self._known.own
        self._keys = HostKeys(self._known.by_files(self._name))
        self._ordering = self._keys
        self._leads = True  # whether another algorithm may come first than ssh would put there

    def algorithms(self, offered: Sequence[str] = ALGORITHMS) -> list[str]:
        """Of the host key algorithms that are offered, those to ask for, in the order to ask for them.

        HostKeyAlgorithms says which. Those of which a key is known come first, unless somebody wrote the list out
        (ssh_kex2, sshconnect2.c). Raises RelayError when none is left.
        """
        chosen = self._settings.algorithms("hostkeyalgorithms")
        order: Sequence[str] = ALGORITHMS if chosen is None else chosen
        if not any(name in offered for name in order):
            raise RelayError(
                f"pyrelay has none of the HostKeyAlgorithms of ssh_config: {','.join(order)}",
                hint=f"pyrelay has {','.join(offered)}",
            )
        if chosen is None or self._settings.edits_default("hostkeyalgorithms"):
            self._ordering = HostKeys((*self._keys.entries, *self._known.by_command("ORDER", self._name, None)))
            order = self._ordering.order(order)
        if chosen:
            picked = self._settings.picked("hostkeyalgorithms")
            self.chosen = tuple(name for name in order if name in offered or name in picked)
            self._leads = False
        return [name for name in order if name in offered]

    def led_by(self, algorithm: str, names: Sequence[str]) -> list[str]:
        """The names that `algorithms` returned, that algorithm before all others.

        Unchanged where somebody chose them, or where no key of its type is known.
        """
        if not self._leads or algorithm not in names or not self._ordering.may_lead(algorithm):
            return list(names)
        return [algorithm, *(name for name in names if name != algorithm)]

    def known(self) -> tuple[str, list[Entry], str]:
        """Return the name that the files are searched for, and what they hold for it. Asks no program and nobody.

        The third is the type of a key of it that only ssh may have, "" where there is none.
        Where they hold no plain key for it, what they hold for the name without a port counts, as in `verify`.
        """
        entries = list(self._keys.entries)
        if self._any_port and all(entry.marker for entry in entries):
            entries += self._known.by_files(self._any_port)
        return self._name, entries, self._known.foreign(self._name)

    def verify(self, blob: bytes) -> None:
        """Return when the server's host key, or certificate, is trusted.

        blob: as the server sent it, after the key exchange has shown that it
        holds the key. May ask the user, and may add a line to known_hosts.
        Raises RelayError when the key is not trusted.
        """
        try:
            key = PublicKey(blob)
            certificate = Certificate(key) if key.is_cert else None
            issuer = certificate.issuer if certificate is not None else None
        except Unsupported as error:  # of the key that has signed it
            raise Unserved(f"the server's host key cannot be used: {error}") from error
        except BadKey as error:
            raise RelayError(f"the server's host key cannot be used: {error}") from error
        self._progress.note(1, f"host key: {key.short} {self._fingerprint(key)}")
        if refused := refusals.too_short(key, self._settings):
            raise RelayError(refused)
        if path := refusals.revoked_by(self._settings, key, issuer, self._children):
            raise _revoked(self._name, key, self._fingerprint(key), path)
        if self._settings.exempts(self._address):
            self._warn("NoHostAuthenticationForLocalhost: the host key is not checked")
            self._learnt(key, "not checked (NoHostAuthenticationForLocalhost)")
            return
        keys = HostKeys((*self._keys.entries, *self._known.by_command("HOSTNAME", self._name, key)))
        if certificate is not None and self._is_certified(key, certificate, keys):
            return
        # As OpenSSH does: if no CA certifies the key, look for the key itself.
        key = key.certified()
        self._check_allowed(key)
        self._check_key(key, keys)

    def update(self) -> Policy | None:
        """What UpdateHostKeys needs to know, once the key is verified; None where ssh would not update the keys.

        (`ask` is without effect, as for `ssh -W`. With CheckHostIP each key would have to stand under the address.)
        """
        settings = self._settings
        wanted = settings.yes("updatehostkeys") and self._is_own and self._user_files
        if not self.writes or not wanted or self._checks_address():
            return None
        from relay.ssh.trust.update import Policy  # not for a target's keys

        return Policy(
            self._name,
            self._user_files,
            frozenset(entry.key.blob for entry in self._keys.entries if entry.path in self._user_files),
            refusals.permitted_types(settings),
            settings.yes("hashknownhosts"),
            settings.get("fingerprinthash", "sha256"),
        )

    # Certificates

    def _is_certified(self, key: PublicKey, certificate: Certificate, keys: HostKeys) -> bool:
        """Whether a CA of this host certifies the key. A bad certificate does not end the check."""
        for name, known in ((self._name, keys), (self._any_port, None)):
            if not name:
                continue
            verdict, entry = (known or HostKeys(self._known.by_files(name))).check(key, certificate.issuer)
            if verdict == IS_REVOKED and entry is not None:
                raise _revoked(name, key, self._fingerprint(key), entry.place)
            if verdict != KNOWN:
                continue
            signers = refusals.signers(self._settings)
            objection = certificate.objection(self._host, time.time(), signers, self._version_of_ssh)
            if not objection:
                self._learnt(key, f"certified by {entry.place}" if entry is not None else "certified")
                return True
            self._warn(objection)
        return False

    def _version_of_ssh(self) -> tuple[int, int]:
        from relay.config.lookup import version  # few hosts have a certificate

        return version(self._children)

    # Plain keys

    def _check_key(self, key: PublicKey, keys: HostKeys) -> None:
        verdict, entry = keys.check(key)
        if verdict == KNOWN and entry is not None:
            self._is_own = entry.path in self._user_files and entry.path not in self._known.system
        if verdict == UNKNOWN and self._any_port:
            # A key may be known for every port; another one that is says nothing of this port.
            found = HostKeys(self._known.by_files(self._any_port)).check(key)
            verdict, entry = found if found[0] != CHANGED else (UNKNOWN, None)
        if verdict == IS_REVOKED and entry is not None:
            raise _revoked(self._name, key, self._fingerprint(key), entry.place)
        if verdict == CHANGED and entry is not None:
            raise self._changed(self._name, key, entry)
        if verdict == UNKNOWN:
            self._learn(key)
        elif entry is not None:
            self._learnt(key, f"known by {entry.place}")
        self._check_address(key)

    def _learn(self, key: PublicKey) -> None:
        """A key that nobody has seen: ask, accept or refuse, as StrictHostKeyChecking says, and write it down.

        Raises RelayError; Unserved as Known.check_foreign does.
        """
        self._known.check_foreign(self._name)
        refused, hint = refusals.of_new(self._settings, self._host)
        if refused:
            raise self._unknown(key, refused, hint)
        if self._settings.strictness == "ask":
            self._ask(key)
            self._is_own = True
        if not self.writes:
            self._learnt(key, f"new: ssh would add it to {self._user_files[0]}")
        self._remember(self._name, key, f"'{self._name}' ({key.short})")

    def _ask(self, key: PublicKey) -> None:
        """OpenSSH's own question, with the hop named. Raises RelayError unless the answer is yes or the fingerprint."""
        fingerprint = self._fingerprint(key)
        address = (
            known_hosts.with_port(self._address, self._settings.port)
            if self._address
            else "<no hostip for proxy command>"
        )
        place = f"{self._progress.place}: " if self._progress.place else ""
        lines = [
            f"{place}The authenticity of host '{self._name} ({address})' can't be established.",
            f"{key.short} key fingerprint is {fingerprint}.",
            *self._picture(key),
            *self._other_names(key),
            *([] if self.writes else ["Nothing is written: a run of ssh will ask this again."]),
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        ]
        question = "\n".join(lines)
        while True:
            try:
                answer = self._prompt.ask(question, echo=True).split()
            except (Cancelled, NobodyToAsk) as error:
                raise self._unknown(key, error.cause) from error
            if not answer or answer[0].lower() == "no":
                raise RelayError(f"you did not accept the {key.short} key of {self._name}, {fingerprint}")
            if answer[0].lower() == "yes" or answer[0] == fingerprint:
                return
            question = "Please type 'yes', 'no' or the fingerprint: "

    def _picture(self, key: PublicKey) -> list[str]:
        """VisualHostKey: the picture of the fingerprint. ssh also shows it for known keys, which ask nobody."""
        if not self._settings.yes("visualhostkey"):
            return []
        from relay.ssh.trust.randomart import draw  # few want it

        return draw(key, self._settings.get("fingerprinthash", "sha256"))

    def _other_names(self, key: PublicKey) -> list[str]:
        """The other names under which the key is known, in OpenSSH's words."""
        found = self._known.other_names(self._name, key)
        if not found:
            return ["This key is not known by any other names."]
        told = ["This host key is known by the following other names/addresses:"]
        told += [f"    {name}" for name in found[:_OTHER_NAMES]]
        if len(found) > _OTHER_NAMES:
            told.append(f"    ({len(found) - _OTHER_NAMES} additional names omitted)")
        return told

    def _remember(self, name: str, key: PublicKey, what: str) -> None:
        """Add the key to the first of the user's files; where that cannot be done, ssh warns and goes on."""
        path = self._user_files[0]
        if not self.writes:
            return
        try:
            known_hosts.append(path, name, key, hashed=self._settings.yes("hashknownhosts"))
        except OSError as error:
            reason = error.strerror or error
            self._warn(f"Failed to add the host to the list of known hosts ({path}): {reason}")
        else:
            self._warn(f"Warning: Permanently added {what} to the list of known hosts.")

    # The address (CheckHostIP)

    def _checks_address(self) -> bool:
        settings = self._settings
        return bool(settings.yes("checkhostip") and self._address and not settings.get("hostkeyalias"))

    def _check_address(self, key: PublicKey) -> None:
        """CheckHostIP: the key must not contradict what is known of the address (off by default since OpenSSH 8.5)."""
        if not self._checks_address() or is_loopback(self._address) or self._host == self._address:
            return
        name = known_hosts.with_port(self._address, self._settings.port)
        entries = [*self._known.by_files(name), *self._known.by_command("ADDRESS", name, key)]
        verdict, entry = HostKeys(entries).check(key)
        if verdict == IS_REVOKED and entry is not None:
            raise _revoked(name, key, self._fingerprint(key), entry.place)
        if verdict == CHANGED and entry is not None:
            raise self._changed(name, key, entry)
        if verdict == UNKNOWN:
            self._known.check_foreign(name)
        if verdict == UNKNOWN and self._user_files:
            self._remember(name, key, f"the {key.short} host key for IP address '{name}'")

    # What the key must be

    def _check_allowed(self, key: PublicKey) -> None:
        """HostKeyAlgorithms bears on a certificate's own key, too (sshconnect.c, hostkey_accepted_by_hostkeyalgs)."""
        if key.type not in refusals.permitted_types(self._settings):
            raise RelayError(f"host key {key.type} is not permitted by HostKeyAlgorithms")

    # Words

    def _learnt(self, key: PublicKey, why: str) -> None:
        self._progress.learn("host_key", f"{key.short} {self._fingerprint(key)} {why}")

    def _fingerprint(self, key: PublicKey) -> str:
        return key.fingerprint(self._settings.get("fingerprinthash", "sha256"))

    def _unknown(self, key: PublicKey, reason: str, hint: str = "") -> RelayError:
        way = f"accept it once with `{self._by_ssh()}`, or " if self.straight else ""
        return RelayError(
            f"no host key is known for {self._name}, and {reason}; it shows {key.short} {self._fingerprint(key)}",
            hint=hint or f"if that is its fingerprint, {way}give pyrelay -o StrictHostKeyChecking=accept-new",
        )

    def _by_ssh(self) -> str:
        """The command by which ssh asks about the key, and writes it where it is looked for."""
        import shlex  # most keys are known

        settings = self._settings
        given = list(zip(settings.words, settings.words[1:], strict=False))
        words = ["ssh", *(word for pair in given if pair[0] == "-F" for word in pair)]
        words += ["-J", self._jumps] if self._jumps else []
        words += ["-p", str(settings.port)] if settings.port != known_hosts.SSH_PORT else []
        words += ["-o", "StrictHostKeyChecking=ask"] if settings.strictness == "yes" else []
        words += ["-o", "BatchMode=no"] if settings.yes("batchmode") else []
        words += [word for pair in given if pair[0] == "-o" for word in pair]
        return shlex.join([*words, settings.name])

    def _changed(self, name: str, key: PublicKey, entry: Entry) -> RelayError:
        hint = "somebody may be listening in, or the host has a new key; if you know that it has"
        if self._known.is_in_a_file(entry):
            hint += f": ssh-keygen -f '{entry.path}' -R '{name}'"
        else:
            hint += ", KnownHostsCommand must know it"
        return RelayError(
            f"REMOTE HOST IDENTIFICATION HAS CHANGED: the host key of {name} is not the known one\n"
            f"  it shows: {key.short} {self._fingerprint(key)}\n"
            f"  known is: {entry.key.short} {self._fingerprint(entry.key)}\n"
            f"  known by: {entry.place}",
            hint=hint,
        )


def _revoked(name: str, key: PublicKey, fingerprint: str, place: str) -> RelayError:
    return RelayError(
        f"REVOKED HOST KEY: the {key.short} host key of {name}, {fingerprint}, is marked as revoked in {place}",
        hint="a stolen key may be in use to impersonate this host",
    )
