"""Alertmanager, asked on our own account: with our prefix and our credentials, not a sender's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import structlog
from multidict import CIMultiDict
from yarl import URL

from proxy.alert import Alert
from proxy.decisions.watch import Cluster, HeldAlert
from proxy.errors import UpstreamError, UpstreamRefused
from proxy.gateway.access import OPEN, Access
from proxy.gateway.forwarder import cause

log = structlog.get_logger(__name__)

_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_HELP: Final = {
    401: "it wants credentials",
    403: "it refuses our credentials",
    404: "there is no such API: check that alertmanager.url is Alertmanager's, and its path the --web.route-prefix",
}
_REDIRECTS: Final = (
    "it redirects, which is not followed: alertmanager.url has to be the address of Alertmanager itself, with https:// "
    "and the path of its --web.route-prefix where it has them"
)


class AlertmanagerClient:
    """The few questions that the proxy asks for itself."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, timeout: float, *, access: Access = OPEN) -> None:
        self._session = session
        self._url = url
        self._timeout = timeout
        self._access = access

    async def alerts(self) -> Sequence[HeldAlert]:
        """Return all alerts that Alertmanager holds. Raises UpstreamError with a text for the operator."""
        # Read in a thread: of 100,000 alerts this is work for seconds, and others' alerts go on meanwhile.
        return await asyncio.to_thread(_held, await self._get("api/v2/alerts"))

    async def cluster(self) -> Cluster:
        """Return what Alertmanager says of its cluster. Raises UpstreamError with a text for the operator."""
        return _cluster(await self._get("api/v2/status"), datetime.now(UTC))

    async def _get(self, path: str) -> bytes:
        url, headers = self._url / path, CIMultiDict[str]()
        self._access.authorize(headers)
        try:
            async with self._session.get(
                url,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                allow_redirects=False,  # whoever is there would be shown our certificate and our credentials
                ssl=self._access.context,
                server_hostname=self._access.server_name,
            ) as answer:
                if answer.status != 200:
                    why = _HELP.get(answer.status, _REDIRECTS if answer.status // 100 == 3 else "it should answer 200")
                    raise UpstreamRefused(f"GET {url}: {answer.status}, {why}")
                return await answer.read()
        except TimeoutError:
            raise UpstreamError(f"GET {url}: no answer within {self._timeout:g} s") from None
        except aiohttp.ClientError as exc:
            raise UpstreamError(f"GET {url}: {cause(exc)}") from exc


def _held(body: bytes) -> list[HeldAlert]:
    """Return the alerts in Alertmanager's list. Raises UpstreamRefused for none; one odd alert spoils no other."""
    try:
        listed = json.loads(body or b"[]")
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise UpstreamRefused("GET api/v2/alerts: no list of alerts in the answer")
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


def _cluster(body: bytes, now: datetime) -> Cluster:
    """Return what Alertmanager's status says of its cluster. Raises UpstreamRefused."""
    try:
        status = json.loads(body)
        begun = _time(status.get("uptime"))
        cluster = status["cluster"]
        peers = cluster.get("peers") or []
        up = max(0.0, (now - begun).total_seconds()) if begun else 0.0
        return Cluster(0 if cluster.get("status") == "disabled" else max(1, len(peers)), up)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UpstreamRefused("GET api/v2/status: no status of an Alertmanager in the answer") from None


def _time(text: Any) -> datetime | None:
    """Return the time; None for one that only Go can read, such as year 0 or an offset of a day."""
    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo and time.year > _LONG_AGO.year else None
    except (ValueError, TypeError):
        return None
