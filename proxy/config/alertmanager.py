"""The settings of what stands behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from proxy.config.kinds import Address, AlertmanagerUrl, Between, Duration, Replicas, Secret, Section, setting
from proxy.config.remark import Remark


class BasicAuth(Section):
    """The user as which the proxy asks Alertmanager its own questions. Senders' credentials are passed on as they
    came."""

    username: str | None = setting(default=None, description="Name of the user.")
    password: Secret = setting(default=Secret(), description="The user's password.")


class Authorization(Section):
    """The token with which the proxy asks Alertmanager its own questions, in place of a user."""

    credentials: Secret = setting(default=Secret(), description="A bearer token.")


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
    basic_auth: BasicAuth = BasicAuth()
    authorization: Authorization = Authorization()

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
