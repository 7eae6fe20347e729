"""The methods of a login by their names (RFC 4252), and what in ssh_config turns each on and off."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.config.settings import HopSettings

# ssh's methods in ssh's order, each with its keyword (sshconnect2.c, authmethods; PreferredAuthentications).
METHODS = {
    "gssapi-with-mic": "gssapiauthentication",
    "hostbased": "hostbasedauthentication",
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
ASKING = ("keyboard-interactive", "password")  # those by which a person is asked
OURS = ("publickey", *ASKING)  # those that our client has


def allowed(settings: HopSettings) -> list[str]:
    """The methods that ssh_config allows, in the order of PreferredAuthentications, or else in ssh's.

    One that is not named there counts only if ssh was built with it: else ssh does not print its keyword.
    """
    preferred = settings.get("preferredauthentications")
    built = [name for name in METHODS if name in OURS or settings.get(METHODS[name])]
    names = preferred.split(",") if preferred else built
    return [name for name in names if name in METHODS and not settings.no(METHODS[name])]
