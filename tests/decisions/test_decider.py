"""Decisions with the clocks, the store and the verdicts in the test's hands."""

import asyncio
from dataclasses import replace

import pytest
from deciding import Rooms, Verdicts, added, bare, firing, held, labelled, take_up
from fakes import verdict

from proxy.classification.classification import Severity
from proxy.decisions.decision import Treatment
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError


def rooms_with(now=None, later=None, **options):
    return Rooms(verdicts=Verdicts(now, later), **options)


async def test_an_alert_that_fires_anew_long_after_its_resolve_does_not_get_its_old_labels_from_the_store():
    rooms = rooms_with(verdict(Severity.CRITICAL))
    alert = firing(rooms.time)
    assert (await rooms.decide(alert)).labels == added("critical")
    await rooms.keep()
    assert rooms.decider.known(replace(alert, ends_at=rooms.time.now)) is not None

    rooms.time.passes(minutes=16)
    rooms.verdicts.now = verdict(Severity.INFO)
    anew = firing(rooms.time, begun=rooms.time.now)
    assert rooms.decider.known(anew) is None
    assert (await rooms.decide(anew)).labels == added("info")
    await rooms.keep()
    assert (await rooms.store.get([anew.identity]))[anew.identity].decision.labels == added("info")


async def test_what_is_restored_is_kept_in_the_store_and_known():
    rooms = rooms_with(verdict())
    alert = firing(rooms.time)
    shown = labelled(alert, "noise")
    await rooms.decider.restore([(alert, shown)])
    assert await rooms.store.get([alert.identity]) == {}, "in a moment, with all the others"
    await rooms.keep()
    assert (await rooms.store.get([alert.identity]))[alert.identity].decision == shown
    assert rooms.decider.known(alert) == shown


async def test_what_was_decided_since_the_start_stands_when_another_is_restored():
    rooms = rooms_with(verdict(Severity.CRITICAL))
    alert = firing(rooms.time)
    mine = await rooms.decide(alert)
    await rooms.decider.restore([(alert, labelled(alert, "noise"))])
    assert rooms.decider.known(alert) == mine


async def test_what_the_store_held_at_the_start_is_known_and_nobody_is_asked():
    rooms = rooms_with(verdict())
    alert = firing(rooms.time)
    await rooms.store.claim([held(labelled(alert))])
    await rooms.keeper.load()
    assert rooms.decider.known(alert) == labelled(alert)
    assert rooms.decider.before_start(alert.identity) == added("critical")


async def test_a_store_is_loaded_once_and_tried_again_where_it_was_away():
    class Away(MemoryStore):
        away, loads = True, 0

        async def load(self):
            self.loads += 1
            if self.away:
                raise StoreError("gone")
            yield [held(labelled(alert))]

    rooms = rooms_with(store=Away())
    alert = firing(rooms.time)
    await rooms.keeper.load()
    assert (rooms.errors, rooms.reach.up, rooms.decider.known(alert)) == (1, False, None)
    rooms.store.away = False
    for _ in range(2):
        await rooms.keeper.load()
    assert rooms.decider.known(alert) == labelled(alert)
    assert rooms.store.loads == 2


async def test_a_store_of_this_proxy_alone_is_never_asked_on_the_alerts_way():
    async def never(*_):
        pytest.fail("asked")

    rooms = rooms_with(verdict(Severity.CRITICAL))
    rooms.store.get = rooms.store.claim = never
    assert (await rooms.decide(firing(rooms.time))).labels == added("critical")


async def test_by_the_rules_the_labels_are_the_rules_and_the_text_is_the_models():
    rooms = rooms_with(verdict(Severity.CRITICAL), by_rules=lambda: "several proxies share no store")
    found = await rooms.decide(firing(rooms.time), wait=2.5)
    assert found.labels == added("warning")
    assert (found.annotations["ai_summary"], found.annotations["ai_source"]) == ("The model says so.", "rules")
    assert rooms.verdicts.waits == [0], "text is worth no wait"


async def test_by_the_rules_text_that_comes_late_is_added_to_the_rules_labels():
    landed = asyncio.get_running_loop().create_future()
    rooms = rooms_with(verdict(summary="By the rules."), landed, by_rules=lambda: "several")
    alert = firing(rooms.time)
    assert (await rooms.decide(alert)).labels == added("warning")
    landed.set_result(verdict(Severity.CRITICAL, summary="Later."))
    await asyncio.sleep(0)
    assert rooms.decider.known(alert).annotations["ai_summary"] == "Later."
    assert rooms.decider.known(alert).labels == added("warning")


async def test_recommendations_are_the_models_even_by_the_rules():
    rooms = rooms_with(verdict(Severity.CRITICAL), by_rules=lambda: "several")
    found = await rooms.decide(firing(rooms.time), Treatment.ANNOTATE)
    assert (found.labels, found.annotations["ai_severity"]) == ({}, "critical")


async def test_beyond_the_capacity_an_alert_is_decided_bare_and_nobody_is_asked():
    rooms = rooms_with(verdict(), capacity=1)
    first, second = firing(rooms.time), firing(rooms.time, "B")
    take_up(rooms.living, labelled(first), first)
    assert await rooms.decide(second) == bare(second)
    assert rooms.verdicts.asked == []
    assert rooms.decider.known(second) == bare(second)


