"""Between a stream and stdin and stdout: what ends a relay, and how bytes are moved."""
