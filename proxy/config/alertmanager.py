"""The settings of what stands behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from proxy.config.kinds import (
    Address,
    AlertmanagerUrl,
    Between,
    Duration,
    FileKind,
    HeaderSecret,
    Replicas,
    Secret,
    Section,
    UserKind,
    setting,
)
from proxy.config.remark import Remark


class TlsConfig(Section):
    """How the proxy speaks TLS to an `https://` Alertmanager. The files are read again when they change."""

    ca_file: Annotated[Path | None, FileKind()] = setting(
        default=None, description="Certificates of the CAs that are trusted, in place of the system's. PEM."
    )
    cert_file: Annotated[Path | None, FileKind()] = setting(
        default=None, description="Certificate that is shown to Alertmanager, if it wants one. PEM."
    )
    key_file: Annotated[Path | None, FileKind()] = setting(
        default=None, description="The key of `cert_file`, not encrypted. PEM."
    )
    server_name: str | None = setting(
        default=None, description="Name that Alertmanager's certificate has to have, where it is not that of the URL."
    )
    insecure_skip_verify: bool = setting(
        default=False,
        description="Whether any certificate is taken. Then whoever is in between can read alerts, and drop them.",
    )


class BasicAuth(Section):
    """The user as which Alertmanager is asked, by the proxy itself and for every sender, whatever senders bring.
    Without one, and without `alertmanager.authorization`, senders' credentials are passed on as they came."""

    username: Annotated[str | None, UserKind()] = setting(default=None, description="Name of the user.")
    password: HeaderSecret = setting(
        default=Secret(), description="The user's password. Its file is read again when it changes."
    )


class Authorization(Section):
    """The token with which Alertmanager is asked, in place of a user."""

    credentials: HeaderSecret = setting(
        default=Secret(), description="A bearer token. Its file is read again when it changes."
    )


class Alertmanager(Section):
    """The Alertmanager that alerts are forwarded to, or several, each of which gets [every
    alert](../explanation/several-alertmanagers.md)."""

    url: tuple[AlertmanagerUrl, ...] = setting(
        default=("http://127.0.0.1:9093",),
        description="Its address, or several. A path in it is the prefix of the proxy's own requests; "
        "the paths of incoming requests are never rewritten. `dns+http://NAME:PORT`: each address that the name has in "
        "DNS is an Alertmanager, looked up every 30s.",
    )
    min_success: Annotated[int, Between(1, 100)] = setting(
        default=1,
        description="How many of several Alertmanagers must have taken a POST before the sender is told that it was "
        "taken.",
    )
    timeout: Duration = setting(
        default=timedelta(seconds=9),
        description="Time for Alertmanager's answer, counted from the last byte of the incoming request, waiting "
        "for the model included. Prometheus gives up after 10s by default.",
    )
    replicas: Replicas = setting(
        default=0,
        description="How many proxies receive the same alerts. `auto`: several, if Alertmanager has had peers since "
        "the proxy started. Several proxies need a shared `store.url`; without one all labels are the rules'.",
    )
    tls_config: TlsConfig = TlsConfig()
    basic_auth: BasicAuth = BasicAuth()
    authorization: Authorization = Authorization()

    @property
    def has_credentials(self) -> bool:
        """Whether the proxy has something to show to Alertmanager that a sender has not."""
        return bool(self.authorization.credentials or self.basic_auth.username or self.tls_config.cert_file)

    def unusable(self, listens: Address) -> Iterator[Remark]:
        """Yield what makes the addresses unusable, together or with the proxy's own."""
        for text in self.url:
            url = urlsplit(text.removeprefix("dns+"))
            if url.port == listens.port and url.hostname in {"localhost", "127.0.0.1", "::1", listens.host}:
                yield Remark(
                    ("alertmanager.url", "web.listen_address"),
                    f"alertmanager.url ({text}) is the proxy's own web.listen_address ({listens}): "
                    "it would forward to itself; want Alertmanager's address, 9093 by default",
                )
        tls = self.tls_config
        if (tls.cert_file is None) is not (tls.key_file is None):
            yield Remark(
                ("alertmanager.tls_config.cert_file", "alertmanager.tls_config.key_file"),
                "alertmanager.tls_config has one of cert_file and key_file, want both or none",
            )
        if tls != TlsConfig() and not any("https://" in text for text in self.url):
            yield Remark(
                (*(f"alertmanager.tls_config.{one.name}" for one in fields(tls)), "alertmanager.url"),
                "alertmanager.tls_config is set, and no alertmanager.url begins with https://",
            )
        if not self.url:
            yield Remark(("alertmanager.url",), "alertmanager.url is empty, want at least one address")
        for twice in sorted({text for text in self.url if self.url.count(text) > 1}):
            yield Remark(("alertmanager.url",), f"alertmanager.url has {twice} twice, leave it out once")
        fixed = not any(text.startswith("dns+") for text in self.url)
        if self.url and fixed and self.min_success > len(self.url):
            yield Remark(
                ("alertmanager.min_success", "alertmanager.url"),
                f"alertmanager.min_success ({self.min_success}) is more than there are Alertmanagers in "
                f"alertmanager.url ({len(self.url)}): no POST could succeed",
            )
