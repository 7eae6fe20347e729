"""TLS to a proxy: a codec by the standard library's ssl, always verified.

RFC 8446 and 5246; names as RFC 6125 and 9525 have it, which ssl does. A half-close is the close_notify, which in TLS
1.3 ends one direction (section 6.1). An end of the socket without one is taken for the end: many proxies do that, and
what passes here is SSH, which notices by itself when something is missing.
"""

from __future__ import annotations

import ssl

from relay.dial.proxy.layer import SIZE, LayerStream
from relay.errors import RelayError, printable, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from relay.dial.proxy.wire import Wire

HINT_PLAIN = "does it speak plain HTTP? --proxy http://..."
CA_HINT = "the certificates of those whom you believe about it are for --proxy-cacert FILE"
# What OpenSSL calls a certificate that does not do (x509_vfy.h): the hint.
HINTS = {
    10: "the proxy needs a new one",  # has expired
    9: "look at this machine's clock",  # is not yet valid
    18: CA_HINT,  # self-signed
    19: CA_HINT,  # self-signed in the chain
    20: CA_HINT,  # the issuer is not known
    21: CA_HINT,  # the first certificate cannot be verified
    62: "name the proxy as its certificate does",  # another name
    64: "name the proxy as its certificate does",  # another address
}


class Tls:
    """The layer; see layer.Codec."""

    def __init__(self, host: str, cacert: str | None) -> None:
        """host: the name that the certificate must have. cacert: see Manner. Raises RelayError."""
        self.over = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = _context(cacert).wrap_bio(self._in, self._out, server_hostname=host)

    def greet(self, data: bytes) -> bool:
        """Go on with the handshake by what has come; whether it is done. `said` has the answer. Raises SSLError."""
        self._in.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def said(self) -> bytes:
        """What TLS itself has to say."""
        return self._out.read()

    def seal(self, data: bytes | memoryview, /) -> bytes:
        """What goes over the socket for data, and whatever TLS itself has to say."""
        view = memoryview(data)
        try:
            while view:
                view = view[self.tls.write(view) :]
        except ssl.SSLError as error:
            raise _lost(error) from error
        return self._out.read()

    def open(self, data: bytes, /) -> bytes:
        """What the far side has said."""
        self._in.write(data)
        parts = []
        try:
            while part := self.tls.read(SIZE):
                parts.append(part)
            self.over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.over = True
        except ssl.SSLError as error:
            raise _lost(error) from error
        return b"".join(parts)

    def end(self) -> bytes | None:
        """The close_notify. All that has come has been opened before, so nothing is in its way."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # it waits for the other one's, which may take long
            pass
        return self._out.read()

    def cut(self) -> None:
        """Nothing: see the head of this file."""


def secure(wire: Wire, cacert: str | None) -> None:
    """Speak TLS with the proxy that a wire leads to; from now on the wire is inside it.

    cacert: a file of those whose word about the proxy is believed, None for the system's. Raises RelayError.
    """
    proxy = wire.proxy
    data = b""
    try:
        codec = Tls(proxy.host, cacert)
        while not codec.greet(data):
            wire.send(codec.said())
            data = wire.receive(SIZE)
        wire.send(codec.said())
        wire.wrap(LayerStream(wire.tcp, codec))
    except ssl.SSLCertVerificationError as error:
        wire.send(codec.said())  # the proxy is told, too
        reason = printable(error.verify_message).rstrip(".")
        cause = f"{proxy}: its certificate does not do: {reason[:1].lower()}{reason[1:]}"
        raise RelayError(cause, hint=HINTS.get(error.verify_code, "")) from error
    except ssl.SSLError as error:
        hint = HINT_PLAIN if error.reason in _NO_TLS else ""
        raise RelayError(f"{proxy}: TLS: {_reason(error)}", hint=hint) from error
    finally:
        if wire.socket is wire.tcp:  # it has failed
            wire.socket.close()


_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}


def _context(cacert: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError as error:
        raise RelayError(
            f"{printable(str(cacert))} has no certificate that can be read", place="--proxy-cacert"
        ) from error
    except OSError as error:
        raise RelayError(f"{printable(str(cacert))}: {words(error)}", place="--proxy-cacert") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason in words: "tlsv1 alert protocol version"."""
    return printable((error.reason or str(error)).replace("_", " ").lower())


def _lost(error: ssl.SSLError) -> RelayError:
    return RelayError(f"the link was lost: TLS: {_reason(error)}")
