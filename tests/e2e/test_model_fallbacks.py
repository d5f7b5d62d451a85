"""A model that fails, and the next one, through the whole proxy: its labels come in time, and the first is let be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from fake_provider import FakeProvider, Hang, Status, verdict
from fakes import posted
from whole import Whole, added, check_valid, whole
from workers import PROVIDERS, SECRET

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

FAILURES = 2
FIRST = {"hangs": Hang(), "refuses the key": Status(401), "is down": Status(503, {"Retry-After": "3600"})}
LABELS = {"ai_severity": "critical", "ai_category": "network"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxies() -> AsyncIterator[dict[str, tuple[Whole, FakeProvider]]]:
    """One proxy for each way in which its first model fails, with the provider of the second."""
    async with AsyncExitStack() as stack:
        found = {}
        for why, failure in FIRST.items():
            first = await stack.enter_async_context(FakeProvider([failure]))
            second = await stack.enter_async_context(FakeProvider([verdict(severity="critical", category="network")]))
            proxy = await stack.enter_async_context(
                whole(
                    first,
                    "openai",
                    llm__fallbacks=f"ollama/llama3.2@{second.url}",
                    llm__timeout="4s",
                    llm__circuit_breaker__max_failures=str(FAILURES),
                    llm__circuit_breaker__reset_timeout="1h",
                )
            )
            found[why] = proxy, second
        for proxy, _ in found.values():
            await proxy.ready()
        yield found


@pytest.mark.parametrize("why", FIRST)
async def test_the_second_model_answers_in_time_and_the_first_is_let_be(
    why: str, proxies: dict[str, tuple[Whole, FakeProvider]]
):
    proxy, second = proxies[why]
    sent = [posted(f"Alert{n}", severity="warning") for n in range(FAILURES + 3)]
    for n, one in enumerate(sent):
        found = added(one, (await proxy.post(one))[0])
        # Half of llm.timeout is the first model's; the budget of 3 s is over the second one's answer.
        assert found.labels == LABELS
        assert found.annotations["ai_source"] == "llm"
        check_valid(found, [PROVIDERS["ollama"][0]])
        assert len(second.requests) == n + 1
        # What may pass is not tried again for so long that the next model would have no time.
        assert len(proxy.provider.requests) == min(n + 1, FAILURES)
    assert {request.key for request in proxy.provider.requests} == {SECRET}
    assert not any(SECRET in json.dumps(dict(request.headers)) for request in second.requests), "it is another's key"
    status = (await proxy.status())["model"]
    first, other = status["models"]
    assert (first["name"], first["breaker"]) == ("openai/gpt-4o", "open")
    assert first["why"] == f"failures in a row: {FAILURES}"
    assert first["last_error"]
    assert (other["breaker"], other["why"], other["last_error"]) == ("closed", "", "")
    assert status["last_outcome"] == "ok"
    assert await proxy.metric("aiproxy_model_breaker_opened_total") == 1
