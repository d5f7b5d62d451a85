"""The service before its two tiers, alone and beside other proxies, in simulated time."""

import asyncio

import pytest
from fakes import FakeModel, verdict
from simulated import simulated
from tiers import FakeVerdicts, Replica, SlowModel, class_of

from proxy.classification.cache import FAILED, SECOND_BEST
from proxy.classification.classification import Severity, Source
from proxy.classification.service import LOOKUP
from proxy.classification.turns import AWAY, LEASE
from proxy.errors import (
    ClassifierBusy,
    ClassifierInvalidAnswer,
    ClassifierOpen,
    ClassifierOverBudget,
    ClassifierTimeout,
    StoreTimeout,
)

AWAY_NOW = StoreTimeout("no answer")


def sources(found):
    return [one.now.source for one in found]


@simulated
async def test_a_hit_in_the_store_costs_no_call_and_no_allowance():
    model, store = FakeModel(), FakeVerdicts(delay=0.01)
    store.put_aside(class_of("Disk"), verdict(Severity.CRITICAL))
    async with Replica(model, store) as proxy:
        [found] = await proxy.ask("Disk")
        assert (found.now.severity, found.now.source, found.later) == (Severity.CRITICAL, Source.CACHE, None)
        assert (model.asked, proxy.observer.waits, proxy.allowance.take(100)) == ([], [], 6)
        await proxy.ask("Disk")
        await asyncio.sleep(0)
        assert (proxy.observer.looked, store.counts) == ({"store": 1, "memory": 1}, {"get": 1})


@simulated
async def test_the_classes_of_a_post_are_one_question_and_those_that_are_known_are_none():
    model, store = FakeModel(), FakeVerdicts(shared=False)
    store.put_aside(class_of("Disk"), verdict())
    async with Replica(model, store) as proxy:
        await proxy.ask("Known")
        found = await proxy.ask("Known", "Disk", "Cpu", "Disk")
        assert sources(found) == [Source.CACHE, Source.CACHE, Source.LLM, Source.CACHE]
        assert store.asked[2:3] == [("get", [class_of("Disk"), class_of("Cpu")])]
        assert store.counts["get"] == 2
        assert proxy.observer.looked == {"nowhere": 2, "memory": 1, "store": 1}
        assert [alert.name for alert in model.asked] == ["Known", "Cpu"]


@simulated
async def test_without_a_second_tier_what_is_not_in_memory_is_nowhere():
    async with Replica(FakeModel()) as proxy:
        await proxy.ask("Disk", "Cpu")
        await proxy.ask("Disk")
        assert proxy.observer.looked == {"nowhere": 2, "memory": 1}


@simulated
async def test_the_look_is_not_waited_for_longer_than_a_moment_and_not_by_the_next_post():
    model, store = FakeModel([None]), FakeVerdicts(shared=False, delay=60)
    async with Replica(model, store, capacity=0) as proxy:
        for name, waited in (("Disk", LOOKUP), ("Cpu", 0), ("Net", 0)):
            begun = store.now
            assert sources(await proxy.ask(name)) == [Source.RULES]
            assert store.now - begun == pytest.approx(waited)
        await asyncio.sleep(AWAY + LOOKUP)
        await proxy.ask("Later")
        assert store.counts["get"] == 2


@pytest.mark.parametrize(("wait", "waited"), [(0, 0), (0.04, 0.04)])
def test_the_look_is_waited_for_no_longer_than_the_post_may(wait, waited):
    @simulated
    async def scenario():
        store = FakeVerdicts(delay=0.05)
        async with Replica(FakeModel(), store, capacity=0) as proxy:
            begun = store.now
            assert sources(await proxy.ask("Disk", wait=wait)) == [Source.RULES]
            assert store.now - begun == pytest.approx(waited)
            await asyncio.sleep(1)
            await proxy.ask("Cpu")
            assert store.counts["get"] == 3, "a store is not away because a POST was in a hurry"

    scenario()


@simulated
async def test_a_store_that_does_not_answer_means_the_model_within_the_same_wait():
    store = FakeVerdicts(delay=0.09)
    store.faults = {"get": AWAY_NOW}
    async with Replica(SlowModel(1), store) as proxy:
        begun = store.now
        assert sources(await proxy.ask("Disk")) == [Source.LLM]
        assert store.now - begun == pytest.approx(1.09)
        assert (proxy.observer.looked, store.counts["lease"]) == ({"nowhere": 1}, 0)


@simulated
async def test_what_comes_late_from_the_store_is_waited_for_as_a_model_is():
    model, store = FakeModel(), FakeVerdicts(delay=0.5)
    store.put_aside(class_of("Disk"), verdict(Severity.CRITICAL))
    async with Replica(model, store) as proxy:
        assert sources(await proxy.ask("Disk")) == [Source.CACHE]
        assert (model.asked, proxy.observer.waits) == ([], [pytest.approx(0.4)])


