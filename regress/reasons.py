"""Which tests say nothing about pyrelay, and why those that differ from a plain run do."""

FIXED_PORTS = frozenset({"cfgmatch", "forward-control", "forwarding", "multiplex"})

# Tests in which ssh makes no connection that a ProxyCommand could carry.
NO_CONNECTION = {
    **dict.fromkeys(
        (
            "keygen-change",
            "keygen-comment",
            "keygen-convert",
            "keygen-knownhosts",
            "keygen-moduli",
            "keygen-sshfp",
            "krl",
            "sshsig",
        ),
        "runs ssh-keygen only",
    ),
    **dict.fromkeys(("sshcfgparse", "percent"), "runs `ssh -G` only"),
    **dict.fromkeys(
        ("addrmatch", "cfgparse", "cfgmatchlisten", "servcfginclude", "match-subsystem"), "runs `sshd -T` only"
    ),
    **dict.fromkeys(
        ("scp", "scp-uri", "sftp", "sftp-cmds", "sftp-badcmds", "sftp-batch", "sftp-glob", "sftp-perm", "sftp-resume"),
        "scp and sftp speak to a local sftp-server, without ssh",
    ),
    **dict.fromkeys(
        ("agent-getpeereid", "agent-timeout", "agent-ptrace", "agent-subprocess"), "runs ssh-agent and ssh-add only"
    ),
    **dict.fromkeys(("proto-version", "proto-mismatch"), "speaks to sshd by hand"),
    "keyscan": "runs ssh-keyscan, which knows no ProxyCommand",
    "sshfp-connect": "needs a zone in the DNS; the suite leaves it out",
    "hostbased": "needs a login by host key set up on the machine; the suite leaves it out",
    "agent-pkcs11-restrict": "needs SoftHSM; the suite leaves it out",
    "agent-pkcs11-cert": "needs SoftHSM; the suite leaves it out",
}

# Why a test that goes well by itself does not through a hop; `ssh -W` in the same place fails in the same way.
_BY_ADDRESS = "expects that sshd knows no address of the client; behind a hop there is one"
DIFFERS: dict[str, str] = {
    "cfgmatch": _BY_ADDRESS,
    "key-options": _BY_ADDRESS,
    "proxy-connect": _BY_ADDRESS,
    "hostkey-agent": _BY_ADDRESS,
    "hostkey-rotate": "fails in a plain run, too, on the machine that this was run on",
}

# What differs between the logins in ssh's place, and why.
LOGINS: dict[str, str] = {
    "agent": (
        "DSA keys are not supported, as in OpenSSH 10: one login more is refused (9.2). "
        "Two with a ForwardAgent that names no variable are accepted, since pyrelay forwards no agent."
    ),
    "integrity": (
        "Looks for ssh's word of a bad MAC in the last two lines of the log; behind it stand ours, that the "
        "hop's ssh has ended, and a hint. Each login is refused as by ssh."
    ),
}
