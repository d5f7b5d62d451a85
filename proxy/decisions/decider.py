"""Decides about alerts, once for each of their lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from proxy.alert import Alert, Identity, LabelSet
from proxy.classification.classification import Classification
from proxy.classification.service import Verdict
from proxy.decisions.decision import Decision, Names, Treatment
from proxy.decisions.keeper import Keeper
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.store import DecisionStore, Kept
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


@dataclass(frozen=True, slots=True)
class _Late:
    """A verdict that is still to come, and how its text is added."""

    task: asyncio.Task[Classification | None]
    improve: Improve


class Decider:
    """The one place where decisions are made. What is decided holds for everybody who asks after."""

    def __init__(
        self,
        *,
        living: Living,
        store: DecisionStore,
        reach: Reach,
        keeper: Keeper,
        verdicts: Verdicts,
        names: Names,
        on_fault: Callable[[str], None],
        by_rules: Callable[[], str] = lambda: "",
        on_text: Callable[[Identity], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`by_rules` tells why labels are to be the rules' for now; `on_text` is told of texts that came late."""
        self._living = living
        self._store = store
        self._reach = reach
        self._keeper = keeper
        self._verdicts = verdicts
        self._names = names
        self._on_fault = on_fault
        self._by_rules = by_rules
        self._on_text = on_text
        self._monotonic = monotonic
        self._awaited: dict[Identity, int] = {}

    def known(self, alert: Alert) -> Decision | None:
        """Return what was decided about `alert` before, and note that it was seen; None when it is new."""
        return self._living.seen(alert)

    async def decide(
        self, new: Sequence[tuple[Alert, Treatment]], wait: float, *, recovered: bool = True, in_time: bool = True
    ) -> Mapping[Identity, Decision]:
        """Return a decision for each of the `new` alerts, after at most `wait` seconds.

        Until it is `recovered` what Alertmanager holds, the rules alone decide, and provisionally. When it is not
        `in_time` any more a shared store is told afterwards, and the rules decide.

        A bug that one alert brings out costs that alert its labels: it goes bare, and its neighbours are decided
        one by one.
        """
        if not new:
            return {}
        try:
            return await self._decide(new, wait, recovered, in_time)
        except Exception:
            log.exception("deciding a batch failed, going on one by one", alerts=len(new))
        decided: dict[Identity, Decision] = {}
        for alert, treatment in new:
            try:
                decided |= await self._decide([(alert, treatment)], 0, recovered, in_time)
            except Exception:
                self._on_fault("decide")
                log.exception("deciding failed, the alert goes as it came", alertname=alert.name)
                decided[alert.identity] = self.leave_bare(alert, recovered=recovered)
        return decided

    def leave_bare(self, alert: Alert, *, recovered: bool) -> Decision:
        """Decide that a new alert goes as it came; return what holds, should it have been decided meanwhile."""
        bare = self._living.candidate(Decision(alert.identity), alert)
        return self._living.add(bare, alert, provisional=not recovered)

    def decision(self, identity: Identity) -> Decision | None:
        """Return what holds for `identity` now; its text may be better than when it was decided."""
        return self._living.decision(identity)

    def awaits_text(self, identity: Identity) -> bool:
        """Whether a call of the model is under way whose text will be added to what was decided."""
        return identity in self._awaited

    def before_start(self, identity: Identity) -> LabelSet | None:
        """Return the labels which the store held at the start; None when it held nothing."""
        return self._living.before_start(identity)

    def provisional(self, identity: Identity) -> Decision | None:
        """Return the decision on `identity` if it was made before it was known what Alertmanager holds."""
        return self._living.provisional(identity)

    async def restore(self, found: Sequence[tuple[Alert, Decision]]) -> None:
        """Take up decisions that Alertmanager's alerts show. They win over those made without knowing of them.

        In a shared store another proxy's claim may have come first; then the alert is handed over to that.
        """
        for at in range(0, len(found), BREATH):
            held = [self._living.restore(decision, alert) for alert, decision in found[at : at + BREATH]]
            if self._store.shared and self._reach.up:
                try:
                    await self._keeper.claim(held)
                except StoreError as exc:
                    self._reach.lost(exc)
            await asyncio.sleep(0)
        self._living.settle()

    async def _decide(
        self, new: Sequence[tuple[Alert, Treatment]], wait: float, recovered: bool, in_time: bool
    ) -> dict[Identity, Decision]:
        until = self._monotonic() + wait
        alerts = {alert.identity: alert for alert, _ in new}
        held = await self._ask(alerts, wait) if in_time else {}
        asked = [
            (alert, treatment)
            for alert, treatment in new
            if treatment is not Treatment.PLAIN and alert.identity not in held and not self._living.full
        ]
        proposed = {identity: Decision(identity) for identity in alerts if identity not in held}
        by_rules, late = await self._propose(asked, max(0.0, until - self._monotonic()), recovered, proposed)
        mine = {identity: self._living.candidate(decision, alerts[identity]) for identity, decision in proposed.items()}
        if self._store.shared:
            claims = list(mine.values())
            left = until - self._monotonic()
            claimed = await self._reach.ask(lambda: self._store.claim(claims), left) if in_time else None
            if claimed is None:
                # The others will not hear of it: what everybody decides alike.
                for identity, decision in by_rules.items():
                    mine[identity] = self._living.candidate(decision, alerts[identity])
                held |= mine
            else:
                held |= claimed
                mine = {}
        else:
            held |= mine
        decided = {
            identity: self._living.add(
                kept, alerts[identity], provisional=not recovered, kept=self._store.shared and identity not in mine
            )
            for identity, kept in held.items()
        }
        for identity, verdict in late.items():
            self._await_text(identity, verdict)
        return decided

    async def _propose(
        self,
        asked: Sequence[tuple[Alert, Treatment]],
        wait: float,
        recovered: bool,
        proposed: dict[Identity, Decision],
    ) -> tuple[dict[Identity, Decision], dict[Identity, _Late]]:
        """Add to `proposed` what the verdicts say of the alerts `asked` about.

        Return what to fall back on where the labels are not the rules', and the verdicts that are still to come.
        """
        alerts = [alert for alert, _ in asked]
        labels_by_rules = not recovered or bool(self._by_rules())
        # Labels are worth a wait, since they cannot be changed later; text is not.
        labels = any(treatment is Treatment.LABEL for _, treatment in asked) and not labels_by_rules
        ruled = self._verdicts.by_rules(alerts) if self._store.shared or labels_by_rules else []
        # At a start most of these were decided long ago, which will be known in a moment: no reason for a call.
        verdicts = await self._verdicts.classify(alerts, wait if labels else 0) if recovered else ruled
        fallback: dict[Identity, Decision] = {}
        late: dict[Identity, _Late] = {}
        for (alert, treatment), verdict, rule in zip(asked, verdicts, ruled or verdicts, strict=True):
            identity, labelling = alert.identity, treatment is Treatment.LABEL
            build = self._names.label if labelling else self._names.annotate
            text = self._names.improve if labelling else self._names.comment
            by_rules = build(identity, rule.now) if rule.now is not None else Decision(identity)
            if verdict.now is not None and labelling and (labels_by_rules or self._store.shared):
                fallback[identity] = text(by_rules, verdict.now)
            if labelling and labels_by_rules:
                proposed[identity] = fallback.get(identity, by_rules)
            elif verdict.now is not None:
                proposed[identity] = build(identity, verdict.now)
            if verdict.later is not None:
                late[identity] = _Late(verdict.later, text)
        return fallback, late

    async def _ask(self, alerts: Mapping[Identity, Alert], within: float) -> dict[Identity, Kept]:
        """Return what the store knows; nothing when it is this proxy's own, whose hot copy has it all."""
        if not self._store.shared:
            return {}
        held = await self._reach.ask(lambda: self._store.get(alerts.keys()), within) or {}
        return {identity: kept for identity, kept in held.items() if self._living.holds(kept, alerts[identity])}

    def _await_text(self, identity: Identity, late: _Late) -> None:
        self._awaited[identity] = self._awaited.get(identity, 0) + 1
        late.task.add_done_callback(partial(self._text_landed, identity, late.improve))

    def _text_landed(self, identity: Identity, improve: Improve, task: asyncio.Task[Classification | None]) -> None:
        self._awaited[identity] -= 1
        if not self._awaited[identity]:
            del self._awaited[identity]
        if (
            not task.cancelled()
            and (verdict := task.result())
            and self._living.improve(identity, lambda decision: improve(decision, verdict))
        ):
            self._on_text(identity)
