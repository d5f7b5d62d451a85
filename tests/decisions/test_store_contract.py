"""What every DecisionStore keeps; each adapter runs all of it, against the real thing."""

import asyncio
from dataclasses import replace

import pytest
from kept import an_identity, bare, kept, loaded

from proxy.decisions.decision import Decision
from proxy.decisions.store import Change, Kept

A, B = an_identity("A"), an_identity("B")
LONGEST_LIFE = 2**63 - 1

shared = pytest.mark.parametrize("kind", ["alone", "cluster", "sentinel"])


@pytest.fixture(params=["memory", "sqlite", "alone", "cluster", "sentinel"])
def kind(request):
    return request.param


@pytest.fixture
def store(opened):
    return opened()


def is_(found: Kept, expected: Kept) -> bool:
    """Whether `found` is `expected`, of which some time may have passed."""
    return replace(found, left=0) == replace(expected, left=0) and expected.left - 5 <= found.left <= expected.left


async def test_an_empty_store_knows_nothing(store):
    assert dict(await store.get([A, B])) == {}
    assert await loaded(store) == {}
    assert (await store.beat("me", "")).state is None


async def test_nothing_to_do_is_no_error(store):
    await store.forget([])
    await store.forget([A])
    assert dict(await store.claim([])) == {}
    assert dict(await store.get([])) == {}


async def test_a_decision_is_kept_whole(store):
    whole = kept(
        life=LONGEST_LIFE,
        left=1234.5,
        original='{"alertname":"A","job":"n"}',
        resolved_at=1763812345.678901,
        fires_until=1763812999.000001,
    )
    held = await store.claim([whole])
    assert is_(held[A], whole)
    assert is_((await store.get([A]))[A], whole)
    assert is_((await loaded(store))[A], whole)


async def test_the_first_claim_wins(store):
    await store.claim([kept("A", "critical", life=1)])
    held = await store.claim([kept("A", "info", life=2), kept("B", "info", life=3)])
    assert bare(held.values()) == bare([kept("A", "critical", life=1), kept("B", "info", life=3)])
    assert bare((await store.get([A, B])).values()) == bare(held.values())


async def test_in_one_batch_too_the_first_claim_wins(store):
    held = await store.claim([kept("A", "critical", life=1), kept("A", "info", life=2)])
    assert bare(held.values()) == bare([kept("A", "critical", life=1)])


async def test_the_same_life_with_the_same_labels_takes_the_rest(store):
    await store.claim([kept(life=1, left=5000, resolved_at=1.5, fires_until=2.5)])
    again = kept(life=1, left=1000, texts={"ai_summary": "better"}, original="{}", fires_until=3.5)
    assert is_((await store.claim([again]))[A], again)
    assert is_((await store.get([A]))[A], again)


async def test_what_is_known_of_another_life_says_nothing_of_this_one(store):
    """A proxy that was cut off tells late of the life before, which had the same labels and has ended."""
    now = kept(life=2, left=1000)
    await store.claim([now])
    assert is_((await store.claim([kept(life=1, left=5000, resolved_at=1.5)]))[A], replace(now, left=5000))
    assert is_((await store.get([A]))[A], replace(now, left=5000))


async def test_what_replaces_a_life_takes_its_place(store):
    await store.claim([kept("A", "critical", life=1)])
    anew = kept("A", "info", life=2, replaces=1)
    assert is_((await store.claim([anew]))[A], replace(anew, replaces=0))
    assert is_((await store.get([A]))[A], replace(anew, replaces=0))


@pytest.mark.parametrize(
    ("knows", "goes_on"),
    [
        pytest.param({"fires_until": 200.5}, True, id="fires beyond the new beginning"),
        pytest.param({"fires_until": 100.5}, False, id="nobody says that it fires on"),
        pytest.param({"fires_until": 200.5, "resolved_at": 1.5}, False, id="resolved"),
        pytest.param({}, False, id="nothing"),
    ],
)
async def test_a_life_with_which_another_proxy_has_gone_on_is_not_replaced(store, knows, goes_on):
    """Of two proxies one may have missed the resolve."""
    await store.claim([kept("A", "critical", life=1, **knows)])
    held = await store.claim([kept("A", "info", life=2, replaces=1, begun=150.25)])
    assert held[A].life == (1 if store.shared and goes_on else 2)


async def test_a_life_is_replaced_once(store):
    await store.claim([kept("A", "critical", life=1)])
    await store.claim([kept("A", "info", life=2, replaces=1)])
    held = await store.claim([kept("A", "warning", life=3, replaces=1)])
    assert bare(held.values()) == bare([kept("A", "info", life=2)])


async def test_a_life_is_replaced_once_though_its_labels_come_again(store):
    await store.claim([kept("A", "critical", life=1)])
    held = await store.claim([kept("A", "critical", life=2, replaces=1)])
    assert held[A].life == 2
    held = await store.claim([kept("A", "warning", life=3, replaces=1)])
    assert bare(held.values()) == bare([kept("A", "critical", life=2)])


async def test_what_replaces_nothing_that_is_kept_is_kept(store):
    held = await store.claim([kept("A", "info", life=2, replaces=1)])
    assert is_(held[A], kept("A", "info", life=2))


async def test_who_loses_prolongs_what_holds(store):
    await store.claim([kept("A", "critical", left=100)])
    assert (await store.claim([kept("A", "info", left=50)]))[A].left == pytest.approx(100, abs=5)
    assert (await store.claim([kept("A", "info", left=900)]))[A].left == pytest.approx(900, abs=5)
    found = (await store.get([A]))[A]
    assert found.left == pytest.approx(900, abs=5)
    assert found.decision == kept("A", "critical").decision


