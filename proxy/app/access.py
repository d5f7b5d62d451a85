"""What opens Alertmanager's door, as the settings say."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiohttp

from proxy.config import Secret, Settings, TlsConfig, read_secret
from proxy.config.kinds import HEADER_SECRET
from proxy.errors import ConfigError
from proxy.gateway.access import Access, Watched
from proxy.gateway.server_tls import no_password, why


def chosen_access(settings: Settings, on_read: Callable[[bool], None] = lambda _: None) -> Access:
    """Return it; raises ConfigError when a file of it cannot be used. `on_read` hears when one was read again, and
    whether it could be used."""
    given = settings.alertmanager
    context = None
    if given.tls_config != TlsConfig():
        named = (given.tls_config.ca_file, given.tls_config.cert_file, given.tls_config.key_file)
        files = [file for file in named if file is not None]
        try:
            watched = Watched(lambda: files, lambda: _context(given.tls_config), on_read=on_read)
        except (OSError, ValueError) as exc:
            raise ConfigError([f"alertmanager.tls_config: {exc}"]) from exc
        context = lambda: watched.current  # noqa: E731 # reads as the property that it is
    try:
        authorization = _authorization(settings, on_read)
    except (OSError, ValueError) as exc:  # it was fine a moment ago, when the settings were read
        raise ConfigError([f"alertmanager: the credentials cannot be used: {exc}"]) from exc
    return Access(context=context, server_name=given.tls_config.server_name, authorization=authorization)


def _context(given: TlsConfig) -> ssl.SSLContext:
    """Raises ValueError that names the setting."""
    try:
        context = ssl.create_default_context(cafile=given.ca_file)
    except OSError as exc:
        raise ValueError(f"ca_file {given.ca_file}: {why(exc)}") from None
    if given.cert_file and given.key_file:
        try:
            context.load_cert_chain(given.cert_file, given.key_file, password=no_password)
        except (OSError, ValueError) as exc:
            raise ValueError(f"cert_file {given.cert_file} and key_file {given.key_file}: {why(exc)}") from None
    if given.insecure_skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _authorization(settings: Settings, on_read: Callable[[bool], None]) -> Callable[[], str | None]:
    """Return what gives the header's value. Raises OSError or ValueError, and what it returns raises nothing."""
    given = settings.alertmanager
    if given.authorization.credentials:
        return _following(given.authorization.credentials, lambda token: f"Bearer {token}", on_read)
    if given.basic_auth.username:
        return _following(
            given.basic_auth.password, partial(aiohttp.encode_basic_auth, given.basic_auth.username), on_read
        )
    return lambda: None


def _following(secret: Secret, header: Callable[[str], str], on_read: Callable[[bool], None]) -> Callable[[], str]:
    """Return what gives the `header` of a secret, which follows the file that it came from."""
    file: Path | None = secret.file
    if file is None:
        value = header(secret.reveal())
        return lambda: value

    def read() -> str:
        if not (found := read_secret(file, HEADER_SECRET)):
            raise ValueError("the file is empty")
        return header(found.reveal())

    watched = Watched(lambda: [file], read, on_read=on_read)
    return lambda: watched.current
