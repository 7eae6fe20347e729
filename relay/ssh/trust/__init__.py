"""Who is the hop? Host keys, checked by OpenSSH's own rules and files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

    trust.py          the decision about one hop's key
    refusals.py       what ssh_config refuses of a key, whoever shows it
    target_key.py     the target's keys for ssh's KnownHostsCommand
    known.py          what is known of a hop's names, by files and command
    hosts_command.py  a hop's own KnownHostsCommand
    known_hosts.py    the files: read, matched, appended to
    update.py         further keys of a hop that is trusted (UpdateHostKeys)
    randomart.py      the picture of a fingerprint
    hostcert.py       host certificates
    signature.py      a signature by a host or a CA, checked
    hostkeys.py       the algorithms, and the proof that a key is the server's own

No paramiko here: `pyrelay --known-hosts` runs twice for each connection.
"""
