"""Fuzz the opener of a packet cipher: any bytes give packets or BadPacket.

`make fuzz`, or python fuzz/packets.py KIND [libFuzzer's options]: a name such as chacha20-poly1305@openssh.com, or
"aes128-ctr hmac-sha2-256"; "clear" is what there is before the first keys. The first byte of an input says what the
rest is: bytes of the connection, cut into pieces, or what somebody with the key has sealed.
"""

from __future__ import annotations

import os
import sys

import atheris

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests", "beds")]

with atheris.instrument_imports(include=["relay"]):
    from relay.ssh.wire.buffer import Buffer
    from relay.ssh.wire.ciphers import CLEAR
    from relay.ssh.wire.packet import BadPacket, Opener, Sealer

import sealing

KIND = "clear"


def sealer() -> Sealer:
    """What makes packets of the kind."""
    return Sealer(CLEAR) if KIND == "clear" else sealing.sealer(KIND)


def opener() -> Opener:
    """What opens them."""
    return Opener(CLEAR) if KIND == "clear" else sealing.opener(KIND)


def one_input(data: bytes) -> None:
    """One run; an exception is a find."""
    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeBool():
        outsider(provider)
    else:
        insider(provider)


def outsider(provider: atheris.FuzzedDataProvider) -> None:
    """Good packets, then anything, in pieces: the good ones come out and, where there is a key, nothing else."""
    make = sealer().packet
    payloads = [provider.ConsumeBytes(provider.ConsumeIntInRange(1, 100)) or b"x" for _ in range(3)]
    stream = b"".join(bytes(make(payload)) for payload in payloads)
    stream += provider.ConsumeBytes(provider.ConsumeIntInRange(0, 400))
    taker, source, got = opener(), Buffer(0), []
    try:
        while stream:
            size = provider.ConsumeIntInRange(1, 200)
            source.put(stream[:size])
            stream = stream[size:]
            while length := taker.open(source):
                got.append(bytes(taker.plain[1 : 1 + length]))
    except BadPacket:
        pass
    assert got[:3] == payloads, (got, payloads)
    assert len(got) == 3 or KIND == "clear", got


def insider(provider: atheris.FuzzedDataProvider) -> None:
    """Any plaintext under the right key: a payload within it, or BadPacket."""
    plain = provider.ConsumeBytes(sys.maxsize) or b"\0"
    source = Buffer(0)
    source.put(sealing.plain_packet(sealer(), plain))
    taker = opener()
    try:
        size = taker.open(source)
    except BadPacket:
        return
    if not size:  # it says that it is longer than it is
        assert KIND == "clear" or len(source) < taker.shape.block + taker.shape.overhead, plain
        return
    assert size == len(plain) - 1 - plain[0] > 0, plain
    assert plain[0] >= 4, plain
    assert len(source) == 0


if __name__ == "__main__":
    KIND = sys.argv.pop(1)
    opener()  # a KeyError for a name that is none
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
