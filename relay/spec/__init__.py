"""What the user asked for: the command line, the route, the proxy. Pure: no input or output, no look-ups."""

PROXY_PASSWORD = "PYRELAY_PROXY_PASSWORD"  # noqa: S105 - the environment variable that holds the password of a proxy
