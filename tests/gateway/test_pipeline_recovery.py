"""What a proxy that starts, or could not ask, learns from Alertmanager before it adds anything."""

import asyncio
import time

import pytest
from fakes import FakeModel, answer, posted, stamp, verdict
from posting import held, until_recovered

from proxy.classification.classification import Severity


@pytest.mark.parametrize("mode", ["enriched", "transparent", "transparent_with_recommendations"])
async def test_after_a_restart_the_labels_are_recovered_from_alertmanager(proxy_with, alertmanager, mode):
    labelled, bare = posted("Labelled", begun=-60), posted("Bare", begun=60)
    ours = {"ai_severity": "noise", "ai_category": "security"}
    alertmanager.held = [held(labelled, **ours), held(bare)]
    proxy = await proxy_with(FakeModel(), mode)
    assert await proxy.labels(labelled, bare) == [ours, {}]


async def test_a_post_waits_for_the_recovery_but_not_beyond_the_budget(proxy_with, alertmanager):
    alertmanager.silent = True
    proxy = await proxy_with(FakeModel([verdict(Severity.NOISE)]), enrichment__budget="300ms")
    begun = time.monotonic()
    [labels] = await proxy.labels(posted(severity="warning"))
    assert 0.25 < time.monotonic() - begun < 2
    assert labels["ai_severity"] == "warning", "unrecovered: only what every proxy would decide alike"


@pytest.mark.parametrize(
    "reply", [answer("401 Unauthorized"), answer("404 Not Found"), answer("200 OK", b"{}"), answer("200 OK", b"<html>")]
)
async def test_when_recovery_is_refused_alerts_flow_with_the_rules_labels(proxy_with, alertmanager, reply, capsys):
    alertmanager.held = reply
    model = FakeModel([verdict(Severity.NOISE)])
    proxy = await proxy_with(model)
    [labels] = await proxy.labels(posted(severity="warning"))
    assert labels["ai_severity"] == "warning"
    assert model.asked == []
    assert await proxy.metric("aiproxy_recovery_last_success") == 0
    assert "cannot read Alertmanager's alerts" in capsys.readouterr().out


async def test_recovery_is_tried_until_it_works(proxy_with, alertmanager, monkeypatch):
    from proxy.decisions import recovery

    monkeypatch.setattr(
        recovery.Recovery.__init__, "__kwdefaults__", {**recovery.Recovery.__init__.__kwdefaults__, "retry": 0.05}
    )
    alertmanager.held = answer("503 Service Unavailable")
    proxy = await proxy_with(mode="transparent")
    ours = {"ai_severity": "noise", "ai_category": "security"}
    labelled = posted("Labelled", begun=-60)
    alertmanager.held = [held(labelled, **ours)]
    async with asyncio.timeout(5):
        while not await proxy.metric("aiproxy_recovery_last_success"):
            await asyncio.sleep(0.02)
    assert await proxy.labels(labelled) == [ours]


async def test_what_was_decided_without_knowing_yields_to_what_alertmanager_holds(
    proxy_with, alertmanager, monkeypatch
):
    from proxy.decisions import recovery

    monkeypatch.setattr(
        recovery.Recovery.__init__, "__kwdefaults__", {**recovery.Recovery.__init__.__kwdefaults__, "retry": 0.2}
    )
    alertmanager.held = answer("503 Service Unavailable")
    proxy = await proxy_with(FakeModel())
    labelled, fresh = posted("Labelled", begun=-60, severity="warning"), posted("Fresh", severity="warning")
    [bare, by_rules] = await proxy.labels(labelled, fresh)
    assert (bare, by_rules["ai_severity"]) == ({}, "warning")
    ours = {"ai_severity": "noise", "ai_category": "security"}
    # The bare one was delivered, and refreshed last; people were told about the other.
    alertmanager.held = [held(labelled, **ours) | {"updatedAt": stamp(-60)}, held(labelled), held(fresh, **by_rules)]
    await until_recovered(proxy)
    [again, ended, other] = await proxy.post(labelled, fresh)
    assert (again["labels"], other["labels"]) == (labelled["labels"] | ours, fresh["labels"] | by_rules)
    # What was sent meanwhile is ended at once.
    assert ended["labels"] == labelled["labels"]
    assert ended["endsAt"] < stamp(1)
    assert await proxy.labels(labelled, fresh) == [ours, by_rules]


@pytest.mark.parametrize("mode", ["transparent", "enriched"])
async def test_a_senders_own_labels_beside_the_same_alert_bare_are_not_taken_for_ours(proxy_with, alertmanager, mode):
    bare = posted("F", begun=-60)
    own = posted("F", begun=-60, ai_severity="critical", ai_category="network")
    alertmanager.held = [held(bare) | {"updatedAt": stamp(-9)}, held(own)]
    proxy = await proxy_with(FakeModel(), mode)
    assert await proxy.post(bare, own) == [bare, own]


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"startsAt": "0000-01-01T00:00:00Z"}, id="year 0"),
        pytest.param({"endsAt": "2030-01-01T00:00:00+24:00"}, id="an offset of a day"),
        pytest.param({"labels": None}, id="no labels"),
        pytest.param({"annotations": None, "updatedAt": None}, id="nulls"),
    ],
)
async def test_one_odd_alert_spoils_the_recovery_of_no_other(proxy_with, alertmanager, odd):
    labelled = posted("Labelled", begun=-60)
    ours = {"ai_severity": "noise", "ai_category": "security"}
    alertmanager.held = [held(posted("Odd")) | odd, held(labelled, **ours)]
    proxy = await proxy_with(FakeModel())
    assert await proxy.labels(labelled) == [ours]


async def test_of_two_variants_the_one_sent_last_is_recovered(proxy_with, alertmanager):
    alert = posted("Twice", begun=-60)
    new = held(alert, ai_severity="info", ai_category="other") | {"updatedAt": stamp(-5)}
    old = held(alert, ai_severity="critical", ai_category="other") | {"updatedAt": stamp(-60)}
    alertmanager.held = [old, new, held(alert) | {"updatedAt": stamp(-90)}]
    proxy = await proxy_with()
    [labels] = await proxy.labels(alert)
    assert labels["ai_severity"] == "info"
