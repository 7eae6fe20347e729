"""The methods of a login by their names (RFC 4252), and what in ssh_config turns each on and off."""

from __future__ import annotations

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
