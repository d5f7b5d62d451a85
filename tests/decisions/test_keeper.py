"""What is decided reaches the store, aside from the alert's way; and what the store holds in its place is gone by."""

import asyncio

import pytest
from deciding import Rooms, SharedStore, added, bare, firing, held, labelled, resolved, running, sweep, take_up, until
from structlog.testing import capture_logs

from proxy.decisions import keeper
from proxy.decisions.living import STALE
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError


@pytest.fixture
def rooms():
    return Rooms(SharedStore())


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(keeper, "GATHER", 0.0)
    monkeypatch.setattr(keeper, "AWAY", 0.001)


async def kept(rooms, alert):
    """What the store holds of an alert."""
    return (await MemoryStore.get(rooms.store, [alert.identity])).get(alert.identity)


async def test_what_is_new_is_written_at_once(rooms):
    alert = firing(rooms.time)
    async with running(rooms.keeper.run()):
        take_up(rooms.living, labelled(alert), alert)
        await until(lambda: rooms.store.asked and not rooms.living.unkept)
    assert (await kept(rooms, alert)).decision == labelled(alert)
    assert rooms.store.asked == ["claim"]


async def test_a_store_has_longer_for_what_is_kept_than_for_what_a_post_waits_for(rooms, monkeypatch):
    """A Redis that is slow for minutes would never be told anything otherwise."""
    claim, patience = rooms.store.claim, []

    async def claimed(new, *, patient=False):
        patience.append(patient)
        return await claim(new)

    monkeypatch.setattr(rooms.store, "claim", claimed)
    await rooms.decide(firing(rooms.time))
    take_up(rooms.living, labelled(firing(rooms.time, "B")), firing(rooms.time, "B"))
    await rooms.keep()
    assert patience == [False, True]


async def test_what_comes_together_is_written_together(rooms, monkeypatch):
    monkeypatch.setattr(keeper, "SLICE", 2)
    for n in range(5):
        take_up(rooms.living, labelled(firing(rooms.time, f"A{n}")), firing(rooms.time, f"A{n}"))
    await rooms.keep()
    assert rooms.store.asked == ["claim"] * 3


async def test_what_could_not_be_written_is_written_when_the_store_is_back(rooms):
    alert = firing(rooms.time)
    rooms.store.fails = StoreError("gone")
    async with running(rooms.keeper.run()):
        take_up(rooms.living, labelled(alert), alert)
        await until(lambda: not rooms.reach.up)
        await asyncio.sleep(0.01)
        assert rooms.store.asked == ["claim"], "who is away is not asked"
        assert (rooms.living.unkept, rooms.errors) == (1, 1)
        rooms.store.fails = None
        rooms.reach.found()
        await until(lambda: not rooms.living.unkept)
    assert (await kept(rooms, alert)).decision == labelled(alert)


async def test_after_the_store_has_lost_everything_everything_is_written(rooms):
    alerts = [firing(rooms.time, name) for name in "ABC"]
    for alert in alerts:
        take_up(rooms.living, labelled(alert), alert)
    await rooms.keep()
    rooms.store.lose_everything()
    async with running(rooms.keeper.run()):
        rooms.living.nothing_is_kept()
        await until(lambda: not rooms.living.unkept)
    assert [(await kept(rooms, alert)).decision for alert in alerts] == [labelled(alert) for alert in alerts]


async def test_a_decision_that_cannot_be_kept_holds_up_no_other(rooms, monkeypatch):
    alert, odd = firing(rooms.time), firing(rooms.time, "Odd")
    claim = rooms.store.claim

    async def but_for_the_odd_one(new, *, patient=False):
        if any(kept.decision.identity == odd.identity for kept in new):
            raise ZeroDivisionError
        return await claim(new, patient=patient)

    monkeypatch.setattr(rooms.store, "claim", but_for_the_odd_one)
    with capture_logs() as logs:
        async with running(rooms.keeper.run()):
            for one in (odd, alert):
                take_up(rooms.living, labelled(one), one)
            await until(lambda: not rooms.living.unkept)
    assert [entry["event"].startswith("a bug") for entry in logs] == [True, True]
    assert (await kept(rooms, alert)).decision == labelled(alert)
    monkeypatch.undo()
    sweep(rooms.living)
    await rooms.keep()
    assert (await kept(rooms, odd)).decision == labelled(odd), "it is tried again"


async def test_with_nothing_to_keep_it_rests(rooms, monkeypatch):
    async with running(rooms.keeper.run()):
        take_up(rooms.living, labelled(firing(rooms.time)), firing(rooms.time))
        await until(lambda: rooms.store.asked and not rooms.living.unkept)
        looked = []
        monkeypatch.setattr(rooms.living, "take_unkept", lambda at_most: looked.append(at_most) or [])
        await asyncio.sleep(0.02)
        assert looked == []


async def test_what_has_ended_is_swept_away(rooms, monkeypatch):
    monkeypatch.setattr(keeper, "SWEEP", 0.001)
    take_up(rooms.living, labelled(firing(rooms.time)), firing(rooms.time))
    async with running(rooms.keeper.run()):
        rooms.time.passes(minutes=63)
        await asyncio.sleep(0.01)
        assert len(rooms.living) == 1
        rooms.time.passes(minutes=2)
        await until(lambda: len(rooms.living) == 0)


async def test_an_alert_that_goes_on_is_written_before_the_store_forgets_it(rooms, monkeypatch):
    monkeypatch.setattr(keeper, "SWEEP", 0.001)
    alert = firing(rooms.time)
    take_up(rooms.living, labelled(alert), alert)
    await rooms.keep()
    left = (await kept(rooms, alert)).left
    async with running(rooms.keeper.run()):
        rooms.time.passes(seconds=STALE + 1)
        rooms.living.seen(firing(rooms.time))
        await until(lambda: len(rooms.store.asked) == 2)
    assert (await kept(rooms, alert)).left == pytest.approx(left, abs=5)


