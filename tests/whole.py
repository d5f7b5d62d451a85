"""A whole proxy with a real model worker, between a recording Alertmanager and providers of a test's own.

async with whole(provider, "openai") as proxy:
    await proxy.ready()
    sent = [posted("DiskFull")]
    got = await proxy.post(*sent)
    assert added(sent[0], got[0]).labels == {"ai_severity": "warning", "ai_category": "capacity"}
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
from fake_provider import FakeProvider, Request
from fakes import FakeAlertmanager, Received, body, exchange, fake_alertmanager, post, settings, status_of
from workers import PROVIDERS, SECRET

from proxy import app
from proxy.app.composition import Running
from proxy.classification.classification import Category, Confidence, Severity, Source
from proxy.classification.classifier import Classifier
from proxy.config.kinds import Secret

LABELS = {"ai_severity": set(Severity), "ai_category": set(Category)}
TEXTS = {"ai_summary": 160, "ai_recommendations": 3 * 123 + 2}
"""With the longest they may be: three recommendations of 120 characters, numbered and with a space between them."""
ANNOTATIONS = {"ai_source": set(Source), "ai_confidence": set(Confidence)}
LOADED_WITHIN = 120.0
_NAMED = re.compile(r'\\"alertname\\": \\"([^"\\]*)')
_OURS = re.compile(rb',?"ai_[a-z]+":"(?:[^"\\]|\\.)*"')


def alertname(request: Request) -> str:
    """The name of the alert that a provider is asked about."""
    found = _NAMED.search(request.prompt)
    assert found, request.prompt
    return found[1]


class Added(NamedTuple):
    labels: dict[str, str]
    annotations: dict[str, str]


def added(sent: dict[str, Any], got: dict[str, Any]) -> Added:
    """Return what was added to an alert; fail when anything else of it is not as it was."""
    news = []
    for part in ("labels", "annotations"):
        had, has = sent.get(part, {}), got.get(part, {})
        assert {name: value for name, value in has.items() if name in had} == had
        news.append({name: value for name, value in has.items() if name not in had})
    rest = [{k: v for k, v in one.items() if k not in ("labels", "annotations")} for one in (sent, got)]
    assert rest[0] == rest[1]
    return Added(*news)


def without_ours(content: bytes) -> bytes:
    """Return the bytes of a POST without what was added.

    Within a string every quote is escaped, so no text of an alert is taken for a member.
    """
    return _OURS.sub(b"", content)


def check_valid(what: Added, models: Collection[str]) -> None:
    """Fail unless all that was added is of the closed sets, or bounded plain text on one line."""
    for name, value in what.labels.items():
        assert value in LABELS[name], (name, value)
    for name, value in what.annotations.items():
        if name in TEXTS:
            check_plain(value, TEXTS[name])
        elif name == "ai_model":
            assert value in models
        else:
            assert value in ANNOTATIONS[name], (name, value)


LINK = re.compile(r"://|www\.|\]\([^()]*\)|(?:javascript|mailto|data|tel|vbscript):\S|\S@\S+\.\S", re.IGNORECASE)
MARKUP = re.compile(r"<[/!?@#]?[a-z][^<>]*>|@(?:here|channel|everyone|all)\b|\x1b", re.IGNORECASE)


def check_plain(text: str, length: int) -> None:
    """Fail unless people and their chats see nothing in a text but words."""
    assert 0 < len(text) <= length
    assert text.isprintable(), ascii(text)
    assert not LINK.search(text), text
    assert not MARKUP.search(text), text


def labelling(status: dict[str, Any]) -> bool:
    """Whether what begins now gets a model's labels: proxies of one store have agreed on when that began."""
    since = status["labelling_since"]
    return bool(since) and datetime.fromisoformat(since) < datetime.now(UTC) and not status["labels_by_rules"]


@dataclass
class Whole:
    """A proxy that runs."""

    running: Running
    alertmanager: FakeAlertmanager
    provider: FakeProvider

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.running.admin_port}"

    async def send(self, content: bytes) -> tuple[Received, float]:
        """POST a body; return the one that Alertmanager got for it, and the seconds until the answer.

        Fail when that is not the same, byte for byte, but for what was added.
        """
        before, begun = len(self.alertmanager.posts), time.monotonic()
        assert status_of(await exchange(self.running.data_port, post(content))) == 200
        seconds = time.monotonic() - begun
        # What the proxy posts by itself may have come between.
        same = [got for got in self.alertmanager.posts[before:] if without_ours(got.body) == content]
        assert same, "Alertmanager got something else"
        return same[0], seconds

    async def post(self, *alerts: Any) -> list[dict[str, Any]]:
        """POST alerts; return them as Alertmanager got them."""
        got, _ = await self.send(body(*alerts))
        found: list[dict[str, Any]] = got.alerts
        return found

    async def get(self, path: str) -> str:
        async with aiohttp.ClientSession() as client, client.get(self.admin + path) as answered:
            return await answered.text()

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.get("/api/v1/status"))
        return found

    async def metric(self, sample: str) -> float:
        """Return the sum of the samples of that name, whatever their labels."""
        lines = (await self.get("/metrics")).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.split("[ {]", line)[0] == sample)

    async def until(self, true: Callable[[dict[str, Any]], bool], within: float = 30) -> dict[str, Any]:
        """Wait for a status of which `true` holds."""
        async with asyncio.timeout(within):
            while not true(status := await self.status()):
                await asyncio.sleep(0.05)
        return status

    async def ready(self) -> None:
        """Wait until the model can be asked, and what Alertmanager holds is known."""
        await self.until(
            lambda status: status["model"]["state"] == "ready" and status["alertmanager"]["recovered"], LOADED_WITHIN
        )

    async def calls(self, number: int, within: float = 60) -> None:
        """Wait until so many calls of the model have ended."""
        async with asyncio.timeout(within):
            while await self.metric("aiproxy_model_call_duration_seconds_count") < number:
                await asyncio.sleep(0.05)

    @property
    def asked(self) -> Counter[str]:
        """How many requests the provider got about each alertname."""
        return Counter(alertname(request) for request in self.provider.requests)


@asynccontextmanager
async def whole(
    provider: FakeProvider,
    name: str = "openai",
    *,
    model: Classifier | None = None,
    key: str = SECRET,
    alertmanager: str | None = None,
    **flags: str | list[str],
) -> AsyncIterator[Whole]:
    """Run a proxy in mode enriched that asks `provider` in the words of the one called `name`.

    `model` takes the place of a worker of its own. `alertmanager` is the URL of one that is used in the place of its
    own, which then gets nothing.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(fake_alertmanager())
        chosen = {
            "enrichment__mode": "enriched",
            "enrichment__repost": "false",
            "llm__enabled": "true",
            "llm__provider": name,
            "llm__model": PROVIDERS[name][0],
            "llm__base_url": provider.url,
        }
        given = settings(alertmanager or server.url, **(chosen | flags))
        given = replace(given, llm=replace(given.llm, api_key=Secret(key)))
        yield Whole(await stack.enter_async_context(app.build(given, model=model)), server, provider)
