"""docs/LLM_PROVIDERS.md: its settings can be loaded, and its prices are those of LiteLLM's list."""

from __future__ import annotations

import re
import warnings

import pytest
from configuring import load
from provider_page import PAGE, ROOT, sections, table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.alert import Alert
from proxy.app.model import needs_key
from proxy.classification.prompts import Prompts
from proxy.classification.worker.listed import may_be_known

litellm = adapter.litellm  # not imported here: the adapter sets its environment first
TEXT = PAGE.read_text()

TYPICAL = Alert(
    {
        "alertname": "KubePodCrashLooping",
        "cluster": "prod-eu-1",
        "container": "checkout",
        "endpoint": "http",
        "instance": "10.42.3.17:8080",
        "job": "kube-state-metrics",
        "namespace": "shop",
        "pod": "checkout-7d9f8b6c5d-x2x9z",
        "prometheus": "monitoring/k8s",
        "severity": "warning",
        "uid": "0b5c3c1e-64a4-4b8e-9d5e-6a6a6c0f8d11",
    },
    {
        "summary": "Pod is crash looping.",
        "description": "Pod shop/checkout-7d9f8b6c5d-x2x9z (checkout) is in waiting state (reason: "
        '"CrashLoopBackOff") on cluster prod-eu-1.',
        "runbook_url": "https://runbooks.prometheus-operator.dev/runbooks/kubernetes/kubepodcrashlooping",
    },
)
"""As kube-prometheus sends it."""
ANSWER = """{
  "severity": "warning",
  "category": "availability",
  "confidence": "high",
  "summary": "A container keeps crashing, and is started again after ever longer pauses.",
  "recommendations": [
    "Read the logs of the container before its last restart.",
    "Look for a deployment or a change of its settings shortly before.",
    "Compare its memory limit with what it used."
  ]
}"""
"""A model that has something to say."""


@pytest.mark.usefixtures("a_directory_of_its_own")
@pytest.mark.parametrize("heading", sections())
def test_the_settings_can_be_loaded(heading, tmp_path):
    key = tmp_path / "llm-api-key"
    key.write_text("sk-made-up\n")
    loaded = load(sections()[heading].replace("/run/secrets/llm-api-key", str(key)))
    llm = loaded.settings.llm
    assert loaded.warnings == ()
    assert llm.enabled
    assert bool(llm.api_key) or not needs_key(llm.provider, llm.base_url)
    (row,) = (row for row in table("provider") if row[0] in (heading, "others" if heading == "Others" else ""))
    assert row[1].strip("`") in (llm.provider, "LiteLLM's name")
    assert (row[2] == "needed") is (needs_key(llm.provider, llm.base_url) and heading != "Others")
    assert (row[3] == "`llm.base_url`") is (llm.base_url is not None)


def test_there_are_settings_for_every_provider_of_the_table():
    assert [row[0] for row in table("provider")][:-1] == list(sections())[:-1]


def test_no_provider_of_litellms_is_taken_for_a_slip():
    names = {getattr(provider, "value", provider) for provider in litellm.provider_list}
    assert [name for name in sorted(names) if not may_be_known(name)] == []


def test_it_names_the_litellm_that_is_locked():
    (locked,) = re.findall(r"^litellm==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert f"version {locked} in" in TEXT


IN, OUT = map(int, re.search(r"takes (\d+) tokens by OpenAI's count, and an answer (\d+)\.", TEXT).groups())
"""Tokens of one classification, as the page has them."""


def test_the_numbers_of_tokens_are_those_of_the_shipped_prompt():
    messages = [dict(message) for message in Prompts().render(TYPICAL).messages]
    assert litellm.token_counter(model="gpt-4o", messages=messages) == pytest.approx(IN, rel=0.05)
    assert litellm.token_counter(model="gpt-4o", text=ANSWER) == pytest.approx(OUT, rel=0.05)


PRICED = [row for row in table("model") if row[0] != "a model of your own"]


@pytest.mark.parametrize("row", PRICED, ids=[row[0] for row in PRICED])
def test_a_price_is_that_of_litellms_list(row):
    known = litellm.model_cost[row[0].strip("`")]
    a_million = [known[f"{kind}_cost_per_token"] * 1e6 for kind in ("input", "output")]
    assert [float(cell) for cell in row[1:3]] == pytest.approx(a_million)
    assert float(row[3]) == pytest.approx((a_million[0] * IN + a_million[1] * OUT) / 1000, abs=0.00501)


def test_the_guide_names_the_same_prices():
    guide = (ROOT / "docs" / "BYK_LLM_GUIDE.md").read_text()
    cents, dollars = re.search(r"between (\d+) cents and ([\d.]+) dollars", guide).groups()
    small = ("gpt-5-nano", "gpt-4o-mini", "claude-haiku-4-5", "gemini/gemini-2.5-flash-lite")
    prices = [float(row[3]) for row in PRICED if row[0].strip("`") in small]
    assert len(prices) == len(small)
    assert (min(prices), max(prices)) == (int(cents) / 100, float(dollars))


def test_the_tests_that_it_names_are_there():
    named = [row[2].strip("`") for row in table("what")]
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []
