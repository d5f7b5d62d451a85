"""One switch for all proxies of a store: what the others hear, and what a store that lost it costs."""

import asyncio
from datetime import timedelta

import pytest
from deciding import SharedStore, running, until
from simulated import NOW, Time
from structlog.testing import capture_logs
from switching import ENRICHED, PLAIN, TEXT, Switched, choice

from proxy.decisions import switch
from proxy.decisions.canary import Canary
from proxy.decisions.state import State
from proxy.decisions.switch import LEAD
from proxy.errors import StoreError

HOUR = timedelta(hours=1)


@pytest.fixture
def store():
    return SharedStore()


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def proxies(store, time):
    async def make(*modes):
        return [await Switched(mode, store, time).start() for mode in modes]

    return make


async def test_all_follow_and_begin_to_label_at_one_moment_that_is_still_to_come(proxies, time):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED, by="ada", canary=Canary(10))
    time.passes(seconds=1)
    with capture_logs() as logs:
        await other.hears()
    assert (one.since, other.since) == (NOW + LEAD, NOW + LEAD)
    assert (other.mode, other.rollout.canary, other.switch.source) == (ENRICHED, Canary(10), "redis")
    assert [(entry["event"], entry["by"]) for entry in logs] == [("mode switched elsewhere", "ada")]


async def test_a_proxy_alone_begins_at_once():
    alone = await Switched(PLAIN).start()
    await alone.switch.to(ENRICHED)
    assert alone.since == NOW


async def test_who_follows_asks_alertmanager_first(proxies):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED)
    other.recovery.answered.clear()
    task = asyncio.create_task(other.hears())
    await asyncio.sleep(0)
    await other.hears()
    assert (other.mode, other.recovery.asked) == (PLAIN, 1), "once, though the beat goes on"
    other.recovery.answered.set()
    await task
    assert other.mode is ENRICHED


async def test_alertmanager_is_asked_once_however_often_the_clock_is_followed_meanwhile(proxies):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED)
    other.recovery.answered.clear()
    tasks = [asyncio.create_task(other.hears()), *(asyncio.create_task(other.switch.follow()) for _ in range(3))]
    for _ in range(5):
        await asyncio.sleep(0)
    other.recovery.answered.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert (other.mode, other.recovery.asked) == (ENRICHED, 1)


async def test_a_switch_back_while_somebody_still_follows_holds(proxies):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED)
    other.recovery.answered.clear()
    task = asyncio.create_task(other.hears())
    await asyncio.sleep(0)
    await one.switch.to(PLAIN)
    await asyncio.wait_for(asyncio.gather(other.hears(), task, let_go(other)), 5)
    assert other.mode is PLAIN


async def let_go(switched):
    await asyncio.sleep(0)
    switched.recovery.answered.set()


async def test_what_was_heard_already_is_no_news(proxies):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(TEXT)
    with capture_logs() as logs:
        await other.hears()
        await other.hears()
    assert len(logs) == 1


async def test_a_reset_is_followed_too(proxies):
    one, other = await proxies(ENRICHED, ENRICHED)
    await one.switch.to(PLAIN)
    await other.hears()
    await other.switch.to(None)
    await one.hears()
    assert (one.mode, one.switch.choice, one.since) == (ENRICHED, None, other.since)


async def test_who_switches_to_what_is_labelled_already_ends_nothing(proxies, time):
    one, other = await proxies(ENRICHED, ENRICHED)
    begun = one.since
    time.passes(hours=1)
    await other.switch.to(ENRICHED)
    await one.hears()
    assert (one.since, other.since) == (begun, begun)


async def test_a_later_start_goes_by_what_was_written_first(proxies, time):
    [one] = await proxies(ENRICHED)
    time.passes(hours=1)
    [other] = await proxies(ENRICHED)
    assert (one.since, other.since) == (NOW + LEAD, NOW + LEAD)


async def test_a_start_at_which_nothing_is_new_writes_nothing(proxies, store):
    await proxies(ENRICHED, ENRICHED, ENRICHED)
    assert store.asked.count("write_state") == 1


async def test_who_started_while_the_store_was_away_goes_by_what_it_holds(proxies, store, time):
    [one] = await proxies(ENRICHED)
    time.passes(hours=1)
    other = Switched(ENRICHED, store, time)
    store.fails = StoreError("gone")
    await other.switch.start(None)
    assert other.since == time.now + LEAD
    store.fails = None
    await other.hears()
    assert (other.since, (await one.written()).labelling_since) == (NOW + LEAD, NOW + LEAD)


# A store that lost it