async def test_bare_is_claimed_too(store):
    await store.claim([kept("A", None)])
    assert (await store.claim([kept("A", "critical")]))[A].decision == Decision(A)


async def test_text_comes_to_what_has_no_labels(store):
    await store.claim([kept("A", None, life=2)])
    text = Kept(Decision(A, {}, {"ai_summary": "seen"}), 2, 60)
    assert (await store.claim([text]))[A].decision == text.decision


@pytest.mark.parametrize("text", ["Ünïcödé, 日本語 🚨", 'quotes " and \\ and\nlines', "\x00\x7f", "half \ud83d", ""])
async def test_any_text_is_kept(store, text):
    odd = kept("A", "critical", texts={"ai_summary": text}, original='{"alertname":"日本語"}')
    assert is_((await store.claim([odd]))[A], odd)
    assert is_((await store.get([A]))[A], odd)


async def test_what_is_forgotten_can_be_claimed_anew(store):
    await store.claim([kept("A", "critical"), kept("B")])
    await store.forget([A])
    assert dict(await store.get([A])) == {}
    assert bare((await store.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "info", life=2)])
    assert bare((await store.get([B])).values()) == bare([kept("B")])


async def test_what_has_nothing_left_has_ended(store):
    await store.claim([kept("A", "critical", left=0.05), kept("B")])
    await asyncio.sleep(0.1)
    assert set(await store.get([A, B])) == {B}
    assert bare((await store.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "info", life=2)])


async def test_a_decision_is_kept_for_a_week_at_most(store):
    await store.claim([kept(left=1e9)])
    if store.kind != "memory":
        assert (await store.get([A]))[A].left <= 7 * 24 * 3600


async def test_a_batch_is_claimed_at_once(store):
    batch = [kept(f"{n}", life=n + 1) for n in range(256)]
    held = await store.claim(batch)
    assert bare(held.values()) == bare(batch)
    assert bare((await store.get([k.decision.identity for k in batch])).values()) == bare(batch)


async def test_everything_is_loaded_in_slices(store):
    everything = [kept(f"{n}", ["critical", "info"][n % 2], life=n + 1) for n in range(2500)]
    await store.claim(everything)
    slices = [slice_ async for slice_ in store.load()]
    assert max(len(slice_) for slice_ in slices) <= 1000
    found = [kept for slice_ in slices for kept in slice_]
    assert bare(found) == bare(everything)
    # Alerts of a class share their texts; that keeps the memory of a large site small.
    assert len({id(k.decision.labels) for k in found}) == 2 or store.kind == "memory"


async def test_the_state_is_what_was_written_last(store):
    await store.write_state("first")
    await store.write_state('{"mode":"enriched","π":1}')
    assert (await store.beat("me", "")).state == '{"mode":"enriched","π":1}'


async def test_the_generation_stays_while_nothing_is_lost(store):
    first = await store.beat("me", "")
    assert first.generations
    await store.claim([kept()])
    await store.forget([A])
    assert (await store.beat("me", "")).generations == first.generations


async def test_who_beats_is_among_the_peers(store):
    for said in ('{"mode":"enriched"}', "", "two\nlines, 日本語"):
        assert (await store.beat("me", said)).peers == {"me": said}


async def test_a_store_of_its_own_has_no_changes(store):
    if not store.shared:
        await store.forget([A])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(store.changes()), 0.05)


@shared
@pytest.mark.parametrize("proxies", [2, 5])
async def test_of_many_who_claim_at_once_one_wins(opened, proxies):
    stores = [opened() for _ in range(proxies)]
    batches = [[kept(f"{n}", f"of-{p}", life=p * 1000 + n + 1) for n in range(256)] for p in range(proxies)]
    held = await asyncio.gather(*(store.claim(batch) for store, batch in zip(stores, batches, strict=True)))
    assert len(held[0]) == 256
    assert all(bare(each.values()) == bare(held[0].values()) for each in held)
    assert bare((await loaded(stores[0])).values()) == bare(held[0].values())


@shared
async def test_of_many_who_replace_a_life_one_wins(opened):
    stores = [opened() for _ in range(4)]
    await stores[0].claim([kept(f"{n}", life=1) for n in range(64)])
    batches = [[kept(f"{n}", f"of-{p}", life=p + 2, replaces=1) for n in range(64)] for p in range(4)]
    held = await asyncio.gather(*(store.claim(batch) for store, batch in zip(stores, batches, strict=True)))
    assert all(bare(each.values()) == bare(held[0].values()) for each in held)
    assert all(k.life > 1 for k in held[0].values())


@shared
async def test_all_hear_what_is_forgotten_and_that_the_state_was_written(opened):
    mine, other = opened(), opened()
    changes = other.changes()
    assert await anext(changes) == Change()  # it begins
    await mine.claim([kept(f"{n}") for n in range(300)])
    every = frozenset(an_identity(f"{n}") for n in range(300))
    await mine.forget(every)
    heard: set = set()
    while len(heard) < 300:
        change = await asyncio.wait_for(anext(changes), 5)
        assert change.forgotten
        heard |= change.forgotten
    assert heard == every
    await mine.write_state("new")
    assert await asyncio.wait_for(anext(changes), 5) == Change()
    assert (await other.beat("other", "")).state == "new"
    await changes.aclose()


@shared
async def test_all_hear_of_each_other(opened):
    mine, other = opened(), opened()
    first = await mine.beat("a", "of a")
    second = await other.beat("b", "of b")
    assert second.peers == {"a": "of a", "b": "of b"}
    assert second.generations == first.generations
    assert (await mine.beat("a", "of a, later")).peers == {"a": "of a, later", "b": "of b"}
