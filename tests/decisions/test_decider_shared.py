"""Two proxies that decide about the same alerts, on one store."""

import asyncio

import pytest
from deciding import Rooms, SharedStore, Verdicts, added, bare, firing, held, labelled, resolved, sweep
from fakes import verdict
from simulated import Time

from proxy.classification.classification import Severity
from proxy.decisions.decision import Treatment
from proxy.decisions.living import STALE
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError, StoreTimeout


@pytest.fixture
def store():
    return SharedStore()


@pytest.fixture
def one(store):
    return Rooms(store, Verdicts(verdict(Severity.CRITICAL)))


@pytest.fixture
def other(one, store):
    return Rooms(store, Verdicts(verdict(Severity.INFO)), one.time)


async def test_the_first_claim_wins_and_both_use_it(one, other):
    alert = firing(one.time)
    first = await one.decide(alert)
    assert first.labels == added("critical")
    assert await other.decide(alert) == first
    assert other.verdicts.asked == [], "what the store knows holds, and nobody is asked"
    assert (one.decider.known(alert), other.decider.known(alert)) == (first, first)


async def test_of_two_that_decide_at_once_one_wins_and_both_use_it(one, other, store):
    """Another proxy claims between our question and our claim."""
    alert = firing(one.time)

    async def claims_meanwhile(alerts, wait):
        await one.decide(alert)
        return await Verdicts.classify(other.verdicts, alerts, wait)

    other.verdicts.classify = claims_meanwhile
    assert (await other.decide(alert)).labels == added("critical")
    assert other.decider.known(alert) == one.decider.known(alert)
    assert (one.handovers, other.handovers) == ([], []), "nothing was sent before"


async def test_bare_is_claimed_too(one, other):
    alert = firing(one.time)
    await one.decide(alert, Treatment.PLAIN)
    assert await other.decide(alert) == bare(alert)


async def test_what_was_claimed_is_not_claimed_again(one, store):
    await one.decide(firing(one.time))
    assert one.living.unkept == 0
    one.decider.known(firing(one.time))
    assert one.living.unkept == 0
    assert store.asked == ["get", "claim"]


async def test_what_was_taken_from_the_store_is_kept_alive_there(one, other, store):
    alert = firing(one.time)
    await one.decide(alert)
    await other.decide(alert)
    for _ in range(int(STALE / 60) + 2):
        one.time.passes(minutes=1)
        other.decider.known(firing(one.time))
        sweep(other.living)
    assert other.living.unkept == 1


async def test_a_batch_is_one_question_and_one_claim(one, store):
    new = [(firing(one.time, f"A{n}"), Treatment.LABEL) for n in range(50)]
    assert len(await one.decider.decide(new, 1)) == 50
    assert store.asked == ["get", "claim"]


async def test_known_and_new_ones_in_one_batch(one, other):
    known, new = firing(one.time, "Known"), firing(one.time, "New")
    await one.decide(known)
    claimed = []
    claim = other.store.claim

    async def kept(new):
        claimed.extend(new)
        return await claim(new)

    other.store.claim = kept
    found = await other.decider.decide([(known, Treatment.LABEL), (new, Treatment.LABEL)], 1)
    assert {i: d.labels for i, d in found.items()} == {known.identity: added("critical"), new.identity: added("info")}
    assert other.verdicts.asked == [new]
    assert [each.decision.identity for each in claimed] == [new.identity]


@pytest.mark.parametrize("broken", ["get", "claim"])
async def test_a_claim_that_is_not_answered_leaves_the_rules_labels_with_the_models_text(one, store, broken):
    async def away(*_):
        raise StoreError("gone")

    setattr(store, broken, away)
    alert = firing(one.time)
    found = await one.decide(alert)
    assert found.labels == added("warning")
    assert (found.annotations["ai_summary"], found.annotations["ai_source"]) == ("The model says so.", "rules")
    assert (one.errors, one.reach.up, one.living.unkept) == (1, False, 1)


async def test_two_that_cannot_reach_the_store_give_the_same_labels(one, other, store):
    store.fails = StoreError("gone")
    alert = firing(one.time)
    assert (await one.decide(alert)).labels == (await other.decide(alert)).labels
    store.fails = None
    for rooms in (one, other):
        rooms.reach.found()
        await rooms.keep()
    assert (one.handovers, other.handovers) == ([], [])


async def test_a_store_that_is_away_is_not_waited_for(one, store):
    one.reach.lost(StoreError("gone"))
    await one.decide(firing(one.time))
    assert store.asked == []


