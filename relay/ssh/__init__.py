"""Our own SSH client: one hop, logged in to, and the streams that it opens.

    session.py   the stages of a hop in their order; opens the streams to what follows
    netcat.py    crosses a hop that denies forwarding
    login/       who are we? keys, agent, passwords; asks a person
    wire/        how bytes move: packets, channels, windows; the room of paramiko
    trust/       who is the hop? known_hosts and host certificates
    pubkey.py    a public key as SSH writes it

Imports point down this list. Only wire/ imports paramiko, and the two above login/ by way of it.
"""
