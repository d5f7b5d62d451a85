"""Switching the mode of one proxy: when Alertmanager is asked first, who wins of two, and what a start takes up."""

import asyncio
from datetime import timedelta

import pytest
from simulated import NOW
from structlog.testing import capture_logs
from switching import ENRICHED, PLAIN, TEXT, Switched, choice

from proxy.decisions.canary import Canary
from proxy.decisions.state import State
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import StoreError, Superseded, SwitchRefused

HOUR = timedelta(hours=1)
LATER = NOW + HOUR


class Broken(MemoryStore):
    """Cannot write while it is."""

    broken = True

    async def write_state(self, state):
        if self.broken:
            raise StoreError("gone")
        await super().write_state(state)


async def holding(state, store=None):
    """A store that holds `state`, or that text."""
    store = store or MemoryStore()
    await MemoryStore.write_state(store, state if isinstance(state, str) else state.write())
    return store


# A start


@pytest.mark.parametrize(("mode", "since"), [(PLAIN, None), (TEXT, None), (ENRICHED, NOW)])
async def test_where_nothing_is_written_the_configuration_holds_and_is_written(mode, since):
    made = await Switched(mode, canary=Canary(25)).start()
    assert (made.mode, made.since, made.rollout.canary) == (mode, since, Canary(25))
    assert (made.switch.source, made.switch.choice) == ("config", None)
    assert (await made.written()).labelling_since == since


async def test_what_was_switched_outranks_the_configuration_at_a_start():
    switched = choice(ENRICHED, NOW - HOUR, canary=Canary(10))
    store = await holding(State(5, switched, NOW - HOUR))
    made = await Switched(PLAIN, store, canary=Canary(25)).start()
    assert (made.mode, made.since, made.rollout.canary) == (ENRICHED, NOW - HOUR, Canary(10))
    assert (made.switch.source, made.switch.choice) == ("memory", switched)
    assert (await made.written()).revision == 5, "nothing is new"


async def test_labelling_goes_on_over_a_restart_with_the_store():
    first = await Switched(ENRICHED).start()
    first.time.passes(hours=1)
    again = await Switched(ENRICHED, first.store, first.time).start()
    assert again.since == NOW


async def test_a_start_in_another_mode_ends_the_labelling():
    first = await Switched(ENRICHED).start()
    await Switched(PLAIN, first.store, first.time).start()
    first.time.passes(hours=1)
    again = await Switched(ENRICHED, first.store, first.time).start()
    assert again.since == LATER


@pytest.mark.parametrize("switched_to", [PLAIN, ENRICHED], ids=str)
async def test_a_switch_that_expired_meanwhile_is_over_and_nobody_knows_what_passed_since(switched_to):
    expired = choice(switched_to, NOW - 2 * HOUR, until=NOW - HOUR)
    store = await holding(State(5, expired, NOW - HOUR))
    made = await Switched(ENRICHED, store).start()
    assert (made.mode, made.since, made.switch.choice) == (ENRICHED, NOW, None)
    written = await made.written()
    assert (written.choice, written.labelling_since, written.revision > 5) == (None, NOW, True)


@pytest.mark.parametrize("text", ["", "{}", '{"revision": 7}', "[1]", "\u20ac"], ids=repr)
async def test_what_cannot_be_read_is_an_error_and_replaced(text):
    store = await holding(text)
    with capture_logs() as logs:
        made = await Switched(ENRICHED, store).start()
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert (made.mode, made.since) == (ENRICHED, NOW)
    assert (await made.written()).labelling_since == NOW


async def test_a_store_that_is_away_at_the_start_costs_nothing_and_is_written_when_it_is_back():
    store = Broken()
    made = Switched(ENRICHED, store)
    await made.switch.start(None)
    assert (made.mode, made.since) == (ENRICHED, NOW)
    store.broken = False
    await made.hears()
    assert (await made.written()).labelling_since == NOW


# A switch


@pytest.mark.parametrize(
    ("was", "mode", "asked"),
    [
        pytest.param(PLAIN, ENRICHED, 1, id="what passed unread must be known as bare"),
        pytest.param(TEXT, ENRICHED, 1, id="so must what came before the start"),
        pytest.param(ENRICHED, ENRICHED, 0, id="no change"),
        pytest.param(ENRICHED, PLAIN, 0, id="off at once"),
        pytest.param(PLAIN, TEXT, 0, id="text needs no recovery"),
    ],
)
async def test_alertmanager_is_asked_before_labelling_begins(was, mode, asked):
    made = await Switched(was).start()
    await made.switch.to(mode)
    assert (made.mode, made.recovery.asked) == (mode, asked)


