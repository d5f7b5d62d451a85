"""What operators switched and since when alerts are labelled, as all proxies of one store know it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.decisions.canary import Canary
from proxy.matchers import parse_matchers
from proxy.policy import CanaryBy, Mode


@dataclass(frozen=True, slots=True)
class Choice:
    """A mode that somebody switched to. It outranks the configuration until it is reset, or its time is over."""

    mode: Mode
    at: datetime
    by: str
    """Who, as far as that was said."""
    origin: str
    """The address it came from."""
    until: datetime | None = None
    canary: Canary | None = None
    """None: as configured."""

    def shown(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "mode": self.mode.value,
            "at": self.at.isoformat(),
            "by": self.by,
            "from": self.origin,
            "until": self.until.isoformat() if self.until else None,
            "canary": canary_shown(self.canary) if self.canary else None,
        }


@dataclass(frozen=True, slots=True)
class State:
    """One of a row: of two, the one with the higher revision holds."""

    revision: int = 0
    choice: Choice | None = None
    labelling_since: datetime | None = None
    """Alerts that began before may have been sent bare. None: nothing is labelled."""

    def write(self) -> str:
        """Return text from which `read` makes it again."""
        since = self.labelling_since.isoformat() if self.labelling_since else None
        choice = self.choice.shown() if self.choice else None
        return json.dumps({"revision": self.revision, "choice": choice, "labelling_since": since})

    @classmethod
    def read(cls, text: str) -> State:
        """Return the state that `write` wrote. Raises ValueError."""
        try:
            found = json.loads(text)
            since, choice = found["labelling_since"], found["choice"]
            return cls(
                int(found["revision"]),
                _choice(choice) if choice else None,
                _time(since) if since else None,
            )
        except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise ValueError(f"no state of ours: {type(exc).__name__}") from exc


def canary_shown(canary: Canary) -> dict[str, Any]:
    """Return a canary as a JSON object."""
    return {"percent": canary.percent, "by": canary.by.value, "matchers": list(canary.matchers)}


def canary_read(found: Mapping[str, Any], otherwise: Canary) -> Canary:
    """Return the canary that a JSON object describes; what it leaves out is as in `otherwise`. Raises ValueError."""
    if unknown := set(found) - {"percent", "by", "matchers"}:
        raise ValueError(f"unknown member {min(unknown)!r} of canary; there are percent, by and matchers")
    percent, matchers = found.get("percent", otherwise.percent), found.get("matchers", otherwise.matchers)
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise ValueError(f"canary.percent is {percent!r}, want a number from 0 to 100")
    if isinstance(matchers, str):
        matchers = [matchers]
    if not isinstance(matchers, list | tuple) or not all(isinstance(text, str) and text.strip() for text in matchers):
        raise ValueError('canary.matchers wants a list of matchers such as ["team=\\"db\\""]')
    if empty := [text for text in matchers if not parse_matchers(text)]:
        raise ValueError(f"no matcher in {empty[0]!r} of canary.matchers, which would take in every alert")
    try:
        by = CanaryBy(found.get("by", otherwise.by))
    except ValueError:
        raise ValueError(f"canary.by is {found['by']!r}, want alertname or identity") from None
    return Canary(float(percent), by, tuple(matchers))


def _choice(found: Mapping[str, Any]) -> Choice:
    until, canary = found["until"], found["canary"]
    return Choice(
        Mode(found["mode"]),
        _time(found["at"]),
        str(found["by"]),
        str(found["from"]),
        _time(until) if until else None,
        canary_read(canary, Canary()) if canary else None,
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time
