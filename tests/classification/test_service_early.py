"""Labels that come before their text, and what becomes of a verdict that is not sure; in simulated time."""

import asyncio
from dataclasses import replace

import pytest
from fakes import Early, FakeModel, verdict
from simulated import simulated
from tiers import FakeVerdicts, Replica, class_of

from proxy.classification.cache import FAILED
from proxy.classification.classification import Category, Confidence, Severity, Source
from proxy.errors import ClassifierTimeout

LABELS = verdict(Severity.WARNING, Category.STORAGE, summary="")
WHOLE = verdict(Severity.WARNING, Category.STORAGE)


def labels(found):
    return found.severity, found.category, found.confidence, found.source


@simulated
async def test_a_post_waits_for_labels_only_and_the_text_follows():
    answer = Early(LABELS, WHOLE)
    async with Replica(FakeModel([answer])) as proxy:
        [found] = await proxy.ask("Disk")
        assert (found.now, proxy.observer.waits, proxy.observer.outcomes) == (LABELS, [0], [])
        answer.release.set()
        assert await found.later == WHOLE
        [again] = await proxy.ask("Disk")
        assert (again.now, again.later) == (replace(WHOLE, source=Source.CACHE), None)
        assert proxy.observer.verdicts == {(Source.LLM, ""): 1, (Source.CACHE, ""): 1}


@simulated
async def test_posts_that_come_while_the_text_is_written_have_the_labels_and_wait_for_its_end():
    answer = Early(LABELS, WHOLE)
    model = FakeModel([answer])
    async with Replica(model) as proxy:
        await proxy.ask("Disk")
        [found] = await proxy.ask("Disk", wait=0)
        assert (found.now, len(model.asked)) == (LABELS, 1)
        answer.release.set()
        assert (await found.later).summary == WHOLE.summary


@simulated
async def test_labels_that_are_there_already_cost_no_wait():
    async with Replica(FakeModel([Early(LABELS, WHOLE)])) as proxy:
        await proxy.ask("Disk", wait=0)
        await asyncio.sleep(1)
        [found] = await proxy.ask("Disk")
        assert (found.now, proxy.observer.waits) == (LABELS, [])


@simulated
async def test_labels_that_were_told_hold_when_the_whole_answer_has_others():
    store, answer = FakeVerdicts(), Early(LABELS, verdict(Severity.CRITICAL, Category.ERRORS, summary="Other."))
    async with Replica(FakeModel([answer]), store) as proxy:
        [found] = await proxy.ask("Disk")
        answer.release.set()
        later = await found.later
        assert (labels(later), later.summary) == (labels(found.now), "Other.")
        [again] = await proxy.ask("Disk")
        assert labels(again.now)[:3] == labels(found.now)[:3]
    assert labels(store.verdicts[class_of("Disk")][0]) == labels(LABELS)


@simulated
async def test_labels_hold_for_a_moment_when_the_text_fails_and_are_not_stored():
    store, answer = FakeVerdicts(), Early(LABELS, ClassifierTimeout("x"))
    model = FakeModel([answer, WHOLE])
    async with Replica(model, store) as proxy:
        [found] = await proxy.ask("Disk")
        answer.release.set()
        assert await found.later == LABELS
        [again] = await proxy.ask("Disk")
        assert (again.now, again.later) == (replace(LABELS, source=Source.CACHE), None)
        assert (len(model.asked), store.verdicts, proxy.observer.outcomes) == (1, {}, ["timeout"])
        await asyncio.sleep(FAILED + 1)
        [anew] = await proxy.ask("Disk")
        assert (anew.now, len(model.asked)) == (WHOLE, 2)


@simulated
async def test_an_answer_without_a_text_is_known_for_a_moment_and_not_stored():
    store = FakeVerdicts()
    model = FakeModel([LABELS, WHOLE])
    async with Replica(model, store) as proxy:
        await proxy.ask("Disk")
        [again] = await proxy.ask("Disk")
        assert (again.now.source, len(model.asked), store.verdicts) == (Source.CACHE, 1, {})
        await asyncio.sleep(FAILED + 1)
        await proxy.ask("Disk")
        assert len(model.asked) == 2


