"""Our own SSH client: one hop, logged in to, and the streams that it opens.

    enter.py     the stages by which a hop is entered, in their order; quantum.py: what is said of its key exchange
    session.py   a hop that has been entered; opens the streams to what follows; announced.py: its further host keys
    netcat.py    crosses a hop that denies forwarding
    login/       who are we? keys, agent, passwords; asks a person
    wire/        how bytes move: packets, channels, windows; the room of paramiko
    trust/       who is the hop? known_hosts and host certificates
    memory.py    what hops have taken, from one run to the next
    pubkey.py    a public key as SSH writes it
    digest.py    hashes, by cryptography; mac.py: of a name that is hidden in a file
    ident.py     the error for a server that closes before its ident
    record.py    small named tuples

Imports point down this list. Only wire/ imports paramiko, and those above login/ by way of it.
"""
