"""The providers' wires once more, as aimock speaks them: what only our own fake provider understands fails here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from aimock import Aimock, NoAimock, aimock
from fake_provider import verdict
from workers import PROVIDERS, Pool

from proxy.alert import Alert
from proxy.classification.classification import Classification, Severity
from proxy.classification.worker.configuration import WorkerState
from proxy.errors import ClassifierUnavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = verdict(severity="critical").text
USAGE = {"prompt_tokens": 480, "completion_tokens": 90, "total_tokens": 570}
MODES = ("plain", "streamed")


def fixtures() -> Iterator[Any]:
    """Yield what is said about which alert. Names tell providers and modes apart: aimock counts for all of them."""
    answer = {"content": GOOD, "usage": USAGE}
    for name in PROVIDERS:
        begun = 8 if name == "anthropic" else 6  # by then the labels have come, and the end has not
        for mode in MODES:
            full = {"error": {"message": "full", "type": "rate_limit_error"}, "status": 429, "retryAfter": 1}
            match = {"userMessage": f"Full-{name}-{mode}"}
            yield {"match": {**match, "sequenceIndex": 0}, "response": full}
            yield {"match": match, "response": answer}
            yield {
                "match": {"userMessage": f"Cut-{name}-{mode}"},
                "response": answer,
                "truncateAfterChunks": begun,
                "latency": 20,
            }
    yield {"match": {"userMessage": "Gone"}, "response": answer, "chaos": {"disconnectRate": 1}}
    yield {"match": {"userMessage": "Good"}, "response": answer}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aimock]:
    try:
        async with aimock(tmp_path_factory.mktemp("aimock"), list(fixtures())) as running:
            yield running
    except NoAimock as exc:
        pytest.skip(str(exc))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools(mock: Aimock) -> AsyncIterator[dict[str, Pool]]:
    urls = dict.fromkeys(PROVIDERS, mock.url)
    pools = {mode: Pool(urls, stream=mode == "streamed", max_retries=1) for mode in MODES}
    for pool in pools.values():
        pool.worker.start()
    await asyncio.gather(*(pool.watched.reach(WorkerState.READY) for pool in pools.values()))
    yield pools
    await asyncio.gather(*(pool.worker.close() for pool in pools.values()))


async def classify(pool: Pool, name: str, alertname: str, early: list[Classification] | None = None) -> Classification:
    return await pool.fresh(name).classify(Alert({"alertname": alertname}), (early if early is not None else []).append)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_verdict_comes_through(name: str, mode: str, pools: dict[str, Pool]):
    pool = pools[mode]
    pool.watched.usage.clear()
    early: list[Classification] = []
    found = await classify(pool, name, "Good", early)
    assert (found.severity, found.summary) == (Severity.CRITICAL, "The disk fills up.")
    assert [told.severity for told in early] == ([Severity.CRITICAL] if mode == "streamed" else [])
    ((_, usage),) = pool.watched.usage
    # To Ollama's callers aimock says 0, whatever the fixture has.
    counted = (480, 90) if name != "ollama" else (None, None)
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, *counted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_full_provider_is_asked_again_when_it_says(name: str, mode: str, pools: dict[str, Pool], mock: Aimock):
    began = time.monotonic()
    assert (await classify(pools[mode], name, f"Full-{name}-{mode}")).severity is Severity.CRITICAL
    assert time.monotonic() - began >= 1
    assert len(await mock.asked(f"Full-{name}-{mode}")) == 2


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_cut_stream_is_asked_for_whole_and_its_labels_hold(name: str, pools: dict[str, Pool], mock: Aimock):
    early: list[Classification] = []
    found = await classify(pools["streamed"], name, f"Cut-{name}-streamed", early)
    assert found.severity is Severity.CRITICAL
    assert [told.severity for told in early] == [Severity.CRITICAL]
    assert len(await mock.asked(f"Cut-{name}-streamed")) == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_provider_that_hangs_up_is_unavailable(name: str, mode: str, pools: dict[str, Pool]):
    with pytest.raises(ClassifierUnavailable):
        await classify(pools[mode], name, "Gone")
