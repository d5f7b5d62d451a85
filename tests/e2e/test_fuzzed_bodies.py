"""Whatever is posted: Alertmanager answers as it does without the proxy, and holds the same alerts, each once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes import exchange, post, settings, status_of
from fuzzed import bodies
from real import alertmanager, get

from proxy.app import build

OURS = {"ai_severity", "ai_category"}
NO_ANSWER = 502
"""A body at which Alertmanager hangs up: `[null]` is one."""


async def answered(port: int, content: bytes) -> tuple[int, bytes]:
    """Return the status and the body of the answer to a POST."""
    said = await exchange(port, post(content))
    status = status_of(said) if said else NO_ANSWER
    text = said.partition(b"\r\n\r\n")[2]
    # Of several labels that are wrong Alertmanager names any.
    return status, b"" if status == NO_ANSWER else text.partition(b"invalid label set")[0]


async def held(url: str) -> Counter[tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]]:
    """Return the alerts, as their labels and annotations without ours, and how often each is there."""
    return Counter(
        (
            frozenset((name, value) for name, value in alert["labels"].items() if name not in OURS),
            frozenset(item for item in alert["annotations"].items() if not item[0].startswith("ai_")),
        )
        for alert in await get(f"{url}/api/v2/alerts")
    )


@pytest.mark.parametrize(
    "number", [300, pytest.param(20_000, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])], ids=str
)
async def test_a_body_that_is_almost_right_is_taken_as_without_the_proxy(am_binary, tmp_path: Path, number: int):
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    async with AsyncExitStack() as stack:
        direct, behind = [await stack.enter_async_context(alertmanager(am_binary, config, tmp_path)) for _ in range(2)]
        running = await stack.enter_async_context(build(settings(behind.url, enrichment__mode="enriched")))
        ports = [int(direct.url.rpartition(":")[2]), running.data_port]
        statuses: Counter[int] = Counter()
        for content in bodies(random.Random(seed), number):
            without, through = await asyncio.gather(*(answered(port, content) for port in ports))
            assert without == through, content
            statuses[without[0]] += 1
        expected, found = await held(direct.url), await held(behind.url)
        labelled = sum(alert["labels"].keys() >= OURS for alert in await get(f"{behind.url}/api/v2/alerts"))
    print(f"{number} bodies: {dict(statuses)}; {len(found)} alerts, {labelled} of them labelled")
    assert found == expected
    assert {200, 400} <= statuses.keys()
    assert labelled > number / 4
