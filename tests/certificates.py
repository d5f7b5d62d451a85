"""Certificates of a CA of the tests' own, as files.

ca = Authority(tmp_path)
server = ca.server("127.0.0.1")        # an SSLContext, which may want certificates of clients: mutual=True
cert, key = ca.files("proxy", "client.example")
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Authority:
    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def files(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Issue a certificate; return its file and that of its key, NAME.pem and NAME.key."""
        issued = self._ca.issue_cert(*identities or (f"{name}.example",), common_name=name)
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        for n, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(cert, append=n > 0)
        issued.private_key_pem.write_to_path(key)
        return cert, key

    def server(self, *identities: str, mutual: bool = False) -> ssl.SSLContext:
        """Return how a server with that name speaks; `mutual`: to clients of this CA alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*identities).configure_cert(context)
        if mutual:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def public_key_of(certificate: Path) -> str:
    """Return the hash of its public key as Chromium takes it: SHA-256 of SubjectPublicKeyInfo, in base64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()