async def test_the_last_words_take_no_longer_than_they_may(rooms):
    async def hangs(_):
        await asyncio.Event().wait()

    rooms.store.claim = hangs
    take_up(rooms.living, labelled(firing(rooms.time)), firing(rooms.time))
    await asyncio.wait_for(rooms.keeper.finish(0.01), 5)
    assert rooms.living.unkept == 1


# Whose labels give way


async def test_in_a_shared_store_the_claim_that_came_first_is_taken_over_and_counted(rooms):
    alert = firing(rooms.time)
    await MemoryStore.claim(rooms.store, [held(labelled(alert), life=99)])
    take_up(rooms.living, labelled(alert, "info"), alert)
    with capture_logs() as logs:
        await rooms.keep()
    assert rooms.living.seen(alert) == labelled(alert)
    assert rooms.living.former(alert.identity) == (added("info"),)
    assert rooms.handovers == [1]
    assert [entry["log_level"] for entry in logs] == ["warning"]


async def test_the_same_labels_are_no_handover_and_the_life_is_the_first_ones(rooms):
    alert = firing(rooms.time)
    await MemoryStore.claim(rooms.store, [held(labelled(alert), life=99)])
    take_up(rooms.living, labelled(alert), alert)
    await rooms.keep()
    assert (rooms.handovers, rooms.living.handing_over) == ([], 0)
    rooms.living.nothing_is_kept()
    assert rooms.living.take_unkept(1)[0].life == 99


async def test_in_a_store_of_this_proxy_alone_a_left_over_gives_way(rooms):
    rooms = Rooms(MemoryStore())
    alert, other = firing(rooms.time), firing(rooms.time, "B")
    await rooms.store.claim([held(labelled(alert), life=99)])
    take_up(rooms.living, labelled(alert, "info"), alert)
    take_up(rooms.living, bare(other), other)
    await rooms.keep()
    assert rooms.living.seen(alert) == labelled(alert, "info")
    assert [(await kept(rooms, a)).decision for a in (alert, other)] == [labelled(alert, "info"), bare(other)]
    assert (rooms.handovers, rooms.living.handing_over, rooms.living.unkept) == ([], 0, 0)


async def test_nothing_is_written_before_what_the_store_holds_is_known():
    """A decision that was made without knowing of it must not take its place."""
    rooms = Rooms(MemoryStore())
    alert = firing(rooms.time)
    await rooms.store.claim([held(labelled(alert), life=99)])
    take_up(rooms.living, labelled(alert, "info"), alert, provisional=True)
    await rooms.keeper.finish(5)
    assert (await kept(rooms, alert)).decision == labelled(alert)
    await rooms.keep()
    assert (await kept(rooms, alert)).decision == labelled(alert)
    assert rooms.living.seen(alert) == labelled(alert)


async def test_where_nothing_is_left_over_one_claim_is_enough():
    class Counted(MemoryStore):
        claims = 0

        async def claim(self, new, *, patient=False):
            self.claims += 1
            return await super().claim(new)

    rooms = Rooms(Counted())
    take_up(rooms.living, labelled(firing(rooms.time)), firing(rooms.time))
    await rooms.keep()
    assert rooms.store.claims == 1


async def test_the_store_hears_of_the_new_life_in_the_place_of_the_old_one(rooms):
    alert = firing(rooms.time)
    take_up(rooms.living, labelled(alert), alert)
    await rooms.keep()
    rooms.living.seen(resolved(alert, rooms.time))
    rooms.time.passes(minutes=16)
    anew = firing(rooms.time, begun=rooms.time.now)
    assert rooms.living.seen(anew) is None
    take_up(rooms.living, labelled(anew, "info"), anew)
    await rooms.keep()
    assert (await kept(rooms, alert)).decision == labelled(anew, "info")
    assert rooms.handovers == []


async def test_a_life_that_another_proxy_has_gone_on_with_is_not_replaced_under_it():
    """It missed the resolve, and has told that the alert fires beyond the new beginning."""
    store = SharedStore()
    one = Rooms(store)
    other = Rooms(store, time=one.time)
    alert = firing(one.time)
    for rooms in (one, other):
        take_up(rooms.living, labelled(alert), alert)
        await rooms.keep()
    one.living.seen(resolved(alert, one.time))
    await one.keep()
    one.time.passes(minutes=16)
    anew = firing(one.time, begun=one.time.now)
    assert other.living.seen(anew) == labelled(alert)
    await other.keep()
    assert one.living.seen(anew) is None
    take_up(one.living, labelled(anew, "info"), anew)
    await one.keep()
    assert one.living.seen(anew) == labelled(alert)
    assert (one.handovers, other.handovers) == ([1], [])


async def test_another_proxys_new_life_is_heard_of_with_the_resolve_or_the_new_beginning():
    """The one that saw both decides anew; the other missed the resolve, and hears of it when it tells the startsAt."""
    store = SharedStore()
    one = Rooms(store)
    other = Rooms(store, time=one.time)
    alert = firing(one.time)
    for rooms in (one, other):
        take_up(rooms.living, labelled(alert), alert)
        await rooms.keep()
    one.living.seen(resolved(alert, one.time))
    one.time.passes(minutes=16)
    anew = firing(one.time, begun=one.time.now)
    assert one.living.seen(anew) is None
    take_up(one.living, labelled(anew, "info"), anew)
    await one.keep()
    assert other.living.seen(anew) == labelled(alert)
    await other.keep()
    assert other.living.seen(anew) == labelled(anew, "info")
    assert (one.handovers, other.handovers) == ([], [1])
