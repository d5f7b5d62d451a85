"""A model that is asked about several alerts at once, and what goes wrong when it loses count.

    provider.answers = Model(swapped)

About an alert that it is asked about alone it always says what `own` says.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from typing import Any

from fake_provider import Request, Text

from proxy.classification.classification import Category, Severity

_SHOWN = re.compile(r'(?:=== Alert number (\d+) ===.*?)?\\"alertname\\": \\"([^"\\]*)')
Verdicts = list[dict[str, Any]]


def shown(request: Request) -> dict[str, str]:
    """Return the alertnames by the numbers of their alerts; an alert that is alone has none."""
    return dict(_SHOWN.findall(request.prompt))


def own(name: str) -> dict[str, Any]:
    """Return the verdict on the alert of that name: it tells whose it is, and its neighbours' have other labels."""
    which = zlib.crc32(name.encode())
    return {
        "severity": list(Severity)[which % 4],
        "category": list(Category)[which % 9],
        "confidence": "high",
        "summary": f"Concerns {name}.",
        "recommendations": [f"Look at {name}."],
    }


class Model:
    """A script for a FakeProvider."""

    def __init__(self, mischief: Callable[[Verdicts], Verdicts] = lambda verdicts: verdicts) -> None:
        """`mischief` is done to the verdicts of an answer about several."""
        self._mischief = mischief
        self.calls: list[list[str]] = []
        """The names in each."""

    def __call__(self, request: Request) -> Text:
        alerts = shown(request)
        self.calls.append(list(alerts.values()))
        if "" in alerts:
            return Text(json.dumps(own(alerts[""])))
        verdicts = [{"id": number, "alertname": name, **own(name)} for number, name in alerts.items()]
        return Text(json.dumps({"verdicts": self._mischief(verdicts)}))


def missing(verdicts: Verdicts) -> Verdicts:
    """Every second one."""
    return verdicts[::2]


def doubled(verdicts: Verdicts) -> Verdicts:
    """The first one's number and name stand on the second's verdict, too."""
    first, second, *rest = verdicts
    return [first, {**second, "id": first["id"], "alertname": first["alertname"]}, *rest]


def swapped(verdicts: Verdicts) -> Verdicts:
    """The numbers of two neighbours."""
    first, second, *rest = verdicts
    return [{**first, "id": second["id"]}, {**second, "id": first["id"]}, *rest]


def turned(verdicts: Verdicts) -> Verdicts:
    """Each has the number of the next."""
    numbers = [one["id"] for one in verdicts]
    return [{**one, "id": number} for one, number in zip(verdicts, [*numbers[1:], numbers[0]], strict=True)]


def strangers(verdicts: Verdicts) -> Verdicts:
    """Some more, of alerts that were not asked about."""
    return [*verdicts, {**verdicts[0], "id": "99"}, {**verdicts[0], "id": "20", "alertname": "Stranger"}]


def backwards(verdicts: Verdicts) -> Verdicts:
    return verdicts[::-1]


MISCHIEF = (missing, doubled, swapped, turned, strangers, backwards)