@pytest.mark.parametrize("lost", [None, State().write(), "garbage"], ids=["missing", "older", "unreadable"])
async def test_what_the_store_lost_is_written_again_and_nothing_flips(proxies, store, lost):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED)
    await other.hears()
    before = await one.written()
    store._state = lost
    for switched in (other, one):
        await switched.hears()
        assert switched.mode is ENRICHED
    assert await one.written() == before
    assert (one.recovery.asked, other.recovery.asked) == (1, 1)


async def test_a_store_that_is_away_changes_nothing(proxies, store):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(ENRICHED)
    await other.hears()
    store.fails = StoreError("gone")
    with pytest.raises(StoreError):
        await one.switch.to(PLAIN)
    await one.switch.heard(None)
    assert (one.mode, other.mode) == (ENRICHED, ENRICHED)


async def test_of_two_that_switch_at_once_the_one_that_the_store_holds_is_followed(proxies, store):
    one, other = await proxies(PLAIN, PLAIN)
    await one.switch.to(TEXT)
    await other.switch.to(ENRICHED)
    assert (await one.written()).revision == 1
    await one.hears()
    await other.hears()
    assert (one.mode, other.mode) == (ENRICHED, ENRICHED)


# Proxies that are configured otherwise


async def test_a_proxy_that_is_configured_transparent_does_not_end_the_labelling_of_others(proxies, store, time):
    [one] = await proxies(ENRICHED)
    begun = one.since
    other = Switched(PLAIN, store, time)
    other.others_label = True
    await other.start()
    time.passes(hours=1)
    await other.switch.follow()
    await one.hears()
    assert (one.since, (await one.written()).labelling_since) == (begun, begun)
    assert other.mode is PLAIN


async def test_when_it_was_the_last_one_the_labelling_is_over(proxies, store, time):
    await proxies(ENRICHED)
    [other] = await proxies(PLAIN)
    assert (await other.written()).labelling_since is None


async def test_a_switch_that_expires_where_others_label_by_configuration_does_not_end_theirs(proxies, time):
    one, other = await proxies(PLAIN, ENRICHED)
    await one.switch.to(ENRICHED, lasting=HOUR)
    await other.hears()
    begun = other.since
    one.others_label = True
    time.passes(hours=1)
    await one.switch.follow()
    await other.hears()
    assert (one.mode, other.mode, other.since) == (PLAIN, ENRICHED, begun)


async def test_who_labels_by_configuration_where_nothing_says_since_when_begins_by_itself(proxies, store, time):
    one, other = await proxies(ENRICHED, PLAIN)
    await other.switch.to(PLAIN)
    await one.hears()
    assert (one.mode, one.since) == (PLAIN, None)
    time.passes(minutes=5)
    await other.switch.to(None)
    await one.hears()
    assert (one.mode, one.since) == (ENRICHED, time.now + LEAD)
    time.passes(minutes=5)
    await one.switch.follow()
    assert one.since == NOW + timedelta(minutes=5) + LEAD, "once"


async def test_a_beginning_that_others_moved_is_followed(proxies, store, time):
    [one] = await proxies(ENRICHED)
    moved = time.now + HOUR
    await store.write_state(State(9, None, moved).write())
    await one.hears()
    assert (one.since, one.recovery.asked) == (moved, 0)


async def test_what_is_heard_and_over_already_is_the_configuration(proxies, store, time):
    [one] = await proxies(PLAIN)
    over = choice(ENRICHED, NOW - 2 * HOUR, until=NOW - HOUR)
    await store.write_state(State(9, over, NOW - 2 * HOUR).write())
    await one.hears()
    assert (one.mode, one.switch.choice, one.recovery.asked) == (PLAIN, None, 0)


async def test_a_store_that_did_not_answer_at_the_start_loses_no_switch(proxies, store, time):
    [one] = await proxies(ENRICHED)
    await one.switch.to(PLAIN, by="ada")
    late = Switched(ENRICHED, store, time)
    await late.switch.start(None, known=False)
    assert late.mode is ENRICHED, "what is configured, until more is known"
    assert (await late.written()).choice.by == "ada", "nothing was written"
    await late.hears()
    assert (late.mode, late.switch.choice.by) == (PLAIN, "ada")


async def test_a_store_that_did_not_answer_and_turns_out_empty_gets_what_holds(store, time):
    late = Switched(ENRICHED, store, time)
    await late.switch.start(None, known=False)
    began = late.since
    time.passes(seconds=30)
    await late.hears()
    assert (late.mode, late.since) == (ENRICHED, began)
    assert (await late.written()).labelling_since == began


async def test_until_the_store_has_answered_nothing_is_switched_and_a_reload_writes_nothing(proxies, store, time):
    [one] = await proxies(ENRICHED)
    await one.switch.to(PLAIN, by="ada")
    late = Switched(TEXT, store, time)
    await late.switch.start(None, known=False)
    with pytest.raises(StoreError, match="may hold a switch"):
        await late.switch.to(TEXT)
    await late.switch.configure(ENRICHED, Canary())
    assert late.mode is ENRICHED
    assert (await late.written()).choice.by == "ada"
    await late.hears()
    assert late.mode is PLAIN