@pytest.mark.parametrize(
    ("treatment", "waits"),
    [
        pytest.param(Treatment.LABEL, [2.5], id="labels are worth a wait"),
        pytest.param(Treatment.ANNOTATE, [0], id="text is not"),
    ],
)
async def test_what_the_wait_is_for(treatment, waits):
    rooms = rooms_with(verdict())
    await rooms.decide(firing(rooms.time), treatment, wait=2.5)
    assert rooms.verdicts.waits == waits


async def test_a_plain_alert_is_decided_bare_and_nobody_is_asked():
    rooms = rooms_with(verdict())
    alert = firing(rooms.time)
    assert await rooms.decide(alert, Treatment.PLAIN) == bare(alert)
    assert rooms.decider.known(alert) == bare(alert)
    assert rooms.verdicts.asked == []


async def test_before_recovery_the_rules_alone_are_asked_and_provisionally():
    rooms = rooms_with(verdict(Severity.CRITICAL))
    alert = firing(rooms.time)
    found = await rooms.decide(alert, recovered=False)
    assert (found.labels, found.annotations["ai_summary"]) == (added("warning"), "The rules say so.")
    assert rooms.verdicts.asked == []
    assert rooms.decider.provisional(alert.identity) == found
    await rooms.decider.restore([(alert, labelled(alert, "noise"))])
    assert rooms.decider.known(alert) == labelled(alert, "noise")


@pytest.mark.parametrize(
    ("treatment", "now", "text"),
    [
        pytest.param(Treatment.ANNOTATE, None, "The model says so.", id="a comment comes late where there was none"),
        pytest.param(Treatment.LABEL, None, None, id="what was sent bare for want of a verdict stays bare"),
        pytest.param(Treatment.LABEL, verdict(summary="Rules."), "The model says so.", id="labelled text improves"),
    ],
)
async def test_the_text_of_a_late_verdict(treatment, now, text):
    landed = asyncio.Event()

    async def later():
        await landed.wait()
        return verdict()

    task = asyncio.create_task(later())
    rooms = rooms_with(now, task)
    alert = firing(rooms.time)
    before = await rooms.decide(alert, treatment)
    assert rooms.decider.awaits_text(alert.identity)
    landed.set()
    await task
    await asyncio.sleep(0)  # the callback of the task has its turn
    after = rooms.decider.known(alert)
    assert not rooms.decider.awaits_text(alert.identity)
    assert after.labels == before.labels
    assert after.annotations.get("ai_summary") == text


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_late_verdict_that_never_comes_changes_nothing(ends):
    bugs = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
    later = asyncio.get_running_loop().create_future()
    rooms = rooms_with(verdict(), later)
    alert = firing(rooms.time)
    before = await rooms.decide(alert)
    if ends == "cancelled":
        later.cancel()
    else:
        later.set_result(None)
    await asyncio.sleep(0)
    assert rooms.decider.known(alert) is before
    assert (rooms.texts, rooms.decider.awaits_text(alert.identity), bugs) == ([], False, [])


async def test_who_asks_for_late_texts_is_told_of_those_whose_alert_still_lives():
    later = asyncio.get_running_loop().create_future()
    rooms = rooms_with(verdict(), later)
    alert, gone = firing(rooms.time), firing(rooms.time, "Gone")
    await rooms.decide(alert)
    await rooms.decide(gone)
    rooms.living.forget(gone.identity)
    later.set_result(verdict(summary="Later."))
    await asyncio.sleep(0)
    assert rooms.texts == [alert.identity]


async def test_an_alert_that_brings_out_a_bug_goes_bare_and_its_neighbours_are_decided():
    class Picky(Verdicts):
        async def classify(self, alerts, wait):
            if any(alert.name == "Bad" for alert in alerts):
                raise ZeroDivisionError
            return await super().classify(alerts, wait)

    faults = []
    rooms = Rooms(verdicts=Picky(verdict(Severity.CRITICAL)))
    rooms.decider._on_fault = faults.append
    alerts = [firing(rooms.time, name) for name in ("Good", "Bad", "Fine")]
    found = await rooms.decider.decide([(alert, Treatment.LABEL) for alert in alerts], 1)
    assert [found[alert.identity].labels for alert in alerts] == [added("critical"), {}, added("critical")]
    assert (faults, rooms.verdicts.waits) == (["decide"], [0, 0])
    assert rooms.decider.known(alerts[1]) == bare(alerts[1])


async def test_what_went_bare_for_a_bug_before_the_recovery_yields_to_what_alertmanager_holds():
    class Broken(Verdicts):
        def by_rules(self, alerts):
            raise ZeroDivisionError

    rooms = Rooms(verdicts=Broken())
    rooms.decider._on_fault = lambda stage: None
    alert = firing(rooms.time)
    assert await rooms.decide(alert, recovered=False) == bare(alert)
    await rooms.decider.restore([(alert, labelled(alert))])
    assert rooms.decider.known(alert) == labelled(alert)


async def test_nothing_new_asks_nobody():
    rooms = rooms_with()
    assert await rooms.decider.decide([], 1) == {}
    assert rooms.verdicts.waits == []
