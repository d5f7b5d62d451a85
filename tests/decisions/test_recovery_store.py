"""Recovery from the store and from Alertmanager together, and which of several variants of an alert goes on."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from deciding import SharedStore, added, bare, firing, held, labelled, running, until
from recovering import Alertmanager, Made
from simulated import NOW, Time

from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.watch import Cluster, HeldAlert
from proxy.errors import StoreError, UpstreamError, UpstreamRefused


def shown(alert, *, minutes_ago=0, text=True, **labels):
    """One variant of an alert, as Alertmanager holds it."""
    annotations = {"ai_source": "llm"} if labels and text else {}
    seen = replace(alert, labels={**alert.labels, **labels}, annotations=annotations)
    return HeldAlert(seen, NOW - timedelta(minutes=minutes_ago))


async def recovered(made):
    async with running(made.recovery.run()):
        await until(lambda: made.outcomes)


async def remembering(decision, store=None, **more):
    """A store that holds a decision from before the start."""
    store = store or MemoryStore()
    await MemoryStore.claim(store, [held(decision, **more)])
    return store


@pytest.fixture
def alert():
    return firing(Time())


async def test_what_the_store_remembers_and_alertmanager_does_not_hold_goes_on(alert):
    made = Made(Alertmanager([]), store=await remembering(labelled(alert)))
    await recovered(made)
    assert made.living.seen(alert) == labelled(alert)
    assert made.recovery.found == 0


async def test_alertmanager_wins_over_what_the_store_remembers(alert):
    made = Made(Alertmanager([shown(alert, **added("info"))]), store=await remembering(labelled(alert)))
    await recovered(made)
    assert made.living.seen(alert).labels == added("info")
    await made.rooms.keep()
    [kept] = (await made.rooms.store.get([alert.identity])).values()
    assert kept.decision.labels == added("info")


@pytest.mark.parametrize(
    "remembered", [added("info"), added("critical"), {}], ids=["the older", "the newer", "the bare one"]
)
async def test_of_several_variants_the_one_that_the_store_remembers_goes_on(alert, remembered):
    """People were told of that one; the others somebody sent who did not know."""
    variants = [
        shown(alert, minutes_ago=3, **added("info")),
        shown(alert, minutes_ago=1, **added("critical")),
        shown(alert, minutes_ago=2),
    ]
    decision = replace(labelled(alert), labels=remembered)
    made = Made(Alertmanager(variants), store=await remembering(decision))
    await recovered(made)
    assert made.living.seen(alert).labels == remembered
    assert made.recovery.found == 1


async def test_what_the_store_remembers_and_alertmanager_has_in_no_variant_is_no_choice(alert):
    variants = [shown(alert, minutes_ago=3, **added("info")), shown(alert, minutes_ago=1, **added("critical"))]
    made = Made(Alertmanager(variants), store=await remembering(labelled(alert, "noise")))
    await recovered(made)
    assert made.living.seen(alert).labels == added("critical")


async def test_of_several_variants_nobody_remembers_the_one_we_sent_ourselves_since_the_start_is_none(alert):
    made = Made(Alertmanager([shown(alert, minutes_ago=3, **added("info")), shown(alert, **added("warning"))]))
    assert (await made.rooms.decide(alert, recovered=False)).labels == added("warning")
    await recovered(made)
    assert made.living.seen(alert).labels == added("info")


async def test_labels_like_ours_without_our_text_beside_the_alert_bare_are_a_senders_own(alert):
    made = Made(Alertmanager([shown(alert, minutes_ago=3), shown(alert, text=False, **added("info"))]))
    await recovered(made)
    assert made.living.seen(alert) == bare(alert)


async def test_in_a_shared_store_it_is_handed_over_to_the_claim_that_came_first(alert):
    """Another proxy decided before this one had asked Alertmanager; all go by that."""
    store = SharedStore()
    ready = asyncio.Event()
    made = Made(Late(ready, [shown(alert, **added("info"))]), store=store)
    async with running(made.recovery.run()):
        await until(lambda: made.rooms.keeper._loaded)
        await remembering(labelled(alert), store, life=99)
        ready.set()
        await until(lambda: made.outcomes)
    assert made.living.seen(alert) == labelled(alert)
    assert made.living.former(alert.identity) == (added("info"),)
    assert made.rooms.handovers == [1]


async def test_what_a_shared_store_holds_at_the_start_outranks_what_alertmanager_shows(alert):
    """Others go by it; what Alertmanager shows came by a proxy that had lost its claim, or did not know of it."""
    store = await remembering(labelled(alert), SharedStore())
    made = Made(Alertmanager([shown(alert, **added("info"))]), store=store)
    await recovered(made)
    assert made.living.seen(alert) == labelled(alert)
    assert made.living.former(alert.identity) == (added("info"),)
    [kept] = (await store.get([alert.identity])).values()
    assert kept.decision == labelled(alert)


class Late(Alertmanager):
    """Answers once `ready` is set."""

    def __init__(self, ready, *answers):
        super().__init__(*answers)
        self.ready = ready

    async def alerts(self):
        await self.ready.wait()
        return await super().alerts()


@pytest.mark.parametrize("refusal", [UpstreamRefused("401"), UpstreamError("away")], ids=repr)
async def test_where_alertmanager_cannot_be_read_what_the_store_remembers_is_known_before_anybody_goes_on(
    alert, refusal
):
    """A store with 100,000 decisions takes longer to read than Alertmanager to refuse."""

    class Long(MemoryStore):
        async def load(self):
            for _ in range(50):
                await asyncio.sleep(0)
            yield [held(labelled(alert))]

    made = Made(Alertmanager(refusal), store=Long(), retry=60)
    async with running(made.recovery.run()):
        await made.recovery.settled(5)
        assert made.living.seen(alert) == labelled(alert)
        assert not made.recovery.done


async def test_a_store_that_is_away_hinders_no_recovery(alert):
    class Away(MemoryStore):
        async def load(self):
            raise StoreError("gone")
            yield

    made = Made(Alertmanager([shown(alert, **added("info"))]), store=Away())
    await recovered(made)
    assert (made.outcomes, made.living.seen(alert).labels) == ([True], added("info"))


async def test_what_is_decided_while_a_store_of_its_own_cannot_be_read_stands_against_what_it_holds(alert):
    class Private(SharedStore):
        shared = False

    store = await remembering(labelled(alert, "noise"), Private())
    store.fails = StoreError("the disk hangs")
    made = Made(Alertmanager([]), store=store)
    await recovered(made)
    assert made.recovery.done
    decided = await made.rooms.decide(alert)
    assert decided.labels != added("noise")
    store.fails = None
    made.rooms.reach.found()
    await made.rooms.keep()
    [kept] = (await store.get([alert.identity])).values()
    assert kept.decision.labels == made.living.seen(alert).labels == decided.labels


async def test_how_many_there_are_is_known_with_the_recovery(alert):
    class Clustered(Alertmanager):
        async def cluster(self):
            return Cluster(3, 0.0)

    made = Made(Clustered([]))
    await recovered(made)
    assert made.watch.expected == 3


async def test_once_recovered_everything_stands(alert):
    made = Made(Alertmanager([], [shown(alert, **added("info"))]), store=await remembering(labelled(alert)))
    async with running(made.recovery.run()):
        await until(lambda: made.recovery.done)
        await made.recovery.again()
    assert made.living.seen(alert) == labelled(alert)
