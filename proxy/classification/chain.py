"""Several models as one Classifier: the first that can be asked, and the next when it fails.

    next model       ClassifierUnavailable, ClassifierTimeout, ClassifierRateLimited, ClassifierRejected,
                     ClassifierUnusable, ClassifierUndecided, ClassifierOverBudget, an open breaker
    raised at once   ClassifierInvalidAnswer (the model works, and its words are what they are), ClassifierBusy (of
                     ourselves), whatever is no ClassifierError

What counts for a model's breaker:

- `unavailable`, `timeout`, `rate_limited` are failures.
- `rejected` is a failure that may be due to the alert: a content filter refuses one alert, a wrong key or a wrong
  model name all of them, and a status alone (400 is either) does not tell. So the rejections of one alertname count
  once, and those of several open the breaker. Else a dead key would be presented for ever.
- `invalid_answer` and `undecided` are successes: somebody answered.
- `unusable`, `busy` and `over_budget` say nothing about the provider and cost nothing; so does a call that was
  cancelled.

Calls wait for a place here (see `queue`), and not in the classifiers: a turn begins with its place, so a queue of our
own never looks like a slow model.

Where one call may be about several alerts, none of them critical, whoever has no verdict that holds after it is asked
about alone, in a call of its own. So is everybody when it fails in a way that one of them may be the reason of, or
their number; such a failure says nothing about the provider, and after two of them in a row there are no calls about
several for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, cast

from proxy.alert import Alert
from proxy.classification.breaker import CircuitBreaker, Permit
from proxy.classification.classification import Classification
from proxy.classification.classifier import BatchClassifier, Classifier, Early, unheard
from proxy.classification.queue import Places, Priority, Question
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierOpen,
    ClassifierOverBudget,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUndecided,
    ClassifierUnusable,
)

GRACE: Final = 3.0
"""Seconds for which the last model in line is waited for beyond its time. It knows its time, keeps it, and says more
about what went wrong than a cut does: the worker replaces a child that hangs, two seconds after the deadline. With
another model to ask there is no time for that, and the worker notices the hung child by the cut."""

_NEXT: Final = (
    ClassifierUnavailable,
    ClassifierTimeout,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierUnusable,
    ClassifierUndecided,
    ClassifierOverBudget,
)
_FAILURES: Final = (ClassifierUnavailable, ClassifierTimeout, ClassifierRateLimited)
_ALONE: Final = (
    ClassifierUnavailable,  # a server may break down over one of the alerts
    ClassifierTimeout,
    ClassifierRejected,
    ClassifierInvalidAnswer,
    ClassifierOverBudget,
)
"""Failures that may be due to one of the alerts in a call, or to how many they are."""
_FAILED_BATCHES: Final = 2
_UNBATCHED: Final = 600.0
"""After so many failed calls about several in a row there are none for so many seconds."""


@dataclass(slots=True)
class Link:
    """One model of the chain."""

    name: str
    """For logs and the status."""
    classifier: Classifier
    breaker: CircuitBreaker
    affordable: Callable[[], bool] = lambda: True
    """Whether there is something left to spend on a call of it. There may still turn out to be too little."""
    last_error: str = ""
    """How its last call failed; empty once one has succeeded."""

    @property
    def ready(self) -> bool:
        """Whether it may be asked now."""
        return self.breaker.ready and self.affordable()


BATCHED: Final = ("holds", "differs", "missing", "failed")
"""What became of an alert that shared a call. Its verdict holds; or it is asked about alone, because its verdict is not
one that may be used, because there is none, or because the call failed."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How several alerts may share a call."""

    size: int
    """So many at most."""
    kind: Callable[[Alert], Hashable]
    """Those alone of which it says the same may share a call."""
    holds: Callable[[Alert, Classification], bool]
    """Whether a verdict from such a call may be used. One of the alerts may have had a say in the others'."""
    on_verdict: Callable[[str], None] = lambda _: None
    """Hears of each alert that shared a call, one of BATCHED."""


