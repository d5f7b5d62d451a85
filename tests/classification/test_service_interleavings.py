"""POSTs, answers, failures and faults of the store in any order: what always holds, in simulated time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from fakes import FakeModel, an_alert, verdict
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import run_simulated
from tiers import FakeVerdicts, Replica, class_of

from proxy.alert import Alert
from proxy.classification.classification import Classification
from proxy.classification.classifier import unheard
from proxy.errors import ClassifierBusy, ClassifierTimeout, ClassifierUnavailable, StoreTimeout

NAMES = ("Disk", "Cpu", "Net")
SLACK = 0.001
ANSWERS = ("ok", "labels", "early", "timeout", "busy", "unavailable", "bug")
SECONDS = st.sampled_from((0.0, 0.01, 0.05, 0.2, 1.0, 4.0, 40.0))

POST = st.tuples(
    st.just("post"), st.integers(0, 1), st.lists(st.sampled_from(NAMES), max_size=4), st.sampled_from((0.0, 0.05, 3.0))
)
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 5))
PASS = st.tuples(st.just("pass"), SECONDS)
CLOSE = st.tuples(st.just("close"), st.integers(0, 1))
FAULT = st.tuples(st.just("fault"), st.sets(st.sampled_from(("get", "put", "lease", "release"))))
SLOW = st.tuples(st.just("slow"), st.sampled_from((0.0, 0.05, 0.3)))
CALLS = st.lists(st.tuples(st.sampled_from(ANSWERS), SECONDS), min_size=1, max_size=5)


class Scripted:
    """A model that answers as its script says; `running` counts the calls of each class under way, in all proxies."""

    def __init__(self, script: list[tuple[str, float]], running: Counter[str], at_once: list[int]) -> None:
        self._script = script
        self._calls = 0
        self._running = running
        self._at_once = at_once

    async def classify(
        self, alert: Alert, early: Callable[[Classification], None] = unheard, seconds: float | None = None
    ) -> Classification:
        kind, seconds = self._script[self._calls % len(self._script)]
        self._calls += 1
        self._running[alert.name] += 1
        self._at_once.append(self._running[alert.name])
        try:
            if kind == "early":
                early(verdict(summary=""))
            await asyncio.sleep(seconds)
        finally:
            self._running[alert.name] -= 1
        errors = {"timeout": ClassifierTimeout, "busy": ClassifierBusy, "unavailable": ClassifierUnavailable}
        if kind in errors:
            raise errors[kind]("x")
        if kind == "bug":
            raise ZeroDivisionError
        return verdict(summary="") if kind == "labels" else verdict()


class Scenario:
    def __init__(self, script: list[tuple[str, float]], proxies: int, delay: float = 0.0) -> None:
        self.running: Counter[str] = Counter()
        self.at_once: list[int] = [0]
        self.store = FakeVerdicts(delay=delay)
        models = [Scripted(script, self.running, self.at_once) for _ in range(proxies)]
        self.proxies = [Replica(model, self.store) for model in models]
        self.posts: list[asyncio.Task[None]] = []

    async def post(self, proxy: int, names: list[str], wait: float) -> None:
        begun = self.store.now
        alerts = [an_alert(name, pod=f"p-{n}") for n, name in enumerate(names)]
        found = await self.proxies[proxy].service.classify(alerts, wait)
        assert self.store.now - begun <= wait + SLACK
        assert len(found) == len(names)
        labels = {}
        for name, one in zip(names, found, strict=True):
            assert one.now is not None
            assert labels.setdefault(name, one.now.severity) is one.now.severity

    async def run(self, steps: list[tuple]) -> None:
        for what, *args in steps:
            if what == "post":
                proxy, names, wait = args
                self.posts.append(asyncio.create_task(self.post(proxy % len(self.proxies), names, wait)))
            elif what == "cancel" and self.posts:
                self.posts[args[0] % len(self.posts)].cancel()
            elif what == "pass":
                await asyncio.sleep(args[0])
            elif what == "close":
                await self.proxies[args[0] % len(self.proxies)].service.close()
            elif what == "fault":
                self.store.faults = dict.fromkeys(args[0], StoreTimeout("x"))
            elif what == "slow":
                self.store.delay = args[0]
        for ended in await asyncio.gather(*self.posts, return_exceptions=True):
            if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
                raise ended
        for proxy in self.proxies:
            await proxy.service.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


@given(CALLS, st.lists(st.one_of(POST, POST, PASS, PASS, CANCEL), max_size=20))
@settings(max_examples=150, deadline=None)
def test_while_the_store_answers_a_class_is_asked_about_by_one_proxy_at_a_time(script, steps):
    async def scenario():
        case = Scenario(script, proxies=2)
        await case.run(steps)
        assert max(case.at_once) <= 1
        assert case.store.held == set()

    run_simulated(scenario())


@given(CALLS, st.lists(st.one_of(POST, POST, PASS, PASS, CANCEL, FAULT, SLOW, CLOSE), max_size=20))
@settings(max_examples=150, deadline=None)
def test_whatever_the_store_does_a_post_gets_all_verdicts_in_time_and_each_proxy_asks_once_at_a_time(script, steps):
    async def scenario():
        case = Scenario(script, proxies=2)
        await case.run(steps)
        assert max(case.at_once) <= 2

    run_simulated(scenario())


@given(CALLS, st.lists(st.one_of(POST, POST, PASS, PASS, CANCEL, FAULT, SLOW), max_size=20))
@settings(max_examples=100, deadline=None)
def test_alone_a_proxy_never_asks_about_a_class_twice_at_a_time(script, steps):
    async def scenario():
        case = Scenario(script, proxies=1)
        await case.run(steps)
        assert max(case.at_once) <= 1
        assert all(reason != "" or source != "rules" for source, reason in case.proxies[0].observer.verdicts)

    run_simulated(scenario())


def test_a_stored_verdict_is_never_asked_about_again():
    async def scenario():
        store = FakeVerdicts()
        store.put_aside(class_of("Disk"), verdict())
        models = [FakeModel(), FakeModel()]
        async with Replica(models[0], store) as one, Replica(models[1], store) as other:
            await asyncio.gather(*(proxy.ask("Disk", wait=wait) for proxy in (one, other) for wait in (0, 3, 0)))
        assert models[0].asked + models[1].asked == []

    run_simulated(scenario())
