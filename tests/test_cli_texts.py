"""The report for people: what it says, and what it marks."""

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.cli import texts

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"
UNUSED = {"requests": 0, "tokens": {"input": None, "output": None}, "cost_usd": None}
OPEN = UNUSED | {
    "name": "openai/gpt-4o",
    "breaker": "open",
    "why": "failures in a row: 5",
    "last_error": "rejected: x 401",
}
SPARE = UNUSED | {"name": "ollama/llama3.2", "breaker": "closed", "why": "", "last_error": ""}
TRIED = SPARE | {"breaker": "half_open", "why": "slow: 8 of 10 calls"}
SPARE_ALERTMANAGER = {"url": "http://am-2:9093"}

WELL = {
    "version": "1.1.0",
    "ready": True,
    "mode": "enriched",
    "mode_source": "config",
    "switched": None,
    "canary": {"percent": 100.0, "by": "alertname", "matchers": []},
    "labelling_since": "2026-11-22T12:00:00.123456+00:00",
    "labels_by_rules": "",
    "configuration": {"read_at": "2026-11-22T11:00:00.654321+00:00", "problems": [], "at_next_start": []},
    "alertmanager": {
        "url": "http://127.0.0.1:9093",
        "each": [],
        "recovered": True,
        "recovered_alerts": 7,
        "peers": 2,
        "identity_conflicts": 0,
    },
    "model": {
        "enabled": True,
        "name": "openai/gpt-4o",
        "key": "set",
        "state": "ready",
        "why": "",
        "calls": {"running": 0, "waiting": 0},
        "last_outcome": "ok",
        "models": [UNUSED | {"name": "openai/gpt-4o", "breaker": "closed", "why": "", "last_error": ""}],
    },
    "budget": None,
    "saved": {"calls": 0, "tokens": 0, "cost_usd": 0.0},
    "store": {"kind": "redis", "url": "redis://r:6379", "shared": True, "up": True, "error": "", "unkept": 0},
    "decisions": {"living": 9, "labelled": 4, "bare": 5, "handing_over": 0, "full": False},
    "replicas": {
        "count": 2,
        "name": "a/1",
        "agree": True,
        "agreement": "ab",
        "peers": {"a/1": {"mode": "enriched", "labelled": 4, "version": "1.1.0"}, "b/2": {}},
    },
    "converged": True,
    "rules": {"hash": "cd"},
}


def report(**changes):
    found = copy.deepcopy(WELL) | {"started_at": (datetime.now(UTC) - timedelta(hours=3)).isoformat()}
    for key, value in changes.items():
        *sections, name = key.split("__")
        inner = found
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return texts.status(found)


def test_all_is_well():
    assert report() == (
        "alertmanager-ai-proxy 1.1.0, up 3h: nothing to look at\n"
        "  ready         yes\n"
        "  mode          enriched (as configured)\n"
        "  settings      read at 2026-11-22 11:00:00 UTC\n"
        "  canary        all of the alerts\n"
        "  labelling     alerts that begin after 2026-11-22 12:00:00 UTC\n"
        "  labels by     the model, and the rules where it gives no answer in time\n"
        "  model         openai/gpt-4o is ready, key set, last call: ok\n"
        "  alertmanager  http://127.0.0.1:9093, what it held is known (7 alerts)\n"
        "  peers         2\n"
        "  conflicts     none\n"
        "  store         redis, shared, answers\n"
        "  proxies       2, configured alike\n"
        "                a/1 (this one): enriched, 4 labelled, version 1.1.0, settings ?\n"
        "                b/2: ?, ? labelled, version ?, settings ?\n"
        "  alerts        9 known, 4 of them labelled\n"
        "  handing over  none"
    )