@simulated
async def test_what_comes_late_from_the_store_is_text_for_a_post_that_went_on():
    model, store = FakeModel(), FakeVerdicts(delay=0.5)
    store.put_aside(class_of("Disk"), verdict(Severity.CRITICAL))
    async with Replica(model, store) as proxy:
        [found] = await proxy.ask("Disk", wait=0)
        assert found.now.source is Source.RULES
        assert (await found.later).summary == verdict().summary
        assert model.asked == []


@simulated
async def test_posts_that_meet_during_the_look_share_it_and_the_call():
    model, store = SlowModel(1), FakeVerdicts(shared=False, delay=0.05)
    async with Replica(model, store) as proxy:
        first = asyncio.create_task(proxy.ask("Disk"))
        await asyncio.sleep(0.02)
        both = asyncio.create_task(proxy.ask("Disk", "Cpu"))
        assert sources(await first) == [Source.LLM]
        assert sources(await both) == [Source.LLM, Source.LLM]
        assert sorted(alert.name for alert in model.asked) == ["Cpu", "Disk"]
        assert [keys for operation, keys in store.asked if operation == "get"] == [
            [class_of("Disk")],
            [class_of("Cpu")],
        ]


@simulated
async def test_an_answer_during_the_look_for_another_class_is_the_models():
    store = FakeVerdicts(shared=False, delay=0.05)
    async with Replica(SlowModel(0.03), store, capacity=0) as proxy:
        await proxy.ask("Disk")
        found = await proxy.ask("Disk", "Cpu")
        assert sources(found) == [Source.LLM, Source.RULES]
        assert found[0].later is None


@simulated
async def test_a_post_that_is_broken_off_during_the_look_leaves_it_to_the_others():
    model, store = FakeModel(), FakeVerdicts(delay=0.05)
    store.put_aside(class_of("Disk"), verdict(Severity.CRITICAL))
    async with Replica(model, store) as proxy:
        first = asyncio.create_task(proxy.ask("Disk"))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(proxy.ask("Disk"))
        await asyncio.sleep(0.01)
        first.cancel()
        assert sources(await second) == [Source.CACHE]
        assert (store.counts, model.asked) == ({"get": 1}, [])


@simulated
async def test_a_call_that_is_given_up_during_the_look_leaves_it_to_the_others():
    model, store = FakeModel(), FakeVerdicts(delay=0.05)
    store.put_aside(class_of("Disk"), verdict(Severity.CRITICAL))
    async with Replica(model, store) as proxy:
        [given_up, _] = await proxy.ask("Cpu", "Disk", wait=0)
        given_up.later.cancel()
        assert sources(await proxy.ask("Disk")) == [Source.CACHE]
        assert (store.counts["get"], model.asked) == (1, [])


@pytest.mark.parametrize("at", [0.01, 0.06, 0.11, 0.16, 0.3], ids=lambda s: f"at {s} s")
def test_close_leaves_nothing_behind_whatever_is_under_way(at):
    @simulated
    async def scenario():
        model, store = SlowModel(1), FakeVerdicts(delay=0.05)
        proxy = Replica(model, store)
        post = asyncio.create_task(proxy.ask("Disk", "Cpu"))
        await asyncio.sleep(at)
        await proxy.service.close()
        assert len(await post) == 2
        assert (store.held, store.verdicts) == (set(), {})
        assert asyncio.all_tasks() == {asyncio.current_task()}

    scenario()


@simulated
async def test_two_proxies_ask_about_a_class_once():
    store = FakeVerdicts(delay=0.001)
    models = [SlowModel(1), SlowModel(1)]
    async with Replica(models[0], store) as one, Replica(models[1], store) as other:
        found = await asyncio.gather(one.ask("Disk"), other.ask("Disk"))
        assert sorted(sources([*found[0], *found[1]])) == [Source.CACHE, Source.LLM]
        assert len(models[0].asked + models[1].asked) == 1
        assert one.observer.looked + other.observer.looked == {"nowhere": 1, "replica": 1}
    assert store.held == set()


@simulated
async def test_an_asker_in_a_long_line_keeps_its_turn():
    store = FakeVerdicts()
    models = [SlowModel(5 * LEASE), SlowModel(5 * LEASE)]
    async with Replica(models[0], store) as one, Replica(models[1], store) as other:
        verdicts = [*await one.ask("Disk"), *await other.ask("Disk")]
        assert sources(verdicts) == [Source.RULES, Source.RULES]
        assert [(await found.later).summary for found in verdicts] == [verdict().summary] * 2
        assert len(models[0].asked + models[1].asked) == 1


@pytest.mark.parametrize("error", [ClassifierTimeout, ClassifierOpen, ClassifierBusy])
def test_when_the_asker_fails_the_other_asks(error):
    @simulated
    async def scenario():
        store = FakeVerdicts()
        async with Replica(SlowModel(0.5, error("x")), store) as one, Replica(SlowModel(0.5), store) as other:
            [failed], [found] = await asyncio.gather(one.ask("Disk"), other.ask("Disk"))
            assert (failed.now.source, found.now.source) == (Source.RULES, Source.LLM)
        assert store.held == set()

    scenario()


