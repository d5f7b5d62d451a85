"""The settings of classes and verdicts reach the service: who is asked about what, and whose answer is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeModel, body, exchange, post, posted, settings, verdict

from proxy import app
from proxy.classification.classification import Category, Confidence


async def labelled(alertmanager, model, *alerts, **flags):
    """Return what is added to alerts that are sent one after the other."""
    chosen = {"enrichment__mode": "enriched", "llm__enabled": "true"} | flags
    async with app.build(settings(alertmanager.url, **chosen), model=model) as running:
        for alert in alerts:
            await exchange(running.data_port, post(body(alert)))
    return [
        {name: value for name, value in got.alerts[0]["labels"].items() if name.startswith("ai_")}
        for got in alertmanager.posts[-len(alerts) :]
    ]


@pytest.mark.parametrize(("object_labels", "calls"), [("team", 1), ("pod", 2)])
async def test_alerts_that_differ_in_the_labels_of_objects_are_one_class(alertmanager, object_labels, calls):
    model = FakeModel()
    alerts = [posted("Disk", team="a"), posted("Disk", team="b")]
    await labelled(alertmanager, model, *alerts, llm__object_labels=object_labels)
    assert len(model.asked) == calls


@pytest.mark.parametrize(("least", "category"), [("low", "security"), ("high", "other")])
async def test_a_model_that_is_not_sure_enough_does_not_label(alertmanager, least, category):
    unsure = replace(verdict(category=Category.SECURITY), confidence=Confidence.MEDIUM)
    [labels] = await labelled(alertmanager, FakeModel([unsure]), posted("Xyz"), llm__min_confidence=least)
    assert labels["ai_category"] == category


@pytest.mark.parametrize(("url", "calls"), [("http://a.example/v1", 0), ("http://b.example/v1", 1)])
async def test_a_verdict_of_another_server_is_not_this_ones(alertmanager, tmp_path: Path, url, calls):
    model = FakeModel()
    kept = {"store__url": "sqlite:", "storage__path": str(tmp_path)}
    await labelled(alertmanager, model, posted("Disk", pod="1"), llm__base_url="http://a.example/v1", **kept)
    model.asked.clear()
    await labelled(alertmanager, model, posted("Disk", pod="2"), llm__base_url=url, **kept)
    assert len(model.asked) == calls