def test_the_page_shows_what_is_printed():
    """A proxy that was switched off while another one still labels: most lines there are."""
    two = {
        "host-a/0f3c51aa": {"mode": "transparent", "labelled": 4, "version": "1.1.0", "agreement": "8c1f0d5e2b7a9643"},
        "host-b/91ab04d7": {"mode": "enriched", "labelled": 4, "version": "1.1.1", "agreement": "e05b7c3914fd2a68"},
    }
    said = report(
        mode="transparent",
        mode_source="redis",
        switched={"by": "anna", "from": "10.0.0.5", "at": "2026-11-22T12:00:00+00:00", "until": None},
        labelling_since=None,
        replicas__name="host-a/0f3c51aa",
        replicas__agree=False,
        replicas__peers=two,
    )
    assert f"```\n{said}\n```\n" in PAGE.read_text()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"configuration__problems": ["one", "two"]},
            "! settings      read at 2026-11-22 11:00:00 UTC; what was read since CANNOT BE USED: one; two",
        ),
        ({"ready": False}, "! ready         NO: starting or shutting down"),
        ({"labels_by_rules": "the store is away"}, "! labels by     the RULES: the store is away"),
        (
            {"alertmanager__recovered": False},
            "! labels by     the RULES, until it is known what Alertmanager holds",
        ),
        ({"model__state": "unusable"}, "! labels by     the RULES: the model is unusable"),
        (
            {"model__state": "unusable", "model__why": "no such provider"},
            "! model         openai/gpt-4o is unusable, key set, no such provider",
        ),
        (
            {"model__last_outcome": "timeout"},
            "! model         openai/gpt-4o is ready, key set, last call: timeout",
        ),
        (
            {"model__models": [OPEN]},
            "! labels by     the RULES: too many calls failed, no model is asked for a while",
        ),
        (
            {"model__models": [OPEN, SPARE]},
            "!               openai/gpt-4o is NOT ASKED for a while: failures in a row: 5; rejected: x 401",
        ),
        (
            {"model__models": [OPEN, TRIED]},
            "!               ollama/llama3.2 is NOT ASKED until one call has worked: slow: 8 of 10 calls",
        ),
        (
            {"model__models": [SPARE | {"last_error": "rejected: x 401"}, SPARE]},
            "!               ollama/llama3.2 failed when it was asked last: rejected: x 401",
        ),
        (
            {"model__state": "unusable", "model__why": "no key", "model__last_outcome": "unusable: no key"},
            "! model         openai/gpt-4o is unusable, key set, no key",
        ),
        (
            {"configuration__at_next_start": ["llm.model", "llm.api_key"]},
            "! settings      read at 2026-11-22 11:00:00 UTC; WAITING FOR A RESTART: llm.model, llm.api_key",
        ),
        (
            {"alertmanager__each": [SPARE_ALERTMANAGER | {"state": "fails"}]},
            "!               http://am-2:9093: FAILS: the last POST of alerts was not answered",
        ),
        (
            {"alertmanager__each": [SPARE_ALERTMANAGER | {"state": "suspended"}]},
            "!               http://am-2:9093: SUSPENDED: it was silent, and is tried with one POST at a time",
        ),
        ({"alertmanager__identity_conflicts": 3}, "! conflicts     3 alerts with MORE THAN ONE identity"),
        (
            {"store__up": False, "store__error": "refused"},
            "! store         redis, shared, AWAY: refused",
        ),
        ({"store__up": False, "store__unkept": 5}, "!               is still to be told of 5 decisions"),
        (
            {"replicas__agree": False},
            "! proxies       2, they DIFFER in version, rules or settings: labels may, too",
        ),
        ({"decisions__full": True}, "!               FULL: new alerts go without labels; see store.max_decisions"),
    ],
)
def test_what_somebody_should_look_at_is_marked(changes, line):
    said = report(**changes).splitlines()
    assert line in said
    assert f": {sum(each.startswith('!') for each in said)} to look at" in said[0]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"mode": "transparent"},
            "  alerts        9 known, 4 of them labelled; DRAINING: they keep their labels until they end",
        ),
        ({"mode": "transparent"}, "  labels by     nobody, in mode transparent"),
        ({"labelling_since": None}, "  labelling     no: new alerts get no labels"),
        (
            {"model__enabled": False, "model__state": "disabled"},
            "  labels by     the rules: no model is switched on",
        ),
        ({"model__enabled": False, "model__state": "disabled"}, "  model         none"),
        ({"model__last_outcome": ""}, "  model         openai/gpt-4o is ready, key set, last call: none yet"),
        (
            {"model__calls": {"running": 2, "waiting": 5}},
            "  model         openai/gpt-4o is ready, key set, last call: ok, 2 running, 5 waiting",
        ),
        (
            {"alertmanager__each": [SPARE_ALERTMANAGER | {"state": "unknown"}]},
            "                http://am-2:9093: no alerts sent to it yet",
        ),
        (
            {"alertmanager__each": [SPARE_ALERTMANAGER | {"state": "answers"}]},
            "                http://am-2:9093: answers",
        ),
        ({"alertmanager__peers": None}, "  peers         it has not said"),
        ({"alertmanager__peers": 0}, "  peers         it has no cluster"),
        ({"replicas__count": 1}, "  proxies       1, this one"),
        ({"store__unkept": 5}, "                is still to be told of 5 decisions"),
        (
            {"decisions__handing_over": 2},
            "  handing over  2 alerts, until Alertmanager is told the end of their former labels",
        ),
    ],
)
def test_what_is_as_it_should_be_is_said_without_a_mark(changes, line):
    said = report(**changes).splitlines()
    assert line in said
    assert said[0].endswith("nothing to look at")


