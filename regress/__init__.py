"""OpenSSH's own regression suite with pyrelay in the path of its connections, and with its login in ssh's place."""
