"""The budget in a whole proxy: what is refused, told and remembered; and what is said of it beforehand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, posted, settings
from posting import Proxy
from workers import FakeProcess, children

from proxy import app, cli
from proxy.alert import Alert
from proxy.app.model import priority_of
from proxy.app.spending import price_of, unpriced
from proxy.classification.queue import Priority
from proxy.classification.rules import Rules
from proxy.classification.usage import Usage
from proxy.classification.worker.protocol import Answered, Ask, Message, Model, Ready
from proxy.config.spending import ModelPrice
from proxy.errors import ConfigError

MEMBERS = {"severity": "info", "category": "storage", "confidence": "high", "summary": "x", "recommendations": []}
USAGE = Usage(1, 480, 90, 0.0021)


class Child(FakeProcess):
    def __init__(self, models: int = 1) -> None:
        super().__init__(Ready("1", [""] * models), stays=True, answer=self._answers)
        self.asked = 0
        self.models: list[Model] = []

    def send(self, message: Message) -> None:
        self.models += getattr(message, "models", ())
        super().send(message)

    def _answers(self, ask: Ask) -> list[Message]:
        self.asked += 1
        return [Answered(ask.call, MEMBERS, USAGE)]


Started = Callable[..., "asynccontextmanager[Proxy]"]


@pytest.fixture
def started(monkeypatch, alertmanager):
    """Return what runs a proxy that asks through a child of its own."""

    @asynccontextmanager
    async def start(child: Child, **flags: str) -> AsyncIterator[Proxy]:
        children(monkeypatch, lambda: child)
        monkeypatch.setenv("LLM_API_KEY", "sk-1")
        enriched = {"enrichment__mode": "enriched", "llm__enabled": "true", "llm__provider": "ollama"}
        async with app.build(settings(alertmanager.url, **(enriched | flags))) as running:
            yield Proxy(alertmanager, running)

    return start


async def status_of(proxy: Proxy) -> dict[str, Any]:
    url = f"http://127.0.0.1:{proxy.running.admin_port}/api/v1/status"
    async with ClientSession() as client, client.get(url) as answered:
        found: dict[str, Any] = await answered.json()
        return found


async def metrics(proxy: Proxy) -> str:
    url = f"http://127.0.0.1:{proxy.running.admin_port}/metrics"
    async with ClientSession() as client, client.get(url) as answered:
        return await answered.text()


async def sources(proxy: Proxy, *names: str) -> list[str]:
    return [alert["annotations"]["ai_source"] for alert in await proxy.post(*map(posted, names))]


async def test_what_is_over_budget_is_left_to_the_rules_at_once(started):
    # Of 1000 tokens none is enough for a call: it is the same at any time of the day.
    child = Child()
    async with started(child, llm__budget__tokens_per_day="1000") as proxy:
        for n in range(3):  # one class, and nothing is remembered of it
            (got,) = await proxy.post(posted("A", pod=f"p-{n}"))
            assert got["annotations"]["ai_source"] == "rules"
        assert child.asked == 0
        # After the first they do not even stand in line.
        assert (
            await proxy.metric('aiproxy_model_attempt_duration_seconds_count{outcome="over_budget",provider="ollama"}')
            == 1
        )
        assert await proxy.metric("aiproxy_budget_refused_calls_total") == 3
        assert await proxy.metric('aiproxy_verdicts_total{reason="over_budget",source="rules"}') == 3
        assert await proxy.metric('aiproxy_budget_limit{unit="tokens"}') == 1000
        assert await proxy.metric('aiproxy_budget_remaining{unit="tokens"}') == 1000
        assert 200 <= await proxy.metric('aiproxy_budget_released{unit="tokens"}') <= 1000
        status = await status_of(proxy)
        assert status["budget"]["next_at"].endswith("T00:00:00+00:00")
        assert status["model"]["last_outcome"] == "over_budget: what may be spent by now is spent"


async def test_what_is_spent_is_told_and_the_next_process_knows_it(started, tmp_path):
    given = {"llm__budget__usd_per_day": "10", "store__url": f"sqlite:{tmp_path}/kept.db"}
    async with started(Child(), **given) as proxy:
        assert await sources(proxy, "A", "B") == ["llm", "llm"]
        assert await proxy.metric('aiproxy_budget_spent{unit="usd"}') == pytest.approx(0.0042)
        assert await proxy.metric('aiproxy_budget_remaining{unit="usd"}') == pytest.approx(9.9958)
        assert (await status_of(proxy))["budget"]["units"]["usd"]["spent"] == pytest.approx(0.0042)
    async with started(Child(), **given) as proxy:
        assert await proxy.metric('aiproxy_budget_spent{unit="usd"}') == pytest.approx(0.0042)
    db = sqlite3.connect(tmp_path / "spending.db")
    assert db.execute("SELECT tokens, nano_usd FROM spent").fetchall() == [(0, 4_200_000)]
    db.close()


async def test_without_caps_nothing_is_kept_and_nothing_shown(started, tmp_path):
    async with started(Child(), store__url=f"sqlite:{tmp_path}/kept.db") as proxy:
        assert await sources(proxy, "A") == ["llm"]
        assert (await status_of(proxy))["budget"] is None
        assert "aiproxy_budget_limit{" not in await metrics(proxy)
    assert not (tmp_path / "spending.db").exists()


async def test_what_the_cache_saves_is_told(started):
    async with started(Child()) as proxy:
        await sources(proxy, "A")
        assert await sources(proxy, "A") == ["llm"]  # the same alert: it was decided, and no class is looked up
        await proxy.post(posted("A", pod="p-1"), posted("A", pod="p-2"))
        await proxy.post(posted("A", pod="p-3"))
        assert await proxy.metric("aiproxy_saved_tokens_total") == 2 * 570
        assert await proxy.metric("aiproxy_saved_cost_usd_total") == pytest.approx(0.0042)
        assert (await status_of(proxy))["saved"] == {"calls": 2, "tokens": 1140, "cost_usd": 0.0042}


async def test_a_price_of_the_operators_own_goes_to_the_worker(started):
    child = Child(models=2)
    given = {"llm__model": "mine", "llm__prices": "mine=1/2", "llm__fallbacks": "openai/gpt-4o"}
    async with started(child, **given):
        pass
    assert [model.price for model in child.models] == [(1.0, 2.0), None]


async def test_one_file_is_not_for_decisions_and_spending(started, tmp_path):
    with pytest.raises(ConfigError, match="name another file"):
        async with started(Child(), store__url=f"sqlite:{tmp_path}/spending.db", llm__budget__tokens_per_day="1000"):
            pass


async def test_calls_that_are_turned_away_are_counted_by_priority(started):
    async with started(Child()) as proxy:
        for priority in ("critical", "normal"):
            assert f'calls_dropped_total{{priority="{priority}"}} 0.0' in await metrics(proxy)


async def test_what_its_author_calls_critical_is_asked_about_first(alertmanager):
    model = FakeModel([None])
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="1ms", llm__concurrency="1")
    async with app.build(given, model=model) as running:
        proxy = Proxy(alertmanager, running)
        await proxy.post(posted("A"), posted("B"), posted("C", severity="page"))
        model.release.set()
        async with asyncio.timeout(10):
            while len(model.asked) < 3:
                await asyncio.sleep(0.01)
    assert [alert.name for alert in model.asked] == ["A", "C", "B"]


def test_what_its_author_calls_critical_has_priority():
    rules = Rules.shipped()
    alerts = [Alert({"alertname": "A", "severity": severity}) for severity in ("page", "critical", "warning", "")]
    assert [priority_of(rules, alert) for alert in alerts] == [Priority.CRITICAL] * 2 + [Priority.NORMAL] * 2


# What is said beforehand


@pytest.mark.parametrize(
    ("prices", "price"),
    [
        ([], None),
        ([ModelPrice("gpt-4o", 1, 2)], (1, 2)),
        ([ModelPrice("gpt-4o", 1, 2), ModelPrice("openai/gpt-4o", 3, 4)], (3, 4)),
        ([ModelPrice("azure/gpt-4o", 3, 4)], None),
        ([ModelPrice("gpt-4", 3, 4)], None),
    ],
)
def test_the_more_exact_name_of_a_model_holds(prices, price):
    model = settings("http://127.0.0.1:9").llm.models[0]
    assert (model.provider, model.model) == ("openai", "gpt-4o")
    assert price_of(model, prices) == price


UNKNOWN = {"llm__enabled": "true", "llm__model": "mine", "llm__fallbacks": ["ollama/llama3.2", "gemini/tomorrow"]}


def test_a_cap_in_dollars_warns_of_models_without_a_price():
    given = settings("http://127.0.0.1:9", **UNKNOWN, llm__budget__usd_per_day="5")
    assert [warning.partition(" is not known")[0] for warning in unpriced(given)] == [
        "llm.budget.usd_per_day: the price of openai/mine",
        "llm.budget.usd_per_day: the price of gemini/tomorrow",
    ]
    assert "llm.prices, for example mine=0.15/0.60" in unpriced(given)[0]


@pytest.mark.parametrize(
    "flags",
    [
        UNKNOWN | {"llm__budget__tokens_per_day": "5000"},
        UNKNOWN | {"llm__budget__usd_per_day": "5", "llm__enabled": "false"},
        UNKNOWN | {"llm__budget__usd_per_day": "5", "llm__prices": ["mine=1/1", "gemini/tomorrow=0/0"]},
        {"llm__enabled": "true", "llm__budget__usd_per_day": "5"},
    ],
    ids=["no cap in dollars", "no model", "prices of one's own", "a model on LiteLLM's list"],
)
def test_it_does_not_warn_where_all_is_known(flags):
    assert unpriced(settings("http://127.0.0.1:9", **flags)) == []


def test_check_config_and_the_start_warn(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.delenv("LLM_API_KEY", raising=False)
    file = tmp_path / "config.yaml"
    file.write_text("llm:\n  enabled: true\n  model: mine\n  budget:\n    usd_per_day: 5\n")
    assert cli.main(["check-config", str(file)]) == 0
    assert "warning: llm.budget.usd_per_day: the price of openai/mine is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"store__url": "memory:"}, "begins anew with each restart"),
        ({"alertmanager__replicas": "2"}, "each of the 2 proxies"),
        ({"alertmanager__replicas": "2", "store__url": "redis://r"}, ""),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("cap", ["usd_per_day", "tokens_per_day"])
def test_a_budget_that_is_not_one_for_all_is_a_warning(flags, warned, cap):
    found = {f"llm__budget__{cap}": "500000"} | {"store__url": "sqlite:"} | flags
    remarks = [one.message for one in settings("http://127.0.0.1:9", **found).cautions() if "budget" in one.message]
    assert len(remarks) == bool(warned)
    assert all(warned in one for one in remarks)
    without = {key: value for key, value in found.items() if "budget" not in key}
    assert not [one for one in settings("http://127.0.0.1:9", **without).cautions() if "budget" in one.message]