@simulated
async def test_labels_of_a_call_that_is_cancelled_stay_with_whoever_has_them_and_with_nobody_else():
    store, answer = FakeVerdicts(), Early(LABELS, WHOLE)
    async with Replica(FakeModel([answer]), store) as proxy:
        [found] = await proxy.ask("Disk")
        await proxy.service.close()
        assert (found.now, found.later.cancelled(), proxy.cache.known(class_of("Disk"))) == (LABELS, True, None)
        assert (store.verdicts, store.held, proxy.observer.outcomes) == ({}, set(), ["cancelled"])


@simulated
async def test_without_a_cache_labels_come_early_too():
    answer = Early(LABELS, WHOLE)
    model = FakeModel([answer])
    async with Replica(model) as proxy:
        proxy.service._cache = None
        [found] = await proxy.ask("Disk")
        answer.release.set()
        assert (found.now, await found.later) == (LABELS, WHOLE)
        await proxy.ask("Disk")
        assert (len(model.asked), proxy.observer.looked) == (2, {})


SURE = {(least, given): given.rank >= least.rank for least in Confidence for given in Confidence}


@pytest.mark.parametrize("early", [False, True], ids=["at once", "labels first"])
@pytest.mark.parametrize("fallback", [True, False], ids=["with fallback", "without"])
@pytest.mark.parametrize(("least", "given"), SURE, ids=lambda confidence: confidence.value)
def test_what_is_not_sure_enough_has_the_rules_labels_and_keeps_its_text(least, given, fallback, early):
    @simulated
    async def scenario():
        said = replace(WHOLE, severity=Severity.INFO, confidence=given)
        answer = Early(replace(said, summary="", recommendations=()), said)
        answer.release.set()
        model = FakeModel([answer if early else said])
        async with Replica(model, min_confidence=least, fallback=fallback) as proxy:
            for source in (Source.LLM, Source.CACHE):
                [found] = await proxy.ask("HighLatency", severity="warning")
                judged = await found.later if found.later else found.now
                if SURE[least, given]:
                    assert labels(judged) == (Severity.INFO, Category.STORAGE, given, source)
                elif fallback:
                    # What the rules say of such an alert, and whose word that is.
                    assert labels(judged) == (Severity.WARNING, Category.PERFORMANCE, given, Source.RULES)
                else:
                    assert (found.now, judged) == (None, None)
                    continue
                assert (judged.summary, judged.model) == (said.summary, said.model)
                assert labels(found.now) == labels(judged)

    scenario()


@pytest.mark.parametrize(("fallback", "source"), [(True, "rules"), (False, "none")])
def test_who_gave_a_verdict_and_why_it_was_not_the_model_is_counted(fallback, source):
    @simulated
    async def scenario():
        unsure = replace(WHOLE, confidence=Confidence.LOW)
        model = FakeModel([WHOLE, unsure, ClassifierTimeout("x"), None])
        async with Replica(model, min_confidence=Confidence.HIGH, fallback=fallback) as proxy:
            await proxy.ask("Sure", "Unsure", "Failed", "Slow", wait=1)
            await proxy.ask("Sure", "Unsure", "Failed", wait=1)
            assert proxy.observer.verdicts == {
                ("llm", ""): 1,
                ("cache", ""): 1,
                (source, "unsure"): 2,
                (source, "timeout"): 2,
                (source, "not_waited_for"): 1,
            }
        async with Replica(None, fallback=fallback) as proxy:
            await proxy.ask("Disk")
            assert proxy.observer.verdicts == {(source, "no_model"): 1}

    scenario()


@pytest.mark.parametrize("least", [Confidence.LOW, Confidence.HIGH])
@pytest.mark.parametrize("early", [False, True], ids=["at once", "labels first"])
def test_the_floor_holds_for_now_and_for_what_lands_later_sure_or_not(least, early):
    @simulated
    async def scenario():
        said = replace(WHOLE, severity=Severity.NOISE, confidence=Confidence.LOW)
        answer = Early(replace(said, summary=""), said)
        model = FakeModel([answer if early else None])
        model.answers = [answer] if early else [said]
        async with Replica(model, min_confidence=least) as proxy:
            [found] = await proxy.ask("Disk", severity="critical", wait=1 if early else 0)
            answer.release.set()
            later = await found.later
            assert (found.now.severity, later.severity) == (Severity.CRITICAL, Severity.CRITICAL)
            assert later.source is (Source.LLM if least is Confidence.LOW else Source.RULES)

    scenario()