async def test_a_reset_begins_labelling_no_other_way():
    made = await Switched(ENRICHED).start()
    await made.switch.to(PLAIN)
    await made.switch.to(None)
    assert (made.mode, made.recovery.asked) == (ENRICHED, 1)


async def test_the_mode_changes_after_alertmanager_was_asked():
    made = await Switched(PLAIN).start()
    made.recovery.answered.clear()
    task = asyncio.create_task(made.switch.to(ENRICHED))
    await asyncio.sleep(0)
    assert (made.recovery.asked, made.mode) == (1, PLAIN)
    made.time.passes(seconds=9)
    made.recovery.answered.set()
    await task
    assert (made.mode, made.since) == (ENRICHED, NOW + timedelta(seconds=9)), "all that passed until then is bare"


@pytest.mark.parametrize("later", [PLAIN, TEXT, None], ids=str)
async def test_a_later_switch_overtakes_one_that_waits(later):
    made = await Switched(PLAIN).start()
    made.recovery.answered.clear()
    earlier = asyncio.create_task(made.switch.to(ENRICHED))
    await asyncio.sleep(0)
    await made.switch.to(later)
    made.recovery.answered.set()
    with pytest.raises(Superseded):
        await earlier
    assert made.mode is (later or PLAIN)


async def test_of_two_that_wait_the_later_one_holds():
    made = await Switched(PLAIN).start()
    made.recovery.answered.clear()
    both = [asyncio.create_task(made.switch.to(ENRICHED, by=who)) for who in ("me", "you")]
    await asyncio.sleep(0)
    made.recovery.answered.set()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first, Superseded)
    assert second is None
    assert (made.mode, made.switch.choice.by) == (ENRICHED, "you")


async def test_a_switch_that_cannot_be_kept_raises_and_changes_nothing():
    store = Broken()
    made = await Switched(PLAIN, store).start()
    with pytest.raises(StoreError):
        await made.switch.to(ENRICHED)
    assert (made.mode, made.since, made.switch.source) == (PLAIN, None, "config")
    store.broken = False
    await made.hears()
    assert (await made.written()).choice is None


async def test_where_nobody_may_switch_the_reason_is_said_and_nothing_is_asked():
    made = await Switched(PLAIN).start()
    made.refused = "not alone"
    with pytest.raises(SwitchRefused, match="not alone"):
        await made.switch.to(ENRICHED)
    assert (made.mode, made.recovery.asked) == (PLAIN, 0)


async def test_a_switch_says_who_asked_from_where_and_until_when():
    made = await Switched(PLAIN).start()
    with capture_logs() as logs:
        await made.switch.to(TEXT, by="ada", origin="10.0.0.1", lasting=HOUR, canary=Canary(5))
    shown = made.switch.choice.shown()
    assert shown == {
        "mode": "transparent_with_recommendations",
        "at": NOW.isoformat(),
        "by": "ada",
        "from": "10.0.0.1",
        "until": LATER.isoformat(),
        "canary": {"percent": 5, "by": "alertname", "matchers": []},
    }
    [said] = logs
    assert (said["log_level"], said["by"], said["origin"], said["until"]) == (
        "warning",
        "ada",
        "10.0.0.1",
        LATER.isoformat(),
    )
    assert (await made.written()).choice == made.switch.choice


async def test_labelling_begins_with_the_switch_goes_on_with_the_next_and_begins_anew_after_a_break():
    made = await Switched(PLAIN).start()
    made.time.passes(minutes=1)
    begun = made.time.now
    await made.switch.to(ENRICHED)
    assert (made.since, made.switch.source) == (begun, "memory")
    made.time.passes(minutes=1)
    await made.switch.to(ENRICHED, canary=Canary(50))
    assert (made.since, made.rollout.canary) == (begun, Canary(50))
    await made.switch.to(PLAIN)
    assert (made.since, (await made.written()).labelling_since) == (None, None)
    made.time.passes(minutes=1)
    await made.switch.to(ENRICHED)
    assert made.since == made.time.now