def test_other_proxies_give_a_terminal_no_orders():
    peers = {"\x1b[2J": {"mode": "\x1b[31m", "labelled": 0, "version": "1"}}
    assert "\x1b" not in report(replicas__peers=peers)


def test_alerts_of_which_nothing_is_known_are_said():
    text = texts.decisions({"total": 0, "unlisted": 12, "decisions": []})
    assert text.splitlines()[-1].startswith("12 more alerts went bare for lack of room")


def test_a_decision_is_shown_with_the_labels_that_are_to_be_ended():
    shown = texts.decision(
        {
            "fingerprint": "1" * 16,
            "alertmanager_fingerprint": "2" * 16,
            "labels": {"team": "db"},
            "added": {"labels": {}, "annotations": {}},
            "state": "firing",
            "expires_in_seconds": 3 * 86_400 + 5 * 3600 + 59,
            "former": [{"ai_severity": "info"}, {}],
            "rules_now": {
                "hash": "0123456789ab",
                "severity": {"is": "info", "by": "author", "at": "severity=low"},
                "category": {"is": "storage", "by": "disk", "at": "my-rules.yaml:4"},
            },
        }
    )
    assert shown == (
        'alert         team="db"\n'
        "fingerprint   1111111111111111 as it was sent\n"
        "              2222222222222222 in Alertmanager\n"
        "state         firing\n"
        "expires in    3d5h, unless it is seen again\n"
        "added labels  none\n"
        'to be ended   ai_severity="info"\n'
        "              no labels of ours\n"
        "rules now     severity info, from the author (severity=low)\n"
        "              category storage, from rule disk (my-rules.yaml:4)"
    )


@pytest.mark.parametrize("spare", [SPARE, TRIED])
def test_while_one_model_may_be_asked_it_labels(spare):
    line = "  labels by     the model, and the rules where it gives no answer in time"
    assert line in report(model__models=[OPEN, spare]).splitlines()


def spent(requests, tokens=(None, None), usd=None):
    used = {"requests": requests, "tokens": dict(zip(("input", "output"), tokens, strict=True)), "cost_usd": usd}
    return SPARE | used


@pytest.mark.parametrize(
    ("models", "line"),
    [
        ([spent(12, (5760, 1080), 0.00123)], "12 requests, 5,760 tokens in, 1,080 out, 0.0012 USD"),
        (
            [spent(12, (5760, 1080), 0.5), spent(3, (100, 10), 0.25)],
            "15 requests, 5,860 tokens in, 1,090 out, 0.7500 USD",
        ),
        ([spent(12, (5760, 1080), 0.5), spent(0)], "12 requests, 5,760 tokens in, 1,080 out, 0.5000 USD"),
        ([spent(12, (5760, None), 0.5), spent(1)], "13 requests, 5,760 tokens in, 0 out, at least 0.5000 USD"),
        ([spent(1200, (9, 9))], "1,200 requests, 9 tokens in, 9 out"),
        ([spent(2)], "2 requests"),
        ([spent(2, (9, 9), 0.0)], "2 requests, 9 tokens in, 9 out, 0.0000 USD"),
    ],
)
def test_what_the_models_took_is_shown_as_far_as_it_is_known(models, line):
    assert f"                since the start {line}" in report(model__models=models).splitlines()


SPENT = {"tokens": {"limit": 2_000_000, "spent": 570.0, "released": 400_000}}
BUDGET = {"day": "2026-11-22", "units": SPENT, "next_at": None, "error": ""}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "  budget        570 of 2,000,000 tokens spent on 2026-11-22, 400,000 released by now"),
        (
            {"units": {"usd": {"limit": 2.5, "spent": 0.00125, "released": 0.5}}},
            "  budget        0.0013 of 2.5000 usd spent on 2026-11-22, 0.5000 released by now",
        ),
        (
            {"next_at": "2026-11-22T12:00:00+00:00"},
            "!               SPENT as far as the day has come, the rules decide; next call at 2026-11-22 12:00:00 UTC",
        ),
        ({"error": "refused"}, "!               its store is AWAY: refused"),
    ],
)
def test_the_budget_is_shown(changes, line):
    assert line in report(budget=BUDGET | changes).splitlines()


def test_what_the_cache_saved_is_shown():
    saved = {"calls": 1200, "tokens": 684_000, "cost_usd": 0.0}
    assert "  saved         1,200 calls by the cache, about 684,000 tokens" in report(saved=saved).splitlines()
    assert "684,000 tokens, 1.5000 USD" in report(saved=saved | {"cost_usd": 1.5})


def test_before_the_first_request_nothing_was_taken():
    assert "since the start" not in report(model__models=[spent(0)])
