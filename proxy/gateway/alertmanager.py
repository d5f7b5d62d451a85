"""Alertmanager, asked on our own account: with our prefix and our credentials, not a sender's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from proxy.alert import Alert
from proxy.decisions.recovery import HeldAlert
from proxy.errors import UpstreamError, UpstreamRefused

_HELP: Final = {
    401: "it wants credentials",
    403: "it refuses our credentials",
    404: "there is no API at this path: does alertmanager.url lack Alertmanager's --web.route-prefix?",
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
                return [_held(alert) for alert in await answer.json()]
        except TimeoutError:
            raise UpstreamError(f"GET {self._url}: no answer within {self._timeout:g} s") from None
        except aiohttp.ClientError as exc:
            raise UpstreamError(f"GET {self._url}: {exc or type(exc).__name__}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UpstreamRefused(f"GET {self._url}: no list of alerts in the answer") from exc


def _held(alert: dict[str, Any]) -> HeldAlert:
    return HeldAlert(
        Alert(
            labels=alert["labels"],
            annotations=alert["annotations"],
            starts_at=datetime.fromisoformat(alert["startsAt"]),
            ends_at=datetime.fromisoformat(alert["endsAt"]),
        ),
        datetime.fromisoformat(alert["updatedAt"]),
    )
