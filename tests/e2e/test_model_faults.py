"""Each fault of a model at each provider, through the whole proxy: a valid label within the budget.

LiteLLM takes seconds to load. So there is one proxy for each provider, with a worker of its own that streams, and one
more for each before a worker that they share and that does not. Each of the eight gets all faults in one POST: alerts
of many names, and the provider goes by the name. One fault that hangs is then in the way of all others, too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio
from fake_provider import (
    Answer,
    Drip,
    Empty,
    FakeProvider,
    Hang,
    Html,
    Huge,
    Nothing,
    Request,
    Reset,
    ResetAfter,
    Status,
    Text,
    verdict,
)
from fakes import body, posted
from whole import LOADED_WITHIN, Added, Whole, added, alertname, check_valid, whole
from workers import PROVIDERS, Watched, a_model, config

from proxy.classification.worker.configuration import WorkerState

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

BUDGET = 8.0
TIMEOUT = 12.0
"""Of a call. Seconds, both of them."""
A_LITTLE = 3.0
"""Seconds for all that is not waiting: LiteLLM in another process, twenty answers, and this machine's other work."""
RETRIES = 1
GOOD = verdict().text
FLAGS = {
    "enrichment__budget": f"{BUDGET:g}s",
    "llm__timeout": f"{TIMEOUT:g}s",
    "llm__max_retries": str(RETRIES),
    "llm__concurrency": "64",
    "llm__circuit_breaker__enabled": "false",
}


@dataclass(frozen=True)
class Fault:
    answer: Answer
    asked: int
    """How many requests the retry policy comes to."""
    streamed: int | None = None
    """As above, where answers are streamed; None: as many."""
    labels: str = "rules"
    """Whose they are: the `rules`', the `model`'s, or the model's where it is `streamed`."""


FAULTS = {
    "Hang": Fault(Hang(), 1),
    "Drip": Fault(Drip(GOOD, 0.1), 1),
    "Reset": Fault(Reset(), 1 + RETRIES),
    # Streamed, it has said its labels, and they hold; the text is asked for once more.
    "ResetMidway": Fault(ResetAfter(GOOD, "summary"), 1 + RETRIES, labels="streamed"),
    "ResetAtOnce": Fault(ResetAfter(GOOD, "severity"), 1 + RETRIES),
    "Html": Fault(Html(), 1 + RETRIES),
    "NoBody": Fault(Nothing(), 1 + RETRIES),
    # An answer that is no verdict is asked for once more, a stream with nothing in it is tried again before that.
    "NothingSaid": Fault(Empty(), 2, 3),
    "Prose": Fault(Text("The disk is full."), 2),
    "ThirtyMiB": Fault(Huge(), 1, labels="streamed"),
    "NotANumber": Fault(Text(GOOD.replace('"high"', "NaN")), 2),
    "WrongEnum": Fault(verdict(severity="urgent"), 2),
    "WrongCategory": Fault(verdict(category="disk"), 2),
    "NoSeverity": Fault(verdict(severity=None), 2),
    "NoCategory": Fault(verdict(category=None), 2),
    "NoConfidence": Fault(verdict(confidence=None), 2),
    "NoText": Fault(verdict(summary=None, recommendations=None), 1, labels="model"),
    "CutEarly": Fault(Text(GOOD[:30], cut_off=True), 2),
    "CutLate": Fault(Text(GOOD[: GOOD.index("disk")], cut_off=True), 1, labels="model"),
    "Status401": Fault(Status(401), 1),
    "Status404": Fault(Status(404), 1),
    "Status429": Fault(Status(429, {"Retry-After": "0"}), 1 + RETRIES),
    "Status429Later": Fault(Status(429, {"Retry-After": "3600"}), 1),
    "Status500": Fault(Status(500, {"Retry-After": "0"}), 1 + RETRIES),
    "Status503": Fault(Status(503, {"Retry-After": "0"}), 1 + RETRIES),
    "None": Fault(verdict(), 1, labels="model"),
}
# They begin later than labelling does, however long it is until their turn comes.
ALERTS = {
    name: posted(name, begun=3600, ends=7200, severity="critical" if n % 2 else "warning")
    for n, name in enumerate(FAULTS)
}
WARM = "Warm"


