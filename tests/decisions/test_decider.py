"""Decisions with the clocks, the store and the verdicts in the test's hands."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fakes import verdict

from proxy.alert import Alert
from proxy.classification.classification import Severity, Source
from proxy.classification.service import Verdict
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Decision, Names, Treatment
from proxy.decisions.living import Living
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Time:
    def __init__(self):
        self.monotonic = 1000.0
        self.now = NOW

    def passes(self, **by):
        self.monotonic += timedelta(**by).total_seconds()
        self.now += timedelta(**by)


class Verdicts:
    """Says `now` of every alert, and that `later` may follow."""

    def __init__(self, now=None, later=None):
        self.now, self.later = now, later
        self.asked = []
        self.waits = []

    async def classify(self, alerts, wait):
        self.asked += alerts
        self.waits.append(wait)
        return [Verdict(self.now, self.later) for _ in alerts]

    def by_rules(self, alerts):
        return [Verdict(verdict(Severity.WARNING, source=Source.RULES)) for _ in alerts]


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def living(time):
    return Living(monotonic=lambda: time.monotonic, now=lambda: time.now)


@pytest.fixture
def errors():
    return []


@pytest.fixture
def decider_with(living, errors):
    def make(verdicts, store=None):
        return Decider(
            living=living,
            store=store or MemoryStore(),
            verdicts=verdicts,
            names=Names(),
            on_fault=lambda stage: pytest.fail(stage),
            on_store_error=lambda: errors.append("store"),
        )

    return make


def firing(time, name="A"):
    return Alert({"alertname": name}, starts_at=time.now, ends_at=time.now + timedelta(minutes=4))


def labels(severity, category="performance"):
    return {"ai_severity": severity, "ai_category": category}


async def decided(decider, alert, treatment=Treatment.LABEL, wait=1.0):
    return (await decider.decide([(alert, treatment)], wait))[alert.identity]


async def test_an_alert_that_fires_anew_long_after_its_resolve_does_not_get_its_old_labels_from_the_store(
    time, decider_with
):
    verdicts, store = Verdicts(verdict(Severity.CRITICAL)), MemoryStore()
    decider = decider_with(verdicts, store)
    alert = firing(time)
    assert (await decided(decider, alert)).labels == labels("critical")
    assert decider.known(replace(alert, ends_at=time.now)) is not None

    time.passes(minutes=16)
    verdicts.now = verdict(Severity.INFO)
    anew = firing(time)
    assert decider.known(anew) is None
    assert (await decided(decider, anew)).labels == labels("info")
    assert (await store.get([anew.identity]))[anew.identity].labels == labels("info")


async def test_what_has_ended_is_dropped_from_the_store(time, decider_with, living):
    store = MemoryStore()
    decider = decider_with(Verdicts(verdict()), store)
    alert = firing(time)
    await decided(decider, alert)
    living.forget(alert.identity)
    await decider.forget_ended()
    assert dict(await store.get([alert.identity])) == {}


async def test_what_is_restored_is_claimed_in_the_store_and_known(time, decider_with):
    store, verdicts = MemoryStore(), Verdicts(verdict())
    decider = decider_with(verdicts, store)
    alert = firing(time)
    shown = Decision(alert.identity, labels("noise"))
    await decider.restore([(alert, shown)])
    assert dict(await store.get([alert.identity])) == {alert.identity: shown}
    assert decider.known(alert) is shown


async def test_what_was_decided_since_the_start_stands_when_another_is_restored(time, decider_with):
    decider = decider_with(Verdicts(verdict(Severity.CRITICAL)))
    alert = firing(time)
    mine = await decided(decider, alert)
    await decider.restore([(alert, Decision(alert.identity, labels("noise")))])
    assert decider.known(alert) == mine


async def test_a_claim_that_another_writer_won_holds(time, decider_with):
    alert = firing(time)
    theirs = Decision(alert.identity, labels("critical", "security"))

    class Raced(MemoryStore):
        """Another proxy claims between our question and our claim."""

        async def claim(self, new):
            return {decision.identity: theirs for decision in new}

    decider = decider_with(Verdicts(verdict(Severity.INFO)), Raced())
    assert await decided(decider, alert) is theirs
    assert decider.known(alert) is theirs


async def test_what_the_store_knows_holds_and_nobody_is_asked(time, decider_with):
    store, verdicts = MemoryStore(), Verdicts(verdict(Severity.INFO))
    alert = firing(time)
    theirs = Decision(alert.identity, labels("critical", "security"))
    await store.claim([theirs])
    assert await decided(decider_with(verdicts, store), alert) == theirs
    assert verdicts.asked == []


@pytest.mark.parametrize(
    ("broken", "counted"), [("forget", 1), ("get", 1), ("claim", 1)], ids=["forgetting", "asking", "claiming"]
)
async def test_a_store_that_does_not_answer_is_counted_and_costs_no_label(
    time, decider_with, living, errors, broken, counted
):
    async def down(*_):
        raise StoreError("down")

    store = MemoryStore()
    decider = decider_with(Verdicts(verdict(Severity.CRITICAL)), store)
    gone = firing(time, "Gone")
    await decided(decider, gone)
    living.forget(gone.identity)
    setattr(store, broken, down)
    assert (await decided(decider, firing(time))).labels == labels("critical")
    assert len(errors) == counted


@pytest.mark.parametrize(
    ("treatment", "waits"),
    [
        pytest.param(Treatment.LABEL, [2.5], id="labels are worth a wait"),
        pytest.param(Treatment.ANNOTATE, [0], id="text is not"),
    ],
)
async def test_what_the_wait_is_for(time, decider_with, treatment, waits):
    verdicts = Verdicts(verdict())
    await decided(decider_with(verdicts), firing(time), treatment, wait=2.5)
    assert verdicts.waits == waits


async def test_a_plain_alert_is_decided_bare_and_nobody_is_asked(time, decider_with):
    verdicts = Verdicts(verdict())
    alert = firing(time)
    decider = decider_with(verdicts)
    assert await decided(decider, alert, Treatment.PLAIN) == Decision(alert.identity)
    assert decider.known(alert) == Decision(alert.identity)
    assert verdicts.asked == []


async def test_before_recovery_the_rules_alone_are_asked(time, decider_with):
    verdicts = Verdicts(verdict(Severity.CRITICAL))
    alert = firing(time)
    found = await decider_with(verdicts).decide([(alert, Treatment.LABEL)], 1, recovered=False)
    assert found[alert.identity].labels == labels("warning")
    assert verdicts.asked == []


@pytest.mark.parametrize(
    ("treatment", "now", "text"),
    [
        pytest.param(Treatment.ANNOTATE, None, "The model says so.", id="a comment comes late where there was none"),
        pytest.param(Treatment.LABEL, None, None, id="what was sent bare for want of a verdict stays bare"),
        pytest.param(Treatment.LABEL, verdict(summary="Rules."), "The model says so.", id="labelled text improves"),
    ],
)
async def test_the_text_of_a_late_verdict(time, decider_with, treatment, now, text):
    landed = asyncio.Event()

    async def later():
        await landed.wait()
        return verdict()

    task = asyncio.create_task(later())
    decider = decider_with(Verdicts(now, task))
    alert = firing(time)
    before = await decided(decider, alert, treatment)
    landed.set()
    await task
    await asyncio.sleep(0)  # the callback of the task has its turn
    after = decider.known(alert)
    assert after.labels == before.labels
    assert after.annotations.get("ai_summary") == text
