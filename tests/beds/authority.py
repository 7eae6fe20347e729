"""An authority that signs certificates, and real proxies that speak TLS with them: tinyproxy behind socat."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from peers import LOOPBACK, free_ports, need
from proxies import RealProxy

DAY = datetime.timedelta(days=1)


class Authority:
    """top: a directory for its files. cacert: its own certificate, which clients are to believe."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pyrelay's tests")])
        self.cacert = top / "ca.pem"
        certificate = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.cacert.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *, days: int = 2) -> Path:
        """A file with a key and a certificate for a name or an address, good for so many days from yesterday on."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            subject = x509.DNSName(name)
        certificate = self._sign(x509.Name([]), key.public_key(), x509.SubjectAlternativeName([subject]), days)
        path = self._top / f"{name}-{days}.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
        return path

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType, days: int = 2
    ) -> x509.Certificate:
        begin = datetime.datetime.now(datetime.UTC) - DAY
        builder = x509.CertificateBuilder(
            self._name, subject, key, x509.random_serial_number(), begin, begin + days * DAY
        )
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())


def in_tls(port_behind: int, certificate: Path) -> RealProxy:
    """The HTTP proxy at a port, behind socat, which speaks TLS with this certificate. Its options name localhost."""
    port = next(free_ports())
    listen = f"OPENSSL-LISTEN:{port},bind={LOOPBACK},reuseaddr,fork,cert={certificate},verify=0"
    front = RealProxy([need("socat"), "-t", "60", listen, f"TCP:{LOOPBACK}:{port_behind}"], port, "connect")
    front.options = ["--proxy", f"https://localhost:{port}"]
    return front
