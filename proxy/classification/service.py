"""Asks for verdicts within a budget: what is known, else the model, else the rules."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NewType, Protocol

import structlog

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.classification import Classification, Severity, Source
from proxy.classification.classifier import Classifier
from proxy.errors import ClassifierError
from proxy.policy import SeverityFloor

log = structlog.get_logger(__name__)

ClassKey = NewType("ClassKey", bytes)
"""What makes alerts of one class: they share a verdict, and one call of the model."""

PER_OBJECT: Final = frozenset({
    "ceph_daemon", "container", "container_id", "database", "datname", "device", "endpoint", "host", "host_ip",
    "hostname", "id", "instance", "interface", "ip", "mountpoint", "name", "node", "nodename", "path",
    "persistentvolumeclaim", "pod", "pod_ip", "pod_name", "queue", "topic", "uid",
})  # fmt: skip
"""Labels that tell one object from the next of its kind, and say nothing about what the alert means."""


class Observer(Protocol):
    """What the service reports while it works."""

    def asked(self, outcome: str, seconds: float) -> None:
        """A call of the model ended: `ok`, the reason of a ClassifierError, `bug`, or `cancelled`."""
        ...

    def waited(self, seconds: float) -> None:
        """A POST was held up for the model."""
        ...


class Rulebook(Protocol):
    """The rules: a verdict on any alert, at once, from its labels alone."""

    def classify(self, alert: Alert) -> Classification: ...

    def author_severity(self, alert: Alert) -> Severity | None: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said about an alert when the waiting is over."""

    now: Classification | None
    """None: the model has not answered and nobody may answer in its place."""
    later: asyncio.Task[Classification | None] | None = None
    """The call that is still under way; its text may follow. None in it: it failed."""


@dataclass(slots=True)
class _Call:
    task: asyncio.Task[Classification | None]
    waited_for: bool = False


def class_key(alert: Alert, salt: str, per_object: Collection[str] = PER_OBJECT) -> ClassKey:
    """Return the class of `alert`: its labels without those that name one object, and never its annotations.

    `salt` stands for everything else that a verdict depends on: the model and the version of the prompt.
    """
    digest = hashlib.blake2b(salt.encode(), digest_size=16)
    for name in sorted(alert.labels):
        if name not in per_object:
            digest.update(b"\xff" + name.encode() + b"\xff" + alert.labels[name].encode())
    return ClassKey(digest.digest())


class ClassificationService:
    """Verdicts for a batch of alerts.

    Concurrent askers of one class share one call of the model, and the call goes on when nobody waits for it any
    more: its text is good for the next resend.
    """

    def __init__(
        self,
        *,
        rules: Rulebook,
        model: Classifier | None,
        salt: str,
        cache: MutableMapping[ClassKey, Classification] | None,
        allowance: WaitingAllowance,
        observer: Observer,
        fallback: bool = True,
        floor: SeverityFloor = SeverityFloor.CRITICAL,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._model = model
        self._salt = salt
        self._cache = cache
        self._allowance = allowance
        self._observer = observer
        self._fallback = fallback
        self._floor = floor
        self._monotonic = monotonic
        self._calls: dict[ClassKey, _Call] = {}
        self.last_outcome = ""
        """How the last call of the model ended: `ok`, or the reason and what is known of it. Empty before the first."""

    async def classify(self, alerts: Sequence[Alert], wait: float) -> list[Verdict]:
        """Return one verdict per alert, after at most `wait` seconds, and after none when they are all known."""
        classes = [(alert, class_key(alert, self._salt)) for alert in alerts]
        cached = {key: self._cache.get(key) if self._cache is not None else None for _, key in classes}
        if self._model is not None:
            for alert, key in classes:
                if cached[key] is None and key not in self._calls:
                    self._start(alert, key, self._model)
        calls = {key: self._calls[key] for _, key in classes if key in self._calls}
        await self._wait([call for call in calls.values() if not call.waited_for], wait)
        return [self._verdict(alert, cached[key], calls.get(key)) for alert, key in classes]

    def by_rules(self, alerts: Sequence[Alert]) -> list[Verdict]:
        """Return what the rules alone say."""
        return [Verdict(self._rules.classify(alert) if self._fallback else None) for alert in alerts]

    async def close(self) -> None:
        """Give up the calls under way."""
        tasks = [call.task for call in self._calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, alert: Alert, key: ClassKey, model: Classifier) -> None:
        task = asyncio.create_task(self._ask(alert, key, model), name=f"classify {key.hex()}")
        self._calls[key] = _Call(task)
        task.add_done_callback(partial(self._landed, key))

    def _landed(self, key: ClassKey, _: asyncio.Task[Classification | None]) -> None:
        del self._calls[key]

    async def _ask(self, alert: Alert, key: ClassKey, model: Classifier) -> Classification | None:
        begun, outcome, detail = self._monotonic(), "cancelled", ""
        try:
            answer = await model.classify(alert)
        except ClassifierError as exc:
            # The text names classes and statuses, never what a provider said: that may hold the key or the prompt.
            outcome, detail = exc.reason, str(exc)
            return None
        except Exception as exc:  # noqa: BLE001 # a classifier's bug costs its verdict, not the alert
            outcome, detail = "bug", type(exc).__name__  # without its text, which may hold a key
            return None
        else:
            outcome = "ok"
            if self._cache is not None:
                self._cache[key] = answer
            return answer
        finally:
            self._observer.asked(outcome, self._monotonic() - begun)
            self._note(outcome, detail)

    def _note(self, outcome: str, detail: str) -> None:
        """Log the first failure of a row, and its end: a storm would log thousands."""
        said = f"{outcome}: {detail}" if detail else outcome
        if outcome == "cancelled" or said == self.last_outcome:
            return
        if outcome != "ok":
            log.warning("the model fails, the rules decide", reason=outcome, error=detail)
        elif self.last_outcome:
            log.info("the model answers again")
        self.last_outcome = said

    async def _wait(self, calls: Collection[_Call], wait: float) -> None:
        if not calls or wait <= 0:
            return
        granted = self._allowance.take(wait)
        if not granted:
            return
        # A class that was waited for once is not waited for again while its call is under way.
        for call in calls:
            call.waited_for = True
        begun = self._monotonic()
        try:
            await asyncio.wait([call.task for call in calls], timeout=granted)
        finally:
            spent = self._monotonic() - begun
            self._allowance.give_back(granted - spent)
            self._observer.waited(spent)

    def _verdict(self, alert: Alert, cached: Classification | None, call: _Call | None) -> Verdict:
        if cached is not None:
            return Verdict(self._floored(alert, replace(cached, source=Source.CACHE)))
        if call is not None and call.task.done() and not call.task.cancelled() and (answer := call.task.result()):
            return Verdict(self._floored(alert, answer))
        later = call.task if call is not None and not call.task.done() else None
        return Verdict(self._rules.classify(alert) if self._fallback else None, later)

    def _floored(self, alert: Alert, verdict: Classification) -> Classification:
        author = self._rules.author_severity(alert)
        holds = self._floor is SeverityFloor.AUTHOR or (
            self._floor is SeverityFloor.CRITICAL and author is Severity.CRITICAL
        )
        if author is not None and holds and verdict.severity.rank > author.rank:
            return replace(verdict, severity=author)
        return verdict