async def test_a_switch_heard_of_late_asks_alertmanager_before_anything_is_labelled(proxies, store, time):
    """What passed unread since the start is bare there."""
    [one] = await proxies(PLAIN)
    await one.switch.to(ENRICHED)
    late = Switched(PLAIN, store, time)
    await late.switch.start(None, known=False)
    assert (late.mode, late.recovery.asked) == (PLAIN, 0)
    late.recovery.answered.clear()
    task = asyncio.create_task(late.hears())
    await asyncio.sleep(0)
    assert (late.mode, late.recovery.asked) == (PLAIN, 1)
    late.recovery.answered.set()
    await task
    assert (late.mode, late.since) == (ENRICHED, one.since)


class Remembered:
    def __init__(self, text=None):
        self.text = text

    def read(self):
        return self.text

    def write(self, state):
        self.text = state


async def test_what_was_known_last_holds_while_a_store_does_not_answer_at_the_start(proxies, store, time):
    memory = Remembered()
    one = await Switched(PLAIN, store, time, memory=memory).start()
    await one.switch.to(ENRICHED, by="ada")
    begun = one.since
    time.passes(hours=1)
    again = Switched(PLAIN, store, time, memory=memory)
    await again.switch.start(None, known=False)
    assert (again.mode, again.since, again.switch.choice.by) == (ENRICHED, begun, "ada")
    with pytest.raises(StoreError, match="may hold a switch"):
        await again.switch.to(TEXT)
    await again.hears()
    assert (again.mode, again.since, again.recovery.asked) == (ENRICHED, begun, 0)


async def test_what_was_switched_meanwhile_outranks_what_was_known_last(proxies, store, time):
    memory = Remembered()
    one = await Switched(PLAIN, store, time, memory=memory).start()
    await one.switch.to(ENRICHED)
    known = memory.text
    await one.switch.to(TEXT)
    again = Switched(PLAIN, store, time, memory=Remembered(known))
    await again.switch.start(None, known=False)
    assert again.mode is ENRICHED
    await again.hears()
    assert again.mode is TEXT


async def test_what_was_known_last_is_written_into_a_store_that_has_lost_it(store, time):
    known = State(5, choice(ENRICHED, NOW - HOUR), NOW - HOUR).write()
    again = Switched(PLAIN, store, time, memory=Remembered(known))
    await again.switch.start(None, known=False)
    await again.hears()
    assert (await again.written()).revision == 5
    assert again.mode is ENRICHED


async def test_what_was_known_last_and_has_expired_holds_no_more(store, time):
    known = State(5, choice(ENRICHED, NOW - 2 * HOUR, until=NOW - HOUR), NOW - 2 * HOUR).write()
    again = Switched(PLAIN, store, time, memory=Remembered(known))
    await again.switch.start(None, known=False)
    assert (again.mode, again.switch.choice) == (PLAIN, None)


class Slow(SharedStore):
    """Takes its time to write."""

    def __init__(self):
        super().__init__()
        self.may_write = asyncio.Event()

    async def write_state(self, state):
        await self.may_write.wait()
        await super().write_state(state)


async def test_a_reload_while_a_switch_is_kept_does_not_undo_it(time):
    store = Slow()
    store.may_write.set()
    one = await Switched(PLAIN, store, time).start()
    store.may_write.clear()
    switching = asyncio.create_task(one.switch.to(TEXT))
    await asyncio.sleep(0)
    assert one.switch.is_switching, "what comes in now is read"
    reloading = asyncio.create_task(one.switch.configure(ENRICHED, Canary()))
    for _ in range(5):
        await asyncio.sleep(0)
    store.may_write.set()
    await asyncio.gather(switching, reloading)
    assert not one.switch.is_switching
    assert (one.mode, (await one.written()).choice.mode) == (TEXT, TEXT)
    await one.hears()
    assert one.mode is TEXT


async def test_only_a_switch_that_was_there_expires(proxies, time, monkeypatch):
    monkeypatch.setattr(switch, "TICK", 0.001)
    [one] = await proxies(PLAIN)
    one.recovery.answered.clear()
    with capture_logs() as logs:
        async with running(one.switch.run()):
            reloading = asyncio.create_task(one.switch.configure(ENRICHED, Canary()))
            await asyncio.sleep(0.01)
            one.recovery.answered.set()
            await reloading
            await asyncio.sleep(0.01)
        assert logs == []
        await one.switch.to(PLAIN, lasting=HOUR)
        async with running(one.switch.run()):
            time.passes(hours=2)
            await until(lambda: one.mode is ENRICHED)
            await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logs] == ["mode switched", "the switch has expired"]
