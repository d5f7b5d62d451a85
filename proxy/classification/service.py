"""Asks for verdicts within a budget: what is known, else the model, else the rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import structlog
from cachetools import TTLCache

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.classes import ClassKey, class_key
from proxy.classification.classification import Classification, Confidence, Severity, Source
from proxy.classification.classifier import Classifier
from proxy.errors import ClassifierError
from proxy.policy import PER_OBJECT, SeverityFloor

log = structlog.get_logger(__name__)

LOOKUP: Final = 0.1
"""Seconds at most that a POST waits for the second tier, beside what it may wait for a model. A store that takes longer
is left alone for a while."""

SAID_ONCE_IN: Final = 60.0
"""Seconds between two lines in the log that the model fails in the same way."""


class Observer(Protocol):
    """What the service reports while it works."""

    def asked(self, outcome: str, seconds: float) -> None:
        """A call of the model ended: `ok`, the reason of a ClassifierError, `bug`, or `cancelled`."""
        ...

    def waited(self, seconds: float) -> None:
        """A POST was held up for the model."""
        ...

    def looked_up(self, tier: str, n: int) -> None:
        """The verdicts of `n` classes were found in `memory`, the `store`, with a `replica` that was asking already, or
        `nowhere`: the model is asked."""
        ...

    def verdict(self, source: str, reason: str) -> None:
        """A verdict was given by a Source, or by `none` where the rules may not stand in for the model; when no model
        gave it, because of `reason`: how a call ended, or `no_model` (none is on), `not_waited_for` (it has not
        answered yet), `unsure` (it says itself that it is not confident enough)."""
        ...


class Rulebook(Protocol):
    """The rules: a verdict on any alert, at once, from its labels alone."""

    def classify(self, alert: Alert) -> Classification: ...

    def author_severity(self, alert: Alert) -> Severity | None: ...

    def overridden(self, alert: Alert, verdict: Classification) -> Classification:
        """Return a model's verdict with what the operator wants said of this alert in any case."""
        ...


_SAID_ELSEWHERE: Final = frozenset({"breaker_open", "over_budget", "undecided"})
"""Outcomes that are said where they begin, or that are no failures."""
_OURS: Final = frozenset({"cancelled", "busy", "breaker_open", "over_budget"})
"""Outcomes that say nothing of the class: it may be asked about again at once."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said about an alert when the waiting is over."""

    now: Classification | None
    """None: the model has not answered and nobody may answer in its place."""
    later: asyncio.Task[Classification | None] | None = None
    """The call that is still under way; its text may follow. None in it: it failed."""
    reason: str = ""
    """Why the labels are not a model's, as `Observer.verdict` has it; empty when they are."""
    error: str = ""
    """What is known of the failure behind the reason; without a prompt, a key or a model's words."""


