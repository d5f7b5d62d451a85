"""Decisions as people look for them, and drop them."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
from deciding import Rooms, SharedStore, take_up
from simulated import Time

from proxy.alert import Alert, fingerprint
from proxy.decisions import directory as module
from proxy.decisions.decision import Decision
from proxy.decisions.directory import Directory
from proxy.errors import LookupTimeout, StoreError, StoreTimeout
from proxy.matchers import parse_matchers

OURS = {"ai_severity": "critical", "ai_category": "storage"}


class Private(SharedStore):
    shared = False


class World:
    def __init__(self, store=None, capacity=200_000):
        self.time = Time()
        self.store = store or SharedStore()
        self.rooms = Rooms(self.store, time=self.time, capacity=capacity)
        self.living = self.rooms.living
        self.directory = Directory(self.living, self.store, self.rooms.reach, monotonic=lambda: self.time.monotonic)

    def has(self, name, ours=OURS, *, ends=240, **labels):
        """Take up a decision on an alert, and return the alert."""
        now = self.time.now
        alert = Alert({"alertname": name, **labels}, starts_at=now, ends_at=now + timedelta(seconds=ends))
        take_up(self.living, Decision(alert.identity, ours, {"ai_source": "rules"} if ours else {}), alert)
        return alert

    async def names(self, matchers="", limit=100):
        found = await self.directory.find(parse_matchers(matchers), limit)
        return [entry.listed.original["alertname"] for entry in found.entries], found.total


async def test_an_entry_says_all_there_is():
    world = World()
    alert = world.has("Disk", team="db")
    entry = (await world.directory.find((), 1)).entries[0].shown()
    assert entry == {
        "fingerprint": fingerprint(alert.labels),
        "alertmanager_fingerprint": fingerprint({**alert.labels, **OURS}),
        "labels": {"alertname": "Disk", "team": "db"},
        "added": {"labels": OURS, "annotations": {"ai_source": "rules"}},
        "state": "firing",
        "expires_in_seconds": 3840,
        "former": [],
    }


async def test_a_bare_alert_has_one_fingerprint_and_a_resolved_one_says_so():
    world = World()
    world.has("Bare", {}, ends=-1)
    entry = (await world.directory.find((), 1)).entries[0].shown()
    assert entry["fingerprint"] == entry["alertmanager_fingerprint"]
    assert entry["state"] == "resolved"


async def test_former_labels_are_shown_while_they_are_to_be_ended():
    world = World()
    alert = world.has("Disk")
    world.living.forget(alert.identity)
    world.has("Disk", {})
    assert (await world.directory.find((), 1)).entries[0].shown()["former"] == [OURS]


@pytest.mark.parametrize(
    ("matchers", "found"),
    [
        ("", ["C", "B", "A"]),
        ('team="db"', ["C", "A"]),
        ('team="db",alertname!="A"', ["C"]),
        ('team=""', ["B"]),
        ('ai_severity="critical"', []),  # ours, not the sender's
    ],
)
async def test_they_are_found_by_their_original_labels_the_latest_first(matchers, found):
    world = World()
    for name, team in (("A", {"team": "db"}), ("B", {}), ("C", {"team": "db"})):
        world.has(name, **team)
    assert await world.names(matchers) == (found, len(found))


async def test_the_limit_leaves_out_and_the_total_does_not():
    world = World()
    for name in "ABC":
        world.has(name)
    assert await world.names("", 2) == (["C", "B"], 3)
    assert await world.names("", 0) == ([], 3)


async def test_what_is_over_and_not_swept_out_yet_is_not_there():
    world = World()
    gone = world.has("Gone")
    world.time.passes(seconds=3841)
    world.has("There")
    assert await world.names() == (["There"], 1)
    assert await world.directory.get(fingerprint(gone.labels)) is None
    assert await world.directory.forget([gone.identity]) == 0
    assert "forget" not in world.store.asked, "nobody was asked in vain"


async def test_alerts_known_by_a_hash_alone_are_counted_and_not_listed():
    world = World(capacity=1)
    for name in "ABC":
        world.has(name, {})
    found = await world.directory.find((), 100)
    assert (len(found.entries), found.total, found.unlisted) == (1, 1, 2)


@pytest.mark.parametrize("with_ours", [False, True])
async def test_either_fingerprint_finds_it(with_ours):
    world = World()
    world.has("Other")
    alert = world.has("Disk", team="db")
    world.has("Another")
    entry = await world.directory.get(fingerprint({**alert.labels, **(OURS if with_ours else {})}))
    assert entry.identity == alert.identity
    assert await world.directory.get("0" * 16) is None


async def turns(work):
    """Return how often another task gets its turn while `work` is done."""
    count = 0

    async def other():
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await work
    task.cancel()
    return count


async def test_alerts_get_their_turn_while_somebody_looks():
    world = World()
    for n in range(1000):
        world.has(f"A{n}", {})
    assert await turns(world.directory.matching(())) >= 3
    assert await turns(world.directory.get("0" * 16)) >= 15
    assert await turns(world.directory.find((), 1000)) >= 15
    assert await turns(world.directory.forget(world.living.identities())) >= 3


async def test_looking_for_a_fingerprint_has_an_end():
    world = World()
    for n in range(200):
        world.has(f"A{n}", {})
    looking = asyncio.create_task(world.directory.get("0" * 16))
    await asyncio.sleep(0)
    world.time.passes(seconds=module.PATIENCE + 1)
    with pytest.raises(LookupTimeout, match="ask by labels"):
        await looking


async def test_who_looks_for_a_fingerprint_waits_for_who_looked_before(monkeypatch):
    world = World()
    for n in range(200):
        world.has(f"A{n}", {})
    first, second = (asyncio.create_task(world.directory.get("0" * 16)) for _ in range(2))
    taken = []
    monkeypatch.setattr(module, "fingerprint", lambda labels: taken.append(first.done()) or "")
    await asyncio.gather(first, second)
    assert taken == [False] * 200 + [True] * 200


@pytest.mark.parametrize("store", [SharedStore, Private])
async def test_what_is_forgotten_is_gone_here_and_in_the_store(store):
    world = World(store())
    stays, goes = world.has("Stays"), world.has("Goes")
    await world.store.claim(world.living.take_unkept(10))
    assert await world.directory.forget([goes.identity, b"unknown".ljust(16)]) == 1
    assert world.living.identities() == [stays.identity]
    assert set(await world.store.get([stays.identity, goes.identity])) == {stays.identity}
    assert world.store.asked.count("forget") == 1


async def test_nothing_is_forgotten_while_the_shared_store_is_away():
    world = World()
    world.store.fails = StoreError("refused")
    alert = world.has("A")
    with pytest.raises(StoreError, match="nothing was forgotten, because the store of all proxies is away: refused"):
        await world.directory.forget([alert.identity])
    assert world.living.identities() == [alert.identity]
    assert (world.rooms.reach.up, world.rooms.errors) == (False, 1)


async def test_a_shared_store_that_is_known_to_be_away_is_not_asked():
    world = World()
    alert = world.has("A")
    world.rooms.reach.lost(StoreError("refused"))
    with pytest.raises(StoreError, match=r"nothing was forgotten, because .* away: refused"):
        await world.directory.forget([alert.identity])
    assert "forget" not in world.store.asked
    assert (world.rooms.reach.error, world.rooms.errors) == ("refused", 1), "it was no news"


@pytest.mark.parametrize("store", [SharedStore, Private])
@pytest.mark.parametrize(("timeouts", "up"), [(1, True), (2, False)])
async def test_one_hiccup_of_the_store_is_no_outage(monkeypatch, store, timeouts, up):
    world = World(store())
    alert = world.has("A")
    forget, errors = world.store.forget, [StoreTimeout("slow")] * timeouts

    async def hiccup(identities):
        if errors:
            raise errors.pop()
        await forget(identities)

    monkeypatch.setattr(world.store, "forget", hiccup)
    with contextlib.nullcontext() if up or store is Private else pytest.raises(StoreError, match="slow"):
        await world.directory.forget([alert.identity])
    assert (world.rooms.reach.up, world.rooms.errors) == (up, int(not up))
    assert (alert.identity in world.living.identities()) is (not up and store is SharedStore)


async def test_a_shared_store_that_goes_away_meanwhile_stops_it(monkeypatch):
    class GoesAway(SharedStore):
        async def forget(self, identities):
            await super().forget(identities)
            self.fails = StoreError("refused")

    monkeypatch.setattr(module, "SLICE", 2)
    world = World(GoesAway())
    alerts = [world.has(name) for name in "ABC"]
    with pytest.raises(StoreError, match="only 2 decisions were forgotten"):
        await world.directory.forget([alert.identity for alert in alerts])
    assert world.living.identities() == [alerts[2].identity]


async def test_a_store_of_this_proxy_alone_that_is_away_does_not_keep_anybody_from_forgetting():
    world = World(Private())
    world.store.fails = StoreError("disk full")
    alert = world.has("A")
    assert await world.directory.forget([alert.identity]) == 1
    assert world.living.identities() == []
    assert world.rooms.errors == 1
