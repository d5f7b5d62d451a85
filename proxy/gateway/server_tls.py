"""How a listener speaks TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proxy.gateway.web_config import ServerTls


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Return what new connections speak with. Raises ValueError, which names the key of the file and what is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.min_version, tls.max_version
    context.set_alpn_protocols(["http/1.1"])
    if not tls.server_preference:  # which Python has from the start
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.suites is not None:
        context.set_ciphers(":".join(tls.suites))
    if tls.curve is not None:
        context.set_ecdh_curve(tls.curve)
    with _file(tls.certificate) as certificate, _file(tls.key) as key:
        try:
            context.load_cert_chain(certificate, key, password=no_password)
        except (OSError, ValueError) as exc:
            raise ValueError(f"{_named('cert', tls.certificate)} and {_named('key', tls.key)}: {why(exc)}") from None
    if tls.client_ca is not None:
        try:
            _trust(context, tls.client_ca)
        except (OSError, ValueError) as exc:
            raise ValueError(f"{_named('client_ca', tls.client_ca)}: {why(exc)}") from None
        context.verify_mode = tls.clients
    return context


def has_name(certificate: Mapping[str, Any], names: frozenset[str]) -> bool:
    """Return whether one of the alternative names of a certificate, as `getpeercert` returns it, is among `names`."""
    return any(_plain(kind, value) in names for kind, value in certificate.get("subjectAltName", ()))


def why(exc: OSError | ValueError) -> str:
    """Return what is wrong with a file of PEM, for an operator."""
    if isinstance(exc, ssl.SSLError):
        return f"it holds no such PEM ({exc.reason or exc.strerror})".lower().replace("_", " ")
    return str(getattr(exc, "strerror", "") or exc)


def _trust(context: ssl.SSLContext, authority: Path | str) -> None:
    text = authority.read_text("ascii", "replace") if isinstance(authority, Path) else authority
    context.load_verify_locations(cadata=text)


def _plain(kind: str, value: str) -> str:
    if kind == "IP Address":
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(value.strip()))  # OpenSSL writes IPv6 at full length
    return value


def _named(name: str, source: Path | str) -> str:
    return f"{name}_file {source}" if isinstance(source, Path) else name


@contextlib.contextmanager
def _file(source: Path | str) -> Iterator[str | Path]:
    """Give the file of a PEM: OpenSSL takes none as a text. It is in memory where the platform can do so."""
    if isinstance(source, Path):
        yield source
    elif hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("pem"), "w") as file:
            file.write(source)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(source)
            file.flush()
            yield file.name


def no_password() -> bytes:
    """Refuse to give the password of a key, which is asked for when it is encrypted."""
    raise ValueError("the key is encrypted, want one that is not")  # else OpenSSL asks at the terminal
