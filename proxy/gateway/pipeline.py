"""One batch of alerts on its way: from the body that came in to the body that goes to Alertmanager."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from proxy.alert import Alert, Identity
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Decision, Treatment
from proxy.decisions.living import Living
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.errors import DecodeError
from proxy.gateway import alerts
from proxy.policy import Mode

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """What the pipeline counts."""

    def unread(self, reason: str) -> None:
        """A body was forwarded without being read: `idle` or `not_understood`."""
        ...

    def alert(self, added: str) -> None:
        """An alert leaves with `labels`, with `annotations` alone, with `nothing`, or is `not_understood`."""
        ...

    def fault(self, stage: str) -> None:
        """A bug of ours in `read`, `select`, `decide` or `inject`: one alert goes as it came."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to forward."""

    body: bytes
    without_annotations: bytes | None = None
    """To be sent when Alertmanager refuses `body`; None when `body` has no annotations of ours."""


class Pipeline:
    """Adds to alerts what was decided about them, within the budget, and nothing when in doubt."""

    def __init__(
        self,
        *,
        rollout: Rollout,
        decider: Decider,
        living: Living,
        recovery: Recovery,
        budget: float,
        observer: Observer,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rollout = rollout
        self._decider = decider
        self._living = living
        self._recovery = recovery
        self._budget = budget
        self._observer = observer
        self._now = now
        self._monotonic = monotonic

    async def run(self, body: bytes) -> Prepared:
        """Return what to forward in the place of `body`: the same bytes when nothing is to be added.

        Long and straight on purpose: this is the way of an alert. Takes at most the budget. A bug in here costs one
        alert, or one batch, its labels, never its delivery.
        """
        begun = self._monotonic()
        if self._idle:
            self._observer.unread("idle")
            return Prepared(body)
        try:
            batch = alerts.decode(body)
        except DecodeError:
            self._observer.unread("not_understood")
            return Prepared(body)
        await self._recovery.settled(self._budget)

        read = [(item, alert) for item in batch.items if (alert := self._read(item)) is not None]
        decided: dict[Identity, Decision] = {}
        new: dict[Identity, tuple[Alert, Treatment]] = {}
        for item, alert in read:
            if (decision := self._known(alert)) is not None:
                decided[alert.identity] = decision
            else:
                new[alert.identity] = alert, self._treatment(item, alert)

        # A resolve is never held up: waiting for a model would keep people on a page that is over.
        resolves = any(alert.resolved(self._now()) for _, alert in read)
        wait = 0.0 if resolves else max(0.0, self._budget - (self._monotonic() - begun))
        decided |= await self._decider.decide(list(new.values()), wait, rules_only=not self._recovery.done)

        annotating = self._rollout.mode is not Mode.TRANSPARENT
        labels: list[tuple[int, str]] = []
        both: list[tuple[int, str]] = []
        for item, alert in read:
            only_labels, all_of_it = self._inject(item, decided.get(alert.identity), annotating)
            labels += only_labels
            both += all_of_it
        if not both:
            return Prepared(body)
        return Prepared(alerts.encode(batch, both), alerts.encode(batch, labels) if both != labels else None)

    @property
    def _idle(self) -> bool:
        return self._rollout.mode is Mode.TRANSPARENT and self._recovery.done and not self._living.labelled

    def _read(self, item: alerts.Item) -> Alert | None:
        try:
            return item.read()
        except ValueError:
            self._observer.alert("not_understood")
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("read", None)
        return None

    def _known(self, alert: Alert) -> Decision | None:
        try:
            return self._decider.known(alert)
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("known", alert)
            return None

    def _treatment(self, item: alerts.Item, alert: Alert) -> Treatment:
        # A resolve that we know nothing about ends an alert that went bare.
        if alert.resolved(self._now()) or not item.usual:
            return Treatment.PLAIN
        try:
            return self._rollout.treatment(alert)
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("select", alert)
            return Treatment.PLAIN

    def _inject(
        self, item: alerts.Item, decision: Decision | None, annotating: bool
    ) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """Return what to insert: (labels alone, labels and annotations)."""
        if decision is None:
            self._observer.alert("nothing")
            return [], []
        annotations: Mapping[str, str] = decision.annotations if annotating else {}
        try:
            found = item.insertions(decision.labels, {}), item.insertions(decision.labels, annotations)
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("inject", None)
            return [], []
        self._observer.alert("labels" if found[0] else "annotations" if found[1] else "nothing")
        return found

    def _failed(self, stage: str, alert: Alert | None) -> None:
        self._observer.fault(stage)
        log.exception("a bug: an alert goes as it came", stage=stage, alertname=alert.name if alert else None)
