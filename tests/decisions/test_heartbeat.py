"""What the proxies of one store hear of each other."""

import asyncio
import json
from dataclasses import replace

import pytest
from deciding import Rooms, SharedStore, added, firing, labelled, running, take_up, until
from structlog.testing import capture_logs

from proxy.decisions import heartbeat
from proxy.decisions.heartbeat import Heartbeat
from proxy.decisions.store import Change
from proxy.errors import StoreError, StoreTimeout


class Store(SharedStore):
    """Tells what the test puts into `news`; an exception ends the telling."""

    def __init__(self):
        super().__init__()
        self.news = asyncio.Queue()

    async def changes(self):
        while True:
            change = await self.news.get()
            if isinstance(change, Exception):
                raise change
            yield change


class Switch:
    def __init__(self):
        self.heard_of = []
        self.fails = None

    async def heard(self, written):
        self.heard_of.append(written)
        if self.fails is not None:
            raise self.fails


class Made:
    """A heartbeat and what it needs."""

    def __init__(self, store=None, name="one", **me):
        self.rooms = Rooms(store or Store())
        self.store, self.reach, self.living = self.rooms.store, self.rooms.reach, self.rooms.living
        self.me = {"mode": "transparent", "labelled": 0, "agreement": "x", **me}
        self.beat = Heartbeat(self.store, self.reach, self.living, name=name, me=lambda: self.me)
        self.switch = Switch()

    def others_say(self, **me):
        self.store.peers["other"] = json.dumps({"mode": "transparent", "labelled": 0, "agreement": "x", **me})

    def running(self):
        return running(self.beat.run(self.switch))


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_SHARED", 0.002)
    monkeypatch.setattr(heartbeat, "EVERY", 0.002)


@pytest.fixture
def made():
    return Made()


async def test_the_first_beat_brings_what_was_switched(made):
    assert await made.beat.first() == (True, None)
    await made.store.write_state("state")
    assert await made.beat.first() == (True, "state")
    assert made.beat.peers == {"one": made.me}


async def test_a_store_that_is_away_at_the_start_is_away_and_nothing_else(made):
    made.store.fails = StoreError("gone")
    assert await made.beat.first() == (False, None)
    assert (made.reach.up, made.beat.peers, made.beat.others_label) == (False, {}, False)


@pytest.mark.parametrize(("refusals", "known"), [(1, True), (2, True), (3, False)])
async def test_a_store_that_is_just_not_there_yet_at_the_start_is_asked_again(made, monkeypatch, refusals, known):
    beat, errors = made.store.beat, [StoreError("starting")] * refusals

    async def starting(name, me):
        if errors:
            raise errors.pop()
        return await beat(name, me)

    monkeypatch.setattr(made.store, "beat", starting)
    await made.store.write_state("state")
    assert await made.beat.first() == (known, "state" if known else None)


@pytest.mark.parametrize(
    ("they", "label"),
    [
        pytest.param({}, False, id="transparent, with nothing labelled"),
        pytest.param({"mode": "transparent_with_recommendations"}, False, id="text alone"),
        pytest.param({"mode": "enriched"}, True, id="enriched"),
        pytest.param({"labelled": 1}, True, id="transparent, and what was labelled still lives"),
        pytest.param({"mode": None, "labelled": None}, False, id="says nothing of it"),
    ],
)
async def test_whether_others_label(made, they, label):
    made.me |= {"mode": "enriched", "labelled": 7}
    await made.beat.first()
    assert not made.beat.others_label, "this one itself is none of the others"
    made.others_say(**they)
    await made.beat.first()
    assert made.beat.others_label is label


async def test_who_is_heard_of_and_cannot_use_the_store_does_not_reach_it(made):
    made.me["reaches"] = True
    made.others_say(reaches=False)
    await made.beat.first()
    assert (len(made.beat.peers), made.beat.reaching) == (2, 1)
    made.others_say(reaches=True)
    await made.beat.first()
    assert made.beat.reaching == 2


