"""Each setting changes what a proxy does that was built with it.

The composition root hands settings on: a value that it drops, or hands to the wrong room, shows here.
"""

import asyncio

import pytest
from fake_provider import FakeProvider, Hang, Slow, Status
from fake_provider import verdict as provided
from fakes import (
    FakeAlertmanager,
    FakeModel,
    posted,
    settings,
    stamp,
    verdict,
)

from proxy import config
from proxy.classification.classification import Severity
from proxy.errors import ClassifierRejected


def with_secrets(alertmanager, environ, **flags):
    """Settings for a proxy on free ports of loopback, with the secrets that no flag can give."""
    given = {
        "web.listen_address": "127.0.0.1:0",
        "web.admin_listen_address": "127.0.0.1:0",
        "alertmanager.url": alertmanager.url,
        "store.url": "memory:",
        **{name.replace("__", "."): value for name, value in flags.items()},
    }
    return config.load(environ=environ, flags={name: [value] for name, value in given.items()}).settings


# What a setting changes, as a question to a proxy that labels, and the answers for some values of the setting.


async def severity_of_a_lowered_critical(proxy):
    return (await proxy.post(posted(severity="critical")))[0]["ai_severity"]


async def severity_of_a_lowered_warning(proxy):
    return (await proxy.post(posted(severity="warning")))[0]["ai_severity"]


async def questions_for_two_of_a_class(proxy):
    await proxy.post(posted(pod="a"))
    await asyncio.sleep(0.01)  # more than the shortest time to live
    await proxy.post(posted(pod="b"))
    return len(proxy.model.asked)


async def names_added(proxy):
    labels, annotations = await proxy.post(posted())
    return " ".join([*sorted(labels), *sorted(name for name in annotations if "summary" in name)])


async def names_added_to_a_watchdog(proxy):
    return " ".join(sorted((await proxy.post(posted("Watchdog")))[0]))


async def names_added_to_a_lab(proxy):
    return " ".join(sorted((await proxy.post(posted(team="lab")))[0]))


async def names_added_to_one_of_the_databases(proxy):
    return " ".join(sorted((await proxy.post(posted(team="db")))[0]))


async def how_many_of_a_hundred_are_labelled(proxy):
    await proxy.post(*(posted(f"A{n}") for n in range(100)))
    return sum("ai_severity" in alert["labels"] for alert in proxy.alertmanager.posts[-1].alerts)


async def whether_all_of_one_name_are_treated_alike(proxy):
    await proxy.post(*(posted(pod=str(n)) for n in range(100)))
    return sum("ai_severity" in alert["labels"] for alert in proxy.alertmanager.posts[-1].alerts) in {0, 100}


async def names_added_after_a_thousand_others(proxy):
    await proxy.post(*(posted(pod=str(n)) for n in range(1000)))
    return await names_added(proxy)


async def names_found_again_after_labels_were_renamed(proxy):
    alert = posted(begun=-60)
    old = {"old_severity": "noise", "old_category": "security"}
    proxy.alertmanager.held = [{**alert, "labels": alert["labels"] | old, "updatedAt": stamp()}]
    await proxy.switch("transparent")
    await proxy.switch("enriched")
    return " ".join(sorted((await proxy.post(alert))[0]))


async def whose_labels_they_are(proxy):
    await proxy.reaches("aiproxy_recovery_last_success", 1)
    return (await proxy.status())["labels_by_rules"]


async def names_added_without_a_verdict(proxy):
    proxy.model.answers = [ClassifierRejected("x")]
    return " ".join(sorted((await proxy.post(posted()))[0]))


async def mode_in_the_metrics(proxy):
    return await proxy.metric("aiproxy_mode")


BOTH = "ai_category ai_severity"
OLD = ["old_category", "old_severity"]
SEVERAL = "there are 2 proxies, and they share no store"


