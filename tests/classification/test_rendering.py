"""Prompts are made one at a time, and other work comes between them."""

from __future__ import annotations

import asyncio
import time

from proxy.alert import Alert
from proxy.classification.prompts import Prompt, Prompts
from proxy.classification.rendering import LONGEST, REST, Rendering
from proxy.errors import ClassifierUnusable

ALERTS = [Alert({"alertname": name}) for name in "ABCD"]
SLOW = 0.01


class Made:
    """Prompts that take a while, and when they were made."""

    def __init__(self, takes: float = SLOW) -> None:
        self.takes = takes
        self.times: list[tuple[float, float]] = []
        self.rendered = Rendering(self._render)

    def _render(self, alert: Alert) -> Prompt:
        begun = time.monotonic()
        time.sleep(self.takes)
        self.times.append((begun, time.monotonic()))
        if alert.name == "C":
            raise ClassifierUnusable("x")
        return Prompts().render(alert)

    @property
    def rests(self) -> list[float]:
        return [later[0] - before[1] for before, later in zip(self.times, self.times[1:], strict=False)]


async def test_each_alert_has_its_own_prompt_and_its_own_error():
    found = await asyncio.gather(*map(Made().rendered, ALERTS), return_exceptions=True)
    assert isinstance(found.pop(2), ClassifierUnusable)
    assert [prompt.labels["alertname"] for prompt in found if isinstance(prompt, Prompt)] == ["A", "B", "D"]


async def test_a_rest_comes_before_the_next_is_made():
    made = Made()
    await asyncio.gather(*map(made.rendered, ALERTS), return_exceptions=True)
    assert len(made.rests) == 3
    assert min(made.rests) >= (REST - 0.5) * SLOW  # at least: a busy machine makes it longer


async def test_who_has_a_prompt_does_not_wait_for_the_rest():
    made = Made()
    await made.rendered(ALERTS[0])
    waiting = asyncio.create_task(made.rendered(ALERTS[1]))
    await asyncio.sleep(0)
    assert len(made.times) == 1
    await waiting


async def test_a_rest_has_an_end():
    assert LONGEST < REST * 0.06
    made = Made(0.06)
    await made.rendered(ALERTS[0])
    await asyncio.wait_for(made.rendered(ALERTS[1]), 10)


async def test_one_that_is_given_up_leaves_the_turn_to_the_next():
    made = Made()
    await made.rendered(ALERTS[0])
    given_up, last = (asyncio.create_task(made.rendered(alert)) for alert in (ALERTS[1], ALERTS[3]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await asyncio.wait_for(last, 10)).labels["alertname"] == "D"
    assert len(made.times) == 2
