"""Proxies that share a class cache's second tier, in simulated time, and a second tier that does as it is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self

from fakes import Answer, FakeModel, Observer, an_alert, verdict
from verdicts import a_class

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classes import ClassKey, class_key
from proxy.classification.classification import Classification
from proxy.classification.classifier import unheard
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService, Verdict
from proxy.classification.verdicts import Cached

SALT = "fake/1"
RULES = Rules.shipped()
DISK, CPU = a_class("disk"), a_class("cpu")


def class_of(name: str, **labels: str) -> ClassKey:
    return class_key(an_alert(name, **labels), SALT)


class FakeVerdicts:
    """A VerdictStore on the loop's clock. `faults` has what operations raise, `delay` the seconds until they answer."""

    kind = "redis"

    def __init__(self, *, shared: bool = True, delay: float = 0.0) -> None:
        self.shared = shared
        self.delay = delay
        self.faults: dict[str, Exception] = {}
        self.asked: list[tuple[str, list[ClassKey]]] = []
        self.verdicts: dict[ClassKey, tuple[Classification, float]] = {}
        self.leases: dict[ClassKey, tuple[str, float]] = {}

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def counts(self) -> Counter[str]:
        return Counter(operation for operation, _ in self.asked)

    @property
    def held(self) -> set[ClassKey]:
        """Classes that somebody has a lease of."""
        return {key for key, (_, until) in self.leases.items() if until > self.now}

    def put_aside(self, key: ClassKey, verdict: Classification, left: float = 3600) -> None:
        self.verdicts[key] = verdict, self.now + left

    async def get(self, keys: Collection[ClassKey]) -> Mapping[ClassKey, Cached]:
        self.asked.append(("get", list(keys)))
        await self._answers("get")
        there = {key: self.verdicts[key] for key in keys if key in self.verdicts}
        return {key: Cached(verdict, until - self.now) for key, (verdict, until) in there.items() if until > self.now}

    async def put(self, verdicts: Mapping[ClassKey, Cached]) -> None:
        self.asked.append(("put", list(verdicts)))
        await self._answers("put")
        for key, cached in verdicts.items():
            self.put_aside(key, cached.classification, cached.left)

    async def lease(self, keys: Collection[ClassKey], holder: str, seconds: float) -> Collection[ClassKey]:
        self.asked.append(("lease", list(keys)))
        held = self.held
        free = {key for key in keys if key not in held or self.leases[key][0] == holder}
        if "lease" not in self.faults:
            self.leases |= dict.fromkeys(free, (holder, self.now + seconds))
        await self._answers("lease")  # it is granted before anybody hears of it
        return free

    async def release(self, keys: Collection[ClassKey], holder: str) -> None:
        self.asked.append(("release", list(keys)))
        await self._answers("release")
        for key in keys:
            if self.leases.get(key, ("", 0.0))[0] == holder:
                del self.leases[key]

    async def _answers(self, operation: str) -> None:
        await asyncio.sleep(self.delay)
        if operation in self.faults:
            raise self.faults[operation]


class SlowModel(FakeModel):
    """Answers after so many seconds of the loop's."""

    def __init__(self, seconds: float, *answers: Answer) -> None:
        super().__init__(answers or [verdict()])
        self.seconds = seconds

    async def classify(
        self, alert: Alert, early: Callable[[Classification], None] = unheard, seconds: float | None = None
    ) -> Classification:
        self.asked.append(alert)
        await asyncio.sleep(self.seconds)
        self.asked.pop()  # noted again
        return await super().classify(alert, early)


class Replica:
    """One proxy's verdicts."""

    def __init__(
        self,
        model: FakeModel | None,
        store: FakeVerdicts | None = None,
        *,
        ttl: float = 3600,
        capacity: float = 6,
        **options: Any,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self.observer = Observer()
        self.cache = ClassCache(ttl, store=store, monotonic=clock)
        self.allowance = WaitingAllowance(capacity, monotonic=clock)
        self.service = ClassificationService(
            rules=RULES,
            model=model,
            salt=SALT,
            cache=self.cache,
            allowance=self.allowance,
            observer=self.observer,
            monotonic=clock,
            **options,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.service.close()

    async def ask(self, *names: str, wait: float = 3, **labels: str) -> list[Verdict]:
        """Ask about an alert of each name."""
        return await self.service.classify([an_alert(name, **labels) for name in names], wait)
