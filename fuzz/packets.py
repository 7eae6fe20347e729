"""Fuzz the packets of a hop: any bytes give packets or BadPacket. `make fuzz`, or this file with libFuzzer's options.

The first byte says what the rest is: bytes of the connection, cut into pieces,
or what somebody with the key has sealed.
"""

from __future__ import annotations

import os
import struct
import sys

import atheris

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

with atheris.instrument_imports(include=["relay"]):
    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.gcm import BadPacket, Opener, Sealer

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = AESGCM(bytes(16))
IV = bytes(12)


def one_input(data: bytes) -> None:
    """One run; an exception is a find."""
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        outsider(provider)
    else:
        insider(provider)


def outsider(provider: atheris.FuzzedDataProvider) -> None:
    """Good packets, then anything, in pieces: the good ones come out and nothing else."""
    sealer = Sealer(KEY, IV)
    payloads = [provider.ConsumeBytes(provider.ConsumeIntInRange(1, 100)) or b"x" for _ in range(3)]
    stream = b"".join(bytes(sealer.packet(payload)) for payload in payloads)
    stream += provider.ConsumeBytes(provider.ConsumeIntInRange(0, 400))
    opener, source, got = Opener(KEY, IV), Buffer(0), []
    try:
        while stream:
            size = provider.ConsumeIntInRange(1, 200)
            source.put(stream[:size])
            stream = stream[size:]
            while length := opener.open(source):
                got.append(bytes(opener.plain[1 : 1 + length]))
    except BadPacket:
        pass
    assert got == payloads, (got, payloads)


def insider(provider: atheris.FuzzedDataProvider) -> None:
    """Any plaintext under the right key: a payload within it, or BadPacket."""
    plain = provider.ConsumeBytes(sys.maxsize)
    length = struct.pack(">I", len(plain))
    source = Buffer(0)
    source.put(length + KEY.encrypt(IV, plain, length))
    opener = Opener(KEY, IV)
    try:
        size = opener.open(source)
    except BadPacket:
        return
    assert size == len(plain) - 1 - plain[0] > 0, plain
    assert plain[0] >= 4, plain
    assert len(source) == 0


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
