"""How the service spends the allowance, on clocks that stand still."""

import asyncio

import pytest
from fakes import FakeModel, Observer, an_alert, verdict
from simulated import Time

from proxy.classification.allowance import REFILL, WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classification import Severity, Source
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def allowance(time):
    return WaitingAllowance(6, monotonic=lambda: time.monotonic)


@pytest.fixture
def observer():
    return Observer()


@pytest.fixture
async def service_with(allowance, observer, time):
    opened = []

    def make(model):
        service = ClassificationService(
            rules=Rules.shipped(),
            model=model,
            salt="fake/1",
            cache=ClassCache(3600),
            allowance=allowance,
            observer=observer,
            monotonic=lambda: time.monotonic,
        )
        opened.append(service)
        return service

    yield make
    for service in opened:
        await service.close()


async def asked(model):
    async with asyncio.timeout(5):
        while not model.asked:
            await asyncio.sleep(0)


async def test_a_wait_that_was_not_needed_goes_back(service_with, allowance, observer):
    await service_with(FakeModel()).classify([an_alert()], 4)
    assert observer.waits == [0]
    assert allowance.take(100) == 6


async def test_a_wait_that_was_needed_in_part_gives_back_the_rest(service_with, allowance, observer, time):
    model = FakeModel([None])
    task = asyncio.create_task(service_with(model).classify([an_alert()], 4))
    await asked(model)
    time.passes(seconds=1.5)
    model.release.set()
    [found] = await asyncio.wait_for(task, 5)
    assert found.now.source is Source.LLM
    assert observer.waits == [1.5]
    assert allowance.take(100) == 6 - 1.5 + 1.5 * REFILL


async def test_a_wait_that_is_broken_off_gives_back_the_rest(service_with, allowance, observer):
    model = FakeModel([None])
    task = asyncio.create_task(service_with(model).classify([an_alert()], 4))
    await asked(model)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.waits == [0]
    assert allowance.take(100) == 6


async def test_a_class_that_got_no_wait_may_be_waited_for_later(service_with, allowance, time, observer):
    model = FakeModel([None])
    service = service_with(model)
    allowance.take(6)
    [first] = await service.classify([an_alert(severity="warning")], 4)
    assert (first.now.source, observer.waits) == (Source.RULES, [])

    time.passes(seconds=100)
    second = asyncio.create_task(service.classify([an_alert(severity="warning")], 4))
    await asyncio.sleep(0)
    assert not second.done()
    model.release.set()
    [found] = await asyncio.wait_for(second, 5)
    assert (found.now.source, len(model.asked)) == (Source.LLM, 1)


async def test_a_class_that_was_asked_about_behind_may_be_waited_for_later(service_with):
    model = FakeModel([None])
    service = service_with(model)
    await service.classify([an_alert()], 0)
    second = asyncio.create_task(service.classify([an_alert()], 4))
    await asyncio.sleep(0)
    model.release.set()
    [found] = await asyncio.wait_for(second, 5)
    assert found.now.source is Source.LLM


async def test_what_is_known_waits_for_nobody(service_with, observer):
    model = FakeModel([verdict(Severity.INFO), None])
    service = service_with(model)
    await service.classify([an_alert("Known")], 4)
    await asyncio.wait_for(service.classify([an_alert("Known")], 4), 1)
    assert len(observer.waits) == 1
