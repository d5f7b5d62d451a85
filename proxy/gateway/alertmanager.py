"""Alertmanager, asked on our own account: with our prefix and our credentials, not a sender's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import structlog
from yarl import URL

from proxy.alert import Alert
from proxy.decisions.recovery import HeldAlert
from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway.forwarder import cause

log = structlog.get_logger(__name__)

_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_HELP: Final = {
    401: "it wants credentials",
    403: "it refuses our credentials",
    404: "there is no such API: check that alertmanager.url is Alertmanager's, and its path the --web.route-prefix",
}


class AlertmanagerClient:
    """The few questions that the proxy asks for itself."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, timeout: float) -> None:
        self._session = session
        self._url = url / "api/v2/alerts"
        self._timeout = timeout

    async def alerts(self) -> Sequence[HeldAlert]:
        """Return all alerts that Alertmanager holds. Raises UpstreamError with a text for the operator."""
        try:
            async with self._session.get(self._url, timeout=aiohttp.ClientTimeout(total=self._timeout)) as answer:
                if answer.status != 200:
                    why = _HELP.get(answer.status, "it should answer 200")
                    raise UpstreamRefused(f"GET {self._url}: {answer.status}, {why}")
                # In a thread: of 100,000 alerts this is work for seconds, and others' alerts go on meanwhile.
                return await asyncio.to_thread(_held, await answer.read())
        except TimeoutError:
            raise UpstreamError(f"GET {self._url}: no answer within {self._timeout:g} s") from None
        except aiohttp.ClientError as exc:
            raise UpstreamError(f"GET {self._url}: {cause(exc)}") from exc
        except (ValueError, RecursionError) as exc:
            raise UpstreamRefused(f"GET {self._url}: no list of alerts in the answer") from exc


def _held(body: bytes) -> list[HeldAlert]:
    """Return the alerts in Alertmanager's list. Raises ValueError when it is none; one odd alert spoils no other."""
    listed = json.loads(body or b"[]")
    if not isinstance(listed, list):
        raise ValueError("not a list")
    found = []
    for alert in listed:
        try:
            found.append(
                HeldAlert(
                    Alert(
                        labels=alert["labels"],
                        annotations=alert.get("annotations") or {},
                        starts_at=_time(alert.get("startsAt")),
                        ends_at=_time(alert.get("endsAt")),
                    ),
                    _time(alert.get("updatedAt")) or _LONG_AGO,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("an alert that Alertmanager holds cannot be read", error=type(exc).__name__)
    return found


def _time(text: Any) -> datetime | None:
    """Return the time; None for one that only Go can read, such as year 0 or an offset of a day."""
    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo and time.year > _LONG_AGO.year else None
    except (ValueError, TypeError):
        return None
