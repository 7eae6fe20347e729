"""Who are we? The login to a hop: which methods and keys are tried, in which order, and what a person is asked.

    client.py      what the logins of one route share
    methods.py     the methods by their names
    auth.py        the methods, in their order
    publickey.py   a login by key
    asked.py       passwords and keyboard-interactive questions
    identities.py  which keys are offered
    keyring.py     keys that were opened, for all hops of a route
    keyfile.py     a private key file
    opensshkey.py  one in OpenSSH's own format, and any key's public half
    pem.py         ciphers of traditional key files
    foreign.py     keys of types that our client lacks
    agent.py       ssh-agent's protocol
    adding.py      keys that are given to the agent
    waiting.py     what a person is told while the agent is silent

The messages of the protocol are in wire/userauth.py.
"""
