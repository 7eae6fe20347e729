"""pyrelay: the byte stream that OpenSSH asks a ProxyCommand for.

One way through, a room a step:

    argv -> Options -> Route -> [HopSettings] -> dial -> Stream -> pump -> exit status

Imports point downward only, and a path imports what it needs: a raw relay
knows neither paramiko nor asyncio.
"""

__version__ = "0.2.0"
