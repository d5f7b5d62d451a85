"""Looking up what was decided, and dropping it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from proxy.admin.answers import error, read_object
from proxy.alert import Identity, LabelSet
from proxy.decisions.directory import Directory
from proxy.errors import LookupTimeout, StoreError
from proxy.matchers import Matcher, parse_matchers

LIMIT: Final = 100
MOST: Final = 1000
"""Decisions in one answer: more take so long to write down that alerts would wait."""
_FINGERPRINT: Final = 'a fingerprint as Alertmanager shows it, 16 hex digits such as "0123456789abcdef"'
_WHICH: Final = (
    'want either {"fingerprint": "0123456789abcdef"} or {"filter": ["alertname=\\"HighLatency\\"", …]}, not both'
)


class Decisions:
    """The handlers."""

    def __init__(self, directory: Directory, explained: Callable[[LabelSet], dict[str, Any]]) -> None:
        """`explained` says what the rules as they are now have to say of an alert's labels."""
        self._directory = directory
        self._explained = explained

    async def list(self, request: web.Request) -> web.Response:
        """Answer with the decisions on alerts for which all of the filter holds."""
        try:
            matchers = _matchers(request.query.getall("filter", []))
            limit = _limit(request.query.getall("limit", [str(LIMIT)])[-1])
        except ValueError as exc:
            return error(400, str(exc))
        found = await self._directory.find(matchers, limit)
        decisions = [entry.shown() for entry in found.entries]
        return web.json_response({"total": found.total, "unlisted": found.unlisted, "decisions": decisions})

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the decision on one alert."""
        try:
            fingerprint = _fingerprint(request.match_info["fingerprint"])
            entry = await self._directory.get(fingerprint)
        except ValueError as exc:
            return error(400, str(exc))
        except LookupTimeout as exc:
            return error(503, str(exc))
        if entry is None:
            return _unknown(fingerprint)
        return web.json_response(entry.shown() | {"rules_now": self._explained(entry.listed.original)})

    async def forget(self, request: web.Request) -> web.Response:
        """Drop decisions: their alerts are decided anew when they come next."""
        try:
            given = read_object(await request.read(), ("fingerprint", "filter"), _WHICH)
            if len(given) != 1:
                raise ValueError(_WHICH)
            if "fingerprint" in given:
                fingerprint = _fingerprint(given["fingerprint"])
                entry = await self._directory.get(fingerprint)
                if entry is None:
                    return _unknown(fingerprint)
                identities: Sequence[Identity] = [entry.identity]
            else:
                identities = await self._directory.matching(_filter(given["filter"]))
        except ValueError as exc:
            return error(400, str(exc))
        except LookupTimeout as exc:
            return error(503, str(exc))
        try:
            return web.json_response({"forgotten": await self._directory.forget(identities)})
        except StoreError as exc:
            return error(503, str(exc))


def _unknown(fingerprint: str) -> web.Response:
    return error(404, f"no decision on an alert with the fingerprint {fingerprint}")


def _fingerprint(text: Any) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]{16}", text):
        raise ValueError(f"want {_FINGERPRINT}")
    return text.lower()


def _filter(texts: Any) -> Sequence[Matcher]:
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"filter wants a list of matchers; {_WHICH}")
    matchers = _matchers(texts)
    if not texts:
        raise ValueError('an empty filter would forget everything; to do so, write ["alertname=~\\".*\\""]')
    return matchers


def _matchers(texts: Sequence[str]) -> Sequence[Matcher]:
    """Return all matchers of a filter. One that says nothing is a slip, not a wish for everything."""
    matchers: list[Matcher] = []
    for text in texts:
        found = parse_matchers(text)
        if not found:
            raise ValueError(f'no matcher in the filter {text!r}, want for example alertname="HighLatency"')
        matchers += found
    return matchers


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > MOST:
        raise ValueError(f"limit is {text!r}, want a whole number from 0 to {MOST}")
    return int(text)