@pytest.mark.parametrize("said", ["", "7", "[]", '"enriched"', "{"])
async def test_what_another_version_says_that_nobody_understands_says_nothing(made, said):
    made.store.peers["other"] = said
    await made.beat.first()
    assert (made.beat.peers["other"], made.beat.others_label) == ({}, False)


@pytest.mark.parametrize(("agreement", "agree"), [("x", True), ("y", False)])
async def test_whether_all_are_configured_alike(made, agreement, agree):
    assert made.beat.agree, "before anybody was heard of"
    made.others_say(agreement=agreement)
    await made.beat.first()
    assert made.beat.agree is agree


async def test_what_the_others_are_told_is_what_holds_now(made):
    async with made.running():
        await until(lambda: "one" in made.store.peers)
        made.me["labelled"] = 5
        await until(lambda: json.loads(made.store.peers["one"])["labelled"] == 5)


async def test_every_beat_tells_the_switch(made):
    await made.store.write_state("state")
    async with made.running():
        await until(lambda: len(made.switch.heard_of) > 2)
    assert set(made.switch.heard_of) == {"state"}


async def test_a_store_that_is_away_tells_the_switch_nothing_and_is_noticed_when_it_is_back(made):
    await made.beat.first()
    made.store.fails = StoreError("gone")
    async with made.running():
        await until(lambda: not made.reach.up)
        made.switch.heard_of.clear()
        await asyncio.sleep(0.02)
        assert made.switch.heard_of == [], "or it would write what is only out of reach"
        made.store.fails = None
        await until(lambda: made.switch.heard_of)
    assert made.reach.up
    assert not made.reach.trusted


async def test_while_the_store_is_away_the_others_are_taken_to_be_there(made):
    made.others_say(mode="enriched")
    await made.beat.first()
    made.store.fails = StoreError("gone")
    await made.beat.first()
    assert made.beat.others_label


async def test_a_store_that_was_emptied_is_told_everything_and_that_is_an_error_in_the_log(made):
    await made.beat.first()
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    await made.rooms.keep()
    await made.beat.first()
    assert made.living.unkept == 0
    made.store.lose_everything()
    with capture_logs() as logs:
        await made.beat.first()
        await made.beat.first()
    assert made.living.unkept == 1
    assert [entry["log_level"] for entry in logs] == ["error"]


def tells(made, monkeypatch, *generations):
    """Have the beats tell these generations, one after the other."""
    beat, to_come = made.store.beat, list(generations)

    async def told(name, me):
        return replace(await beat(name, me), generations=to_come.pop(0))

    monkeypatch.setattr(made.store, "beat", told)


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        pytest.param({"": "a", "1": "b", "2": "c"}, False, id="one more primary answers"),
        pytest.param({"": "a"}, False, id="one does not answer"),
        pytest.param({"": "a", "7": "z"}, False, id="slots were moved"),
        pytest.param({"": "a", "1": "z"}, True, id="one was emptied"),
        pytest.param({"": "z", "1": "b"}, True, id="the first one was emptied"),
    ],
)
async def test_only_what_was_there_before_can_be_lost(made, monkeypatch, now, lost):
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    await made.rooms.keep()
    tells(made, monkeypatch, {"": "a", "1": "b"}, now)
    await made.beat.first()
    with capture_logs() as logs:
        await made.beat.first()
    assert (made.living.unkept, [entry["log_level"] for entry in logs]) == (int(lost), ["error"] * lost)