@simulated
async def test_when_the_asker_is_closed_the_other_asks():
    store, models = FakeVerdicts(), [SlowModel(60), SlowModel(0.5)]
    async with Replica(models[0], store) as one, Replica(models[1], store) as other:
        await one.ask("Disk", wait=0.1)
        waiting = asyncio.create_task(other.ask("Disk"))
        await asyncio.sleep(1)
        await one.service.close()
        assert sources(await waiting) == [Source.LLM]


@simulated
async def test_a_store_that_stays_away_while_one_waits_for_another_means_a_call_of_its_own():
    store, models = FakeVerdicts(), [SlowModel(60), SlowModel(0.5)]
    async with Replica(models[0], store) as one, Replica(models[1], store) as other:
        await one.ask("Disk", wait=0.1)
        waiting = asyncio.create_task(other.ask("Disk"))
        await asyncio.sleep(1)
        store.faults = dict.fromkeys(("get", "put", "lease", "release"), AWAY_NOW)
        assert sources(await waiting) == [Source.RULES]
        assert models[1].asked == []
        await asyncio.sleep(AWAY + 1)
        assert len(models[1].asked) == 1


@pytest.mark.parametrize("error", [ClassifierTimeout("x"), ClassifierInvalidAnswer("x"), ZeroDivisionError("x")])
def test_a_class_whose_call_failed_is_left_alone_for_a_while_and_others_are_not(error):
    @simulated
    async def scenario():
        model, store = FakeModel([error, verdict()]), FakeVerdicts()
        reason = getattr(error, "reason", "bug")
        async with Replica(model, store) as proxy:
            await proxy.ask("Disk")
            asked = store.counts["get"]
            [failed, found] = await proxy.ask("Disk", "Cpu")
            assert (failed.now.source, failed.later, found.now.source) == (Source.RULES, None, Source.LLM)
            assert proxy.observer.verdicts == {(Source.RULES, reason): 2, (Source.LLM, ""): 1}
            assert [keys for operation, keys in store.asked if operation == "get"][asked] == [class_of("Cpu")]
            await asyncio.sleep(FAILED + 1)
            assert sources(await proxy.ask("Disk")) == [Source.LLM]

    scenario()


@pytest.mark.parametrize("error", [ClassifierBusy("x"), ClassifierOpen("x"), ClassifierOverBudget("x")])
def test_what_says_nothing_of_a_class_is_not_remembered(error):
    @simulated
    async def scenario():
        async with Replica(FakeModel([error, verdict()]), FakeVerdicts()) as proxy:
            assert sources(await proxy.ask("Disk")) == [Source.RULES]
            assert sources(await proxy.ask("Disk")) == [Source.LLM]
            assert proxy.observer.verdicts == {(Source.RULES, error.reason): 1, (Source.LLM, ""): 1}

    scenario()


@simulated
async def test_a_call_that_was_cancelled_is_not_remembered_as_a_failure():
    async with Replica(FakeModel([None]), FakeVerdicts()) as proxy:
        await proxy.ask("Disk", wait=0.1)
        await proxy.service.close()
        assert proxy.cache.failed(class_of("Disk")) == ""
        assert proxy.observer.outcomes == ["cancelled"]


@simulated
async def test_why_a_class_failed_is_said_though_it_is_forgotten_while_others_are_waited_for():
    async with Replica(FakeModel([ClassifierTimeout("x"), None]), capacity=60) as proxy:
        await proxy.ask("Disk")
        await asyncio.sleep(FAILED - 1)
        await proxy.ask("Disk", "Cpu", wait=2)
        assert proxy.observer.verdicts == {(Source.RULES, "timeout"): 2, (Source.RULES, "not_waited_for"): 1}


@simulated
async def test_a_verdict_of_the_store_is_judged_for_each_alert():
    store = FakeVerdicts()
    store.put_aside(class_of("Disk", severity="critical"), verdict(Severity.NOISE))
    async with Replica(FakeModel(), store) as proxy:
        [found] = await proxy.ask("Disk", severity="critical")
        assert (found.now.severity, found.now.source) == (Severity.CRITICAL, Source.CACHE)
        assert store.verdicts[class_of("Disk", severity="critical")][0].severity is Severity.NOISE


@simulated
async def test_what_is_stored_is_what_the_model_said_and_not_what_was_made_of_it():
    store = FakeVerdicts()
    async with Replica(FakeModel([verdict(Severity.NOISE)]), store, ttl=100) as proxy:
        await proxy.ask("Disk", severity="critical")
        await asyncio.sleep(1)
        [(kept, until)] = store.verdicts.values()
        assert (kept, until - store.now) == (verdict(Severity.NOISE), pytest.approx(99))


@pytest.mark.parametrize(("first_choice", "calls"), [("fake-1", 1), ("another", 2), ("", 1)])
def test_what_a_second_choice_said_is_asked_again_soon(first_choice, calls):
    @simulated
    async def scenario():
        model = FakeModel([verdict()])
        async with Replica(model, first_choice=first_choice) as proxy:
            await proxy.ask("Disk")
            await asyncio.sleep(SECOND_BEST + 1)
            await proxy.ask("Disk")
        assert len(model.asked) == calls

    scenario()