class _Call:
    """One class that a model is being asked about."""

    def __init__(self, lookup: asyncio.Task[None] | None) -> None:
        self.lookup = lookup
        """The look at the second tier that comes first."""
        self.task: asyncio.Task[Classification | None]
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when there is an answer, or will be none."""
        self.answer: Classification | None = None
        """Its labels are final; its text may still be missing."""
        self.outcome = ""
        """How it ended without an answer."""
        self.error = ""
        """What is known of that."""
        self.waited_for = False

    def settle(self, answer: Classification | None) -> None:
        told, self.answer = self.answer, answer
        if told is not None and answer is not None:  # somebody may have labelled an alert by what was told early
            self.answer = replace(answer, severity=told.severity, category=told.category, confidence=told.confidence)
        if not self.settled.done():
            self.settled.set_result(None)


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
        cache: ClassCache | None,
        allowance: WaitingAllowance,
        observer: Observer,
        first_choice: str = "",
        fallback: bool = True,
        floor: SeverityFloor = SeverityFloor.CRITICAL,
        min_confidence: Confidence = Confidence.LOW,
        per_object: Collection[str] = PER_OBJECT,
        on_known: Callable[[int], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`salt` stands for all that a verdict depends on beside the alert, and verdicts of models other than the
        `first_choice`, where one is named, are not kept for long. `on_known` hears of how many classes the verdict was
        known, so that no call was made."""
        self._rules = rules
        self._model = model
        self._salt = salt
        self._cache = cache
        self._allowance = allowance
        self._observer = observer
        self._first_choice = first_choice
        self._fallback = fallback
        self._floor = floor
        self._min_confidence = min_confidence
        self._per_object = frozenset(per_object)
        self._on_known = on_known
        self._monotonic = monotonic
        self._calls: dict[ClassKey, _Call] = {}
        self.last_outcome = ""
        """How the last call of the model ended: `ok`, or the reason and what is known of it. Empty before the first."""
        self._said_failing = False
        self._said: TTLCache[str, bool] = TTLCache(100, SAID_ONCE_IN, timer=monotonic)

    async def classify(self, alerts: Sequence[Alert], wait: float) -> list[Verdict]:
        """Return one verdict per alert, after at most `wait` seconds, and after none when they are all known."""
        until = self._monotonic() + wait
        classes = [(alert, class_key(alert, self._salt, self._per_object)) for alert in alerts]
        one_of_each: dict[ClassKey, Alert] = {}
        for alert, key in classes:  # the model is asked in their order
            one_of_each.setdefault(key, alert)
        known = self._known(one_of_each)
        if known:
            self._observer.looked_up("memory", len(known))
            self._on_known(len(known))
        unknown = {key: alert for key, alert in one_of_each.items() if key not in known}
        failed = self._failed(unknown)
        calls: dict[ClassKey, _Call] = {}
        if self._model is not None:
            asked = {key: alert for key, alert in unknown.items() if key not in failed}
            calls = self._calls_about(asked, self._model)
            await self._look_up(calls.values(), wait)
            known |= self._known(calls)
            await self._wait([call for key, call in calls.items() if key not in known], until - self._monotonic())
        return [self._verdict(alert, known.get(key), calls.get(key), failed.get(key, "")) for alert, key in classes]

    def by_rules(self, alerts: Sequence[Alert]) -> list[Verdict]:
        """Return what the rules alone say."""
        return [Verdict(self._rules.classify(alert) if self._fallback else None) for alert in alerts]

    async def close(self) -> None:
        """Give up the calls under way."""
        calls = list(self._calls.values())
        tasks = {call.task for call in calls} | {call.lookup for call in calls if call.lookup is not None}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._cache is not None:
            await self._cache.close()

    def _known(self, keys: Iterable[ClassKey]) -> dict[ClassKey, Classification]:
        cache = self._cache
        return {key: held for key in keys if (held := cache.known(key))} if cache is not None else {}

    def _failed(self, keys: Iterable[ClassKey]) -> dict[ClassKey, str]:
        """Return the classes that are not asked about because that failed a moment ago, and why."""
        cache = self._cache
        return {key: why for key in keys if (why := cache.failed(key))} if cache is not None else {}

    def _calls_about(self, alerts: Mapping[ClassKey, Alert], model: Classifier) -> dict[ClassKey, _Call]:
        """Return the calls about these classes: those under way, and new ones."""
        cache = self._cache
        new = [key for key in alerts if key not in self._calls]
        lookup = asyncio.create_task(cache.find(new)) if new and cache is not None and cache.is_stored else None
        for key in new:
            call = self._calls[key] = _Call(lookup)
            call.task = asyncio.create_task(self._ask(alerts[key], key, model, call), name=f"classify {key.hex()}")
            call.task.add_done_callback(partial(self._landed, key, call))
        return {key: self._calls[key] for key in alerts}

    def _landed(self, key: ClassKey, call: _Call, _: asyncio.Task[Classification | None]) -> None:
        del self._calls[key]
        call.settle(call.answer)

    async def _ask(self, alert: Alert, key: ClassKey, model: Classifier, call: _Call) -> Classification | None:
        """Return the verdict, its text included; None when there is none."""
        if call.lookup is not None:
            await asyncio.wait({call.lookup})  # shared with other calls: never cancelled by one of them
        if (held := await self._held(key)) is not None:
            call.settle(held)
        else:
            await self._ask_model(alert, key, model, call)
        return self._judged(alert, call.answer) if call.answer is not None else None

    async def _held(self, key: ClassKey) -> Classification | None:
        """Return what was found, or what another proxy finds out; None when the model is to be asked."""
        if self._cache is None:
            return None
        tier, held = "store", self._cache.known(key)
        if held is None:
            tier, held = "replica", await self._cache.turn(key)
        self._observer.looked_up(tier if held is not None else "nowhere", 1)
        if held is not None:
            self._on_known(1)
        return held

    async def _ask_model(self, alert: Alert, key: ClassKey, model: Classifier, call: _Call) -> None:
        begun, outcome, detail = self._monotonic(), "cancelled", ""
        try:
            answer = await model.classify(alert, call.settle)
        except ClassifierError as exc:
            # The text names classes and statuses, never what a provider said: that may hold the key or the prompt.
            outcome, detail = exc.reason, str(exc)
        except Exception as exc:  # noqa: BLE001 # a classifier's bug costs its verdict, not the alert
            outcome, detail = "bug", type(exc).__name__  # without its text, which may hold a key
        else:
            outcome = "ok"
            call.settle(answer)
        finally:
            self._remember(key, outcome, detail, call)
            self._observer.asked(outcome, self._monotonic() - begun)
            self._note(outcome, detail)

    def _remember(self, key: ClassKey, outcome: str, detail: str, call: _Call) -> None:
        call.outcome, call.error = outcome, detail
        if self._cache is None:
            return
        if outcome in _OURS:
            self._cache.give_up(key)
        elif call.answer is not None:  # at least its labels
            is_first = not self._first_choice or call.answer.model == self._first_choice
            self._cache.keep(key, call.answer, first_choice=is_first)
        else:
            self._cache.keep_failure(key, outcome)

    def _note(self, outcome: str, detail: str) -> None:
        """Log how a row of failures begins, and its end; the same not twice in a minute: there may be thousands."""
        if outcome == "cancelled":
            return
        before, self.last_outcome = self.last_outcome, f"{outcome}: {detail}" if detail else outcome
        if outcome == "ok":
            if self._said_failing:
                log.info("the model answers again")
            self._said_failing = False
        elif outcome not in _SAID_ELSEWHERE and self.last_outcome not in (before, *self._said):
            log.warning("the model fails, the rules decide", reason=outcome, error=detail)
            self._said_failing = self._said[self.last_outcome] = True

    async def _look_up(self, calls: Collection[_Call], wait: float) -> None:
        """Wait for the second tier, which needs no allowance: it is quick, or it is left alone."""
        lookups = {call.lookup for call in calls if call.lookup is not None and not call.lookup.done()}
        if self._cache is None or not lookups:
            return
        _, late = await asyncio.wait(lookups, timeout=min(wait, LOOKUP))
        if late and wait >= LOOKUP:
            self._cache.leave_alone()  # else the next POST would wait as long for its classes

    async def _wait(self, calls: Sequence[_Call], wait: float) -> None:
        # A class that was waited for once is not waited for again while its call is under way.
        calls = [call for call in calls if not call.settled.done() and not call.waited_for]
        if not calls or wait <= 0:
            return
        granted = self._allowance.take(wait)
        if not granted:
            return
        for call in calls:
            call.waited_for = True
        begun = self._monotonic()
        try:
            await asyncio.wait([call.settled for call in calls], timeout=granted)
        finally:
            spent = self._monotonic() - begun
            self._allowance.give_back(granted - spent)
            self._observer.waited(spent)

    def _verdict(self, alert: Alert, known: Classification | None, call: _Call | None, failed: str) -> Verdict:
        """Return what is to be said, from what is `known` of the class, its `call`, or why it `failed`."""
        answer = (call.answer if call is not None else None) or known
        # What is known has its text already.
        later = call.task if call is not None and known is None and not call.task.done() else None
        ruled = Source.RULES if self._fallback else "none"
        if answer is not None:
            reason = "" if self._sure(answer) else "unsure"
            self._observer.verdict(ruled if reason else answer.source, reason)
            return Verdict(self._judged(alert, answer), later, reason)
        reason = self._why(call, failed)
        self._observer.verdict(ruled, reason)
        error = call.error if call is not None else ""
        return Verdict(self._rules.classify(alert) if self._fallback else None, later, reason, error)

    def _why(self, call: _Call | None, failed: str) -> str:
        """Return why the model says nothing."""
        if self._model is None:
            return "no_model"
        return failed or (call is not None and call.outcome) or "not_waited_for"

    def _judged(self, alert: Alert, answer: Classification) -> Classification | None:
        """Return what an answer comes to: never lower than the floor, and the rules' labels when it is not sure."""
        if self._sure(answer):
            return self._rules.overridden(alert, self._floored(alert, answer))
        if not self._fallback:
            return None
        ruled = self._rules.classify(alert)
        unsure = replace(answer, severity=ruled.severity, category=ruled.category, source=Source.RULES)
        return self._rules.overridden(alert, unsure)

    def _sure(self, answer: Classification) -> bool:
        return answer.confidence.rank >= self._min_confidence.rank

    def _floored(self, alert: Alert, verdict: Classification) -> Classification:
        author = self._rules.author_severity(alert)
        holds = self._floor is SeverityFloor.AUTHOR or (
            self._floor is SeverityFloor.CRITICAL and author is Severity.CRITICAL
        )
        if author is not None and holds and verdict.severity.rank > author.rank:
            return replace(verdict, severity=author)
        return verdict
