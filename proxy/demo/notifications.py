"""The webhook receiver, and the table of what arrived at which receiver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

RECEIVERS: Final[Mapping[str, str]] = {"critical": "pager", "warning": "ticket", "info": "chat", "noise": "quiet"}
"""Where alertmanager.yml routes each `ai_severity`."""

NOTHING: Final = "-"
"""Stands where an alert has no such label."""

_WIDTHS: Final = (22, 8, 11, 13, 6, 8, 8)
_HEADINGS: Final = ("alert", "severity", "ai_severity", "ai_category", "source", "receiver", "status", "instance")


@dataclass(frozen=True, slots=True)
class Notification:
    """One alert as one receiver was told about it."""

    alertname: str
    severity: str
    """The author's. This and what follows is empty where the alert has none."""
    ai_severity: str
    ai_category: str
    source: str
    """Where the verdict came from: `llm`, `cache` or `rules`."""
    receiver: str
    status: str
    """`firing` or `resolved`."""
    instance: str
    key: tuple[str, ...]
    """Equal in what Alertmanager repeats about an alert that somebody was told about before."""

    @classmethod
    def read(cls, receiver: str, alert: Mapping[str, Any]) -> Self:
        """Return what `alert`, an item of a webhook's `alerts`, says."""
        labels, annotations = alert["labels"], alert["annotations"]
        status = str(alert["status"])
        return cls(
            alertname=labels.get("alertname", ""),
            severity=labels.get("severity", ""),
            ai_severity=labels.get("ai_severity", ""),
            ai_category=labels.get("ai_category", ""),
            source=annotations.get("ai_source", ""),
            receiver=receiver,
            status=status,
            instance=labels.get("instance", ""),
            key=(receiver, alert["fingerprint"], alert["startsAt"], status),
        )

    @property
    def routed_by_label(self) -> bool:
        """Whether the proxy's label brought it where it is: no other label of it could have."""
        return self.receiver == RECEIVERS.get(self.ai_severity)

    def row(self) -> str:
        """Return its line of the table."""
        return _line((
            self.alertname, self.severity, self.ai_severity, self.ai_category,
            self.source, self.receiver, self.status, self.instance,
        ))  # fmt: skip


class Board:
    """The table: a heading, then each notification once, as it comes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._shown: dict[tuple[str, ...], Notification] = {}
        self._news = asyncio.Condition()
        self.closed = False
        """Nothing more is shown."""

    @property
    def shown(self) -> list[Notification]:
        return list(self._shown.values())

    async def has_shown(self, alertnames: Collection[str]) -> None:
        """Wait until there is a line about each of `alertnames`."""
        wanted = set(alertnames)
        async with self._news:
            await self._news.wait_for(lambda: wanted <= {shown.alertname for shown in self._shown.values()})

    async def take(self, receiver: str, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Show what `alerts`, of one webhook, tell that is new."""
        for alert in alerts:
            notification = Notification.read(receiver, alert)
            if self.closed or notification.key in self._shown:
                continue
            if not self._shown:
                for line in heading():
                    self._say(line)
            self._shown[notification.key] = notification
            self._say(notification.row())
        async with self._news:
            self._news.notify_all()


def heading() -> Iterator[str]:
    """Yield the first lines of the table."""
    yield _line(_HEADINGS)
    yield _line(["-" * len(name) for name in _HEADINGS])


def webhooks(take: Callable[[str, Sequence[Mapping[str, Any]]], Awaitable[None]]) -> web.Application:
    """Return an application to which Alertmanager posts, the path naming the receiver."""

    async def post(request: web.Request) -> web.Response:
        await take(request.match_info["receiver"], (await request.json())["alerts"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/{receiver}", post)
    return app


def _line(cells: Sequence[str]) -> str:
    widths = (*_WIDTHS, 0)
    return "  ".join((cell or NOTHING).ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
