"""One batch of alerts on its way: from the body that came in to the body that goes to Alertmanager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

import structlog

from proxy.alert import Alert, Identity, LabelSet
from proxy.decisions.decider import BREATH, Decider
from proxy.decisions.decision import Decision, Treatment
from proxy.decisions.living import Living
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.errors import DecodeError
from proxy.gateway import alerts, bodies
from proxy.gateway.repost import Sent
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
        """A bug of ours in `read`, `known`, `select`, `decide`, `inject` or `handover`: one alert goes as it came."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to forward."""

    body: bytes
    without_annotations: Callable[[], bytes] | None = None
    """What to send when Alertmanager refuses `body`; None when `body` has no annotations of ours."""
    taken: Callable[[], None] = lambda: None
    """To be called when Alertmanager has taken it."""
    identities: Collection[Identity] = ()
    """Of the alerts in it; empty when it was not read."""
    awaiting: Sequence[Sent] = ()
    """Those of them that fire, and that the model is still to say its text about."""
    resolved: Collection[Identity] = ()
    """Those that are over."""


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
        others_label: Callable[[], bool] = lambda: False,
        on_resolved: Callable[[Collection[Identity]], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`others_label` tells whether other proxies of the same store may have labelled alerts that come here too, or
        this one is about to;
        `on_resolved` is told which alerts are over as soon as they are read, before anything is waited for."""
        self._rollout = rollout
        self._decider = decider
        self._living = living
        self._recovery = recovery
        self._budget = budget
        self._observer = observer
        self._others_label = others_label
        self._on_resolved = on_resolved
        self._now = now
        self._monotonic = monotonic

    async def run(self, body: bytes) -> Prepared:
        """Return what to forward in the place of `body`: the same bytes when nothing is to be added.

        Long and straight on purpose: this is the way of an alert. Takes at most the budget. A bug in here costs one
        alert, or one batch, its labels, never its delivery.
        """
        begun = self._monotonic()
        if self.idle:
            self._observer.unread("idle")
            return Prepared(body)
        try:
            batch = await self._decode(body)
        except DecodeError:
            self._observer.unread("not_understood")
            return Prepared(body)
        read: list[tuple[alerts.Item, Alert]] = []
        resolved: set[Identity] = set()
        async for item in _breathing(batch.items):
            if (alert := self._read(item)) is not None:
                read.append((item, alert))
                if alert.resolved(self._now()):
                    resolved.add(alert.identity)
        if resolved:
            self._on_resolved(resolved)
        await self._recovery.settled(self._budget)

        decided: dict[Identity, Decision] = {}
        new: dict[Identity, tuple[Alert, Treatment]] = {}
        resolves = False
        async for item, alert in _breathing(read):
            resolves = resolves or self._living.resolve_is_news(alert)
            if (decision := self._known(alert)) is not None:
                decided[alert.identity] = decision
            else:
                new[alert.identity] = alert, self._treatment(alert, usual=batch.usual and item.usual)

        # A resolve is not held up: waiting for a model would keep people on a page that is over.
        until = begun if resolves else begun + self._budget
        for some in _slices(list(new.values())):
            wait = max(0.0, until - self._monotonic())
            # A POST of many thousands: the rest is decided here, and agreed upon with others afterwards.
            in_time = self._monotonic() <= begun + self._budget
            decided |= await self._decider.decide(some, wait, recovered=self._recovery.done, in_time=in_time)
            await asyncio.sleep(0)  # deciding by what is known suspends nowhere

        annotating = self._rollout.mode is not Mode.TRANSPARENT
        labels: list[alerts.Insertion] = []
        annotations: list[alerts.Insertion] = []
        handed_over: dict[Identity, Sequence[LabelSet]] = {}
        awaiting: list[Sent] = []
        async for item, alert in _breathing(read):
            decision = self._latest(decided.get(alert.identity))
            more = self._inject(item, alert, decision, annotating)
            labels += more.labels
            annotations += more.annotations
            # Never the end of what this very POST says: it may have been forgotten while others were waited for.
            if former := [f for f in self._living.former(alert.identity) if decision and f != decision.labels]:
                labels += self._ending(batch, item, alert, former)
                handed_over[alert.identity] = former
            if annotating and alert.identity not in resolved and self._decider.awaits_text(alert.identity):
                awaiting.append(Sent(alert, batch.text[item.start : item.end]))
        found = Prepared(
            body,
            taken=partial(self._handed_over, handed_over),
            identities=decided.keys(),
            awaiting=awaiting,
            resolved=resolved,
        )
        if not labels and not annotations:
            return found
        return replace(
            found,
            body=alerts.encode(batch, labels + annotations),
            without_annotations=partial(alerts.encode, batch, labels) if annotations else None,
        )

    def known_only(self, body: bytes) -> Prepared:
        """Return what to forward when `run` was not done in time: after a pause of the process, or a bug.

        At once. What is known keeps its labels, and what is new goes bare, as it will for its life. A huge body goes
        as it came: there is no time left for it.
        """
        if len(body) > bodies.LARGE:
            return Prepared(body)
        insertions: list[alerts.Insertion] = []
        identities, resolved = set(), set()
        try:
            batch = alerts.decode(body)
            for item in batch.items:
                if (alert := self._read(item)) is None:
                    continue
                decision = self._known(alert) or self._decider.leave_bare(alert, recovered=self._recovery.done)
                insertions += item.insertions(decision.labels, {}).labels
                identities.add(alert.identity)
                if alert.resolved(self._now()):
                    resolved.add(alert.identity)
            return Prepared(alerts.encode(batch, insertions), identities=identities, resolved=resolved)
        except DecodeError:
            return Prepared(body)
        except Exception:
            log.exception("a bug: a batch goes as it came")
            return Prepared(body)

    @property
    def idle(self) -> bool:
        """Whether bodies go as they came, unread: nothing is to be added, and nothing that was added lives."""
        return (
            self._rollout.mode is Mode.TRANSPARENT
            and self._recovery.done
            and not self._living.labelled
            and not self._living.handing_over
            and not self._others_label()
        )

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

    def _treatment(self, alert: Alert, *, usual: bool) -> Treatment:
        # A resolve that we know nothing about ends an alert that went bare.
        if alert.resolved(self._now()) or not usual:
            return Treatment.PLAIN
        try:
            return self._rollout.treatment(alert)
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("select", alert)
            return Treatment.PLAIN

    def _latest(self, decision: Decision | None) -> Decision | None:
        """Return what holds now in the place of `decision`, which was looked up before others were waited for.

        Other labels only where the alert was handed over meanwhile: those of a new life are not for what ends the old.
        """
        latest = self._decider.decision(decision.identity) if decision else None
        if latest is None or decision is None:
            return decision
        same = latest.labels == decision.labels or decision.labels in self._living.former(decision.identity)
        return latest if same else decision

    def _inject(
        self, item: alerts.Item, alert: Alert, decision: Decision | None, annotating: bool
    ) -> alerts.Insertions:
        nothing = alerts.Insertions()
        if decision is None:
            self._observer.alert("nothing")
            return nothing
        try:
            found = item.insertions(decision.labels, decision.annotations if annotating else {})
        except Exception:  # noqa: BLE001 # a bug of ours costs one alert its labels, never its delivery
            self._failed("inject", alert)
            return nothing
        self._observer.alert("labels" if found.labels else "annotations" if found.annotations else "nothing")
        return found

    def _ending(
        self, batch: alerts.Batch, item: alerts.Item, alert: Alert, former: Sequence[LabelSet]
    ) -> list[alerts.Insertion]:
        """Return what ends the alert under the labels it had, right behind the alert as it is now.

        In one POST, so that at no moment it is over.
        """
        try:
            return [alerts.ended(batch, item, alert, labels, self._now()) for labels in former]
        except Exception:  # noqa: BLE001 # a bug of ours: Alertmanager ends it by itself when nobody sends it any more
            self._failed("handover", alert)
            return []

    def _handed_over(self, ended: Mapping[Identity, Sequence[LabelSet]]) -> None:
        for identity, labels in ended.items():
            self._living.handed_over(identity, labels)

    async def _decode(self, body: bytes) -> alerts.Batch:
        if len(body) <= bodies.LARGE:
            return alerts.decode(body)
        # Seconds of work: in a thread, so that others' alerts go on meanwhile.
        return await asyncio.to_thread(alerts.decode, body)

    def _failed(self, stage: str, alert: Alert | None) -> None:
        self._observer.fault(stage)
        log.exception("a bug: an alert goes as it came", stage=stage, alertname=alert.name if alert else None)


_T = TypeVar("_T")


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield `items` in slices; what Prometheus posts is one."""
    for at in range(0, len(items), BREATH):
        yield items[at : at + BREATH]


async def _breathing(items: Sequence[_T]) -> AsyncIterator[_T]:
    """Yield `items`, and let others run now and then: a batch of 100,000 is work for seconds."""
    for n, item in enumerate(items, 1):
        yield item
        if n % BREATH == 0:
            await asyncio.sleep(0)