async def test_a_primary_that_was_emptied_while_it_did_not_answer_has_lost_what_it_held(made, monkeypatch):
    tells(made, monkeypatch, {"": "a", "1": "b"}, {"": "a"}, {"": "a", "1": "z"})
    with capture_logs() as logs:
        for _ in range(3):
            await made.beat.first()
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_a_shared_store_that_is_back_is_told_everything_since_it_may_have_lost_its_last_writes(made):
    await made.beat.first()
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    await made.rooms.keep()
    made.store.fails = StoreError("gone")
    await made.beat.first()
    assert made.living.unkept == 0
    made.store.fails = None
    await made.beat.first()
    assert made.living.unkept == 1


async def test_what_was_forgotten_elsewhere_is_forgotten_here_and_its_labels_are_to_be_ended(made):
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    async with made.running():
        await made.store.news.put(Change(frozenset({alert.identity, firing(made.rooms.time, "B").identity})))
        await until(lambda: len(made.living) == 0)
    assert made.living.former(alert.identity) == (added("critical"),)


async def test_what_was_switched_elsewhere_is_heard_of_at_once(made, monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_SHARED", 60.0)
    async with made.running():
        await asyncio.sleep(0)
        await made.store.news.put(Change())
        await until(lambda: made.switch.heard_of)


@pytest.mark.parametrize("trouble", [StoreError("cut off"), ZeroDivisionError()], ids=repr)
async def test_who_was_cut_off_listens_again(made, trouble):
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    async with made.running():
        await made.store.news.put(trouble)
        await made.store.news.put(Change(frozenset({alert.identity})))
        await until(lambda: len(made.living) == 0)


async def test_who_was_cut_off_tells_what_it_goes_by_since_it_may_have_missed_what_was_forgotten(made):
    alert = firing(made.rooms.time)
    take_up(made.living, labelled(alert), alert)
    await made.rooms.keep()
    async with made.running():
        await asyncio.sleep(0.01)
        assert made.living.unkept == 0
        await made.store.news.put(StoreError("cut off"))
        await until(lambda: made.living.unkept)


async def test_a_bug_in_what_is_said_does_not_end_the_start(made):
    made.me["mode"] = object()
    with capture_logs() as logs:
        assert await made.beat.first() == (False, None)
    assert [entry["event"] for entry in logs] == ["a bug: hearing from the store failed"]


async def test_a_bug_in_following_does_not_end_the_beat(made):
    made.switch.fails = ZeroDivisionError()
    with capture_logs() as logs:
        async with made.running():
            await until(lambda: len(made.switch.heard_of) > 2)
    assert {entry["event"] for entry in logs} == {"a bug: following a switch failed"}


async def test_a_bug_in_what_is_said_does_not_end_the_beat(made):
    made.me["mode"] = object()
    with capture_logs() as logs:
        async with made.running():
            await until(lambda: len(logs) > 1)
            made.me["mode"] = "enriched"
            await until(lambda: made.switch.heard_of)


async def test_to_follow_takes_as_long_as_it_takes_and_the_beat_goes_on(made):
    """Before it labels, a proxy asks Alertmanager, which may take seconds. One at a time follows."""
    never = asyncio.Event()

    async def heard(written):
        made.switch.heard_of.append(written)
        await never.wait()

    made.switch.heard = heard
    async with made.running():
        await until(lambda: made.store.asked.count("beat") > 3)
    assert len(made.switch.heard_of) == 1


async def test_a_store_of_this_proxy_alone_is_beaten_for_too_and_nobody_listens():
    from proxy.decisions.stores.memory import MemoryStore

    class Alone(MemoryStore):
        def changes(self):
            pytest.fail("nobody else is there")

    made = Made(Alone())
    async with made.running():
        await until(lambda: len(made.switch.heard_of) > 1)


async def test_one_hiccup_of_the_store_is_no_outage(made, monkeypatch):
    beat, answers = made.store.beat, [StoreTimeout("slow")]

    async def hiccup(name, me):
        if answers:
            raise answers.pop()
        return await beat(name, me)

    monkeypatch.setattr(made.store, "beat", hiccup)
    await made.beat.first()
    assert made.reach.up
    assert made.reach.trusted
