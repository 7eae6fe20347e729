"""TLS to a proxy: a codec by the standard library's ssl. The certificate is always verified.

RFC 8446 and RFC 5246; ssl checks the name by RFC 6125 and RFC 9525. A half-close is a close_notify, which ends one
direction in TLS 1.3 (section 6.1). A socket that ends without a close_notify counts as a good end: many proxies do
that, and the data is SSH, which notices by itself when bytes are missing.
"""

from __future__ import annotations

import ssl

from relay.dial.proxy.layer import SIZE, WAITING, LayerStream
from relay.dial.proxy.wire import encoded_name
from relay.errors import RelayError, printable, sentence, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.dial.proxy.wire import Wire
    from relay.spec.proxy import Proxy

HINT_PLAIN = "does it speak plain HTTP? --proxy http://..."
HINT_OURS = "the proxy wants a certificate of its clients, and pyrelay has none"
HINT_NEW = "pyrelay makes no second one; TLS 1.3 has none"
CA_HINT = "--proxy-cacert FILE names the certificates to trust for it"
# OpenSSL's number for what is wrong with a certificate (x509_vfy.h): the hint.
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
    """The codec of TLS, see layer.Codec."""

    def __init__(self, name: bytes, cacert: str | None) -> None:
        """name: the one that the certificate must have. cacert: see Manner. Raises RelayError."""
        self.over = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = _context(cacert).wrap_bio(self._in, self._out, server_hostname=name)

    def greet(self, data: bytes) -> bool:
        """Continue the handshake with bytes that have come. Return whether it is done. Raises SSLError.

        `said` then returns the bytes to send.
        """
        self._in.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def said(self) -> bytes:
        """Return the bytes that TLS itself wants to send."""
        return self._out.read()

    def seal(self, data: bytes | memoryview, /) -> bytes:
        """Return the bytes that go over the socket for data, together with those of TLS itself."""
        view = memoryview(data)
        try:
            while view:
                view = view[self.tls.write(view) :]
        except ssl.SSLError as error:
            raise _lost(error) from error
        return self._out.read()

    def open(self, data: bytes, /) -> Iterator[bytes]:
        """Take bytes from the socket, and yield the data in them that is complete."""
        self._in.write(data)
        try:
            while part := self.tls.read(SIZE):
                yield part
            self.over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.over = True
        except ssl.SSLError as error:
            raise _lost(error) from error
        # TLS 1.2 has nothing else to answer (RFC 5246, 7.4.1.1), and OpenSSL takes no data until it is done.
        if self._out.pending and self.tls.version() == "TLSv1.2":
            raise RelayError("the link was lost: TLS: the proxy wants another handshake (renegotiation)", hint=HINT_NEW)
        # Answers to what TLS itself has asked, such as for new keys: they go with our next data (RFC 8446, 4.6.3).
        if self._out.pending > WAITING:
            raise RelayError("the link was lost: TLS: the proxy asks for new keys without end")

    def end(self) -> bytes | None:
        """Return the close_notify. `open` has read all data before, so unwrap() does not stumble over any."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # unwrap() also wants the far side's close_notify, which may come much later
            pass
        return self._out.read()

    def cut(self) -> None:
        """Do nothing: such an end counts as a good one, see the head of this file."""


def secure(wire: Wire, cacert: str | None) -> None:
    """Make the TLS handshake with the proxy. From then on the wire speaks inside TLS.

    cacert: a file of the authorities to trust about the proxy, None for the system's. Raises RelayError.
    """
    proxy = wire.proxy
    data = b""
    try:
        codec = Tls(_name(proxy), cacert)
        while not codec.greet(data):
            wire.send(codec.said())
            data = wire.receive(SIZE)
        wire.send(codec.said())
        wire.wrap(LayerStream(wire.tcp, codec))
    except ssl.SSLCertVerificationError as error:
        wire.send(codec.said())  # an alert tells the proxy, too
        reason = sentence(printable(error.verify_message).rstrip("."))
        cause = f"{proxy}: its certificate is not trusted: {reason}"
        raise RelayError(cause, hint=HINTS.get(error.verify_code, "")) from error
    except ssl.SSLError as error:
        hint = HINT_PLAIN if error.reason in _NO_TLS else ""
        raise RelayError(f"{proxy}: TLS: {_reason(error)}", hint=hint) from error
    finally:
        if wire.socket is wire.tcp:  # the handshake has failed
            wire.socket.close()


_WANTS_OURS = "TLSV13_ALERT_CERTIFICATE_REQUIRED"  # it comes after our side of the handshake (RFC 8446, 6.2)
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}


def _name(proxy: Proxy) -> bytes:
    """Return the name that a proxy's certificate must have: its own, without a last dot. Raises RelayError."""
    try:
        return encoded_name(proxy.host).removesuffix(b".")
    except RelayError as error:
        raise RelayError(f"{proxy}: {error.cause}", hint=error.hint) from error


def _context(cacert: str | None) -> ssl.SSLContext:
    # ssl.create_default_context also writes the connection's keys to $SSLKEYLOGFILE, and from Python 3.13 on it refuses
    # authorities that are made loosely, as some company's are; other programs do not.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies the certificate and its name
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate that is trusted need not be a root
    context.set_alpn_protocols(["http/1.1"])
    if cacert is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cacert)
    except ssl.SSLError as error:
        raise RelayError(f"{printable(cacert)} has no certificate that can be read", place="--proxy-cacert") from error
    except OSError as error:
        raise RelayError(f"{printable(cacert)}: {words(error)}", place="--proxy-cacert") from error
    return context


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words: "tlsv1 alert protocol version"."""
    return printable((error.reason or str(error)).replace("_", " ").lower())


def _lost(error: ssl.SSLError) -> RelayError:
    hint = HINT_OURS if error.reason == _WANTS_OURS else ""
    return RelayError(f"the link was lost: TLS: {_reason(error)}", hint=hint)
