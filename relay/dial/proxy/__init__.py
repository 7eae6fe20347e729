"""A leg that begins a route: a connection that a proxy makes for us.

SOCKS4a and SOCKS5 (PySocks, which is met in `handshake` only), HTTP CONNECT, and
Tor. One rule stands over all of them: the name goes to the proxy as a name;
nothing here ever looks up the host that is asked for. And one about bytes: what a
handshake owes is read, and nothing behind it, for the next byte belongs to ssh.

    leg.py        connect(): reach the proxy, then ask it for the host
    who.py        who asks: user, password, headers, a ticket of Kerberos
    wire.py       the connection while the handshake lasts: one deadline, exact reads
    handshake.py  SOCKS4a and SOCKS5
    records.py    SOCKS5 with GSS-API: the login, and the records behind it
    http.py       HTTP CONNECT: message.py has its messages, login.py logs in (auth.py reads challenges, digest.py
                  answers one kind), causes.py has its refusals in words
    tls.py        an https:// proxy
    layer.py      the stream inside TLS or records, as the pump moves it
    gss.py        Kerberos, by the system's library
    tor.py        where Tor is, a circuit for each target, its own reply codes
"""