def by_name(request: Request) -> Answer:
    name = alertname(request)
    return verdict() if name == WARM else FAULTS[name].answer


@dataclass
class Seen:
    """What became of all faults at one provider."""

    proxy: Whole
    added: dict[str, Added]
    again: dict[str, Added]
    """To the same alerts, sent again when all calls had ended."""
    seconds: float
    """That the POST took."""
    asked: Counter[str]
    streamed: set[bool]


async def play(proxy: Whole) -> Seen:
    await proxy.ready()
    await proxy.post(posted(WARM))
    await proxy.calls(1)
    got, seconds = await proxy.send(body(*ALERTS.values()))
    labels = {name: added(ALERTS[name], alert) for name, alert in zip(ALERTS, got.alerts, strict=True)}
    await proxy.calls(1 + len(FAULTS))
    asked = proxy.asked
    streamed = {request.streamed for request in proxy.provider.requests if alertname(request) == "None"}
    again = dict(zip(ALERTS, await proxy.post(*ALERTS.values()), strict=True))
    return Seen(proxy, labels, {name: added(ALERTS[name], again[name]) for name in ALERTS}, seconds, asked, streamed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen() -> AsyncIterator[dict[tuple[str, str], Seen]]:
    async with AsyncExitStack() as stack:
        providers = {
            (way, name): await stack.enter_async_context(FakeProvider(by_name))
            for way in ("streamed", "plain")
            for name in PROVIDERS
        }
        models = [a_model(name, providers["plain", name].url) for name in PROVIDERS]
        shared = Watched(config(*models, timeout=timedelta(seconds=TIMEOUT), max_retries=RETRIES, max_tokens=400))
        await stack.enter_async_context(shared.worker)
        proxies = {
            (way, name): await stack.enter_async_context(
                whole(
                    provider,
                    name,
                    model=shared.worker.classifier(list(PROVIDERS).index(name)) if way == "plain" else None,
                    **FLAGS,
                )
            )
            for (way, name), provider in providers.items()
        }
        async with asyncio.timeout(LOADED_WITHIN):
            await shared.reach(WorkerState.READY)
        # Two at a time, and never two of one worker: all of them would wait for this machine, not for their providers.
        found: dict[tuple[str, str], Seen] = {}
        for name in PROVIDERS:
            both = [("streamed", name), ("plain", name)]
            found |= dict(zip(both, await asyncio.gather(*(play(proxies[one]) for one in both)), strict=True))
        yield found


@pytest.fixture(params=["streamed", "plain"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_ends_in_a_valid_label_that_stays_and_asks_no_more_than_the_policy_says(
    fault: str, provider: str, way: str, seen: dict[tuple[str, str], Seen]
):
    case, at = FAULTS[fault], seen[way, provider]
    found = at.added[fault]
    assert set(found.labels) == {"ai_severity", "ai_category"}
    check_valid(found, [PROVIDERS[provider][0]])
    model = case.labels in ("model", way)
    assert found.annotations["ai_source"] == ("llm" if model else "rules")
    if model:
        # The critical ones stay critical, by the floor.
        authored = ALERTS[fault]["labels"]["severity"]
        assert found.labels == {"ai_severity": authored, "ai_category": "capacity"}
    else:
        assert found.labels["ai_severity"] == ALERTS[fault]["labels"]["severity"]
    assert at.asked[fault] == (case.streamed if way == "streamed" and case.streamed else case.asked)
    assert at.again[fault].labels == found.labels
    check_valid(at.again[fault], [PROVIDERS[provider][0]])


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_all_faults_together_cost_the_budget_once(provider: str, way: str, seen: dict[tuple[str, str], Seen]):
    at = seen[way, provider]
    assert at.seconds <= BUDGET + A_LITTLE
    assert at.streamed == {way == "streamed"}
    assert await at.proxy.metric("aiproxy_post_waited_seconds_count") == 2, "the first one and the one of all faults"
    assert await at.proxy.metric("aiproxy_faults_total") == 0


async def test_who_hangs_is_hung_up_on(seen: dict[tuple[str, str], Seen]):
    async with asyncio.timeout(10):
        for at in seen.values():
            for request in at.proxy.provider.requests:
                if alertname(request) in ("Hang", "Drip", "ThirtyMiB"):
                    await request.hung_up.wait()
