"""What ssh itself does with a name as it was typed: as whom, by which ProxyCommand, under which name of known_hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.config.lookup import AS_IT_IS, IF_IT_WERE, ON, Defaults, is_old, no_ssh, what_ssh_said, without_cnames
from relay.config.settings import HopSettings, parse
from relay.errors import RelayError, printable
from relay.spec.route import DEFAULT_PORT, is_ipv4, is_ipv6

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.run.children import Children
    from relay.spec.options import Options


class Typed(NamedTuple):
    """A name as it was typed.

    user: what stands before its last "@", "" if nothing does. name: what stands after it. settings: what ssh_config
    gives that name; None if ssh refuses the name, or cannot read ssh_config. refusal: which of the two, in ssh's words.
    """

    user: str
    name: str
    settings: HopSettings | None
    refusal: str

    @property
    def template(self) -> str:
        """The ProxyCommand as ssh_config has it, or ""."""
        return self.settings.named("proxycommand") if self.settings is not None else ""

    @property
    def command(self) -> str:
        """The ProxyCommand that ssh runs, its tokens replaced, or ""."""
        return self._expanded("proxy_command")

    @property
    def jump(self) -> str:
        """The ProxyJump that ssh takes, or ""."""
        return self._expanded("proxy_jump")

    def _expanded(self, way: str) -> str:
        if self.settings is None:
            return ""
        try:
            return self.settings.proxy_command() if way == "proxy_command" else self.settings.proxy_jump()
        except RelayError as error:
            return error.cause

    @property
    def alias(self) -> str:
        """The HostKeyAlias, or ""."""
        return self.settings.get("hostkeyalias") if self.settings is not None else ""


def ask(options: Options, children: Children) -> Typed:
    """Ask `ssh -G` about the name in the options. Raises RelayError if there is no ssh."""
    user, at, name = options.destination.rpartition("@")
    if options.destination.lower().startswith("ssh://"):  # that is no route
        user, at, name = "", "", options.destination
    words = [f"-o{setting}" for setting in AS_IT_IS]
    if options.config is not None:
        words += ["-F", options.config]
    if options.port != DEFAULT_PORT:
        words += ["-p", str(options.port)]
    words += ["--", options.destination]
    values, said = output(["ssh", "-G", "-T", *words], children)
    if values is None and "fork into background" in said:  # ForkAfterAuthentication, and no command as yet
        values, said = output(["ssh", "-G", "-T", "-N", *words], children)
    settings = None
    if values is not None:
        settings = HopSettings(name, values, Defaults(children), words, environ=children.environ)
    return Typed(user if at else "", name, settings, _refusal(name, said) if settings is None else "")


def is_made_canonical(settings: HopSettings, children: Children) -> bool:
    """Whether ssh may make another name of this one (CanonicalizeHostname), when it looks it up to connect there."""
    if is_ipv6(settings.hostname) or is_ipv4(settings.hostname):
        return False
    treated = [f"-o{setting}" for setting in AS_IT_IS]
    words = [*(f"-o{setting}" for setting in IF_IT_WERE), *(word for word in settings.words if word not in treated)]
    values, _ = output(["ssh", "-G", "-T", "-N", *words], children)
    return values is not None and not ON.isdisjoint(values.get("canonicalizehostname", ()))


def _refusal(name: str, said: str) -> str:
    """Return a line for what ssh says where it gives a name no settings."""
    # What it says of a name itself (main, ssh.c): "hostname contains invalid characters", or how to use it, of a URI.
    of_name = "contains invalid characters" in said or said.startswith("usage: ")
    return f"ssh refuses the name: {printable(said)}" if of_name else f"ssh_config of {printable(name)}: {said}"


def output(argv: Sequence[str], children: Children) -> tuple[dict[str, list[str]] | None, str]:
    """Return what `ssh -G` prints; or None, and why it fails. Raises RelayError if there is no ssh."""
    try:
        child = children.ask(argv)
    except OSError as error:
        raise no_ssh(error, "route") from error
    out, err = child.communicate()
    if is_old(child.returncode, err) and (shorter := without_cnames(argv)) != tuple(argv):
        return output(shorter, children)
    if child.returncode != 0:
        return None, "; ".join(what_ssh_said(err)) or "ssh -G failed"
    return parse(out), ""