@pytest.mark.parametrize(
    ("probe", "key", "value", "seen"),
    [
        (severity_of_a_lowered_critical, None, None, "critical"),
        (severity_of_a_lowered_critical, "enrichment.severity_floor", "off", "noise"),
        (severity_of_a_lowered_warning, None, None, "noise"),
        (severity_of_a_lowered_warning, "enrichment.severity_floor", "author", "warning"),
        (questions_for_two_of_a_class, None, None, 1),
        (questions_for_two_of_a_class, "llm.cache_ttl", "1ms", 2),
        (questions_for_two_of_a_class, "llm.cache_ttl", "1h", 1),
        (questions_for_two_of_a_class, "llm.enable_cache", "false", 2),
        (names_added, None, None, f"{BOTH} ai_summary"),
        (names_added, "enrichment.severity_label", "sev", "ai_category sev ai_summary"),
        (names_added, "enrichment.category_label", "cat", "ai_severity cat ai_summary"),
        (names_added, "enrichment.annotation_prefix", "bot_", f"{BOTH} bot_summary"),
        (names_added, "enrichment.mode", "transparent", ""),
        (names_added, "enrichment.mode", "transparent_with_recommendations", "ai_summary"),
        (names_added_to_a_watchdog, None, None, ""),
        (names_added_to_a_watchdog, "enrichment.skip", "team=lab", BOTH),
        (names_added_to_a_lab, None, None, BOTH),
        (names_added_to_a_lab, "enrichment.skip", "team=lab", ""),
        (names_added_to_a_lab, "enrichment.canary.matchers", "team=db", ""),
        (names_added_to_one_of_the_databases, "enrichment.canary.matchers", "team=db", BOTH),
        (how_many_of_a_hundred_are_labelled, None, None, 100),
        (how_many_of_a_hundred_are_labelled, "enrichment.canary.percent", "0", 0),
        (how_many_of_a_hundred_are_labelled, "enrichment.canary.percent", "10", 10),
        (whether_all_of_one_name_are_treated_alike, "enrichment.canary.percent", "50", True),
        (names_added_after_a_thousand_others, None, None, f"{BOTH} ai_summary"),
        (names_added_after_a_thousand_others, "store.max_decisions", "1000", ""),
        (names_found_again_after_labels_were_renamed, None, None, ""),
        (
            names_found_again_after_labels_were_renamed,
            "enrichment.former_labels",
            ["old_severity", "old_category"],
            "old_category old_severity",
        ),
        (whose_labels_they_are, None, None, ""),
        (whose_labels_they_are, "alertmanager.replicas", "2", SEVERAL),
        (names_added_without_a_verdict, None, None, BOTH),
        (names_added_without_a_verdict, "llm.enable_fallback", "false", ""),
        (mode_in_the_metrics, None, None, 1),
        (mode_in_the_metrics, "enrichment.mode", "transparent", 0),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (str(value) if value is not None else "-"),
)
async def test_a_setting_changes_what_the_proxy_does(alertmanager, proxy_with, probe, key, value, seen):
    flags = {"enrichment__mode": "enriched"} | ({key.replace(".", "__"): value} if key else {})
    proxy = await proxy_with(settings(alertmanager.url, **flags), FakeModel([verdict(Severity.NOISE)]))
    assert await probe(proxy) == seen


async def test_by_identity_alerts_of_one_name_are_drawn_one_by_one(alertmanager, proxy_with):
    given = {"enrichment__canary__percent": "50", "enrichment__canary__by": "identity"}
    proxy = await proxy_with(settings(alertmanager.url, enrichment__mode="enriched", **given))
    assert not await whether_all_of_one_name_are_treated_alike(proxy)


@pytest.mark.parametrize(
    ("environ", "flags", "header"),
    [
        pytest.param({}, {}, None, id="none"),
        pytest.param({"ALERTMANAGER_AUTHORIZATION_CREDENTIALS": "s3cret"}, {}, "Bearer s3cret", id="a token"),
        pytest.param(
            {"ALERTMANAGER_BASIC_AUTH_PASSWORD": "s3cret"},
            {"alertmanager__basic_auth__username": "ada"},
            "Basic YWRhOnMzY3JldA==",
            id="a user",
        ),
    ],
)
async def test_questions_of_the_proxys_own_and_what_it_forwards_carry_its_credentials(
    alertmanager, proxy_with, monkeypatch, environ, flags, header
):
    asked = []
    read = FakeAlertmanager._read

    async def kept(self, reader):
        request = await read(self, reader)
        asked.append((request.line.split(" ")[0], request.header("Authorization")))
        return request

    monkeypatch.setattr(FakeAlertmanager, "_read", kept)
    proxy = await proxy_with(with_secrets(alertmanager, environ, **flags))
    await proxy.reaches("aiproxy_recovery_last_success", 1)
    await proxy.post(posted())
    assert set(asked) == {("GET", header), ("POST", header)}


@pytest.mark.usefixtures("a_template")
@pytest.mark.parametrize("other", [{"llm__redact__hosts": "true"}, {"llm__context_file": "context.yaml"}])
async def test_proxies_agree_only_on_the_same_prompt(alertmanager, proxy_with, other):
    said = []
    for flags in ({}, other, {}):
        proxy = await proxy_with(settings(alertmanager.url, **flags), FakeModel())
        status = await proxy.status()
        said.append(status["replicas"]["agreement"])
    assert said[0] == said[2] != said[1]


@pytest.fixture
def a_template(tmp_path, monkeypatch):
    """`p.jinja` and `context.yaml` in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    text = "{% block system %}Classify.{% endblock %}{% block user %}{{ alert }}{% endblock %}"
    (tmp_path / "p.jinja").write_text(text, encoding="utf-8")
    (tmp_path / "context.yaml").write_text("services: [{name: shop, about: Sells.}]", encoding="utf-8")


@pytest.mark.usefixtures("a_template")
@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        pytest.param({}, 1, id="the same again"),
        pytest.param({"llm__model": "gpt-5"}, 2, id="another model"),
        pytest.param({"llm__provider": "anthropic"}, 2, id="another provider"),
        pytest.param({"llm__prompt_file": "p.jinja"}, 2, id="another template of the prompt"),
        pytest.param({"llm__context_file": "context.yaml"}, 2, id="another context"),
        pytest.param({"llm__redact__hosts": "true"}, 2, id="another masking"),
        pytest.param({"llm__annotations": "summary"}, 2, id="other annotations"),
    ],
)
async def test_an_answer_is_used_for_the_same_model_and_the_same_prompt(
    alertmanager, proxy_with, tmp_path, changed, asked
):
    model, store = FakeModel(), f"sqlite:{tmp_path}/decisions.db"
    for n, flags in enumerate(({}, changed)):
        given = settings(alertmanager.url, enrichment__mode="enriched", store__url=store, **flags)
        proxy = await proxy_with(given, model)
        await proxy.post(posted(instance=f"{n}"))
    assert len(model.asked) == asked


@pytest.mark.parametrize(
    ("listen", "token", "given", "status"),
    [
        pytest.param("127.0.0.1:0", "", "", 200, id="on loopback it is open"),
        pytest.param("127.0.0.1:0", "s3cret", "", 401, id="on loopback with a token it needs it"),
        pytest.param("127.0.0.1:0", "s3cret", "wrong", 401, id="on loopback with another token"),
        pytest.param("127.0.0.1:0", "s3cret", "s3cret", 200, id="on loopback with the token"),
        pytest.param("0.0.0.0:0", "", "", 403, id="beyond loopback without a token it is closed"),
        pytest.param("0.0.0.0:0", "s3cret", "", 401, id="beyond loopback it needs the token"),
        pytest.param("0.0.0.0:0", "s3cret", "s3cret", 200, id="beyond loopback with the token"),
    ],
)
async def test_who_may_use_the_admin_listener(alertmanager, proxy_with, listen, token, given, status):
    environ = {"WEB_ADMIN_TOKEN": token} if token else {}
    proxy = await proxy_with(with_secrets(alertmanager, environ, web__admin_listen_address=listen))
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    for path in ("/enrichment/mode", "/api/v1/status"):
        assert (await proxy.get(path, **headers))[0] == status
    for path in ("/-/healthy", "/-/ready", "/metrics"):
        assert (await proxy.get(path))[0] == 200


async def test_the_proxys_own_question_has_alertmanagers_timeout(alertmanager, proxy_with, capsys):
    alertmanager.silent = True
    given = settings(alertmanager.url, alertmanager__timeout="300ms", enrichment__budget="100ms")
    await proxy_with(given)
    said = ""
    async with asyncio.timeout(5):
        while "no answer within 0.3 s" not in (said := said + capsys.readouterr().out):
            await asyncio.sleep(0.02)


KEY = "sk-made-up"


async def test_the_settings_of_the_model_reach_its_provider(alertmanager, proxy_with):
    """The real worker with the real LiteLLM, once: it takes seconds to load."""
    calls = "aiproxy_model_call_duration_seconds_count"
    async with FakeProvider([provided(severity="noise")]) as provider:
        given = with_secrets(
            alertmanager,
            {"LLM_API_KEY": KEY},
            enrichment__mode="enriched",
            enrichment__budget="50ms",
            llm__enabled="true",
            llm__provider="openai",
            llm__model="gpt-4o-mini",
            llm__base_url=provider.url,
            llm__timeout="4s",
            llm__max_retries="1",
            llm__concurrency="2",
            llm__max_tokens="123",
            llm__stream="false",
        )
        proxy = await proxy_with(given)
        assert await proxy.metric("aiproxy_model_usable") == 0
        await proxy.reaches("aiproxy_model_usable", 1)

        await proxy.post(posted("Good"))
        await proxy.reaches(f'{calls}{{outcome="ok"}}', 1)
        [request] = provider.requests
        assert (request.path, request.key) == ("/v1/chat/completions", KEY)
        assert (request.json["model"], request.json["max_tokens"]) == ("gpt-4o-mini", 123)
        assert not request.json.get("stream")
        assert await proxy.metric('aiproxy_model_tokens_total{direction="input",provider="openai"}') == 480
        [model] = (await proxy.status())["model"]["models"]
        assert (model["requests"], model["tokens"]) == (1, {"input": 480, "output": 90})
        assert 0 < model["cost_usd"] < 0.01

        provider.forget([Status(500)])
        await proxy.post(posted("Fails"))
        await proxy.reaches(f'{calls}{{outcome="unavailable"}}', 1)
        assert len(provider.requests) == 1 + 1

        provider.forget([Slow(provided(), 0.3)])
        await proxy.post(*(posted(f"Slow{n}") for n in range(3)))
        await proxy.reaches(f'{calls}{{outcome="ok"}}', 1 + 3)
        assert provider.most_at_once == 2

        provider.forget([Hang()])
        await proxy.post(posted("Hangs"))
        await proxy.reaches(f'{calls}{{outcome="timeout"}}', 1, within=15)
        [request] = provider.requests
        await asyncio.wait_for(request.hung_up.wait(), 5)
        assert await proxy.metrics(calls) == {
            f'{calls}{{outcome="ok"}}': 4,
            f'{calls}{{outcome="unavailable"}}': 1,
            f'{calls}{{outcome="timeout"}}': 1,
        }
