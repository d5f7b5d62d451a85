"""Decides about alerts, once for each of their lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import structlog

from proxy.alert import Alert, Identity
from proxy.classification.classification import Classification
from proxy.classification.service import Verdict
from proxy.decisions.decision import Decision, Names, Treatment
from proxy.decisions.living import Living
from proxy.decisions.store import DecisionStore
from proxy.errors import StoreError

log = structlog.get_logger(__name__)

BREATH: Final = 256
"""After so many alerts of a long row others get their turn."""


Improve = Callable[[Decision, Classification], Decision]
"""Adds a later verdict's text to a decision, and leaves its labels alone."""


class Verdicts(Protocol):
    """Where verdicts come from: one per alert, in order, after at most `wait` seconds."""

    async def classify(self, alerts: Sequence[Alert], wait: float) -> list[Verdict]: ...

    def by_rules(self, alerts: Sequence[Alert]) -> list[Verdict]: ...


class Decider:
    """The one place where decisions are made. What is decided holds for everybody who asks after."""

    def __init__(
        self,
        *,
        living: Living,
        store: DecisionStore,
        verdicts: Verdicts,
        names: Names,
        on_fault: Callable[[str], None],
        on_store_error: Callable[[], None],
    ) -> None:
        self._living = living
        self._store = store
        self._verdicts = verdicts
        self._names = names
        self._on_fault = on_fault
        self._on_store_error = on_store_error

    def known(self, alert: Alert) -> Decision | None:
        """Return what was decided about `alert` before, and note that it was seen; None when it is new."""
        return self._living.seen(alert)

    async def decide(
        self, new: Sequence[tuple[Alert, Treatment]], wait: float, *, recovered: bool = True
    ) -> Mapping[Identity, Decision]:
        """Return a decision for each of the `new` alerts, after at most `wait` seconds for the model.

        Until it is `recovered` what Alertmanager holds, the rules alone decide, and provisionally.

        A bug that one alert brings out costs that alert its labels: it goes bare, and its neighbours are decided
        one by one.
        """
        if not new:
            return {}
        await self.forget_ended()
        try:
            return await self._decide(new, wait, recovered)
        except Exception:
            log.exception("deciding a batch failed, going on one by one", alerts=len(new))
        decided: dict[Identity, Decision] = {}
        for alert, treatment in new:
            try:
                decided |= await self._decide([(alert, treatment)], 0, recovered)
            except Exception:
                self._on_fault("decide")
                log.exception("deciding failed, the alert goes as it came", alertname=alert.name)
                decided[alert.identity] = self._living.add(Decision(alert.identity), alert, provisional=not recovered)
        return decided

    def provisional(self, identity: Identity) -> Decision | None:
        """Return the decision on `identity` if it was made before it was known what Alertmanager holds."""
        return self._living.provisional(identity)

    async def restore(self, found: Sequence[tuple[Alert, Decision]]) -> None:
        """Take up decisions that Alertmanager's alerts show. They win over those made without knowing of them."""
        held = []
        for n, (alert, decision) in enumerate(found, 1):
            held.append(self._living.restore(decision, alert))
            if n % BREATH == 0:
                await asyncio.sleep(0)
        await self.forget_ended()
        await self._claim(held)

    async def forget_ended(self) -> None:
        """Let the store drop what has ended here."""
        if ended := self._living.take_ended():
            try:
                await self._store.forget(ended)
            except StoreError as exc:
                self._store_failed(exc)

    async def _decide(
        self, new: Sequence[tuple[Alert, Treatment]], wait: float, recovered: bool
    ) -> dict[Identity, Decision]:
        alerts = {alert.identity: alert for alert, _ in new}
        held = dict(await self._ask(list(alerts)))
        asked = {
            alert.identity: (alert, treatment)
            for alert, treatment in new
            if treatment is not Treatment.PLAIN and alert.identity not in held
        }
        proposed = {identity: Decision(identity) for identity in alerts if identity not in held}
        late: list[tuple[Identity, asyncio.Task[Classification | None], Improve]] = []
        for (alert, treatment), verdict in zip(
            asked.values(), await self._classify(list(asked.values()), wait, recovered), strict=True
        ):
            build = self._names.label if treatment is Treatment.LABEL else self._names.annotate
            if verdict.now is not None:
                proposed[alert.identity] = build(alert.identity, verdict.now)
            if verdict.later is not None:
                text = self._names.improve if treatment is Treatment.LABEL else self._names.comment
                late.append((alert.identity, verdict.later, text))
        held |= await self._claim(list(proposed.values()))
        decided = {
            identity: self._living.add(decision, alerts[identity], provisional=not recovered)
            for identity, decision in held.items()
        }
        for identity, task, improve in late:
            task.add_done_callback(partial(self._text_landed, identity, improve))
        return decided

    async def _classify(
        self, asked: Sequence[tuple[Alert, Treatment]], wait: float, recovered: bool
    ) -> Sequence[Verdict]:
        alerts = [alert for alert, _ in asked]
        if not recovered:
            return self._verdicts.by_rules(alerts)
        # Labels are worth a wait, since they cannot be changed later; text is not.
        labels = any(treatment is Treatment.LABEL for _, treatment in asked)
        return await self._verdicts.classify(alerts, wait if labels else 0)

    async def _ask(self, identities: Sequence[Identity]) -> Mapping[Identity, Decision]:
        try:
            return await self._store.get(identities)
        except StoreError as exc:
            self._store_failed(exc)
            return {}

    async def _claim(self, proposed: Sequence[Decision]) -> Mapping[Identity, Decision]:
        mine = {decision.identity: decision for decision in proposed}
        try:
            return mine | dict(await self._store.claim(proposed))
        except StoreError as exc:
            self._store_failed(exc)
            return mine

    def _store_failed(self, exc: StoreError) -> None:
        self._on_store_error()
        log.warning("the decision store does not answer, memory carries on", error=str(exc))

    def _text_landed(self, identity: Identity, improve: Improve, task: asyncio.Task[Classification | None]) -> None:
        if not task.cancelled() and (verdict := task.result()):
            self._living.improve(identity, lambda decision: improve(decision, verdict))
