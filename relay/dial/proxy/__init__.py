"""A leg that begins a route: a connection that a proxy makes for us.

SOCKS4a and SOCKS5 (PySocks, which only `handshake` uses), HTTP CONNECT, and Tor.
Two rules hold for all of them. The name goes to the proxy as a name: nothing here
ever looks up the host that we ask for. And a handshake reads its own bytes and
not one more, since the next byte belongs to ssh.

    leg.py        connect(): reach the proxy, then ask it for the host
    who.py        our side of a login: user, password, headers, a Kerberos ticket
    wire.py       the connection while the handshake lasts: one deadline, exact reads
    handshake.py  SOCKS4a and SOCKS5
    records.py    SOCKS5 with GSS-API: the login, and the records after it
    http.py       HTTP CONNECT: message.py has its messages, login.py logs in (auth.py reads challenges, digest.py
                  answers those of Digest), causes.py puts its refusals in words
    tls.py        an https:// proxy
    layer.py      the stream inside TLS or records, as the pump moves it
    gss.py        Kerberos, by the system's library
    tor.py        where Tor is, a circuit for each target, its own reply codes
"""
