"""What a POST waits for: the recovery, the model, and when it does not. And that one POST does not hold up others."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from deciding import labelled, take_up
from fakes import FakeModel, Observer, body, exchange, post, posted, settings, stamp, status_of, verdict
from piping import Held, Piped

from proxy.alert import Alert
from proxy.app import build, composition
from proxy.classification.classification import Severity
from proxy.decisions.decider import Decider
from proxy.decisions.recovery import Recovery
from proxy.gateway.alertmanager import AlertmanagerClient
from proxy.policy import Mode

OURS = {"ai_severity": "noise", "ai_category": "security"}


def in_alertmanager(alert, **added):
    return {
        **alert,
        "labels": alert["labels"] | added,
        "updatedAt": stamp(),
    }


@pytest.fixture
def observer():
    return Observer()


@pytest.fixture
def held():
    return Held()


@pytest.fixture
async def pipeline_with(observer, held):
    made = []

    async def make(model=None, mode=Mode.ENRICHED, **options):
        made.append(Piped(model, mode, observer=observer, held=held, **options))
        return made[-1].pipeline

    yield make
    for piped in made:
        await piped.close()


async def asked(model, times):
    async with asyncio.timeout(5):
        while len(model.asked) < times:
            await asyncio.sleep(0)


async def sent(pipeline, *alerts):
    return json.loads((await pipeline.run(body(*alerts))).body)


async def test_a_silent_alertmanager_and_a_hanging_model_cost_one_budget_together(alertmanager):
    alertmanager.silent = True
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="500ms")
    async with build(given, model=FakeModel([None])) as running:
        begun = time.monotonic()
        assert status_of(await exchange(running.data_port, post(body(posted())))) == 200
        assert time.monotonic() - begun <= 0.5 + 0.5


async def test_what_the_recovery_took_is_not_waited_for_the_model_again(alertmanager, monkeypatch):
    async def late(_):
        await asyncio.sleep(0.8)
        return []

    monkeypatch.setattr(AlertmanagerClient, "alerts", late)
    model = FakeModel([None])
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="800ms")
    async with build(given, model=model) as running:
        begun = time.monotonic()
        assert status_of(await exchange(running.data_port, post(body(posted())))) == 200
        assert time.monotonic() - begun <= 0.8 + 0.5


async def test_the_model_gets_what_is_left_of_the_budget(pipeline_with, held, monkeypatch):
    """On a clock that jumps while the recovery is waited for."""
    clock, waits, in_time = [100.0], [], []
    original = Decider.decide

    async def decide(self, new, wait, **options):
        waits.append(wait)
        in_time.append(options["in_time"])
        return await original(self, new, 0, **options)

    async def settled(self, at_most):
        clock[0] += 3.0
        return 3.0

    monkeypatch.setattr(Decider, "decide", decide)
    monkeypatch.setattr(Recovery, "settled", settled)
    pipeline = await pipeline_with(FakeModel(), budget=4.0, monotonic=lambda: clock[0])
    await pipeline.run(body(posted()))
    assert waits == [1.0]
    monkeypatch.setattr(Recovery, "settled", lambda *_: asyncio.sleep(0, clock.__setitem__(0, clock[0] + 5)))
    await pipeline.run(body(posted("Other")))
    assert waits == [1.0, 0.0], "less than nothing is nothing"
    assert in_time == [True, False], "a shared store is not asked any more"


@pytest.mark.parametrize("mode", list(Mode), ids=str)
async def test_a_post_during_the_recovery_keeps_the_labels_that_alertmanager_shows(alertmanager, monkeypatch, mode):
    """The very first POST: in transparent mode, too, nothing passes unread before Alertmanager has answered."""
    alert, ready, waits = posted("Labelled", begun=-60), asyncio.Event(), asyncio.Event()
    alertmanager.held = [in_alertmanager(alert, **OURS)]
    ask, settle = AlertmanagerClient.alerts, Recovery.settled

    async def gated(self):
        await ready.wait()
        return await ask(self)

    async def settled(self, at_most):
        waits.set()
        return await settle(self, at_most)

    monkeypatch.setattr(AlertmanagerClient, "alerts", gated)
    monkeypatch.setattr(Recovery, "settled", settled)
    async with build(settings(alertmanager.url, enrichment__mode=mode.value), model=FakeModel()) as running:
        pending = asyncio.create_task(exchange(running.data_port, post(body(alert))))
        waiting = asyncio.create_task(waits.wait())
        await asyncio.wait({pending, waiting}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        ready.set()
        assert status_of(await pending) == 200
    [got] = alertmanager.posts[0].alerts
    assert got["labels"] == alert["labels"] | OURS


async def test_nothing_passes_unread_before_the_recovery_has_succeeded(pipeline_with, held, observer):
    pipeline = await pipeline_with(mode=Mode.TRANSPARENT)
    first = asyncio.create_task(pipeline.run(body(posted())))
    await asyncio.sleep(0)
    held.ready.set()
    await first
    assert observer.unread_because == []
    await pipeline.run(body(posted()))
    assert observer.unread_because == ["idle"]


OVER = {"begun": -60, "ends": -1}


async def test_a_resolve_stops_the_wait_once_and_its_repetitions_do_not(pipeline_with, held):
    held.ready.set()
    model = FakeModel([None])
    pipeline = await pipeline_with(model)
    over = posted("Over", **OVER)

    [_, first] = await asyncio.wait_for(sent(pipeline, over, posted("One")), 2)
    assert first["annotations"]["ai_source"] == "rules", "a resolve nobody knew is news"

    pending = asyncio.create_task(sent(pipeline, over, posted("Two")))
    await asked(model, 2)
    model.release.set()
    [_, second] = await asyncio.wait_for(pending, 5)
    assert second["annotations"]["ai_source"] == "llm", "a repetition is none"


async def test_a_resolve_after_firing_again_stops_the_wait_again(pipeline_with, held):
    held.ready.set()
    model = FakeModel([verdict(), None])
    pipeline = await pipeline_with(model)
    await sent(pipeline, posted("Flaps"))
    for n in range(2):
        got = await asyncio.wait_for(sent(pipeline, posted(f"New{n}"), posted("Flaps", **OVER)), 2)
        assert got[0]["annotations"]["ai_source"] == "rules"
        await sent(pipeline, posted("Flaps", begun=-1))


async def test_a_resolve_that_waits_keeps_its_labels_when_the_alert_fires_anew_meanwhile(pipeline_with, held):
    """With the labels of the new life it would end an alert that fires."""
    held.ready.set()
    model = FakeModel([verdict(Severity.INFO), None])
    pipeline = await pipeline_with(model)
    [first] = await sent(pipeline, posted("Flaps"))
    over = posted("Flaps", **OVER)
    await sent(pipeline, over)

    pending = asyncio.create_task(sent(pipeline, over, posted("New")))
    await asked(model, 2)
    anew = Alert({"alertname": "Flaps"}, starts_at=datetime.now(UTC) + timedelta(hours=1))
    assert pipeline._living.seen(anew) is None
    take_up(pipeline._living, labelled(anew), anew)
    model.release.set()
    [resolve, _] = await asyncio.wait_for(pending, 5)
    assert resolve["labels"] == first["labels"]


async def test_others_get_their_turns_while_a_long_batch_is_read_and_written(pipeline_with, held):
    held.ready.set()
    pipeline = await pipeline_with()
    await sent(pipeline, posted("First"))
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    await asyncio.sleep(0)
    before = turns
    got = await sent(pipeline, *(posted(pod=f"p{n}") for n in range(2560)))
    turned = turns - before
    other.cancel()
    assert all("ai_severity" in alert["labels"] for alert in got)
    assert turned >= 2 * 2560 / 256 - 1, "after every 256 alerts, on the way in and on the way out"


@pytest.fixture(scope="module")
def twenty_megabytes():
    """100,000 alerts that fire from in a minute on: new to every proxy."""
    alert = (
        '{{"annotations":{{"summary":"pod {n} restarts too often"}},"endsAt":"{ends}","startsAt":"{begun}",'
        '"generatorURL":"http://prometheus.example:9090/graph?g0.expr=up","labels":{{"alertname":"Storm","pod":"p{n}"}}}}'
    )
    begun, ends = stamp(60), stamp(600)
    content = ("[" + ",".join(alert.format(n=n, begun=begun, ends=ends) for n in range(100_000)) + "]").encode()
    assert len(content) > 20_000_000
    return content


async def test_a_post_of_twenty_megabytes_does_not_hold_up_others(alertmanager, twenty_megabytes):
    async with build(settings(alertmanager.url, enrichment__mode="enriched"), model=FakeModel()) as running:
        big = asyncio.create_task(exchange(running.data_port, post(twenty_megabytes)))
        took = []
        while not big.done():
            begun = time.monotonic()
            name = f"Small{len(took)}"
            raw = await exchange(running.data_port, post(body(posted(name, severity="critical"))))
            took.append(time.monotonic() - begun)
            assert status_of(raw) == 200
        assert status_of(await big) == 200
    assert max(took) < 2
    [arrived] = [received for received in alertmanager.posts if len(received.body) >= len(twenty_megabytes)]
    first = json.loads(b"[" + arrived.body[1 : arrived.body.index(b'},{"annotations"') + 1] + b"]")[0]
    # In time it is labelled, and too late it goes as it came.
    assert first["labels"].get("ai_severity", "") in [s.value for s in Severity] or arrived.body == twenty_megabytes
    assert len(took) > 3, "there were others meanwhile"


async def test_others_get_their_turns_while_a_long_batch_is_decided(pipeline_with, held, monkeypatch):
    held.ready.set()
    pipeline = await pipeline_with()
    await sent(pipeline, posted("First"))
    turns, at_each_slice, original = 0, [], Decider.decide

    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def decide(self, *args, **kwargs):
        at_each_slice.append(turns)
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(Decider, "decide", decide)
    other = asyncio.create_task(others())
    await pipeline.run(body(*(posted(pod=f"p{n}") for n in range(2560))))
    other.cancel()
    assert len(set(at_each_slice)) == len(at_each_slice) == 10


async def test_after_a_pause_of_the_process_a_batch_keeps_what_is_known(alertmanager, monkeypatch):
    """As after SIGSTOP, or when a machine stands still: the time is up before anything could be done."""
    monkeypatch.setattr(composition, "PREPARE_BEYOND_BUDGET", 0.2)
    model = FakeModel([verdict(Severity.NOISE), None])
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="300ms")
    async with build(given, model=model) as running:

        async def labels(*alerts):
            assert status_of(await exchange(running.data_port, post(body(*alerts)))) == 200
            return [got["labels"].get("ai_severity") for got in alertmanager.posts[-1].alerts]

        old, new = posted("Old"), posted("New")
        assert await labels(old) == ["noise"]
        asyncio.get_running_loop().call_later(0.1, time.sleep, 1.0)
        assert await labels(old, new) == ["noise", None]
        model.release.set()
        await asyncio.sleep(0.1)
        assert await labels(old, new) == ["noise", None], "bare is a decision, too"


async def test_a_bug_in_the_pipeline_costs_what_is_known_no_label(pipeline_with, held):
    held.ready.set()
    pipeline = await pipeline_with(FakeModel([verdict(Severity.NOISE)]))
    await asyncio.sleep(0.01)
    known = posted("Known")
    await sent(pipeline, known)
    found = pipeline.known_only(body(known, posted("New"), {"labels": 7}, posted("Over", **OVER)))
    got = json.loads(found.body)
    assert [alert["labels"] if alert["labels"] == 7 else alert["labels"].get("ai_severity") for alert in got] == [
        "noise",
        None,
        7,
        None,
    ]
    assert (len(found.identities), len(found.resolved)) == (3, 1)
    assert pipeline.known_only(b"[{").body == b"[{"
    huge = body(known, {"filler": "x" * (1 << 20)})
    assert pipeline.known_only(huge).body == huge