async def test_a_reset_is_back_to_the_configuration_with_its_canary():
    made = await Switched(ENRICHED, canary=Canary(25)).start()
    made.time.passes(minutes=1)
    await made.switch.to(ENRICHED, canary=Canary(100))
    await made.switch.to(None)
    assert (made.mode, made.rollout.canary, made.switch.source, made.since) == (ENRICHED, Canary(25), "config", NOW)
    assert (await made.written()).choice is None


async def test_after_a_reset_to_a_mode_that_does_not_label_labelling_is_over():
    made = await Switched(PLAIN).start()
    await made.switch.to(ENRICHED)
    await made.switch.to(None)
    assert (made.mode, (await made.written()).labelling_since) == (PLAIN, None)


# A configuration that was read again


@pytest.mark.parametrize(
    ("was", "mode", "asked"),
    [
        pytest.param(PLAIN, ENRICHED, 1, id="labelling begins"),
        pytest.param(ENRICHED, ENRICHED, 0, id="labelling goes on"),
        pytest.param(ENRICHED, PLAIN, 0, id="labelling ends"),
        pytest.param(PLAIN, TEXT, 0, id="text alone"),
    ],
)
async def test_alertmanager_is_asked_before_another_configuration_begins_to_label(was, mode, asked):
    made = await Switched(was).start()
    made.recovery.answered.clear()
    task = asyncio.create_task(made.switch.configure(mode, Canary(50)))
    await asyncio.sleep(0)
    assert (made.recovery.asked, made.mode) == (asked, was if asked else mode)
    made.recovery.answered.set()
    await task
    assert (made.mode, made.rollout.canary) == (mode, Canary(50))


# A switch for a time


async def test_a_switch_for_a_time_ends_by_itself():
    made = await Switched(PLAIN).start()
    await made.switch.to(ENRICHED, lasting=HOUR)
    made.time.passes(minutes=59)
    await made.switch.follow()
    assert made.mode is ENRICHED
    made.time.passes(minutes=1)
    await made.switch.follow()
    assert (made.mode, made.switch.choice, made.switch.source) == (PLAIN, None, "config")
    assert (await made.written()).labelling_since is None


async def test_labelling_that_begins_by_itself_is_announced_when_the_switch_is_made():
    """All proxies know the moment beforehand; and what passes until then is known as bare."""
    made = await Switched(ENRICHED).start()
    await made.switch.to(PLAIN, lasting=HOUR)
    assert (made.mode, made.since, (await made.written()).labelling_since) == (PLAIN, None, LATER)
    made.time.passes(minutes=30)
    await made.switch.follow()
    assert ((await made.written()).labelling_since, made.recovery.asked) == (LATER, 0)
    made.time.passes(minutes=31)
    await made.switch.follow()
    assert (made.mode, made.since, made.recovery.asked) == (ENRICHED, LATER, 1)


async def test_what_was_announced_holds_over_a_restart():
    made = await Switched(ENRICHED).start()
    await made.switch.to(PLAIN, lasting=HOUR)
    again = await Switched(ENRICHED, made.store, made.time).start()
    assert (again.mode, (await again.written()).labelling_since) == (PLAIN, LATER)
    made.time.passes(minutes=61)
    await again.switch.follow()
    assert (again.mode, again.since) == (ENRICHED, LATER)


async def test_labelling_for_a_time_goes_on_where_it_is_configured():
    made = await Switched(ENRICHED, canary=Canary(10)).start()
    await made.switch.to(ENRICHED, lasting=HOUR, canary=Canary(50))
    made.time.passes(hours=1)
    await made.switch.follow()
    assert (made.mode, made.since, made.rollout.canary) == (ENRICHED, NOW, Canary(10))


async def test_the_clock_is_followed_without_being_asked(monkeypatch):
    monkeypatch.setattr("proxy.decisions.switch.TICK", 0.001)
    made = await Switched(PLAIN).start()
    await made.switch.to(ENRICHED, lasting=HOUR)
    with capture_logs() as logs:
        task = asyncio.create_task(made.switch.run())
        made.time.passes(hours=1)
        async with asyncio.timeout(5):
            while made.mode is ENRICHED:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        task.cancel()
    assert [entry["event"] for entry in logs] == ["the switch has expired"]


async def test_as_long_as_nothing_changes_nothing_is_asked_and_nothing_written():
    store = Broken()
    store.broken = False
    made = await Switched(ENRICHED, store).start()
    store.broken = True
    for _ in range(3):
        made.time.passes(hours=1)
        await made.switch.follow()
    assert (made.recovery.asked, made.since) == (0, NOW)