async def test_a_store_that_is_late_is_asked_again_within_the_wait(one, store):
    late = [StoreTimeout("late")]
    get = store.get

    async def slow(identities):
        if late:
            raise late.pop()
        return await get(identities)

    store.get = slow
    assert (await one.decide(firing(one.time))).labels == added("critical")
    assert (one.errors, one.reach.up) == (1, True)


async def test_a_life_that_ended_is_not_taken_from_the_store(one, other):
    alert = firing(one.time)
    for rooms in (one, other):
        await rooms.decide(alert)
        rooms.decider.known(resolved(alert, one.time))
    one.time.passes(minutes=16)
    anew = firing(one.time, begun=one.time.now)
    one.verdicts.now = verdict(Severity.NOISE)
    assert one.decider.known(anew) is None
    assert (await one.decide(anew)).labels == added("noise")
    assert other.decider.known(anew) is None
    assert (await other.decide(anew)).labels == added("noise"), "the new life is one decision, too"
    for rooms in (one, other):
        await rooms.keep()
    assert (one.handovers, other.handovers) == ([], [])


async def test_lives_that_passed_while_the_store_was_away_do_not_come_back_with_it(one, store):
    alert = firing(one.time)
    await one.decide(alert)
    store.fails = StoreError("gone")
    for _ in range(2):
        one.decider.known(resolved(firing(one.time, begun=one.time.now), one.time))
        one.time.passes(minutes=16)
        anew = firing(one.time, begun=one.time.now)
        assert one.decider.known(anew) is None
        assert (await one.decide(anew)).labels == added("warning")
    store.fails = None
    one.reach.found()
    await one.keep()
    assert one.decider.known(anew).labels == added("warning")
    assert one.handovers == []


async def test_what_is_restored_is_handed_over_to_the_claim_that_came_first(one, store):
    alert = firing(one.time)
    await MemoryStore.claim(store, [held(labelled(alert, "noise"), life=99)])
    await one.decider.restore([(alert, labelled(alert))])
    assert one.decider.known(alert) == labelled(alert, "noise")
    assert one.living.former(alert.identity) == (added("critical"),)
    assert one.handovers == [1]


async def test_what_is_restored_is_claimed_at_once(one, other):
    alert = firing(one.time)
    await one.decider.restore([(alert, labelled(alert, "noise"))])
    assert (await other.decide(alert)).labels == added("noise")


async def test_a_store_that_is_away_hinders_no_restoring(one, store):
    store.fails = StoreError("gone")
    alerts = [firing(one.time, f"A{n}") for n in range(600)]
    await one.decider.restore([(alert, labelled(alert)) for alert in alerts])
    assert (one.living.labelled, one.errors, store.asked) == (600, 1, ["claim"])


async def test_before_the_recovery_the_rules_labels_are_claimed(one, other):
    alert = firing(one.time)
    assert (await one.decide(alert, recovered=False)).labels == added("warning")
    assert (await other.decide(alert)).labels == added("warning")


async def test_text_that_came_late_reaches_the_store(one, store):
    later = asyncio.get_running_loop().create_future()
    one.verdicts.later = later
    alert = firing(one.time)
    await one.decide(alert)
    later.set_result(verdict(summary="Later."))
    await asyncio.sleep(0)
    await one.keep()
    [kept] = (await MemoryStore.get(store, [alert.identity])).values()
    assert kept.decision.annotations["ai_summary"] == "Later."


async def test_the_end_of_an_earlier_life_told_late_ends_no_later_one():
    """A proxy that is cut off knows the resolve of a life; the other one has decided about the next, with the same
    labels."""
    store, time = SharedStore(), Time()
    one, other = (Rooms(store, Verdicts(verdict(Severity.CRITICAL)), time) for _ in range(2))
    alert = firing(time)
    for rooms in (one, other):
        await rooms.decide(alert)
        await rooms.keep()
    time.passes(minutes=5)
    one.decider.known(resolved(alert, time))
    await one.keep()
    other.decider.known(resolved(alert, time))
    time.passes(minutes=20)
    anew = firing(time, begun=time.now)
    assert one.decider.known(anew) is None
    await one.decide(anew)
    await one.keep()
    other.verdicts.now = verdict(Severity.INFO)
    await other.keep()
    await other.keep()
    assert other.decider.known(anew).labels == added("critical")
    assert (await store.get([alert.identity]))[alert.identity].resolved_at is None