@dataclass(frozen=True, slots=True)
class _About:
    """Of one alert, what a caller wants."""

    alert: Alert
    early: Early
    seconds: float | None


_Question = Question[_About, Classification]


class Chain:
    """A Classifier that asks an ordered list of others."""

    def __init__(
        self,
        links: Sequence[Link],
        *,
        timeout: timedelta,
        concurrency: int,
        priority: Callable[[Alert], Priority] = lambda _: Priority.NORMAL,
        batching: Batching | None = None,
        on_attempt: Callable[[int, str, float], None] = lambda _model, _outcome, _seconds: None,
        on_drop: Callable[[Priority], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout` is for all attempts of a call together, and begins when it has one of `concurrency` places.

        `priority` says whose turn comes first. With `batching` all links have BatchClassifiers. `on_drop` hears of each
        call that is turned away because too many wait.
        `on_attempt` hears which model was asked, by its position, how that ended (`ok`, the reason of a
        ClassifierError, `bug`, `cancelled`), and after how many seconds.
        """
        self._links = tuple(links)
        self._timeout = timeout.total_seconds()
        self._on_attempt = on_attempt
        self._monotonic = monotonic
        self._priority = priority
        self._batching = batching
        self._failed_batches = 0
        self._batches_from = 0.0
        """When calls about several are tried again."""
        self._places = Places[_About, Classification](
            concurrency, self._serve, together=batching.size if batching else 1, on_drop=on_drop
        )

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return self._places.waiting

    @property
    def running(self) -> int:
        """How many calls have a place."""
        return self._places.running

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        """Return the verdict of the first model that has one.

        `seconds` bounds all attempts together, if it is less than `timeout`.

        Labels that `early` has heard hold: if that model fails later its verdict stays, without text, and no other is
        asked. Raises the error of the model that failed last; at once, when none may be asked, ClassifierOpen or
        ClassifierOverBudget; ClassifierBusy when it is turned away, because too many wait.
        """
        if not any(link.ready for link in self._links):
            raise self._none_ready()
        priority = self._priority(alert)
        about = _About(alert, early, seconds)
        return await self._places.answer(Question(about, priority, alert.name, self._kind(alert, priority)))

    def _kind(self, alert: Alert, priority: Priority) -> Hashable | None:
        """Return who may share a call with `alert`; None: nobody.

        What is critical waits for no stranger, and hears its labels early.
        """
        if self._batching is None or priority is Priority.CRITICAL or self._monotonic() < self._batches_from:
            return None
        return self._batching.kind(alert)

    async def _serve(self, questions: Sequence[_Question]) -> None:
        if self._batching is not None and len(questions) > 1:
            if self._monotonic() < self._batches_from:  # they waited already when that was found out
                for question in questions:
                    self._places.alone(question)
            else:
                await self._serve_together(questions, self._batching)
            return
        [question] = questions
        [verdict] = await self._first_verdicts([question.subject])
        if verdict is not None and not question.answer.done():
            question.answer.set_result(verdict)

    async def _serve_together(self, questions: Sequence[_Question], batching: Batching) -> None:
        try:
            verdicts = await self._first_verdicts([question.subject for question in questions])
        except _ALONE:
            self._failed_batches += 1
            if self._failed_batches >= _FAILED_BATCHES:
                self._batches_from = self._monotonic() + _UNBATCHED
            for question in questions:
                batching.on_verdict("failed")
                self._places.alone(question)
            return
        self._failed_batches = 0
        for question, verdict in zip(questions, verdicts, strict=True):
            if verdict is not None and batching.holds(question.subject.alert, verdict):
                batching.on_verdict("holds")
                if not question.answer.done():
                    question.answer.set_result(verdict)
            else:
                batching.on_verdict("missing" if verdict is None else "differs")
                self._places.alone(question)

    async def _first_verdicts(self, abouts: Sequence[_About]) -> Sequence[Classification | None]:
        """Return what the first model says that says something. Of several alerts some may have no verdict."""
        own = [about.seconds for about in abouts if about.seconds is not None]
        ends = self._monotonic() + min([self._timeout, *own])
        failure: ClassifierError | None = None
        for n, link in enumerate(self._links):
            left = ends - self._monotonic()
            if left <= 0:
                break
            if not link.affordable() or (permit := link.breaker.admit()) is None:
                continue
            others = sum(later.ready for later in self._links[n + 1 :])
            # An equal share of what is left for each that may still be asked: a model that hangs leaves the next one
            # time for an answer, and one that fails at once leaves it all of its own.
            share = left / (others + 1)
            try:
                return await self._attempt(n, permit, abouts, share, 0 if others else GRACE)
            except _NEXT as exc:
                if len(abouts) > 1 and isinstance(exc, _ALONE):
                    raise
                # That one has nothing to say does not hide that another failed.
                if failure is None or not isinstance(exc, ClassifierUndecided):
                    failure = exc
        raise failure or self._none_ready()

    def _none_ready(self) -> ClassifierError:
        """Return why no model may be asked."""
        if any(link.breaker.ready for link in self._links):
            return ClassifierOverBudget("what may be spent by now is spent")
        return ClassifierOpen("not asked for a while, after too many failures")

    async def _attempt(
        self, n: int, permit: Permit, abouts: Sequence[_About], seconds: float, grace: float
    ) -> Sequence[Classification | None]:
        link = self._links[n]
        begun, outcome = self._monotonic(), "bug"
        heard = _Heard(abouts[0].early)
        try:
            async with asyncio.timeout(seconds + grace):
                verdicts = await _asked(link.classifier, abouts, heard, seconds)
        except (TimeoutError, ClassifierError) as exc:
            error = exc if isinstance(exc, ClassifierError) else ClassifierTimeout("no answer in time")
            outcome = error.reason
            if not isinstance(error, ClassifierOverBudget):  # then there was no call
                among = f", asked about {len(abouts)} alerts at once" if len(abouts) > 1 else ""
                link.last_error = f"{error.reason}: {error}{among}"  # before the breaker opens, and somebody asks why
            _judge(permit, error, abouts, self._monotonic() - begun)
            if heard.verdict is not None:
                return [replace(heard.verdict, summary="", recommendations=())]
            raise error from None
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        else:
            outcome = "ok"
            link.last_error = ""
            permit.succeeded(self._monotonic() - begun)
            return verdicts
        finally:
            heard.end()
            self._on_attempt(n, outcome, self._monotonic() - begun)
            permit.abandoned()  # without effect unless the call was cancelled, or met a bug


async def _asked(
    classifier: Classifier, abouts: Sequence[_About], early: Early, seconds: float
) -> Sequence[Classification | None]:
    if len(abouts) == 1:
        return [await classifier.classify(abouts[0].alert, early, seconds)]
    return await cast("BatchClassifier", classifier).classify_together([about.alert for about in abouts], seconds)


class _Heard:
    """Passes early labels on, once, and only while the attempt lasts that they come from."""

    def __init__(self, early: Early) -> None:
        self._early = early
        self._ended = False
        self.verdict: Classification | None = None

    def __call__(self, verdict: Classification) -> None:
        if self._ended or self.verdict is not None:
            return
        self.verdict = verdict
        self._early(verdict)

    def end(self) -> None:
        self._ended = True


def _judge(permit: Permit, error: ClassifierError, abouts: Sequence[_About], seconds: float) -> None:
    """Tell the breaker what `error` means for it; see the module."""
    match error:
        case _ if len(abouts) > 1 and isinstance(error, _ALONE):
            permit.abandoned()  # they are asked about alone now, and tell more
        case ClassifierRejected():
            permit.failed(seconds, subject=abouts[0].alert.labels.get("alertname", ""))
        case ClassifierInvalidAnswer() | ClassifierUndecided():
            permit.succeeded(seconds)
        case _ if isinstance(error, _FAILURES):
            permit.failed(seconds)
        case _:
            permit.abandoned()
