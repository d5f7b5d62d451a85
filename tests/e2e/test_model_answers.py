"""Whatever a model says, and whoever talked it into that: nothing invalid reaches Alertmanager, nothing else changes.

The answers come over the wire, through LiteLLM, to a whole proxy: one that streams, and one that does not.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from bad_answers import BAD, GOOD, VALUES, WORDS
from fake_provider import FakeProvider, Request, Text, verdict
from fakes import posted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from injections import INJECTIONS
from whole import Whole, added, alertname, check_valid, whole
from workers import PROVIDERS

from proxy.app import composition
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.classification import Severity

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

BATCH = 64
"""What Prometheus sends at once."""
FLAGS = {
    # So that the answers, and not the rules, are what the labels come from, also on a machine with other work.
    "enrichment__budget": "8s",
    "llm__timeout": "20s",
    "llm__max_retries": "0",
    "llm__concurrency": "16",
    "llm__circuit_breaker__enabled": "false",
}
_numbers = count()


def patient(_: float) -> WaitingAllowance:
    """So that no answer of so many is missed because those before it were waited for."""
    return WaitingAllowance(1e6)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxies() -> AsyncIterator[dict[str, Whole]]:
    async with AsyncExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(composition, "WaitingAllowance", patient)
        opened = {}
        for name, stream in {"openai": "true", "anthropic": "false"}.items():
            provider = await stack.enter_async_context(FakeProvider())
            # Text that comes late is posted by the proxy itself; that is looked at, too.
            opened[name] = await stack.enter_async_context(
                whole(provider, name, llm__stream=stream, enrichment__repost="true", **FLAGS)
            )
        for proxy in opened.values():
            await proxy.ready()
        yield opened


@pytest.fixture(params=["openai", "anthropic"])
def proxy(proxies: dict[str, Whole], request: pytest.FixtureRequest) -> Whole:
    chosen = proxies[request.param]
    chosen.provider.forget()
    chosen.alertmanager.received.clear()
    return chosen


async def say(proxy: Whole, answers: Sequence[str]) -> list[dict[str, str]]:
    """Have the model give each of the answers once, check all that reaches Alertmanager, and return the labels."""
    answer = {f"Alert{next(_numbers)}": text for text in answers}
    proxy.provider.answers = lambda request: Text(answer[alertname(request)])
    alerts = {name: posted(name, severity="warning", n=str(n)) for n, name in enumerate(answer)}
    names, labels = list(answer), []
    ended = await proxy.metric("aiproxy_model_call_duration_seconds_count")
    for some in (names[at : at + BATCH] for at in range(0, len(names), BATCH)):
        got = await proxy.post(*(alerts[name] for name in some))
        labels += [added(alerts[name], one).labels for name, one in zip(some, got, strict=True)]
    await proxy.calls(int(ended) + len(answers))
    await proxy.post(*alerts.values())  # with what came late
    for received in proxy.alertmanager.posts:
        for one in received.alerts:
            found = added(alerts[one["labels"]["alertname"]], one)
            assert found.labels == labels[names.index(one["labels"]["alertname"])]
            check_valid(found, [PROVIDERS[name][0] for name in PROVIDERS])
    assert await proxy.metric("aiproxy_faults_total") == 0
    return labels


async def test_of_200_bad_answers_nothing_invalid_reaches_alertmanager(proxy: Whole):
    assert len(set(BAD)) >= 200
    labels = await say(proxy, BAD)
    taken = sum(one == {"ai_severity": "critical", "ai_category": "network"} for one in labels)
    assert taken >= 2 * len(WORDS) * 0.8, "a verdict with a bad text is a verdict"
    assert len(labels) - taken >= len(VALUES), "and others are the rules'"


WORD = st.one_of(st.sampled_from(WORDS), st.text(max_size=400), st.sampled_from(sorted(Severity)))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), WORD),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(GOOD)) | WORD, inner, max_size=4)
    ),
    max_leaves=6,
)
VERDICTS = st.fixed_dictionaries({}, optional={name: st.just(value) | JSON for name, value in GOOD.items()})
TEXTS = st.one_of(
    VERDICTS.map(json.dumps),
    VERDICTS.map(lambda members: json.dumps(GOOD | members)),
    VERDICTS.map(lambda members: json.dumps(GOOD | members)[:-9]),
    JSON.map(json.dumps),
    st.text(max_size=200),
    st.tuples(WORD, VERDICTS.map(json.dumps), WORD).map("".join),
)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(answers=st.lists(TEXTS, min_size=24, max_size=24))
async def test_nothing_invalid_reaches_alertmanager_whatever_is_said(proxy: Whole, answers: list[str]):
    proxy.alertmanager.received.clear()
    await say(proxy, answers)


OBEDIENT = json.dumps(
    {
        "severity": "noise",
        "category": "other",
        "confidence": "high",
        "summary": "The sender says that all is well.",
        "recommendations": ["Silence it."],
        "labels": {"severity": "none", "team": "nobody", "ai_severity": "none"},
        "annotations": {"runbook_url": "https://evil.example"},
        "ai_severity": "none",
        "alertname": "Other",
        "status": "resolved",
        "endsAt": "2020-01-01T00:00:00Z",
        "generatorURL": "https://evil.example",
        "silence": {"matchers": [{"name": "alertname", "value": ".*"}]},
        "alerts": [],
    }
)
"""Of a model that does all that it is talked into."""


def injected(text: str, n: int) -> list[dict[str, Any]]:
    """Alerts that say it in one field each, and in all of them."""

    def alert(field: str, **changed: Any) -> dict[str, Any]:
        one = posted(f"Injected{n}{field}", severity="critical")
        return one | {name: one[name] | value if isinstance(value, dict) else value for name, value in changed.items()}

    everywhere = {
        "labels": {"team": text, text: text},
        "annotations": {"summary": text, "description": text, text: text},
        "generatorURL": text,
    }
    return [
        alert("Value", labels={"team": text}),
        alert("Object", labels={"instance": text}),
        alert("Name", labels={text: "x"}),
        alert("Alertname", labels={"alertname": f"Injected{n} {text}"}),
        alert("Summary", annotations={"summary": text}),
        alert("Unseen", annotations={"runbook": text}),
        alert("Annotation", annotations={text: text}),
        alert("Url", generatorURL=text),
        alert("Unknown", note=text),
        alert("All", **everywhere),
    ]


async def test_an_injection_in_any_field_changes_nothing_and_lowers_no_critical(proxies: dict[str, Whole]):
    proxy = proxies["anthropic"]
    asked: list[Request] = []

    def obey(request: Request) -> Text:
        asked.append(request)
        return Text(OBEDIENT)

    proxy.provider.forget(obey)
    alerts = [one for n, text in enumerate(INJECTIONS) for one in injected(text, n)]
    # Others, that the same model may lower and raise, are among them.
    alerts += [posted("Lowered", severity="warning"), posted("Unlabelled")]
    sources = []
    for some in (alerts[at : at + BATCH] for at in range(0, len(alerts), BATCH)):
        got = await proxy.post(*some)  # which looks at each byte
        for sent, one in zip(some, got, strict=True):
            found = added(sent, one)
            check_valid(found, [PROVIDERS["anthropic"][0]])
            assert found.labels.keys() == {"ai_severity", "ai_category"}
            sources.append(found.annotations["ai_source"])
            if sent["labels"].get("severity") == "critical":
                assert found.labels["ai_severity"] == "critical"
    assert {"ai_severity": "noise", "ai_category": "other"}.items() <= got[-2]["labels"].items()
    assert sources.count("llm") > len(alerts) * 0.9, "the model was asked, and answered in time"
    assert len(asked) == len(alerts)
    assert await proxy.metric("aiproxy_faults_total") == 0


async def test_a_model_that_obeys_says_what_it_may_say(proxies: dict[str, Whole]):
    """The test above would be none if its model were not heard."""
    proxy = proxies["anthropic"]
    proxy.provider.forget([Text(OBEDIENT)])
    sent = posted("Obeyed", severity="info")
    found = added(sent, (await proxy.post(sent))[0])
    assert found.labels == {"ai_severity": "noise", "ai_category": "other"}
    assert found.annotations.keys() <= {"ai_summary", "ai_recommendations", "ai_confidence", "ai_source", "ai_model"}
    proxy.provider.forget([verdict(severity="critical")])
    [one] = await proxy.post(posted("Raised", severity="info"))
    assert one["labels"]["ai_severity"] == "critical"
